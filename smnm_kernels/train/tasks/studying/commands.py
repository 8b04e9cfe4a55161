"""The commands that measure an encoder, run on that of a cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smnm_kernels.train.run.signals import StoppedBySignal
from smnm_kernels.train.tasks.finetune import finetune
from smnm_kernels.train.tasks.finetune_options import Finetune
from smnm_kernels.train.tasks.probe import probe
from smnm_kernels.train.tasks.probe_options import Probe
from smnm_kernels.train.tasks.retrieve import Retrieve, retrieve
from smnm_kernels.train.tasks.segment import Segment, segment

from .environment import Machine
from .folders import HELD_OUT, CellFolder
from .plan import Measure, StudyPlan
from .splitting import labelled


@dataclass(frozen=True)
class Asked:
    """What is measured on which encoder of a cell."""

    plan: StudyPlan
    folder: CellFolder
    machine: Machine
    measure: Measure
    encoder: Path
    end: str  # of the values' names: "@STEP" of an earlier encoder

    @property
    def out(self) -> Path:
        """Where the command leaves its results."""
        return self.folder.path / f"{self.measure.name}{self.end}"


def or_stop(code: int) -> None:
    """Go on after a command that is done, stop as it was stopped."""
    if code:
        raise StoppedBySignal(code - 128)


def probed(asked: Asked) -> dict[str, Any]:
    cell, measure = asked.folder.cell, asked.measure
    data, options = labelled(asked.plan, cell, measure)
    options |= {"seed": cell.seed, "cache": asked.folder.path / "features"}
    or_stop(
        probe(
            Probe(
                modality=asked.plan.modality,
                data=data,
                encoder=str(asked.encoder),
                out=asked.out,
                device=asked.machine.device,
                workers=asked.machine.workers,
                **options,
            )
        )
    )
    found = json.loads((asked.out / "results.json").read_text())
    values: dict[str, Any] = {}
    layers = {row["layer"] for row in found["rows"]}
    for row in found["rows"]:
        name = f"{measure.name}.{row['probe']}"
        name += f".layer-{row['layer']}" if len(layers) > 1 else ""
        values |= _measures(name, row["measures"], found["main"], asked.end)
        for few in row.get("few_shot", ()):
            value = few[found["main"]]["value"]
            values[f"{name}.{few['files_a_class']}-shot{asked.end}"] = value
    return {"values": values, "data_fingerprint": found["data_fingerprint"]}


def finetuned(asked: Asked) -> dict[str, Any]:
    cell, measure = asked.folder.cell, asked.measure
    data, options = labelled(asked.plan, cell, measure)
    or_stop(
        finetune(
            Finetune(
                modality=asked.plan.modality,
                data=data,
                encoder=str(asked.encoder),
                out=asked.out,
                seed=cell.seed,
                device=asked.machine.device,
                threads=asked.machine.threads,
                workers=asked.machine.workers,
                **options,
            )
        )
    )
    found = json.loads((asked.out / "results.json").read_text())
    main = found["chosen_by"].split()[0]
    main = main if main in found["measures"] else next(iter(found["measures"]))
    values = _measures(measure.name, found["measures"], main, asked.end)
    return {"values": values, "data_fingerprint": found["data"]}


def segmented(asked: Asked) -> dict[str, Any]:
    cell, measure = asked.folder.cell, asked.measure
    name = measure.of or cell.data
    options = {"pictures": 0} | measure.options
    or_stop(
        segment(
            Segment(
                data=cell.paths[name] / measure.list,
                encoder=str(asked.encoder),
                out=asked.out,
                seed=cell.seed,
                device=asked.machine.device,
                **options,
            )
        )
    )
    found = json.loads((asked.out / "results.json").read_text())
    values = {f"{measure.name}.{r['way']}{asked.end}": r["miou"]["value"] for r in found["rows"]}
    return {"values": values, "data_fingerprint": found["data_fingerprint"]}


def retrieved(asked: Asked) -> dict[str, Any]:
    """Among the held-out files, or those of another list."""
    cell, measure = asked.folder.cell, asked.measure
    data, of = asked.folder.path / HELD_OUT, measure.of or cell.data
    if measure.of or measure.list:
        data = cell.paths[of] / (measure.list or asked.plan.data[of].list)
    retrieve(
        Retrieve(
            data=data,
            encoder=str(asked.encoder),
            out=asked.out,
            seed=cell.seed,
            device=asked.machine.device,
            workers=asked.machine.workers,
            **measure.options,
        )
    )
    found = json.loads((asked.out / "results.json").read_text())
    values = {
        f"{measure.name}.{row['direction']}.{name.replace('@', '-')}{asked.end}": interval["value"]
        for row in found["rows"]
        for name, interval in row["measures"].items()
    }
    return {"values": values, "data_fingerprint": found["data_fingerprint"]}


def _measures(name: str, found: dict[str, Any], main: str, end: str) -> dict[str, Any]:
    """The main one by the measure's name, the others by theirs behind it."""
    return {
        f"{name}{end}" if measure == main else f"{name}.{measure}{end}": interval["value"]
        for measure, interval in found.items()
    }


#: What makes the values of a measure, {"values": ..., "data_fingerprint": ...}, by its command; a
#: loss is no command of its own.
MAKERS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "probe": probed,
    "finetune": finetuned,
    "segment": segmented,
    "retrieve": retrieved,
}

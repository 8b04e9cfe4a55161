"""One cell: pretrain an encoder, measure it, write down what was found."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.files import replacing
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.modality import Record
from smnm_kernels.train.data.records import fingerprint, read_files
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.run.folder import (
    CHECKPOINT,
    CONFIG,
    ENCODER,
    ENCODERS,
    FILES,
    METRICS,
    RunFolder,
    encoder_of_step,
    write_json,
)
from smnm_kernels.train.run.machine import default_threads, default_workers
from smnm_kernels.train.run.signals import StoppedBySignal
from smnm_kernels.train.tasks.pretrain import export_metadata, pretrain
from smnm_kernels.train.tasks.pretrain_setup import Setup, recipe_of, set_up

from .cells import measures_of
from .commands import MAKERS, Asked, or_stop
from .environment import Machine, environment
from .folders import HELD_OUT, PARTS, PICTURE, RUN, CellFolder, read_json
from .heldout_loss import HeldOutLoss, build, common_masks, heldout_loss, heldout_picture, own_masks
from .inputs import counts, visible_of
from .plan import Measure, StudyPlan
from .reuse import take_over
from .splitting import split
from .values import end_of

_LINES = 5  # of an error that are kept
_LAST = 20  # losses that "train.loss" is the mean of
_TRAIN, _PICTURED = "train.csv", "pictured.csv"


def run_cell(plan: StudyPlan, folder: CellFolder, machine: Machine) -> int:
    """Returns 0 when the cell is finished, by this or another process; 130 or 143 when a signal
    made it keep what was done and stop. Raises UsageError where another process works in it."""
    lock = RunFolder(folder.path)  # locked until this returns
    try:
        if folder.result is not None:
            return 0
        folder.begin()
        # Of all its parts, whichever this process begins with.
        torch.set_num_threads(machine.threads or default_threads())
        work = _Work(plan, folder, machine)
        work.pretrain()
        for measure in work.measures:
            work.measure(measure)
        work.picture()
        work.tidy()
        folder.finish(work.result())
        return 0
    except StoppedBySignal as stopped:
        return 128 + stopped.number
    except Exception as error:
        folder.fail([*str(error).splitlines()[-_LINES:]] or [type(error).__name__])
        raise
    finally:
        lock.release()


class _Work:
    def __init__(self, plan: StudyPlan, folder: CellFolder, machine: Machine) -> None:
        self.plan, self.folder, self.machine = plan, folder, machine
        self.cell = folder.cell
        self.measures = measures_of(plan, self.cell.run.name, self.cell.data)
        steps = [step for measure in self.measures for step in measure.at]
        options = self.cell.run.pretrain(
            plan.modality,
            folder.path / _TRAIN,
            folder.run,
            seed=self.cell.seed,
            device=machine.device,
            threads=machine.threads,
            workers=machine.workers,
            keep_every=math.gcd(*steps) if steps else None,
            **plan.data[self.cell.data].pretrain,
        )
        self.options = options
        data, path = plan.data[self.cell.data], self.cell.paths[self.cell.data]
        self._setup = set_up(options)
        self.split = split(data, path, self._setup.preset.clip.suffixes)
        # What is finished of the cell, by name: its values and seconds.
        self._parts: dict[str, Any] = read_json(folder.path / PARTS) or {}

    def _part(self, name: str, doing: str, make: Callable[[], dict[str, Any]]) -> None:
        if name in self._parts:
            return
        print(f"--- {self.cell.name}: {doing}", flush=True)
        here = environment(self.machine.device, self.machine.threads)
        begun_in = self.folder.note(doing, RUN if name == "train" else name, here)
        began = time.perf_counter()
        found = make()
        found["seconds"] = round(time.perf_counter() - began, 2)
        found |= {"environment": here, "begun_in": begun_in}
        self._parts[name] = found
        write_json(self.folder.path / PARTS, self._parts)

    @property
    def setup(self) -> Setup:
        """With what the run measured in the files that it trains on."""
        return self._setup.with_measured(self._parts["train"]["measured"])

    def pretrain(self) -> None:
        self.split.link(self.folder.path)
        self.split.write(self.folder.path / _TRAIN, self.split.train)
        self.split.write(self.folder.path / HELD_OUT, self.split.held_out)
        if not self._parts and (found := take_over(self.folder, self.measures)):
            self._parts = found
            write_json(self.folder.path / PARTS, found)
        self._part("train", "untrained" if self.cell.run.untrained else "pretraining", self._train)

    def _train(self) -> dict[str, Any]:
        run, setup = self.folder.run, self._setup
        about = counts(visible_of(setup))
        if self.cell.run.untrained:
            return {"values": {}, "about": about, "measured": self._untrained()}
        or_stop(pretrain(self.options))
        rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
        usable, _ = read_files(run / FILES)
        last = rows[-_LAST:]
        about |= {
            "data_fingerprint": self._fingerprint(usable),
            "files": len(usable),
            "steps": len(rows),
            "parameters": sum(p.numel() for p in build(setup, 0, None).parameters()),
            # Without the first steps, which warm up.
            "clips_per_s": float(np.median([r["clips_per_s"] for r in rows[len(rows) // 4 :]])),
            "mask_ms": float(np.median([r["mask_ms"] for r in rows[len(rows) // 4 :]])),
        }
        return {
            "values": {"train.loss": float(np.mean([r["loss"] for r in last]))},
            "about": about,
            "measured": json.loads((run / CONFIG).read_text())["run"].get("measured"),
        }

    def _untrained(self) -> dict[str, Any] | None:
        """Writes the encoder with which the seed begins. What training would measure of its files,
        by which inputs are normalised."""
        self.folder.run.mkdir(exist_ok=True)
        setup, measure = self._setup, recipe_of(self.options, self._setup).measure
        measured = None
        if measure is not None:
            listing = scan(Files(self.folder.path / _TRAIN), setup.preset.clip, None, threads=2)
            workers = self.machine.workers
            measured = measure(listing, default_workers() if workers is None else workers)
            setup = setup.with_measured(measured)
        model = build(setup, self.cell.seed, None)
        encoder = self.folder.run / ENCODER
        setup.preset.objective.export(model, encoder, export_metadata(setup.preset, 0))
        return measured

    def measure(self, measure: Measure) -> None:
        if measure.command == "loss":
            self._part(measure.name, measure.name, lambda: self._loss(measure))
            return
        encoders = {"": self.folder.run / ENCODER}
        if not self.cell.run.untrained:
            encoders |= {f"@{step}": encoder_of_step(self.folder.run, step) for step in measure.at}
        for end, encoder in encoders.items():
            asked = Asked(self.plan, self.folder, self.machine, measure, encoder, end)
            name = f"{measure.name}{end}"
            self._part(name, name, partial(MAKERS[measure.command], asked))

    def _loss(self, measure: Measure) -> dict[str, Any]:
        setup, settings = self.setup, HeldOutLoss(**measure.options)
        model = build(setup, self.cell.seed, None if self.cell.run.untrained else self.folder.run)
        finder = Files(self.folder.path / HELD_OUT)
        listing = scan(finder, setup.preset.clip, None, threads=2)
        if not listing.usable:
            raise UsageError(f"{self.cell.data}: no held-out file can be read")
        masks = {"own": own_masks(setup), "common": common_masks(setup, settings)}
        losses, failed = heldout_loss(model, setup, masks, listing, settings)
        values = {
            f"{measure.name}.{masks}{end_of(part)}": value
            for masks, parts in losses.items()
            for part, value in parts.items()
        }
        reasons = failed | listing.reasons()
        read = [one for one in listing.usable if one["name"] not in failed]
        return {
            "values": values,
            "failed": {self.split.name(name): why for name, why in reasons.items()},
            "data_fingerprint": self._fingerprint(read),
        }

    def _fingerprint(self, files: Iterable[Record]) -> str:
        """By names from the data's own folder: the same wherever it lies."""
        return fingerprint(one | {"name": self.split.name(one["name"])} for one in files)

    def picture(self) -> None:
        """The same held-out file for all cells of a data set: the one in the middle of the list."""
        path, setup, names = self.folder.path / PICTURE, self.setup, self.split.held_out
        if self.cell.run.untrained or path.exists() or not setup.kinds:
            return
        if not (self.folder.run / CHECKPOINT).exists():  # tidied before a kill: none was restored
            return
        one = self.folder.path / _PICTURED
        self.split.write(one, [names[len(names) // 2]])
        listing = scan(Files(one), setup.preset.clip, None, threads=1)
        if listing.usable:
            model = build(setup, self.cell.seed, self.folder.run)
            found = heldout_picture(model, setup, listing)
            if found is not None:
                with replacing(path) as file:
                    found.save(file, format="PNG")

    def result(self) -> dict[str, Any]:
        cell, parts = self.cell, self._parts
        trained_in = parts["train"]["environment"]
        return {
            "id": cell.id,
            "id_of_any_code": cell.id_of_any_code,
            "name": cell.name,
            "written": time.time(),
            "data": cell.data,
            "run": cell.run.name,
            "seed": cell.seed,
            "settings": cell.settings,
            "about": parts["train"]["about"],
            "encoder_of": parts["train"].get("cell"),  # another cell, which trained it
            "values": {k: v for part in parts.values() for k, v in part["values"].items()},
            "seconds": {name: part["seconds"] for name, part in parts.items()},
            "failed": {name: part["failed"] for name, part in parts.items() if part.get("failed")},
            "data_fingerprints": {
                name: part["data_fingerprint"]
                for name, part in parts.items()
                if "data_fingerprint" in part
            },
            "environment": trained_in,
            # Of parts, and beginnings of parts, that were made in another one.
            "environments": {
                name if number == 0 else f"{name}, begun {number}": one
                for name, part in parts.items()
                for number, one in enumerate([part["environment"], *part.get("begun_in", ())])
                if one != trained_in
            },
        }

    def tidy(self) -> None:
        """What nobody needs any more, and takes room: checkpoints, features, and encoders of steps
        that were kept because one that is measured is a multiple of them."""
        run = self.folder.run
        steps = {step for measure in self.measures for step in measure.at}
        for path in {*run.glob(f"{ENCODERS}/*")} - {encoder_of_step(run, step) for step in steps}:
            path.unlink()
        for path in self.folder.path.glob(f"*/{CHECKPOINT}"):
            path.unlink()
        for path in self.folder.path.glob("*/classifier*.safetensors"):
            path.unlink()
        shutil.rmtree(self.folder.path / "features", ignore_errors=True)

"""What `smnm demo video --finetune` does after pretraining: fine-tuning and a probe, each of the
pretrained encoder and of an untrained one, and what pretraining gained, with its interval."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.train.metrics.intervals import bootstrap_difference
from smnm_kernels.train.metrics.measures import Judged, judge
from smnm_kernels.train.models.pretrained import UNTRAINED
from smnm_kernels.train.run.options import RunOptions

from .demo_labels import FORMS, SIZE
from .finetune import finetune
from .finetune_evaluation import PREDICTIONS, RESULTS
from .finetune_options import Finetune
from .probe import Probe, probe

if TYPE_CHECKING:
    from .demo import Demo

#: Of pretraining, where nothing else is asked for. The rate is twice the preset's: steps are few.
RECIPE: dict[str, Any] = {"steps": 400, "size": SIZE, "n_keep": 16, "lr": 2e-3}
FINETUNING_STEPS = 300
#: Peak rates of fine-tuning, for each the best that was tried (bench/results/demo.md). Pretrained
#: weights have grown and hardly move at the preset's 1e-3; from untrained ones 1e-2 leads nowhere.
RATES = {"pretrained": 1e-2, "untrained": 1e-3}


def labelled_options(options: Demo) -> Demo:
    """With the recipe of the labelled demo; refuses what has no labels."""
    if options.modality != "video":
        raise UsageError(f"--finetune: is for smnm demo video; {options.modality} has no labels")
    if options.preset != "tiny":
        raise UsageError(f"--finetune: is for --preset tiny, got {options.preset}")
    missing = {name: x for name, x in RECIPE.items() if getattr(options, name) is None}
    if options.mask_ratio is not None:
        missing.pop("n_keep", None)
    return replace(options, flip=False, crop=False, **missing)


def evaluate(options: Demo, out: Path, folder: Path) -> int:
    """A table of the accuracies in the end. An exit code."""
    encoders = {"pretrained": str(out), "untrained": UNTRAINED}
    shared = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    shared |= {"steps": FINETUNING_STEPS, "schedule_steps": None, "scan_of": None}
    shared |= {"size": options.size, "crop": False}
    cells: dict[str, list[str]] = {name: [] for name in (*encoders, "gained")}
    for name, encoder in encoders.items():
        run = out / name
        print(f"fine-tuning, {name}: {run}", flush=True)
        shared["lr"] = RATES[name]
        code = finetune(Finetune(modality="video", data=folder, out=run, encoder=encoder, **shared))
        if code:
            return code
        cells[name].append(_shown(json.loads((run / RESULTS).read_text())["measures"]["top1"]))
    ours, theirs = (_judged(out / name / PREDICTIONS) for name in encoders)
    cells["gained"].append(_shown(bootstrap_difference(ours, theirs)["top1"].as_row(), "+"))
    probed = Probe(
        modality="video",
        data=folder,
        out=out / "probe",
        encoder=encoders["pretrained"],
        against=(encoders["untrained"],),
        probes=("linear",),
        few_shot=(),
        seed=options.seed,
        device=options.device,
        workers=options.workers,
    )
    code = probe(probed)
    if code:
        return code
    rows = json.loads((probed.out / RESULTS).read_text())["rows"]
    for name, row in zip(encoders, rows, strict=True):
        cells[name].append(_shown(row["measures"]["top1"]))
    cells["gained"].append(_shown(rows[1]["first_minus_this"], "+"))
    print(
        f"\nwhich of {len(FORMS)} forms moves: top-1 of {len(ours)} files, 95% interval; gained: "
        "on the same files"
    )
    print(f"{'':12}{'fine-tuned':24}{'linear probe':24}".rstrip())
    for name, of_encoder in cells.items():
        print(f"{name:12}" + "".join(f"{cell:24}" for cell in of_encoder).rstrip(), flush=True)
    return 0


def _judged(predictions: Path) -> Judged:
    """What a run's predictions.csv says of each file."""
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted(FORMS)
    scores = torch.tensor([[float(row[f"p {name}"]) for name in names] for row in rows])
    return judge("class", scores, torch.tensor([names.index(row["label"]) for row in rows]))


def _shown(found: dict[str, Any], sign: str = "") -> str:
    value, low, high = (f"{found[name]:{sign}.2f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"

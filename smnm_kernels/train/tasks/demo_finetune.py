"""What `smnm demo video --finetune` does after pretraining: fine-tuning, and a probe of the
pretrained encoder beside an untrained one, with what pretraining gained and its interval.

From random weights nothing is fine-tuned for comparison: the label is easy to learn from all of a
clip's pixels once training finds it, and whether it does within a minute depends on rate and seed
(bench/results/demo.md).
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.pretrained import UNTRAINED
from smnm_kernels.train.run.options import RunOptions

from .demo_labels import FORMS, SIZE
from .finetune import finetune
from .finetune_evaluation import RESULTS
from .finetune_options import Finetune
from .probe import Probe, probe

if TYPE_CHECKING:
    from .demo import Demo

#: Of pretraining, where nothing else is asked for.
RECIPE: dict[str, Any] = {"steps": 600, "size": SIZE, "n_keep": 16}
FINETUNING_STEPS = 250


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
    shared = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    shared |= {"steps": FINETUNING_STEPS, "schedule_steps": None, "scan_of": None, "lr": None}
    run = out / "finetuned"
    print(f"fine-tuning: {run}", flush=True)
    code = finetune(
        Finetune(
            modality="video",
            data=folder,
            out=run,
            encoder=str(out),
            size=options.size,
            crop=False,
            **shared,
        )
    )
    if code:
        return code
    results = json.loads((run / RESULTS).read_text())
    probed = Probe(
        modality="video",
        data=folder,
        out=out / "probe",
        encoder=str(out),
        against=(UNTRAINED,),
        probes=("linear",),
        few_shot=(),
        seed=options.seed,
        device=options.device,
        workers=options.workers,
    )
    code = probe(probed)
    if code:
        return code
    ours, theirs = json.loads((probed.out / RESULTS).read_text())["rows"]
    gained = theirs["first_minus_this"]
    print(
        f"\nwhich of {len(FORMS)} forms moves: top-1 of {results['files']} test files, 95% interval"
        f"\nlinear probe, untrained    {_shown(theirs['measures']['top1'])}\n"
        f"linear probe, pretrained   {_shown(ours['measures']['top1'])}, gained "
        f"{_shown(gained, '+')} on the same files\n"
        f"fine-tuned, pretrained     {_shown(results['measures']['top1'])}",
        flush=True,
    )
    return 0


def _shown(found: dict[str, Any], sign: str = "") -> str:
    value, low, high = (f"{found[name]:{sign}.2f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"

"""Losses and CPU time of the trainer's options against its defaults, in paired runs.

    python bench/training_options.py --out runs/options --only bfloat16 compile

Every variant trains the video demo's files with every seed, one after the other in this process.
Printed for each: the mean loss of the second half of the steps, its paired difference from the
default's with a 95% interval, and the median CPU time of a step as a ratio to the default's of the
same seed. A first run, which compiles, is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.plan import begin
from smnm_kernels.train.tasks.demo import FILES, make_files
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain import Pretraining
from smnm_kernels.train.tasks.pretrain_setup import recipe_of, set_up

DEFAULT = "default"
VARIANTS = {
    DEFAULT: {},
    "bfloat16": {"precision": "bfloat16"},
    "compile": {"compile": True},
    "accumulate": {"accumulate": 2},
    "checkpoint": {"checkpoint_activations": True},
}
# Student's t, two-sided 95%, by degrees of freedom.
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


@dataclass
class Result:
    loss: float
    cpu_s: float  # of a step


class TimedLoop(Loop):
    """Takes the CPU time of every step."""

    def _whole_step(self, *arguments: Any) -> bool:
        before = time.process_time()
        done = super()._whole_step(*arguments)
        self.cpu_s = [*getattr(self, "cpu_s", []), time.process_time() - before]
        return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of files and runs")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    others = [name for name in VARIANTS if name != DEFAULT]
    parser.add_argument("--only", nargs="*", default=others, choices=others)
    given = parser.parse_args()
    data = given.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    make_files(data, FILES["video"])
    names = [DEFAULT, *given.only]
    for name in names:
        train(given, name, seed=0, steps=2)
    results: dict[str, list[Result]] = {name: [] for name in names}
    for seed in range(given.seeds):  # all variants of a seed after each other
        for name in names:
            results[name].append(train(given, name, seed, given.steps))
            print(name, seed, results[name][-1], flush=True)
    print("\n| options | loss | difference, 95% | CPU time of a step |\n|---|---|---|---|")
    for name in names:
        print(row(name, results[name], results[DEFAULT]))


def train(given: argparse.Namespace, name: str, seed: int, steps: int) -> Result:
    out = given.out / f"{name}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    options = Pretrain(
        modality="video", data=given.out / "data", out=out, seed=seed, steps=steps,
        batch_size=given.batch_size, workers=0, threads=1, **VARIANTS[name],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        setup = set_up(options)
        recipe = recipe_of(options, setup)
        plan, folder = begin(options, recipe, options.data, out, setup.device)
        dataset = SampleDataset(options.data, plan.files, setup.preset.clip, seed)
        task = Pretraining(setup, dataset, plan, options.checkpoint_activations)
        loop = TimedLoop(task, plan, setup.device, out, folder)
        loop.run()
    lines = (out / "metrics.jsonl").read_text().splitlines()[steps // 2 :]
    loss = statistics.fmean(json.loads(line)["loss"] for line in lines)
    return Result(loss, statistics.median(loop.cpu_s))


def row(name: str, ours: list[Result], default: list[Result]) -> str:
    differences = [a.loss - b.loss for a, b in zip(ours, default, strict=True)]
    ratios = [a.cpu_s / b.cpu_s for a, b in zip(ours, default, strict=True)]
    n = len(differences)
    half = T_95[n - 1] * statistics.stdev(differences) / math.sqrt(n)
    return (
        f"| {name} | {statistics.fmean(r.loss for r in ours):.4f} | "
        f"{statistics.fmean(differences):+.5f} ± {half:.5f} | "
        f"{statistics.fmean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


if __name__ == "__main__":
    main()

"""Losses and CPU time of the trainer's options against its defaults, in paired runs.

    python bench/training_options.py --out runs/options --steps 60

Each variant trains the demo's files with each seed. Printed for each: the mean loss of the last 20
steps, its paired difference from the default's with a 95% interval, and CPU seconds (user and
system, start included) as a ratio to the default's of the same seed. Runs that are there already
are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

DEFAULT = "default"
VARIANTS = {
    DEFAULT: [],
    "bfloat16": ["--precision", "bfloat16"],
    "compile": ["--compile"],
    "accumulate": ["--accumulate", "4"],
    "checkpoint": ["--checkpoint-activations"],
}
LAST_STEPS = 20
# Student's t, two-sided 95%, by degrees of freedom.
T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--modality", default="video")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    others = [name for name in VARIANTS if name != DEFAULT]
    parser.add_argument("--only", nargs="*", default=others, choices=others)
    given = parser.parse_args()
    names = [DEFAULT, *given.only]
    results = {name: [] for name in names}
    for seed in range(given.seeds):  # all variants of a seed after each other
        for name in names:
            results[name].append(run(given, name, seed))
    print("| options | loss | difference, 95% | CPU time |\n|---|---|---|---|")
    for name in names:
        print(row(name, results[name], results[DEFAULT]))


def run(given: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    folder = given.out / f"{name}-{given.modality}-{seed}"
    result = folder / "result.json"
    if not result.exists():
        words = ["demo", given.modality, "--out", folder, "--seed", seed, "--steps", given.steps]
        words += ["--threads", 1, *VARIANTS[name]]
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "smnm_kernels.cli", *map(str, words)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        after = os.times()
        seconds = sum(
            getattr(after, part) - getattr(before, part)
            for part in ("children_user", "children_system")
        )
        lines = (folder / "metrics.jsonl").read_text().splitlines()[-LAST_STEPS:]
        loss = statistics.fmean(json.loads(line)["loss"] for line in lines)
        result.write_text(json.dumps({"loss": loss, "cpu_s": seconds}))
    return json.loads(result.read_text())


def row(name: str, ours: list[dict[str, float]], default: list[dict[str, float]]) -> str:
    losses = [r["loss"] for r in ours]
    differences = [a["loss"] - b["loss"] for a, b in zip(ours, default, strict=True)]
    ratios = [a["cpu_s"] / b["cpu_s"] for a, b in zip(ours, default, strict=True)]
    n = len(differences)
    half = T_95[n - 1] * statistics.stdev(differences) / math.sqrt(n)
    return (
        f"| {' '.join(VARIANTS[name]) or DEFAULT} | {statistics.fmean(losses):.4f} | "
        f"{statistics.fmean(differences):+.5f} ± {half:.5f} | "
        f"{statistics.fmean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


if __name__ == "__main__":
    main()

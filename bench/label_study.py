"""What pretraining with each kind of mask does for labels that a pilot found to show something.

    python examples/data/sprites.py --out runs/sprites --clips 480 --masked 0
    python bench/label_study.py --data runs/sprites --out runs/study --labels direction

For every seed and kind of mask: the tiny preset for small pictures is pretrained on the clips of
train, with the same number of visible tokens for every kind, a multiple of the frames of the grid
(kinds that repeat over frames round down to one). The encoder with which pretraining of a seed
begins is the untrained one of that seed. Probes: those of `smnm probe`, linear on the mean of the
tokens, the penalty chosen on val; accuracy of classes, R² of numbers, on test. The splits are the
set's, by episode or voice. Intervals are Student's over seeds, of the score and of the paired
difference from the untrained encoder of the same seed.

Seeds are done one after the other, each with all kinds. Every result is a line of OUT/rows.jsonl as
soon as it is there: the same command goes on where it was stopped. `--report FILE` writes the
tables from what is there, and trains nothing. Labels, steps and kinds are settled before the run;
label_pilot.md says by what.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_pilot import (
    ClipSet,
    Target,
    features,
    grid_of,
    load,
    pretrain,
    small_preset,
    splits_of,
    targets,
)
from saved_rows import SavedRows

from smnm_kernels.train.metrics.intervals import Interval, t_interval
from smnm_kernels.train.tasks.presets.preset import Preset
from smnm_kernels.train.tasks.probing.linear import choose_strength, fit_linear
from smnm_kernels.train.tasks.probing.targets import Task

UNTRAINED = "untrained"
KINDS = ("green3d", "random", "tube", "blue3d", "red3d")


@dataclass(frozen=True)
class Setting:
    """What decides a row beside its seed and its encoder."""

    modality: str
    size: int
    patch: int
    keep: int
    batch_size: int
    steps: int
    lr: float

    @property
    def preset(self) -> Preset:
        return small_preset(self.modality, self.size, self.patch, self.batch_size)

    def check(self) -> None:
        grid = grid_of(self.preset)
        if self.keep % grid[0]:
            raise SystemExit(
                f"--keep {self.keep}: must be a multiple of {grid[0]} frames of tokens"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", required=True, help="columns of labels.csv")
    parser.add_argument("--modality", default="video", choices=("video", "audio"))
    parser.add_argument("--by", help="a column: labels are probed apart for each of its values")
    parser.add_argument("--only", nargs="+", help="values of --by whose clips are taken")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--keep", type=int, default=16, help="visible tokens of a clip")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--report", type=Path, help="write the tables of what is there, and stop")
    given = parser.parse_args()
    names = ("modality", "size", "patch", "keep", "batch_size", "steps", "lr")
    setting = Setting(**{name: getattr(given, name) for name in names})
    setting.check()
    table = SavedRows(given.out / "rows.jsonl")
    if given.report:
        given.report.write_text(report(given, setting, table.rows))
        return
    clips = load(given.data, setting.preset, given.out / f"clips-{given.size}.npy")
    if given.only:
        keep = [i for i, row in enumerate(clips.rows) if row[given.by] in given.only]
        clips = clips.only(np.array(keep))
    run(setting, clips, targets(clips, given.labels, given.by), given.kinds, given.seeds, table)
    print(report(given, setting, table.rows))


def run(
    setting: Setting,
    clips: ClipSet,
    labels: Sequence[Target],
    kinds: Sequence[str],
    seeds: int,
    table: SavedRows,
) -> None:
    """Makes the rows that are not there yet."""
    of_train, preset = clips.only(clips.split("train")), setting.preset
    wanted = [(seed, name) for seed in range(seeds) for name in (UNTRAINED, *kinds)]
    key = vars(setting)
    todo = [(s, n) for s, n in wanted if not table.has(**key, seed=s, encoder=n, done=True)]
    took: list[float] = []
    for seed, name in todo:
        began, loss = time.perf_counter(), None
        if name == UNTRAINED:
            encoder = preset.objective.build(preset.clip.inputs, seed).encoder.eval()
        else:
            encoder, losses = pretrain(
                of_train, preset, name, setting.keep, setting.steps, setting.lr, seed
            )
            loss = float(np.mean(losses[-20:]))
        x = features(encoder, clips, preset).mean(1)
        scores = {label.name: probe(x, label, clips) for label in labels}
        # One line: a kill leaves all of an encoder's results, or none.
        table.add({**key, "seed": seed, "encoder": name, "loss": loss, "scores": scores,
                   "done": True})  # fmt: skip
        if name != UNTRAINED:
            took.append(time.perf_counter() - began)
            left = sum(n != UNTRAINED for _, n in todo) - len(took)
            print(f"about {left * np.mean(took) / 3600:.1f} hours left", flush=True)
        print(f"seed {seed} {name}: {scores}", flush=True)


def probe(x: np.ndarray, label: Target, clips: ClipSet) -> float:
    """On test, of features [n, dim] of all clips: accuracy, or R²."""
    of = splits_of(clips, label.keep)
    x = x[label.keep]
    values = label.y.argmax(1) if label.is_class else label.y[:, 0]
    task = Task("class" if label.is_class else "number", label.y.shape[1] if label.is_class else 0)
    train, val = ((x[of[name]], values[of[name]]) for name in ("train", "val"))
    predicted = fit_linear(task, *train, choose_strength(task, train, val))(x[of["test"]])
    return label.score(predicted if label.is_class else predicted[:, None], of["test"])


def report(given: argparse.Namespace, setting: Setting, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of the rows of this setting."""
    rows = [row for row in rows if all(row[k] == v for k, v in vars(setting).items())]
    if not rows:
        return "no rows of this setting\n"
    of = {(row["seed"], row["encoder"]): row["scores"] for row in rows}
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    words = f"--data {given.data} --labels {' '.join(given.labels)}"
    words += f" --by {given.by}" if given.by else ""
    words += f" --only {' '.join(given.only)}" if given.only else ""
    options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in vars(setting).items())
    lines = [
        f"`python bench/label_study.py {words} {options}`, {_machine()}.",
        "",
        "Mean over seeds [95% interval]; below, the paired difference from the untrained encoder.",
        "",
        f"| label | {' | '.join(encoders)} |",
        f"|---|{'---|' * len(encoders)}",
    ]
    for label in rows[0]["scores"]:
        cells, differences = [], []
        for name in encoders:
            seeds = [seed for seed, encoder in of if encoder == name]
            cells.append(_shown(t_interval([of[s, name][label] for s in seeds])))
            paired = [s for s in seeds if (s, UNTRAINED) in of and name != UNTRAINED]
            gained = [of[s, name][label] - of[s, UNTRAINED][label] for s in paired]
            differences.append(_shown(t_interval(gained), sign="+") if gained else "")
        lines += [f"| {label} | {' | '.join(cells)} |", f"| | {' | '.join(differences)} |"]
    for name in encoders:
        losses = [row["loss"] for row in rows if row["encoder"] == name and row["loss"]]
        if losses:
            lines.append(f"\n{name}: {len(losses)} seeds, last loss {np.mean(losses):.4f}.")
    return "\n".join(lines) + "\n"


def _shown(interval: Interval, sign: str = "") -> str:
    if np.isnan(interval.low):
        return f"{interval.value:{sign}.3f}"
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _machine() -> str:
    cores = os.cpu_count()
    threads = torch.get_num_threads()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scikit-learn"))
    return (
        f"{platform.machine()}, {cores} cores, {threads} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {versions}"
    )


if __name__ == "__main__":
    main()

"""What `smnm probe` writes and prints of its scores."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smnm_kernels.errors import printable
from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.metrics.intervals import (
    affordable_draws,
    bootstrap,
    bootstrap_difference,
    t_interval,
)
from smnm_kernels.train.metrics.measures import COUNTS, MAIN, Judged, judge
from smnm_kernels.train.metrics.plots import confusions, write_confusion_matrix, write_few_shot
from smnm_kernels.train.metrics.predictions import write_predictions
from smnm_kernels.train.run.folder import write_json
from smnm_kernels.train.run.machine import versions

from .frozen import Frozen
from .protocol import Data, ProbeName, Scored
from .results import described, shortened, signed, table

RESULTS, PREDICTIONS, CONFUSION = "results.json", "predictions.csv", "confusion.png"
FEW_SHOT, ALL_PREDICTIONS = "few_shot.png", "predictions"


@dataclass(frozen=True)
class Row:
    """One probe of one layer of one encoder."""

    frozen: Frozen
    name: str  # of the encoder, unlike that of every other
    layer: str
    probe: ProbeName
    scored: Scored
    #: shots -> the main measure of each draw
    few_shot: dict[int, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What all rows are of."""

    labels: Labels
    data: Data
    about: dict[str, Any]  # for results.json


def write_report(out: Path, asked: Asked, rows: Sequence[Row]) -> None:
    """results.json, predictions and pictures, and a table on the screen."""
    tested = asked.data.tested()
    values = asked.data.values[tested]
    kind = asked.labels.kind
    targets = torch.from_numpy(values)
    judged = [judge(kind, torch.from_numpy(row.scored.scores), targets) for row in rows]
    draws = affordable_draws(kind, len(tested), len(asked.labels.names))
    seed = asked.data.seed
    groups = _groups(asked.data, tested)
    main, possible = MAIN[kind].name, MAIN[kind].possible
    written, cells, differences, shots = [], [], [], []
    shown: list[str] = []
    first_of: dict[tuple[str, str], Judged] = {}
    first_name = rows[0].name
    for row, one in zip(rows, judged, strict=True):
        measured = bootstrap(one, groups, draws, seed)
        intervals = {name: x for name, x in measured.items() if name not in COUNTS}
        shown_first: dict[str, str] = {}
        content = {
            **described(row.frozen),
            "name": row.name,
            "layer": row.layer,
            "probe": row.probe,
            "chosen": row.scored.chosen,
            "measures": {name: interval.as_row() for name, interval in intervals.items()},
            **{name: measured[name].value for name in COUNTS if name in measured},
            "per_class": _per_class(asked, row.scored.scores, values),
        }
        if len(asked.data.trials) > 1:
            folds = _of_folds(asked, row.scored.scores)
            of_folds = {trial: found[main] for trial, found in folds.items()}
            # mAP is undefined in a fold where no class has files with and without it.
            told = [value for value in of_folds.values() if not math.isnan(value)]
            mean = t_interval(told or [math.nan], possible=possible)
            content["folds"] = {t: None if math.isnan(x) else x for t, x in of_folds.items()}
            content["mean_of_folds"] = mean.as_row()
            if kind == "classes":
                # The order of all files mixes scores of models that need not agree in scale.
                shown_first = {f"{main}, mean of folds": str(mean)}
        if row.few_shot:
            content["few_shot"] = [
                {
                    "files_a_class": n,
                    "draws": found,
                    main: t_interval(found, possible=possible).as_row(),
                }
                for n, found in row.few_shot.items()
            ]
            shots.append([shortened(row.name), row.layer, row.probe])
            shots[-1] += [
                str(t_interval(found, possible=possible)) for found in row.few_shot.values()
            ]
        key = (row.layer, row.probe)
        if row.name == first_name:
            first_of[key] = one
        elif key in first_of:
            found = bootstrap_difference(first_of[key], one, groups, draws, seed)[main]
            content["first_minus_this"] = {"measure": main, **found.as_row()}
            label = f"{shortened(first_name)} - {shortened(row.name)}"
            differences.append([label, row.layer, row.probe, signed(found)])
        written.append(content)
        cells.append([shortened(row.name), row.layer, row.probe])
        cells[-1] += [*shown_first.values(), *map(str, intervals.values())]
        pooled = ", folds pooled" if shown_first else ""
        shown = [*shown_first, *(f"{name}{pooled}" for name in intervals)]
    units = "groups" if groups else "files"
    write_json(
        out / RESULTS,
        {
            "command": "probe",
            **asked.about,
            "labels": {"kind": kind, "names": list(asked.labels.names)},
            "main": main,
            "files": {
                trial.name: {k: len(getattr(trial, k)) for k in ("train", "val", "test")}
                for trial in asked.data.trials
            },
            "interval": f"95%, bootstrap over test {units}, {draws} draws; few_shot and "
            "mean_of_folds: Student's, over draws and folds, cut to what the measure can be",
            "versions": versions(),
            "rows": written,
        },
    )
    _write_files(out, asked, rows, tested, targets)
    print(table(["encoder", "layer", "probe", *shown], cells))
    if differences:
        print(table(["difference", "layer", "probe", main], differences))
    if shots:
        numbers = list(next(row.few_shot for row in rows if row.few_shot))
        heads = [f"{n} a class" for n in numbers]
        print(f"{main} from few files, mean over draws:")
        print(table(["encoder", "layer", "probe", *heads], shots))
    print(f"results: {out / RESULTS}", flush=True)


def _groups(data: Data, tested: np.ndarray) -> list[Hashable] | None:
    """Of the test files."""
    return None if data.groups is None else [data.groups[place] for place in tested.tolist()]


def _of_folds(asked: Asked, scores: np.ndarray) -> dict[str, dict[str, float]]:
    found, begin = {}, 0
    for trial in asked.data.trials:
        end = begin + len(trial.test)
        part = torch.from_numpy(scores[begin:end])
        targets = torch.from_numpy(asked.data.values[trial.test])
        found[trial.name] = judge(asked.labels.kind, part, targets).measures()
        begin = end
    return found


def _per_class(asked: Asked, scores: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """Of each class how many test files have it, and the share that is right or the average
    precision; None where no file tells it."""
    found: dict[str, Any] = {}
    for number, name in enumerate(asked.labels.names):
        if asked.labels.kind == "class":
            there = values == number
            right = scores[there].argmax(1) == number
            value = float(right.mean()) if there.any() else None
            found[name] = {"files": int(there.sum()), "right": value}
        else:
            one = judge(
                "classes",
                torch.from_numpy(scores[:, [number]]),
                torch.from_numpy(values[:, [number]]),
            )
            value = one.measures()["mAP"]
            precision = None if math.isnan(value) else value
            found[name] = {"files": int(values[:, number].sum()), "average_precision": precision}
    return found


def _write_files(
    out: Path, asked: Asked, rows: Sequence[Row], tested: np.ndarray, targets: torch.Tensor
) -> None:
    """Predictions of the first row beside results.json, of all of them in a folder below; pictures
    of the first row and of all few-shot curves."""
    for path in (out / CONFUSION, out / FEW_SHOT, *(out / ALL_PREDICTIONS).glob("*.csv")):
        path.unlink(missing_ok=True)  # of an earlier command
    names = [asked.data.names[place] for place in tested]
    first = torch.from_numpy(rows[0].scored.scores)
    write_predictions(out / PREDICTIONS, names, asked.labels, first, targets)
    if len(rows) > 1:
        (out / ALL_PREDICTIONS).mkdir(exist_ok=True)
        for number, row in enumerate(rows):
            shown = re.sub(r"[^\w.-]+", "-", printable(row.name)).strip("-.") or "encoder"
            path = out / ALL_PREDICTIONS / f"{number:02}-{shown[-60:]}-{row.layer}-{row.probe}.csv"
            scores = torch.from_numpy(row.scored.scores)
            write_predictions(path, names, asked.labels, scores, targets)
    if asked.labels.kind == "class":
        counts = confusions(first.argmax(1), targets, len(asked.labels.names))
        write_confusion_matrix(out / CONFUSION, counts, asked.labels.names)
    possible = MAIN[asked.labels.kind].possible
    curves = {
        f"{shortened(row.name)}, layer {row.layer}, {row.probe}": {
            n: t_interval(found, possible=possible) for n, found in row.few_shot.items()
        }
        for row in rows
        if row.few_shot
    }
    if curves:
        write_few_shot(out / FEW_SHOT, curves, MAIN[asked.labels.kind].name)

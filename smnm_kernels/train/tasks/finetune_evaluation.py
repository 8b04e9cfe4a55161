"""How a fine-tuned model is judged, and what a run leaves when it is over.

The best model is the one with the best main measure on the val split: top-1, mAP, or the mean
absolute error of numbers; of equal ones the earlier. Without a val split it is the last one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smnm_kernels.errors import RunError
from smnm_kernels.train.data.loader import Batch
from smnm_kernels.train.data.records import fingerprint
from smnm_kernels.train.data.views import Views, views_of
from smnm_kernels.train.metrics.intervals import affordable_draws, bootstrap
from smnm_kernels.train.metrics.measures import MAIN, judge, measure
from smnm_kernels.train.metrics.plots import confusions, write_confusion_matrix, write_curves
from smnm_kernels.train.metrics.predictions import write_predictions
from smnm_kernels.train.run.evaluating import EVALUATIONS, Outputs
from smnm_kernels.train.run.folder import METRICS, read_config, write_json

if TYPE_CHECKING:
    from .finetune import FineTuning
    from .finetune_options import Finetune

BEST, LAST = "classifier.safetensors", "classifier-last.safetensors"
PREDICTIONS, RESULTS = "predictions.csv", "results.json"
CONFUSION, CURVES = "confusion.png", "curves.png"


@dataclass(frozen=True)
class Found:
    """By the final evaluation."""

    results: dict[str, Any]  # for results.json
    names: list[str]  # of the files that count
    scores: Tensor  # as `measure` takes them
    targets: Tensor


class Judging:
    """The Evaluations of fine-tuning."""

    def __init__(self, task: FineTuning, options: Finetune) -> None:
        self.task, self.data = task, options.data
        preset, files = task.setup.preset, task.plan.files
        epoch = preset.optimisation.epoch_samples(len(task.plan.trained_on))
        self.every = preset.evaluate_every or math.ceil(epoch / preset.optimisation.batch_size)
        numbers: dict[str, list[int]] = {"val": [], "test": []}
        for number, record in enumerate(files):
            numbers.get(record["split"], []).append(number)
        self.regular = self._views(numbers["val"], (1, 1))
        self.final = self._views(numbers["test"] or numbers["val"], preset.views)

    def _views(self, numbers: Sequence[int], views: tuple[int, int]) -> Views | None:
        task = self.task
        if not numbers:
            return None
        clip, of = task.setup.clip, views_of(*views)
        return Views(self.data, task.plan.files, clip, numbers, of, task.padding)

    def _targets(self, numbers: Sequence[int]) -> Tensor:
        task = self.task
        return task.labels.targets([task.plan.files[number] for number in numbers])

    def due(self, step: int) -> bool:
        return step % self.every == 0

    def outputs(self, forward: Callable[..., Any], batch: Batch) -> Tensor:
        return self.task.outputs(forward, batch)

    def row(self, views: Views, outputs: Outputs) -> dict[str, Any]:
        numbers, scores = mean_of_views(views, outputs)
        found = self._measured(numbers, scores)
        split = self.task.plan.files[views.numbers[0]]["split"]
        return {
            "split": split,
            "files": len(numbers),
            "views": len(views.views),
            "loss": self._loss(numbers, scores),
        } | {name: None if math.isnan(value) else value for name, value in found.items()}

    def _measured(self, numbers: Sequence[int], scores: Tensor) -> dict[str, float]:
        kind = self.task.labels.kind
        return measure(kind, _as_scores(kind, scores), self._targets(numbers))

    def _loss(self, numbers: Sequence[int], scores: Tensor) -> float:
        """Of what the views predict together, without smoothing."""
        kind, targets = self.task.labels.kind, self._targets(numbers)
        if kind == "class":
            return F.nll_loss(scores.clamp(min=1e-12).log(), targets).item()
        if kind == "classes":
            return F.binary_cross_entropy(scores, targets).item()
        head = self.task.head
        return F.huber_loss(scores[:, 0].double() / head.scale, targets / head.scale).item()

    def value(self, row: dict[str, Any]) -> float:
        name, higher, _ = MAIN[self.task.labels.kind]
        value = row.get(name)
        return math.nan if value is None else value if higher else -value

    def keep(self, folder: Path, step: int, best: bool) -> None:
        self.task.save(folder / (BEST if best else LAST), step)

    def take_best(self, folder: Path) -> None:
        self.task.load(folder / BEST)

    def finished(self, folder: Path) -> int | None:
        try:
            return int(json.loads((folder / RESULTS).read_text())["step"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def found(self, views: Views, outputs: Outputs) -> Found:
        labels, files = self.task.labels, self.task.plan.files
        numbers, scores = mean_of_views(views, outputs)
        as_scores, targets = _as_scores(labels.kind, scores), self._targets(numbers)
        judged = judge(labels.kind, as_scores, targets)
        of_files = [files[number].get("group") for number in numbers]
        groups = None if None in of_files else of_files  # drawn whole: files of one are alike
        draws = affordable_draws(labels.kind, len(judged), len(labels.names))
        intervals = bootstrap(judged, groups, draws)
        results = {
            "split": files[views.numbers[0]]["split"],
            "views": len(views.views),
            "clips_x_crops": list(self.task.setup.preset.views),
            "files": len(numbers),
            "failed": outputs.failed,
            "loss": self._loss(numbers, scores),
            "groups": None if groups is None else len(set(groups)),
            "measures": {name: interval.as_row() for name, interval in intervals.items()},
        }
        return Found(results, [views.name(number) for number in numbers], as_scores, targets)

    def finish(self, folder: Path, found: Found | None, step: int) -> str:
        task, main = self.task, MAIN[self.task.labels.kind].name
        rows = _rows(folder / EVALUATIONS)
        best = [row["step"] for row in rows if row["best"]]
        results: dict[str, Any] = {
            "step": step,
            "best_step": best[-1] if best else step,
            "chosen_by": f"{main} on val" if best else "the last step",
        }
        said = f"curves: {folder / CURVES}\nclassifier: {folder / BEST}\n"
        if found is not None:
            results |= found.results
            self._write_tables(folder, found)
            said += (
                f"{results['split']}: {main} {_shown(results['measures'][main])} of "
                f"{results['files']} files, views of each: {results['views']}\n"
                f"results: {folder / RESULTS}\n"
            )
            if results["failed"]:
                said += f"  {len(results['failed'])} files could not be read\n"
        self._curves(folder / CURVES, _rows(folder / METRICS), rows)
        config = read_config(folder) or {}
        results |= {
            "encoder": task.setup.origin,
            "labels": {"kind": task.labels.kind, "names": list(task.labels.names)},
            "data": fingerprint(task.plan.files),
            "settings": config.get("run"),
            "versions": config.get("runtime", {}).get("versions"),
        }
        write_json(folder / RESULTS, results)
        return said

    def _write_tables(self, folder: Path, found: Found) -> None:
        labels = replace(self.task.labels, of={})
        write_predictions(folder / PREDICTIONS, found.names, labels, found.scores, found.targets)
        if labels.kind == "class":
            counts = confusions(found.scores.argmax(1), found.targets, len(labels.names))
            write_confusion_matrix(folder / CONFUSION, counts, labels.names)

    def _curves(
        self, path: Path, steps: list[dict[str, Any]], evaluations: list[dict[str, Any]]
    ) -> None:
        main = MAIN[self.task.labels.kind].name
        losses = {"train": [(row["step"], row["loss"]) for row in steps]}
        panels: dict[str, dict[str, Sequence[tuple[float, float]]]] = {"loss": dict(losses)}
        if evaluations:
            panels["loss"]["val"] = [(row["step"], row["loss"]) for row in evaluations]
            panels[main] = {
                "val": [(r["step"], r[main]) for r in evaluations if r[main] is not None]
            }
        panels["learning rate"] = {"of the head": [(row["step"], row["lr"]) for row in steps]}
        write_curves(path, panels, "step")


def mean_of_views(views: Views, outputs: Outputs) -> tuple[list[int], Tensor]:
    """(numbers of the files all of whose views could be read, [files, k] means over their views).

    A file of which a view failed is left out as a whole: it is among `outputs.failed`. RunError
    where that leaves none.
    """
    each = len(views.views)
    rows: dict[int, list[int]] = {}
    for row, sample in enumerate(outputs.sample_ids):
        rows.setdefault(views.numbers[sample // each], []).append(row)
    whole = {number: of for number, of in rows.items() if len(of) == each}
    if not whole:
        raise RunError(
            f"{views.folder}: of each of {len(views.numbers)} files a view cannot be read any more"
        )
    return list(whole), torch.stack([outputs.values[of].mean(0) for of in whole.values()])


def _as_scores(kind: str, scores: Tensor) -> Tensor:
    """As `measure` takes them."""
    return scores[:, 0] if kind == "number" else scores


def _shown(interval: dict[str, Any]) -> str:
    value = "undefined" if interval["value"] is None else f"{interval['value']:.4g}"
    if interval["low"] is None:
        return value
    return f"{value} [{interval['low']:.4g}, {interval['high']:.4g}]"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]

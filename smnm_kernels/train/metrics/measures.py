"""How well scores agree with labels.

found = measure("class", logits, targets)    # {"top1": 0.83, "mean_class": 0.81, ...}
main = MAIN["class"]                         # "top1", higher is better
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from smnm_kernels.train.data.labels import LabelKind


class Main(NamedTuple):
    """The measure by which predictors of one kind of labels are compared."""

    name: str
    higher_is_better: bool
    possible: tuple[float, float]  # lowest and highest value


MAIN: dict[LabelKind, Main] = {
    "class": Main("top1", True, (0.0, 1.0)),
    "classes": Main("mAP", True, (0.0, 1.0)),
    "number": Main("mae", False, (0.0, math.inf)),
}

#: Measures that say of what the others are, not how good: they have no interval.
COUNTS = ("classes_left_out",)


class Judged(Protocol):
    """The scores of n files beside their targets, ready to be measured many times."""

    def __len__(self) -> int: ...

    def measures(self, counts: np.ndarray | None = None) -> dict[str, float]:
        """As `measure`, where file i is there counts[i] times (int [n]; None: once each)."""


def measure(kind: LabelKind, scores: Tensor, targets: Tensor) -> dict[str, float]:
    """Measures of predictions, by their names.

    kind: of the labels.
    scores: floating [n, classes], logits or probabilities; of numbers [n].
    targets: as `Labels.targets` makes them: int64 [n], zeros and ones [n, classes], numbers [n].

    "class": `top1`; `top5`, where there are more than five classes; `mean_class`, the mean of the
        shares that are right of each class that occurs. Of equal scores the lower class counts as
        the higher one.
    "classes": `mAP`, the mean over classes of average precision (the area below the steps of
        precision over recall, as in scikit-learn), of classes that have files with and without
        them; `classes_left_out`, how many have not.
    "number": `mae`, the mean absolute error; `r2`, nan for fewer than two files or equal targets.

    Raises ValueError where shapes do not fit, nothing is to be measured or a score is not finite.
    """
    return judge(kind, scores, targets).measures()


def judge(kind: LabelKind, scores: Tensor, targets: Tensor) -> Judged:
    """What `measure` measures, for many samples of the same files. Errors as there."""
    values = scores.detach().double().cpu().numpy()
    truth = targets.detach().cpu().numpy()
    axes = 1 if kind == "number" else 2
    fits = truth.shape == (values.shape if kind == "classes" else values.shape[:1])
    if values.ndim != axes or not fits:
        raise ValueError(
            f"scores {list(values.shape)} and targets {list(truth.shape)} do not fit labels of "
            f"kind {kind!r}"
        )
    if not len(values):
        raise ValueError("there are no predictions to measure")
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    if kind == "class":
        return _OneClass(values, truth)
    if kind == "classes":
        return _SeveralClasses(values, truth > 0.5)
    return _Numbers(values, truth.astype(np.float64))


class _OneClass:
    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        self.targets, self.n_classes = targets, scores.shape[1]
        if targets.min() < 0 or targets.max() >= self.n_classes:
            raise ValueError(f"targets must be classes in [0, {self.n_classes})")
        own = scores[np.arange(len(scores)), targets][:, None]
        is_lower = np.arange(self.n_classes) < targets[:, None]
        #: How many classes stand before the true one.
        self.rank = ((scores > own) | ((scores == own) & is_lower)).sum(1)

    def __len__(self) -> int:
        return len(self.targets)

    def measures(self, counts: np.ndarray | None = None) -> dict[str, float]:
        weights = np.ones(len(self)) if counts is None else counts.astype(np.float64)
        is_first = self.rank == 0
        found = {"top1": float(np.average(is_first, weights=weights))}
        if self.n_classes > 5:
            found["top5"] = float(np.average(self.rank < 5, weights=weights))
        of_class = np.bincount(self.targets, weights, self.n_classes)
        right = np.bincount(self.targets, weights * is_first, self.n_classes)
        occurs = of_class > 0
        found["mean_class"] = float((right[occurs] / of_class[occurs]).mean())
        return found


class _SeveralClasses:
    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        self.n, self.n_classes = scores.shape
        # Of each class: files by falling score, and which of these have it; behind the last file of
        # a score equal ones are judged together.
        self.orders, self.has, self.ends = [], [], []
        for score, has in zip(scores.T, targets.T, strict=True):
            order = np.argsort(-score, kind="stable")
            score = score[order]
            is_last = np.append(score[1:] != score[:-1], True)
            places = np.flatnonzero(is_last)
            end = places[np.searchsorted(places, np.flatnonzero(has[order]))]
            self.orders.append(order)
            self.has.append(has[order])
            self.ends.append(end)

    def __len__(self) -> int:
        return self.n

    def measures(self, counts: np.ndarray | None = None) -> dict[str, float]:
        weights = np.ones(self.n) if counts is None else counts.astype(np.float64)
        found = []
        for order, has, ends in zip(self.orders, self.has, self.ends, strict=True):
            weight = weights[order]
            all_so_far = np.cumsum(weight)
            right_so_far = np.cumsum(weight * has)
            right = right_so_far[-1]
            if 0 < right < all_so_far[-1]:
                precision = right_so_far[ends] / np.maximum(all_so_far[ends], 1)
                found.append(weight[has] @ precision / right)
        mean = float(np.mean(found)) if found else float("nan")
        return {"mAP": mean, "classes_left_out": float(self.n_classes - len(found))}


class _Numbers:
    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        self.scores, self.targets = scores, targets

    def __len__(self) -> int:
        return len(self.targets)

    def measures(self, counts: np.ndarray | None = None) -> dict[str, float]:
        weights = np.ones(len(self)) if counts is None else counts.astype(np.float64)
        missed = self.scores - self.targets
        r2 = float("nan")
        if np.ptp(self.targets[weights > 0]) > 0:
            # scikit-learn's r2_score checks its arguments for longer than this takes.
            around = self.targets - np.average(self.targets, weights=weights)
            r2 = float(1 - weights @ missed**2 / (weights @ around**2))
        return {"mae": float(np.average(np.abs(missed), weights=weights)), "r2": r2}

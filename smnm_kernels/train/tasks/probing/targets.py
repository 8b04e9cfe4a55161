"""What probes are asked for, as arrays, and what they see of features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smnm_kernels.train.data.labels import LabelKind


@dataclass(frozen=True)
class Task:
    """values: int64 [n] classes ("class"), float64 [n, classes] of zeros and ones ("classes"), or
    float64 [n] numbers ("number")."""

    kind: LabelKind
    n_classes: int  # 0 of numbers


def quality(task: Task, scores: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """By which settings are compared, higher is better: accuracy, then log-likelihood; mean average
    precision, then log-likelihood; or minus the mean absolute error.

    scores: probabilities [n, classes], or numbers [n].
    """
    if task.kind == "number":
        return -float(np.abs(scores - values).mean()), 0.0
    tiny = np.finfo(np.float32).tiny
    if task.kind == "class":
        likelihood = np.log(np.maximum(scores[np.arange(len(values)), values], tiny)).mean()
        return float((scores.argmax(1) == values).mean()), float(likelihood)
    of_each = values * np.log(np.maximum(scores, tiny))
    of_each += (1 - values) * np.log(np.maximum(1 - scores, tiny))
    return _mean_average_precision(scores, values), float(of_each.mean())


def _mean_average_precision(scores: np.ndarray, values: np.ndarray) -> float:
    """Over the classes that any file has; 0 where there is none."""
    from sklearn.metrics import average_precision_score

    present = values.any(0)
    if not present.any():
        return 0.0
    return float(average_precision_score(values[:, present], scores[:, present], average="macro"))


@dataclass(frozen=True)
class Standard:
    """Features brought to mean 0 and standard deviation 1 by those of the training files."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Standard:
        scale = x.std(0)
        # One that does not vary says nothing: it becomes 0 and is not blown up.
        return cls(x.mean(0), np.where(scale > 1e-6 * np.abs(x).max(initial=1e-12), scale, 1.0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.scale

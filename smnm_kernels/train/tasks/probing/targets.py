"""What probes are asked for, as arrays, and what they see of features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from smnm_kernels.train.data.labels import LabelKind
from smnm_kernels.train.metrics.measures import MAIN, measure


@dataclass(frozen=True)
class Task:
    """values: int64 [n] classes ("class"), float64 [n, classes] of zeros and ones ("classes"), or
    float64 [n] numbers ("number")."""

    kind: LabelKind
    n_classes: int  # 0 of numbers


def quality(task: Task, scores: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """By which settings are compared, higher is better: what is reported (accuracy, mean average
    precision, minus the mean absolute error), then log-likelihood of classes.

    scores: probabilities [n, classes], or numbers [n].
    """
    main = MAIN[task.kind]
    found = measure(task.kind, torch.from_numpy(scores), torch.from_numpy(values))[main.name]
    if math.isnan(found):  # mAP of classes that all of the files have, or none
        found = 0.0
    if task.kind == "number":
        return -found, 0.0
    tiny = np.finfo(np.float32).tiny
    if task.kind == "class":
        likelihood = np.log(np.maximum(scores[np.arange(len(values)), values], tiny)).mean()
    else:
        of_each = values * np.log(np.maximum(scores, tiny))
        of_each += (1 - values) * np.log(np.maximum(1 - scores, tiny))
        likelihood = of_each.mean()
    return found, float(likelihood)


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

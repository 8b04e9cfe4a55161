"""Nearest neighbours by cosine, weighted as DINO's code does (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .targets import Standard, Task, quality

#: Numbers of neighbours that are tried.
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
_TEMPERATURE = 0.07  # DINO
_MOST_AT_ONCE = 1024  # files whose similarities to all training files are held


def knn(
    task: Task,
    x: np.ndarray,
    values: np.ndarray,
    given: np.ndarray,
    k: int,
    standard: Standard | None = None,
) -> np.ndarray:
    """Shares of the votes of the k most similar training files, [m, classes] that sum to 1 (or for
    several labels to the labels a file has); of numbers their weighted mean, [m].

    A vote weighs exp(cosine / 0.07). Features are standardised first, by themselves or as
    `standard` says: those of a vision transformer have a large part in common, beside which all
    cosines are near 1. Of equally similar files the first counts. With fewer than k training files,
    all vote.
    """
    standard = standard or Standard.of(x)
    known, asked = (_unit(standard(part)) for part in (x, given))
    votes = np.eye(task.n_classes)[values] if task.kind == "class" else values
    found = [
        _votes(asked[begin : begin + _MOST_AT_ONCE] @ known.T, votes, min(k, len(known)))
        for begin in range(0, len(asked), _MOST_AT_ONCE)
    ]
    return np.concatenate(found) if found else np.zeros((0, *votes.shape[1:]))


def _votes(similar: np.ndarray, votes: np.ndarray, k: int) -> np.ndarray:
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    cosines = np.take_along_axis(similar, nearest, axis=1)
    weights = np.exp((cosines - cosines[:, :1]) / _TEMPERATURE)
    weights /= weights.sum(1, keepdims=True)
    return np.einsum("mk,mk...->m...", weights, votes[nearest])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def choose_neighbours(
    task: Task,
    fit: tuple[np.ndarray, np.ndarray],
    choose: tuple[np.ndarray, np.ndarray],
    tried: Sequence[int] = NEIGHBOURS,
) -> int:
    """The number of neighbours that is best on `choose` among `fit`, both (features, values); of
    equals the largest. Without files to choose on, DINO's 20."""
    if len(choose[1]) == 0:
        return 20
    possible = [k for k in tried if k <= len(fit[1])] or [1]
    return max((quality(task, knn(task, *fit, choose[0], k), choose[1]), k) for k in possible)[1]

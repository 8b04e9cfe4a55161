"""Nearest neighbours by cosine, weighted as DINO's code does (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .targets import Standard, Task, quality

#: Numbers of neighbours that are tried.
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
_TEMPERATURE = 0.07  # DINO
_MOST_SIMILARITIES = 1 << 25  # float64 that are held at once


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
    nearest, cosines = neighbours(standard(x), standard(given), k)
    return _votes(task, values, nearest, cosines)


def neighbours(x: np.ndarray, given: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each of `given` [m, dim] the places of the k rows of x [n, dim] with the largest cosines,
    falling, and these: int64 and float64 [m, min(k, n)]. Of equally similar ones the first.

    Rows of a smaller k are the first columns of those of a larger one. Beside x and `given`, a
    quarter of a GiB of similarities is held three times.
    """
    known, asked = _unit(x), _unit(given)
    at_once = max(1, _MOST_SIMILARITIES // max(1, len(known)))
    k = min(k, len(known))
    places = np.empty((len(asked), k), dtype=np.int64)
    cosines = np.empty((len(asked), k))
    for begin in range(0, len(asked), at_once):
        part = slice(begin, begin + at_once)
        similar = asked[part] @ known.T
        places[part] = largest(similar, k)
        cosines[part] = np.take_along_axis(similar, places[part], axis=1)
    return places, cosines


def largest(rows: np.ndarray, k: int) -> np.ndarray:
    """int64 [m, k]: the places of the k largest of each row [m, n], falling; of equal ones the
    first."""
    least = np.partition(rows, rows.shape[1] - k, axis=1)[:, rows.shape[1] - k]
    found = np.empty((len(rows), k), dtype=np.int64)
    for number, row in enumerate(rows):
        some = np.flatnonzero(row >= least[number])  # k, and more where equals are among them
        found[number] = some[np.argsort(-row[some], kind="stable")[:k]]
    return found


def _votes(task: Task, values: np.ndarray, nearest: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    weights = np.exp((cosines - cosines[:, :1]) / _TEMPERATURE)
    weights /= weights.sum(1, keepdims=True)
    if task.kind == "class":
        shares = np.zeros((len(nearest), task.n_classes))
        for column in range(nearest.shape[1]):
            shares[np.arange(len(nearest)), values[nearest[:, column]]] += weights[:, column]
        return shares
    found = np.zeros((len(nearest), *values.shape[1:]))
    for column in range(nearest.shape[1]):
        weight = weights[:, column].reshape(-1, *[1] * (values.ndim - 1))
        found += weight * values[nearest[:, column]]
    return found


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
    (x, values), (given, expected) = fit, choose
    standard = Standard.of(x)
    nearest, cosines = neighbours(standard(x), standard(given), max(possible))
    return max(
        (quality(task, _votes(task, values, nearest[:, :k], cosines[:, :k]), expected), k)
        for k in possible
    )[1]

"""Clusters of a clip's features, and how well they are its objects."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import numpy as np

from .davis import VOID

#: clustering: as many clusters as ids, matched one to one. overclustering: three times as many,
#: each given to the id that it lies in most.
Way = Literal["clustering", "overclustering"]
TIMES: dict[Way, int] = {"clustering": 1, "overclustering": 3}
_RESTARTS, _ITERATIONS = 5, 50  # Time-Tuning's


def cluster(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k-means: float [n, dim] -> int64 [n], the best of five starts."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(k, n_init=_RESTARTS, max_iter=_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer points differ than k
        return means.fit_predict(points)


def reduced(points: np.ndarray, dims: int, seed: int) -> np.ndarray:
    """Standardised, and their first principal components: float [n, dim] -> [n, dims]."""
    from sklearn.decomposition import PCA

    points = points - points.mean(0)
    points /= np.maximum(points.std(0), 1e-6)
    return PCA(min(dims, *points.shape), random_state=seed).fit_transform(points)


def ids_in(truth: np.ndarray) -> np.ndarray:
    """The ids that a clip shows, ascending, without void."""
    found = np.unique(truth)
    return found[found != VOID]


def overlaps(clusters: np.ndarray, truth: np.ndarray, k: int, ids: np.ndarray) -> np.ndarray:
    """int64 [k, ids]: how many places that are not void lie in a cluster and an id."""
    counts = np.zeros((k, VOID + 1), dtype=np.int64)
    np.add.at(counts, (clusters.ravel(), truth.ravel()), 1)
    return counts[:, ids]


def match(counts: np.ndarray, ids: np.ndarray, way: Way) -> np.ndarray:
    """The id of each cluster, [k], from its overlaps.

    clustering: the assignment of clusters to ids that minimises the sum of 1 - IoU.
    overclustering: each cluster to the id with the highest precision, of equals the lowest one.
    What is not matched, or lies in void alone, is background: 0.
    """
    found = np.zeros(len(counts), dtype=np.int64)
    if way == "overclustering":
        some = counts.sum(1) > 0
        # Precisions of one cluster have one denominator. argmax takes the first of equals.
        found[some] = ids[counts[some].argmax(1)]
        return found
    from scipy.optimize import linear_sum_assignment

    union = counts.sum(1, keepdims=True) + counts.sum(0, keepdims=True) - counts
    rows, columns = linear_sum_assignment(1 - counts / np.maximum(union, 1))
    found[rows] = ids[columns]
    return found


def ious(predicted: np.ndarray, truth: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Of each id intersection over union, over all places that are not void: float64 [ids]."""
    scored = truth != VOID
    found = []
    for number in ids:
        is_predicted, is_there = scored & (predicted == number), truth == number
        union = (is_predicted | is_there).sum()
        found.append((is_predicted & is_there).sum() / union)
    return np.array(found)


class Segmented(NamedTuple):
    """One clip, one way."""

    predicted: np.ndarray  # uint8 [T, h, w] of ids
    ids: np.ndarray  # those that are there
    ious: np.ndarray  # of each of them

    def miou(self, background: bool) -> float:
        """The mean over the ids that are there, with or without id 0."""
        return float(self.ious[(self.ids != 0) | background].mean())


def segment_clip(points: np.ndarray, truth: np.ndarray, way: Way, seed: int) -> Segmented:
    """points: [t, h, w, dim], features of tubelets. truth: uint8 [T, h, w], T a multiple of t.

    A tubelet's cluster counts for each of its frames, so that all of the ground truth is scored.
    """
    ids = ids_in(truth)
    k = TIMES[way] * len(ids)
    t, h, w, dim = points.shape
    found = cluster(points.reshape(-1, dim), k, seed).reshape(t, h, w)
    found = np.repeat(found, len(truth) // t, axis=0)
    predicted = match(overlaps(found, truth, k, ids), ids, way)[found].astype(np.uint8)
    return Segmented(predicted, ids, ious(predicted, truth, ids))

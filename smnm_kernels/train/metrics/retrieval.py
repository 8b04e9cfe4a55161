"""Finding what belongs together: of each query the own one among all candidates.

found = ranks(sounds, videos)             # row i of both is of the same clip
recall_at(found, 10)
bootstrap(found)["median_rank"]           # intervals.bootstrap

Of candidates that are as alike as the own one any order is as likely: measures are their mean over
these orders. So embeddings that are all the same find what chance finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

#: Similarities that differ by less count as the same; rounding in sums makes them differ.
SAME = 1e-6
#: The k of recall@k that papers report.
RECALLS = (1, 5, 10)
_CELLS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Ranks:
    """Of each of n queries where its own candidate lies among all n."""

    above: np.ndarray  # int64 [n]: candidates that are more alike than the own one
    tied: np.ndarray  # int64 [n]: others that are as alike

    def __len__(self) -> int:
        return len(self.above)

    @cached_property
    def means(self) -> np.ndarray:
        """float64 [n]: the mean rank over all orders of what is tied; 1 is the first."""
        return 1 + self.above + self.tied / 2

    def measures(self, counts: np.ndarray | None = None) -> dict[str, float]:
        """recall@1, @5 and @10 of as many candidates, and the median rank, by their names; query i
        counts counts[i] times (int [n]; None: once each)."""
        weights = np.ones(len(self), np.int64) if counts is None else counts
        total = weights.sum()
        found = {name: float(weights @ inside / total) for name, inside in self._inside.items()}
        behind = weights[self._order].cumsum()
        middle = np.searchsorted(behind, [(total - 1) // 2, total // 2], side="right")
        found["median_rank"] = float(self.means[self._order[middle]].mean())
        return found

    def inside(self, k: int) -> np.ndarray:
        """float64 [n]: in which share of the orders the own one is among the k most alike ones."""
        return np.clip((k - self.above) / (self.tied + 1), 0, 1)

    # A bootstrap asks for measures thousands of times.

    @cached_property
    def _inside(self) -> dict[str, np.ndarray]:
        return {f"recall@{k}": self.inside(k) for k in RECALLS if k < len(self)}

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.means, kind="stable")


def ranks(queries: np.ndarray, candidates: np.ndarray) -> Ranks:
    """By the cosines of float [n, d] and float [n, d], of which row i is of the same thing.

    Raises ValueError where shapes differ, there are none, or a value is not finite.
    """
    if queries.ndim != 2 or queries.shape != candidates.shape or not len(queries):
        raise ValueError(
            "queries and candidates must be [n, d] of the same shape with n of 1 or more, got "
            f"{queries.shape} and {candidates.shape}"
        )
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise ValueError("queries and candidates must be finite")
    q, c = (_normalised(x.astype(np.float64)) for x in (queries, candidates))
    step = max(1, _CELLS_AT_ONCE // len(q))
    parts = []
    for begin in range(0, len(q), step):
        part = slice(begin, begin + step)
        parts.append(_ranks(q[part] @ c.T, np.einsum("nd,nd->n", q[part], c[part])))
    return Ranks(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("above", "tied")))


def ranks_of(alike: np.ndarray) -> Ranks:
    """By float [n, n], how alike query i (row) and candidate j (column) are in any measure, where i
    and i belong together."""
    return _ranks(alike, np.diagonal(alike))


def _ranks(alike: np.ndarray, own: np.ndarray) -> Ranks:
    own = own[:, None]
    return Ranks((alike > own + SAME).sum(1), (abs(alike - own) <= SAME).sum(1) - 1)


def recall_at(found: Ranks, k: int) -> float:
    """The share of queries whose own candidate is among the k most alike ones."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return float(found.inside(k).mean())


def _normalised(x: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)

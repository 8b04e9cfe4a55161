"""A set of threads of one block, as every instruction is given the ones that execute it."""

from __future__ import annotations

from functools import cached_property

import numpy as np

WARP = 32


class Threads:
    """Immutable; ``index`` holds thread numbers, ascending.

    ``key`` picks their elements from an array over all threads of the block: a slice where the
    threads are contiguous (so that picking copies nothing), else ``index``.
    """

    def __init__(self, index: np.ndarray, block_threads: int) -> None:
        self.index = index
        self.block_threads = block_threads
        self.count = len(index)
        self.full = self.count == block_threads
        contiguous = self.count > 0 and index[-1] - index[0] + 1 == self.count
        self.key = slice(int(index[0]), int(index[-1]) + 1) if contiguous else index

    @classmethod
    def all_of(cls, block_threads: int) -> Threads:
        return cls(np.arange(block_threads), block_threads)

    def where(self, chosen: np.ndarray) -> Threads:
        """``chosen`` bool [count]."""
        return Threads(self.index[chosen], self.block_threads)

    def union(self, other: Threads) -> Threads:
        """Of disjoint sets."""
        both = np.concatenate([self.index, other.index])
        both.sort()
        return Threads(both, self.block_threads)

    @cached_property
    def lane(self) -> np.ndarray:
        return self.index % WARP

    @cached_property
    def warp(self) -> np.ndarray:
        """Of each thread."""
        return self.index // WARP

    @cached_property
    def warps(self) -> np.ndarray:
        """Each once, ascending."""
        warp = self.warp
        first = np.ones(len(warp), dtype=bool)
        np.not_equal(warp[1:], warp[:-1], out=first[1:])
        return warp[first]

    @cached_property
    def warp_starts(self) -> np.ndarray:
        """Where each of ``warps`` begins in ``index``."""
        return np.searchsorted(self.warp, self.warps)

    @cached_property
    def whole_warps(self) -> bool:
        return self.count == WARP * len(self.warps)

    def __repr__(self) -> str:
        if isinstance(self.key, slice):
            return f"threads {self.key.start} to {self.key.stop - 1}"
        return f"threads {', '.join(map(str, self.index))}"

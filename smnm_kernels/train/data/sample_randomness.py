"""Random numbers that depend on (seed, sample index) and on nothing else.

Philox is counter based: any sample's numbers can be had without drawing those before it, in any
process. Only the raw 64-bit words are used, because NumPy keeps those stable from version to
version and its distributions not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# Each use has a Philox key of its own.
_ORDER, _SAMPLE, AUGMENT, ERASE, MIX, BANDS, EDGES, SOUND, DRAW, JITTER = range(10)
_MASK64 = (1 << 64) - 1


def _words(seed: int, use: int, position: int, n: int) -> np.ndarray:
    """n uint64 words of (seed, use, position)."""
    # The lowest counter word runs on as words are drawn, so the position goes into the next one.
    bits = np.random.Philox(
        key=np.array([seed & _MASK64, use], dtype=np.uint64),
        counter=np.array([0, position, 0, 0], dtype=np.uint64),
    )
    return bits.random_raw(n)


@dataclass(frozen=True)
class SampleRandomness:
    """The random numbers of sample `index`."""

    seed: int
    index: int
    use: int = _SAMPLE

    def apart(self, use: int) -> SampleRandomness:
        """Numbers of the same sample for another use, which have nothing to do with these."""
        return SampleRandomness(self.seed, self.index, use)

    def words(self, n: int) -> np.ndarray:
        """The first n of them, uint64: the same ones at every call."""
        return _words(self.seed, self.use, self.index, n)

    def uniforms(self, n: int) -> np.ndarray:
        """The first n of them, float64 in [0, 1): the same ones at every call."""
        return (self.words(n) >> np.uint64(11)) * 2.0**-53


def epoch_words(seed: int, epoch: int, n_files: int) -> np.ndarray:
    """uint64 [n_files], by which an epoch orders its files."""
    return _words(seed, _ORDER, epoch, n_files)


@lru_cache(maxsize=2)  # a batch may lie across two epochs
def _epoch_order(seed: int, epoch: int, n_files: int) -> np.ndarray:
    return np.argsort(epoch_words(seed, epoch, n_files), kind="stable")


def file_of(seed: int, index: int, n_files: int, attempt: int = 0) -> int:
    """Which file sample `index` reads: each epoch of n_files samples is one shuffled pass.

    `attempt` counts the files that failed for this sample: the next in the epoch's order steps in.
    """
    epoch, position = divmod(index, n_files)
    return int(_epoch_order(seed, epoch, n_files)[(position + attempt) % n_files])

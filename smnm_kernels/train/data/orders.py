"""Which file each sample of a run reads: pure functions of (seed, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from .sample_randomness import DRAW, SampleRandomness, epoch_words, file_of


class Order(Protocol):
    """The file of each sample of an endless stream."""

    def __len__(self) -> int:
        """How many files there are to take from."""

    def file_of(self, seed: int, index: int, attempt: int = 0) -> int:
        """The number of the file that sample `index` reads. `attempt` counts the files that failed
        for this sample: another steps in."""


@dataclass(frozen=True)
class Passes:
    """One shuffled pass over the files after the other, each file `repeats` times in a row.

    Repeated samples (Hoffer et al. 2020) are of two files in turn, so that neighbours are of
    different files: mixing takes neighbours.
    """

    numbers: Sequence[int]
    repeats: int = 1

    def __len__(self) -> int:
        return len(self.numbers)

    def file_of(self, seed: int, index: int, attempt: int = 0) -> int:
        place = 2 * (index // (2 * self.repeats)) + index % 2
        return self.numbers[file_of(seed, place, len(self.numbers), attempt)]


@dataclass(frozen=True, eq=False)
class Balanced:
    """In each epoch `draws` files without replacement, one after the other with probabilities in
    proportion to their weights (AudioMAE's sampler for AudioSet-2M).

    The files of an epoch are those with the largest log(u) / weight (Efraimidis and Spirakis 2006),
    in that order.
    """

    numbers: Sequence[int]
    weights: np.ndarray  # float64, above 0
    draws: int
    _orders: dict[tuple[int, int], np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= len(self.numbers):
            raise ValueError(
                f"draws must be from 1 to the number of files {len(self.numbers)}, got {self.draws}"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def file_of(self, seed: int, index: int, attempt: int = 0) -> int:
        epoch, position = divmod(index, self.draws)
        order = self._order(seed, epoch)
        return self.numbers[int(order[(position + attempt) % len(order)])]

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        if (seed, epoch) not in self._orders:
            if len(self._orders) == 2:  # a batch may lie across two epochs
                del self._orders[next(iter(self._orders))]
            words = epoch_words(seed, epoch, len(self.numbers))
            u = ((words >> np.uint64(11)) + 0.5) * 2.0**-53
            self._orders[seed, epoch] = np.argsort(-np.log(u) / self.weights, kind="stable")
        return self._orders[seed, epoch]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Each sample reads a file that is drawn with probability in proportion to its weight,
    whichever were drawn before (CAV-MAE's sampler, torch's WeightedRandomSampler)."""

    numbers: Sequence[int]
    weights: np.ndarray  # float64, above 0

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.weights) / self.weights.sum()

    def file_of(self, seed: int, index: int, attempt: int = 0) -> int:
        u = SampleRandomness(seed, index, DRAW).uniforms(1)[0]
        place = min(int(np.searchsorted(self._ends, u, side="right")), len(self.numbers) - 1)
        return self.numbers[(place + attempt) % len(self.numbers)]


def label_weights(labels: Sequence[Sequence[int]], n_classes: int) -> np.ndarray:
    """AudioMAE's weights of files with several labels each, float64 [n]: the sum over a file's
    labels of 1000 / (how many files have this label + 0.01).

    labels: of each file, the numbers of its classes. A file without any weighs as little as one of
    the commonest class.
    """
    counts = np.zeros(n_classes, dtype=np.int64)
    for of_file in labels:
        counts[list(of_file)] += 1
    of_label = 1000 / (counts + 0.01)
    least = 1000 / (counts.max() + 0.01)
    return np.array([of_label[list(of_file)].sum() if of_file else least for of_file in labels])

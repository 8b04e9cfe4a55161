"""Masks of two kinds, one or the other for each sample."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import torch
from torch import Tensor

from smnm_kernels.arguments import Grid, Seed
from smnm_kernels.masks import Masks

from .kind import Kind
from .noise import NoiseField

#: The seed XOR this draws which kind a sample gets: no random words of its masks.
_WHICH_SEED = 0x6A09E667F3BCC909
#: White noise of one value, uniform between -sqrt(3) and sqrt(3).
_ONE_VALUE = NoiseField((1, 1, 1), "white", ())


@dataclass(frozen=True)
class MixedKind(Kind):
    """A sample's mask is of the second kind with probability ``share``, else of the first.

    Which one follows from (seed, sample id): a sample that has the second kind at one share has it
    at every larger one. The mask is the one that its kind makes of the same seed and id. Both kinds
    are drawn for every sample, so nothing waits for the device and shapes are fixed.
    """

    first: Kind
    second: Kind
    share: float
    grid: Grid
    n_keep: int
    freq_major: bool

    @staticmethod
    def of(first: Kind, second: Kind, share: float) -> MixedKind:
        """Of two kinds on one grid that show the same number of tokens."""
        if first == second:
            raise ValueError(f"the two kinds must differ, both are {first.name} of equal settings")
        for name in ("grid", "freq_major", "n_keep"):
            one, other = getattr(first, name), getattr(second, name)
            if one != other:
                raise ValueError(
                    f"{name} must be the same for both kinds, got {one} of {first.name} and "
                    f"{other} of {second.name}" + _how_to_have_as_many(name)
                )
        looking = [kind for kind in (first, second) if kind.needs_data]
        if len({kind.of_features for kind in looking}) == 2:
            raise ValueError(
                f"of {first.name} and {second.name}, one looks at the input and the other at "
                "features of it; give kinds that look at the same"
            )
        if isinstance(share, bool) or not isinstance(share, numbers.Real):
            raise TypeError(f"share must be a number in [0, 1], got {share!r}")
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share!r}")
        return MixedKind(first, second, float(share), second.grid, second.n_keep, second.freq_major)

    @property
    def name(self) -> str:
        return f"{self.first.name} and {self.second.name}"

    @property
    def repeats_over_time(self) -> bool:
        return self.first.repeats_over_time and self.second.repeats_over_time

    # Other kinds know these without an instance.
    @property
    def needs_data(self) -> bool:  # type: ignore[override]
        return self.first.needs_data or self.second.needs_data

    @property
    def of_features(self) -> bool:  # type: ignore[override]
        return self.first.of_features or self.second.of_features

    @property
    def ignores_data(self) -> bool:
        shares = ((self.first, 1 - self.share), (self.second, self.share))
        return all(kind.ignores_data for kind, share in shares if share)

    @property
    def takes_valid(self) -> bool:  # type: ignore[override]
        return self.first.takes_valid and self.second.takes_valid

    def takes_second(self, sample_ids: Tensor, seed: Seed) -> Tensor:
        """bool [B]."""
        value = _ONE_VALUE.draw(sample_ids, seed ^ _WHICH_SEED).flatten()
        return value < (2 * self.share - 1) * math.sqrt(3)

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        first, second = (
            kind._draw_row_major(sample_ids, seed, data if kind.needs_data else None, valid)
            for kind in (self.first, self.second)
        )
        which = self.takes_second(sample_ids, seed)[:, None]
        return Masks(
            *(torch.where(which, two, one) for one, two in zip(first, second, strict=True))
        )


def _how_to_have_as_many(name: str) -> str:
    return "; give n_keep, a multiple of the frames" if name == "n_keep" else ""

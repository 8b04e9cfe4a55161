"""Bands of time and of frequency, as SpecAugment masks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smnm_kernels.arguments import Grid, as_constant, is_int
from smnm_kernels.tables.constants import N_BANDS

from .structures import StructureKind, parse_spectrogram

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class BandsKind(StructureKind):
    """Bands of time and of frequency are masked one after the other until enough is masked
    (SpecAugment, Park et al., 2019, whose bands are as wide in patches as time_width and freq_width
    allow).

    Each band is drawn anew: its width evenly from 1 to the largest, its place evenly from those
    where it lies in the grid. Our choice, so that counts are exact: bands are drawn in rounds of
    ``time_bands`` and ``freq_bands``, in turns, as many rounds as it takes, but 64 bands at most.
    Of the last band as many patches as are too many stay visible, at random; if all bands together
    mask too few, other patches are masked at random.
    """

    #: Bands of a round; one of them may be 0.
    time_bands: int
    freq_bands: int
    #: The largest widths, in patches.
    time_width: int
    freq_width: int

    @classmethod
    def parse(
        cls,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        time_bands: int = 2,
        freq_bands: int = 2,
        time_width: int | None = None,
        freq_width: int | None = None,
        freq_major: bool = False,
    ) -> Self:
        """The widths are by default 3/16 of T and 3/8 of F, rounded up: those that AST and AudioMAE
        fine-tune with, 192 of 1024 frames and 48 of 128 mel bands."""
        common = cls._parse_common(grid, mask_ratio, n_keep, freq_major)
        _, height, width = common["grid"]
        n_time = _count("time_bands", as_constant(time_bands))
        n_freq = _count("freq_bands", as_constant(freq_bands))
        if n_time + n_freq == 0:
            raise ValueError("time_bands and freq_bands must not both be 0")
        return cls(
            **common,
            time_bands=n_time,
            freq_bands=n_freq,
            time_width=_width("time_width", time_width, height, -(-3 * height // 16)),
            freq_width=_width("freq_width", freq_width, width, -(-3 * width // 8)),
        )

    @classmethod
    def _parse_sides(cls, grid: Sequence[int]) -> Grid:
        return parse_spectrogram("bands", grid)

    @property
    def name(self) -> str:
        return "bands"

    @property
    def parameters(self) -> tuple[int, ...]:
        return self.time_bands, self.freq_bands, self.time_width, self.freq_width


def _count(name: str, count: int) -> int:
    if not is_int(count) or not 0 <= count <= N_BANDS:
        raise ValueError(f"{name} must be an int in [0, {N_BANDS}], got {count!r}")
    return int(count)


def _width(name: str, width: int | None, side: int, default: int) -> int:
    width = as_constant(width)
    if width is None:
        return default
    if not is_int(width) or not 1 <= width <= side:
        raise ValueError(f"{name} must be an int in [1, {side}] for this grid, got {width!r}")
    return int(width)

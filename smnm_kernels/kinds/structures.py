"""Masks of simple structures: grid, block, inverse block, time-frequency, frames, running cell.

Each structure gives every place a whole number, its mark; of equal marks, random words decide, and
the tokens with the n_keep largest are visible. So counts are exact: where the structure leaves too
many patches visible, some are masked at random, and where it leaves too few, others are added at
random. ``reference.structures`` is the definition.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import (
    Grid,
    Seed,
    as_constant,
    is_int,
    parse_flag,
    parse_grid,
    parse_n_keep,
)
from smnm_kernels.masks import Masks

from .kind import Kind

if TYPE_CHECKING:
    from typing_extensions import Self

#: Default side of an inverse block, in patches.
BLOCK_SIZE = 5


@dataclass(frozen=True)
class StructureKind(Kind):
    """Masks of one structure, ``name``. Most are one (1, H, W) mask, repeated over T."""

    grid: Grid
    n_keep: int
    freq_major: bool
    #: The op's arguments that follow those of ``draw``, put together once.
    op_arguments: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        arguments = (self.grid, self.name, self.parameters, self.n_keep)
        object.__setattr__(self, "op_arguments", arguments)

    @classmethod
    def parse(
        cls,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        freq_major: bool = False,
    ) -> Self:
        """From the arguments of ``smnm_kernels.baseline_masks``."""
        return cls(**cls._parse_common(grid, mask_ratio, n_keep, freq_major))

    @classmethod
    def _parse_common(
        cls,
        grid: Sequence[int],
        mask_ratio: float | None,
        n_keep: int | None,
        freq_major: bool,
    ) -> dict[str, Any]:
        """The fields that all structures have."""
        sides = cls._parse_sides(as_constant(grid))
        parse_flag("freq_major", freq_major)
        frames = sides[0] if cls._repeats_over_time else 1
        count = parse_n_keep(math.prod(sides), mask_ratio, as_constant(n_keep), frames=frames)
        return {"grid": sides, "n_keep": count, "freq_major": freq_major}

    @classmethod
    def _parse_sides(cls, grid: Sequence[int]) -> Grid:
        return parse_grid(grid)

    _repeats_over_time = True

    @property
    def repeats_over_time(self) -> bool:
        return self._repeats_over_time

    @property
    @abstractmethod
    def parameters(self) -> tuple[int, ...]:
        """Those of ``ops.structure_masks``."""

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        arguments = as_constant(self.op_arguments)
        return Masks(*ops.structure_masks(sample_ids, *seed, valid, *arguments))


@dataclass(frozen=True)
class LatticeKind(StructureKind):
    """Kind "grid": every s-th patch of every s-th row, s = floor(sqrt(H * W / visible in a frame)),
    at a random offset (MAE's grid-wise sampling)."""

    @property
    def name(self) -> str:
        return "grid"

    @property
    def parameters(self) -> tuple[int, ...]:
        """(period along H, period along W)."""
        frames, height, width = self.grid
        period = math.isqrt(height * width // (self.n_keep // frames))
        return min(period, height), min(period, width)


@dataclass(frozen=True)
class BlockKind(StructureKind):
    """Rectangles of a quarter to a half of each side, masked one after the other until enough is
    masked (BEiT's and MAE's block-wise masking, in integers)."""

    @property
    def name(self) -> str:
        return "block"

    @property
    def parameters(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class InverseBlockKind(StructureKind):
    """Square blocks round random centres are visible (data2vec 2.0; as there, blocks are drawn for
    a share of the patches that is 0.07 larger than needed). At least one block, where data2vec's
    count would be none, as on small grids: our choice."""

    #: Side of a block, in patches.
    block_size: int

    @classmethod
    def parse(
        cls,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        block_size: int = BLOCK_SIZE,
        freq_major: bool = False,
    ) -> Self:
        size = check_block_size(as_constant(block_size))
        return cls(**cls._parse_common(grid, mask_ratio, n_keep, freq_major), block_size=size)

    @property
    def name(self) -> str:
        return "inverse_block"

    @property
    def parameters(self) -> tuple[int, ...]:
        """(block_size, how many blocks are drawn)."""
        frames, height, width = self.grid
        wanted = 100 * (self.n_keep // frames) + 7 * height * width
        # A larger block covers all of the grid, too.
        size = min(self.block_size, 2 * max(height, width))
        return size, max(1, wanted // (100 * self.block_size**2))


@dataclass(frozen=True)
class TimeFrequencyKind(StructureKind):
    """Whole columns of time and bands of mel are masked, the same share of each (AudioMAE's
    fine-tuning)."""

    @classmethod
    def _parse_sides(cls, grid: Sequence[int]) -> Grid:
        return parse_spectrogram("time_frequency", grid)

    @property
    def name(self) -> str:
        return "time_frequency"

    @property
    def parameters(self) -> tuple[int, ...]:
        """(rows, columns) that are not masked."""
        _, height, width = self.grid
        n_tokens = height * width
        return _kept_lines(height, self.n_keep, n_tokens), _kept_lines(width, self.n_keep, n_tokens)


@dataclass(frozen=True)
class FramesKind(StructureKind):
    """Whole frames are masked, those of one random order. If ``n_keep`` is not a multiple of H * W,
    patches of one frame are visible at random. A grid with T = 1 is a spectrogram: its frames are
    the H steps of time (on an image, the rows)."""

    _repeats_over_time = False

    @property
    def name(self) -> str:
        return "frames"

    @property
    def parameters(self) -> tuple[int, ...]:
        """(how many frames are visible as a whole,)."""
        frames, height, width = self.grid
        return (self.n_keep // (height * width if frames > 1 else width),)


@dataclass(frozen=True)
class RunningCellKind(StructureKind):
    """The four patches of each 2x2 cell are visible in turn, so that at ratio 0.5 two are visible
    in a frame, one of them in the next frame, too, and every place is visible in two frames of four
    (VideoMAE V2's masks for its decoder). At other ratios, patches whose turn is next are visible
    in part, at random; the grid may have odd sides.

    VideoMAE V2 restores only those of the masked tokens that such a mask shows. ``valid`` makes
    their number exact::

        masks = smnm.noise_masks(ids, grid, "white", 0.9, tube=True)     # what the encoder sees
        restored = smnm.baseline_masks(
            ids, grid, "running_cell", n_keep=784, valid=masks.masked
        )
        target = patches.gather(1, restored.ids_keep[..., None].expand(-1, -1, patches.shape[2]))
    """

    _repeats_over_time = False

    @property
    def name(self) -> str:
        return "running_cell"

    @property
    def parameters(self) -> tuple[int, ...]:
        return ()


def parse_spectrogram(kind: str, grid: Sequence[int]) -> Grid:
    """(1, T, F)."""
    sides = parse_grid(grid)
    if sides[0] != 1:
        raise ValueError(f"grid for {kind} masks must be (1, T, F), got {sides}")
    return sides


def check_block_size(block_size: int) -> int:
    if not is_int(block_size) or block_size < 1:
        raise ValueError(f"block_size must be a positive int, got {block_size!r}")
    return int(block_size)


def _kept_lines(side: int, n_keep: int, n_tokens: int) -> int:
    """Rows (or columns) that stay visible: the least a with a / side >= sqrt(n_keep / n_tokens)."""
    a = math.isqrt(side * side * n_keep // n_tokens)
    return a if a * a * n_tokens >= side * side * n_keep else a + 1

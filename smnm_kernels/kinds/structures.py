"""The masks that structured noise is compared with: grid, block, inverse block, time-frequency.

Each kind gives every patch a mark by its structure and adds white noise to the marks; the n_keep
largest sums are visible. So counts are exact: where the structure leaves too many patches visible,
some are masked at random, and where it leaves too few, others are added at random.
``reference.baseline_masks`` is the definition.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
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
from smnm_kernels.masks import Masks, masks_of_visible
from smnm_kernels.tables.constants import (
    EXACT_WHITE_SCALE,
    N_BLOCKS,
    STRUCTURE_SEED,
    WHITE_BITS,
)

from .kind import Kind

if TYPE_CHECKING:
    from typing_extensions import Self

#: n -> float32 [B, n]: white noise that only the structure uses.
DrawWhite = Callable[[int], Tensor]

#: Default side of an inverse block, in patches.
BLOCK_SIZE = 5


@dataclass(frozen=True)
class StructureKind(Kind):
    """One (1, H, W) mask of a structure, repeated over T."""

    grid: Grid
    n_keep: int
    freq_major: bool

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
        count = parse_n_keep(math.prod(sides), mask_ratio, as_constant(n_keep), frames=sides[0])
        return {"grid": sides, "n_keep": count, "freq_major": freq_major}

    @classmethod
    def _parse_sides(cls, grid: Sequence[int]) -> Grid:
        return parse_grid(grid)

    @property
    def repeats_over_time(self) -> bool:
        return True

    @abstractmethod
    def marks(self, draw_white: DrawWhite, height: int, width: int, in_frame: int) -> Tensor:
        """float64 [B, H, W], whole numbers: patches with larger ones are visible first.

        Args:
            in_frame: visible patches of a frame.
        """

    def _draw_row_major(self, sample_ids: Tensor, seed: Seed, data: Tensor | None) -> Masks:
        frames, height, width = as_constant(self.grid)
        n_keep = as_constant(self.n_keep)
        structure_seed = seed ^ STRUCTURE_SEED

        def draw_white(n: int) -> Tensor:
            return ops.noise(sample_ids, *structure_seed, (1, 1, n), "white", ()).flatten(1)

        marks = self.marks(draw_white, height, width, n_keep // frames)
        white = ops.noise(sample_ids, *seed, (1, height, width), "white", ())
        # Whole numbers and noise below 2 in magnitude: float64 holds the sum exactly.
        priority = (4 * marks + white[:, 0].double()).flatten(1)
        in_frame = Masks(*ops.threshold(priority, n_keep // frames))
        if frames == 1:
            return in_frame
        return masks_of_visible(in_frame.visible.repeat(1, frames), n_keep)


@dataclass(frozen=True)
class LatticeKind(StructureKind):
    """Kind "grid": every s-th patch of every s-th row, s = floor(sqrt(H * W / visible in a frame)),
    at a random offset (MAE's grid-wise sampling)."""

    @property
    def name(self) -> str:
        return "grid"

    def marks(self, draw_white: DrawWhite, height: int, width: int, in_frame: int) -> Tensor:
        period = math.isqrt(height * width // in_frame)
        period_y, period_x = min(period, height), min(period, width)
        offsets = draw_white(2)
        y = torch.arange(height, device=offsets.device) - _uniform(offsets[:, :1], period_y)
        x = torch.arange(width, device=offsets.device) - _uniform(offsets[:, 1:], period_x)
        return ((y % period_y == 0)[:, :, None] & (x % period_x == 0)[:, None, :]).double()


@dataclass(frozen=True)
class BlockKind(StructureKind):
    """Rectangles of a quarter to a half of each side, masked one after the other until enough is
    masked (BEiT's and MAE's block-wise masking, in integers)."""

    @property
    def name(self) -> str:
        return "block"

    def marks(self, draw_white: DrawWhite, height: int, width: int, in_frame: int) -> Tensor:
        """For each patch, how many blocks are drawn before the first one that covers it."""
        noise = draw_white(4 * N_BLOCKS)
        inside = []
        for side, part in ((height, noise[:, : 2 * N_BLOCKS]), (width, noise[:, 2 * N_BLOCKS :])):
            least, most = -(-side // 4), -(-side // 2)
            length = least + _uniform(part[:, :N_BLOCKS], most - least + 1)
            start = _uniform(part[:, N_BLOCKS:], side - length + 1)
            place = torch.arange(side, device=noise.device)
            inside.append((place >= start[:, :, None]) & (place < (start + length)[:, :, None]))
        covered = inside[0][:, :, :, None] & inside[1][:, :, None, :]
        number = torch.arange(N_BLOCKS, device=noise.device)[:, None, None]
        return torch.where(covered, number, N_BLOCKS).amin(1).double()


@dataclass(frozen=True)
class InverseBlockKind(StructureKind):
    """Square blocks round random centres are visible (data2vec 2.0; as there, blocks are drawn for
    a share of the patches that is 0.07 larger than needed)."""

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

    def marks(self, draw_white: DrawWhite, height: int, width: int, in_frame: int) -> Tensor:
        size = as_constant(self.block_size)
        n_centres = max(1, (100 * in_frame + 7 * height * width) // (100 * size**2))
        centre = _uniform(draw_white(n_centres), height * width)
        around = torch.arange(size, device=centre.device) - size // 2
        y = (centre[:, :, None, None] // width + around[:, None]).clamp(0, height - 1)
        x = (centre[:, :, None, None] % width + around).clamp(0, width - 1)
        marks = torch.zeros(len(centre), height * width, dtype=torch.float64, device=centre.device)
        return marks.scatter(1, (y * width + x).flatten(1), 1.0).unflatten(1, (height, width))


@dataclass(frozen=True)
class TimeFrequencyKind(StructureKind):
    """Whole columns of time and bands of mel are masked, the same share of each (AudioMAE's
    fine-tuning)."""

    @classmethod
    def _parse_sides(cls, grid: Sequence[int]) -> Grid:
        sides = super()._parse_sides(grid)
        if sides[0] != 1:
            raise ValueError(f"grid for time_frequency masks must be (1, T, F), got {sides}")
        return sides

    @property
    def name(self) -> str:
        return "time_frequency"

    def marks(self, draw_white: DrawWhite, height: int, width: int, in_frame: int) -> Tensor:
        n_rows = _kept_lines(height, in_frame, height * width)
        n_columns = _kept_lines(width, in_frame, height * width)
        noise = draw_white(height + width)
        row, *_ = ops.threshold(noise[:, :height], n_rows)
        column, *_ = ops.threshold(noise[:, height:], n_columns)
        return (row[:, :, None] & column[:, None, :]).double()


#: The kinds of ``baseline_masks``.
BASELINES: dict[str, Callable[..., StructureKind]] = {
    "grid": LatticeKind.parse,
    "block": BlockKind.parse,
    "inverse_block": InverseBlockKind.parse,
    "time_frequency": TimeFrequencyKind.parse,
}


def parse_baseline(
    kind: str,
    grid: Sequence[int],
    mask_ratio: float | None,
    n_keep: int | None,
    block_size: int,
    freq_major: bool,
) -> StructureKind:
    """From the arguments of ``smnm_kernels.baseline_masks``, which are the same for all kinds:
    ``block_size`` is checked for all and used by "inverse_block" alone."""
    if not isinstance(kind, str) or kind not in BASELINES:
        raise ValueError(f"kind must be one of {', '.join(BASELINES)}, got {kind!r}")
    block_size = check_block_size(block_size)
    more: dict[str, int] = {"block_size": block_size} if kind == "inverse_block" else {}
    return BASELINES[kind](grid, mask_ratio, n_keep=n_keep, freq_major=freq_major, **more)


def check_block_size(block_size: int) -> int:
    if not is_int(block_size) or block_size < 1:
        raise ValueError(f"block_size must be a positive int, got {block_size!r}")
    return int(block_size)


def _kept_lines(side: int, n_keep: int, n_tokens: int) -> int:
    """Rows (or columns) that stay visible: the least a with a / side >= sqrt(n_keep / n_tokens)."""
    a = math.isqrt(side * side * n_keep // n_tokens)
    return a if a * a * n_tokens >= side * side * n_keep else a + 1


def _uniform(white: Tensor, n: int | Tensor) -> Tensor:
    """int64 in [0, n), from the 22 random bits of each value of white noise."""
    # Before the floor, values lie half way between two integers: float32's rounding of the noise
    # cannot move one past an integer.
    bits = ((white.double() / EXACT_WHITE_SCALE + 2**WHITE_BITS) / 2).floor().long()
    return bits * n >> WHITE_BITS

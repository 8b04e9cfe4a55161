"""Target blocks and the context outside them, as I-JEPA and V-JEPA mask."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree

from smnm_kernels import ops
from smnm_kernels.arguments import (
    Seed,
    as_constant,
    constant_in_graphs,
    decimal_as_written,
    is_int,
    is_sequence,
)
from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import MAX_TARGET_BLOCKS

from .structures import StructureKind

if TYPE_CHECKING:
    from typing_extensions import Self

#: A number, or a (low, high) range that each sample draws its own from.
Range = float | Sequence[float]
#: Of rows per column. Aspect ratios are rounded to thousandths.
MIN_ASPECT, MAX_ASPECT = Fraction(1, 100), 100


class Blocks(NamedTuple):
    """Settings of ``multi_block_masks``."""

    n_blocks: int
    scale: Range
    aspect: Range
    context_scale: Range


#: Those of I-JEPA, and of V-JEPA's masks of short and of long range.
PRESETS = {
    "i-jepa": Blocks(4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0)),
    "v-jepa-short": Blocks(8, 0.15, (0.75, 1.5), 1.0),
    "v-jepa-long": Blocks(2, 0.7, (0.75, 1.5), 1.0),
}


class MultiBlockMasks(NamedTuple):
    """The context of each sample, as ``Masks`` has it, and the targets of each of its blocks."""

    #: bool [B, N], True = visible (context).
    visible: Tensor
    #: int64 [B, n_keep], indices of the visible tokens, ascending.
    ids_keep: Tensor
    #: int64 [B, N], as that of ``Masks``.
    ids_restore: Tensor
    #: int64 [B, n_blocks, n_target], indices of the targets, ascending in each block. Blocks may
    #: overlap.
    ids_target: Tensor

    @property
    def masks(self) -> Masks:
        """The context alone."""
        return Masks(self.visible, self.ids_keep, self.ids_restore)

    @property
    def jepa(self) -> tuple[list[Tensor], list[Tensor]]:
        """([context], [target, ...]), int64 [B, n_keep] and [B, n_target] for each block: I-JEPA's
        lists of index tensors."""
        return [self.ids_keep], list(self.ids_target.unbind(1))


@dataclass(frozen=True)
class MultiBlockKind(StructureKind):
    """The context outside of several target blocks (see ``smnm_kernels.multi_block_masks``)."""

    #: Target blocks.
    n_blocks: int
    #: (least, most) patches of a target block in a frame, the least of which are targets.
    area: tuple[int, int]
    #: (least, most) rows for a thousand columns of a target block.
    aspect: tuple[int, int]
    #: (least, most) patches of the context block in a frame.
    context_area: tuple[int, int]

    @classmethod
    def parse(
        cls,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        preset: str = "i-jepa",
        n_blocks: int | None = None,
        scale: Range | None = None,
        aspect: Range | None = None,
        context_scale: Range | None = None,
        freq_major: bool = False,
    ) -> Self:
        """From the arguments of ``smnm_kernels.multi_block_masks``."""
        common = cls._parse_common(grid, mask_ratio, n_keep, freq_major)
        in_frame = math.prod(common["grid"][1:])
        blocks = parse_blocks(*as_constant((preset, n_blocks, scale, aspect, context_scale)))
        return cls(
            **common,
            n_blocks=blocks.n_blocks,
            area=areas("scale", blocks.scale, in_frame),
            aspect=_aspects(as_constant(blocks.aspect)),
            context_area=areas("context_scale", blocks.context_scale, in_frame),
        )

    @property
    def name(self) -> str:
        return "multi_block"

    @property
    def parameters(self) -> tuple[int, ...]:
        return (self.n_blocks, *self.area, *self.aspect, *self.context_area)

    @property
    def n_target(self) -> int:
        """Targets of each block."""
        return self.grid[0] * self.area[0]

    def draw_with_targets(
        self, sample_ids: Tensor, seed: Seed, valid: Tensor | None = None
    ) -> MultiBlockMasks:
        """See ``smnm_kernels.multi_block_masks``."""
        context = self.draw(sample_ids, seed, valid=valid)
        return MultiBlockMasks(*context, self.in_order(self._targets(sample_ids, seed)))

    def _targets(self, sample_ids: Tensor, seed: Seed) -> Tensor:
        """Tokens are counted row-major."""
        grid, n_target = as_constant(self.grid), as_constant(self.n_target)
        drawn = [
            ops.structure_masks(
                *(sample_ids, *seed, None, grid, "target_block"),
                *((block, *as_constant((*self.area, *self.aspect))), n_target),
            )[1]
            for block in range(as_constant(self.n_blocks))
        ]
        return torch.stack(drawn, 1)

    def in_order(self, ids: Tensor) -> Tensor:
        """Row-major indices in the order of ``in_token_order``."""
        if not self.freq_major:
            return ids
        _, height, width = as_constant(self.grid)
        frame, place = ids // (height * width), ids % (height * width)
        moved = frame * (height * width) + place % width * height + place // width
        return moved.sort(2).values


def parse_blocks(
    preset: str,
    n_blocks: int | None,
    scale: Range | None,
    aspect: Range | None,
    context_scale: Range | None,
) -> Blocks:
    """The preset's settings, and those that were given in their place."""
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    given = {
        "n_blocks": n_blocks,
        "scale": scale,
        "aspect": aspect,
        "context_scale": context_scale,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    blocks = PRESETS[preset]._replace(**changed)  # type: ignore[arg-type]
    if not is_int(blocks.n_blocks) or not 1 <= blocks.n_blocks <= MAX_TARGET_BLOCKS:
        raise ValueError(
            f"n_blocks must be an int in [1, {MAX_TARGET_BLOCKS}], got {blocks.n_blocks!r}"
        )
    return blocks


def areas(name: str, scale: Range, in_frame: int) -> tuple[int, int]:
    """(least, most) patches: floor(share * H * W) of the decimals as written, at least 1."""
    shares = _parse_range(name, as_constant(scale), "(0, 1]", 0, 1)
    low, high = (max(1, in_frame * share // out_of) for share, out_of in shares)
    return low, high


@constant_in_graphs
def _aspects(aspect: Range) -> tuple[int, int]:
    """(least, most), in thousandths."""
    allowed = f"[{float(MIN_ASPECT)}, {MAX_ASPECT}]"
    parts = _parse_range("aspect", aspect, allowed, MIN_ASPECT, MAX_ASPECT)
    low, high = ((2000 * part + out_of) // (2 * out_of) for part, out_of in parts)
    return low, high


@constant_in_graphs
def _parse_range(
    name: str, value: Range, allowed: str, above: Fraction | int, most: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(numerator, denominator) of both ends."""
    complaint = f"{name} must be a number in {allowed} or a (low, high) range of two, got {value!r}"
    pair = tuple(value) if is_sequence(value) else (value, value)
    if len(pair) != 2 or not all(map(_is_number, pair)):
        raise TypeError(complaint)
    try:
        low, high = (decimal_as_written(end) for end in pair)
    except ValueError:  # nan, inf
        raise ValueError(complaint) from None
    if not (above <= low <= high <= most) or low == 0:
        raise ValueError(complaint)
    return low.as_integer_ratio(), high.as_integer_ratio()


def _is_number(value: object) -> bool:
    return isinstance(value, (numbers.Real, Decimal)) and not isinstance(value, bool)


_pytree._register_namedtuple(MultiBlockMasks, serialized_type_name="smnm_kernels.MultiBlockMasks")

"""Motion-guided masks of video: what changes from frame to frame is masked.

``reference.patch_motion`` is the definition of the scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import Grid, Seed, as_constant, parse_flag, parse_grid, parse_n_keep
from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import MOTION_BITS, MOTION_LIMIT

from .kind import Kind
from .weighted import parse_guide, parse_hint, patch_on_grid


@dataclass(frozen=True)
class MotionKind(Kind):
    """``guided_masks`` with the scores of ``patch_motion``: what moves is masked."""

    grid: Grid
    n_keep: int
    freq_major: bool
    #: Those of ``parse_guide``.
    rule: str
    factor: float
    #: Tokens that are swapped.
    n_swapped: int
    needs_data: ClassVar[bool] = True

    @staticmethod
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        masked: str = "highest",
        temperature: float = 0.0,
        hint_ratio: float = 0.0,
        freq_major: bool = False,
    ) -> MotionKind:
        """The parameters are those of ``smnm_kernels.guided_masks``."""
        sides = parse_grid(as_constant(grid))
        n_tokens = math.prod(sides)
        count = parse_n_keep(n_tokens, mask_ratio, as_constant(n_keep))
        rule, factor = parse_guide(masked, temperature)
        n_swapped = parse_hint(hint_ratio, n_tokens - count)
        parse_flag("freq_major", freq_major)
        return MotionKind(sides, count, freq_major, rule, factor, n_swapped)

    @property
    def name(self) -> str:
        return "motion"

    @property
    def repeats_over_time(self) -> bool:
        return False

    def _draw_row_major(self, sample_ids: Tensor, seed: Seed, data: Tensor | None) -> Masks:
        return self._draw(sample_ids, seed, data, None)

    def _draw_valid(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor
    ) -> Masks:
        return self._draw(sample_ids, seed, data, valid)

    def _draw(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        assert data is not None
        scores = motion(data, patch_on_grid(data, self.grid)) * as_constant(self.factor)
        n_keep, n_swapped = as_constant(self.n_keep), as_constant(self.n_swapped)
        return Masks(
            *ops.draw_masks(sample_ids, *seed, scores, self.rule, n_keep, False, n_swapped, valid)
        )


def motion(data: Tensor, patch: Grid) -> Tensor:
    """float32 [B, N]: what ``smnm_kernels.patch_motion`` returns, of checked arguments."""
    if data.shape[2] < 2:
        raise ValueError(f"data must have at least two frames, got shape {list(data.shape)}")
    t, h, w = patch
    values = data.detach().float().nan_to_num(-MOTION_LIMIT).clamp(-MOTION_LIMIT, MOTION_LIMIT)
    # Sums of whole numbers are the same in any order.
    whole = (values * 2**MOTION_BITS).floor().long()
    steps = (whole[:, :, 1:] - whole[:, :, :-1]).abs().sum(1)
    by_frame = torch.cat([steps[:, :1], steps], 1) + torch.cat([steps, steps[:, -1:]], 1)
    by_patch = by_frame.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, t))
    return by_patch.sum((2, 4, 6)).float().flatten(1)

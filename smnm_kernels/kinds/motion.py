"""Motion-guided masks of video: what changes from frame to frame is masked.

``reference.patch_motion`` is the definition of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smnm_kernels.arguments import Grid
from smnm_kernels.tables.constants import MOTION_BITS, MOTION_LIMIT

from .weighted import WeightedKind


@dataclass(frozen=True)
class MotionKind(WeightedKind):
    """What changes from frame to frame is masked, in proportion to ``patch_motion``."""

    @staticmethod
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        hint_ratio: float = 0.0,
        deterministic: bool = False,
        freq_major: bool = False,
    ) -> MotionKind:
        """The parameters are those of ``smnm_kernels.dispersion_masks``."""
        common = WeightedKind._parse_common(
            grid, mask_ratio, n_keep, hint_ratio, deterministic, freq_major
        )
        return MotionKind(**common)

    @property
    def name(self) -> str:
        return "motion"

    def weights(self, data: Tensor, patch: Grid) -> Tensor:
        return motion(data, patch)


def motion(data: Tensor, patch: Grid) -> Tensor:
    """float32 [B, N]: what ``smnm_kernels.patch_motion`` returns, of checked arguments."""
    if data.shape[2] < 2:
        raise ValueError(f"data must have at least two frames, got shape {list(data.shape)}")
    t, h, w = patch
    # One piece of memory of the input's size, and one for the differences.
    whole = data.detach().float().nan_to_num(-MOTION_LIMIT)
    whole = whole.clamp_(-MOTION_LIMIT, MOTION_LIMIT).mul_(2**MOTION_BITS).floor_()
    # Whole numbers below 2**24 and their differences are exact in float32, and sums of fewer than
    # 2**29 of them in float64: in any order.
    steps = whole[:, :, 1:].sub(whole[:, :, :-1]).abs_()
    sums = steps.unflatten(4, (-1, w)).unflatten(3, (-1, h)).sum((1, 4, 6), dtype=torch.float64)
    by_frame = torch.cat([sums[:, :1], sums], 1) + torch.cat([sums, sums[:, -1:]], 1)
    return by_frame.unflatten(1, (-1, t)).sum(2).float().flatten(1)

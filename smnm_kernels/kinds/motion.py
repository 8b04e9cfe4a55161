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
    values = data.detach().float().nan_to_num(-MOTION_LIMIT).clamp(-MOTION_LIMIT, MOTION_LIMIT)
    # Sums of whole numbers are the same in any order.
    whole = (values * 2**MOTION_BITS).floor().long()
    steps = (whole[:, :, 1:] - whole[:, :, :-1]).abs().sum(1)
    by_frame = torch.cat([steps[:, :1], steps], 1) + torch.cat([steps, steps[:, -1:]], 1)
    by_patch = by_frame.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, t))
    return by_patch.sum((2, 4, 6)).float().flatten(1)

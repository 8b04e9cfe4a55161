"""How much the frames of a clip differ within each patch, in loops."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.arguments import Grid
from smnm_kernels.tables.constants import MOTION_BITS, MOTION_LIMIT


def patch_motion(data: Tensor, patch: Grid) -> Tensor:
    """float32 [B, N] from ``data`` [B, C, T, H, W]."""
    t, h, w = patch
    frames, height, width = data.shape[2:]
    rows = []
    for sample in data.float().tolist():
        whole = [
            [[[_whole(value) for value in row] for row in frame] for frame in channel]
            for channel in sample
        ]

        def step(earlier: int, y: int, x: int, whole: list = whole) -> int:
            return sum(abs(c[earlier + 1][y][x] - c[earlier][y][x]) for c in whole)

        scores = np.zeros((frames // t, height // h, width // w), dtype=np.int64)
        for z, y, x in np.ndindex(frames, height, width):
            # The first and the last frame have one neighbour, which counts twice.
            before, after = max(z - 1, 0), min(z, frames - 2)
            scores[z // t, y // h, x // w] += step(before, y, x) + step(after, y, x)
        rows.append(scores.ravel())
    shape = (len(data), frames // t * (height // h) * (width // w))
    return torch.from_numpy(np.array(rows, dtype=np.int64).reshape(shape).astype(np.float32))


def _whole(value: float) -> int:
    inside = -MOTION_LIMIT if math.isnan(value) else min(max(value, -MOTION_LIMIT), MOTION_LIMIT)
    return math.floor(inside * 2**MOTION_BITS)

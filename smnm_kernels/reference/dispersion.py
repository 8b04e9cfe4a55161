"""How much the values of each patch differ: the weights of dispersion-weighted masking.

Values become integers, multiples of a power of two, rounded down and clamped. From there on nothing
is rounded before the last step, so that the order of sums does not matter:

    mad:       the sum of |n * x_i - S| over a patch of n values x_i whose sum is S, halved
    variance:  the sum of (x_i - m)**2, m being S / n rounded down

They are the mean absolute deviation and the variance, times a number that is the same for all
patches. The first is computed as n * A - c * S from the sum A and the number c of the values above
the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.tables.constants import (
    DEVIATION_UNIT_BITS,
    MAX_VALUE_BITS,
    VARIANCE_UNIT_BITS,
)


def dispersion_kernel(data: Tensor, patch: Sequence[int], metric: str) -> Tensor:
    """float32 [B, N] from ``data`` float32 [B, C, T, H, W]; see ``ops.dispersion``."""
    x = data.cpu().numpy()
    batch, channels, *sides = x.shape
    grid = [side // length for side, length in zip(sides, patch, strict=True)]
    x = x.reshape(batch, channels, grid[0], patch[0], grid[1], patch[1], grid[2], patch[2])
    n_tokens, n_values = math.prod(grid), channels * math.prod(patch)
    x = x.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, n_tokens, n_values)
    x = quantised(x, VARIANCE_UNIT_BITS if metric == "variance" else DEVIATION_UNIT_BITS)
    total = x.sum(2)
    mean = (total // n_values)[:, :, None]
    if metric == "variance":
        found = ((x - mean) ** 2).sum(2)
    else:
        found = n_values * np.where(x > mean, x, 0).sum(2) - (x > mean).sum(2) * total
    return torch.from_numpy(found.astype(np.float32)).to(data.device)


def quantised(values: np.ndarray, unit_bits: int) -> np.ndarray:
    """int64, in units of 2**-unit_bits; what is no number becomes the lowest value."""
    most = np.float32(2.0 ** (MAX_VALUE_BITS + unit_bits))
    values = values * np.float32(2.0**unit_bits)
    values = np.where(values > -most, values, -most)
    return np.floor(np.where(values < most, values, most)).astype(np.int64)

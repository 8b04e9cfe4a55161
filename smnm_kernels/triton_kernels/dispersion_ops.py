"""smnm::dispersion in Triton."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .dispersion import patch_dispersion
from .threshold_ops import on_device_of
from .tiles import next_power_of_two

#: Values that a program holds at once.
MAX_PART = 2048


def dispersion_kernel(data: Tensor, patch: Sequence[int], metric: str) -> Tensor:
    """float32 [B, N] from ``data`` float32 [B, C, T, H, W]; see ``ops.dispersion``."""
    batch, channels, *sides = data.shape
    n_tokens = math.prod(sides) // math.prod(patch)
    out = torch.empty((batch, n_tokens), dtype=torch.float32, device=data.device)
    if batch == 0:
        return out
    part = next_power_of_two(channels * math.prod(patch), 32, MAX_PART)
    with on_device_of(data):
        patch_dispersion[(batch * n_tokens,)](
            *(data.contiguous(), out, channels, tuple(sides), tuple(patch)),
            *(metric == "variance", part),
            num_warps=4 if part > 256 else 1,
        )
    return out

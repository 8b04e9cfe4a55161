"""smnm::threshold in Triton, and functions that the other ops share with it."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from ..masks import Masks
from ..ops import empty_masks
from ..tables.constants import MAX_FIELD
from .threshold import threshold_rows
from .tiles import in_columns, next_power_of_two

#: A program of the threshold holds at most this many bytes of keys at once.
MAX_CHUNK_BYTES = 2**14


def threshold_kernel(noise: Tensor, n_keep: int) -> Masks:
    """``noise`` float32 or float64 [B, N]: the n_keep largest of each row are visible, ties to the
    lower token."""
    masks = Masks(*empty_masks(noise, noise.shape[1], n_keep))
    if len(noise):
        with on_device_of(noise):
            fill_masks(masks, noise.contiguous(), n_keep, frames=1)
    return masks


def fill_masks(
    masks: Masks, values: Tensor, n_keep: int, frames: int, most: int = MAX_FIELD
) -> None:
    """Fills ``masks`` with the threshold of ``values`` [B, N]: float32, float64, int32 of at most
    ``most``, and at least -most - 1, or int64 from -1 to 2**62 - 1.

    ``n_keep`` counts the visible tokens of one frame, which is repeated ``frames`` times.
    """
    n_tokens = values.shape[1]
    low, high = {
        torch.int32: (max(-most - 1, -(2**31) + 1), most),  # padding is below
        torch.int64: (-1, 2**62 - 1),
        torch.float32: (-(2**31) + 1, 2**31 - 1),
        torch.float64: (-(2**63) + 1, 2**63 - 1),
    }[values.dtype]
    chunk = next_power_of_two(n_tokens, 32, MAX_CHUNK_BYTES // values.element_size())
    warps = 8 if chunk > 2**10 else 4
    threshold_rows[(len(values),)](
        values,
        n_tokens,
        n_keep,
        *masks,
        low,
        high,
        frames,
        *in_columns(chunk, warps),
        n_tokens <= chunk,
        num_warps=warps,
    )


def on_device_of(tensor: Tensor) -> torch.cuda.device | nullcontext:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()

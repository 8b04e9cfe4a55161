"""smnm::weighted_masks in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from ..masks import Masks
from ..ops import empty_masks
from ..tables.logarithms import packed_logarithms
from .device_tables import keep_on_device
from .threshold_ops import fill_masks, on_device_of
from .tiles import MAX_TOKENS_ON_CHIP, in_columns, next_power_of_two
from .weighted import weighted_keys, weighted_masks_on_chip

#: Philox blocks of a program that draws keys of a sample that does not fit on the chip.
BLOCKS = 256
#: Keys are at most so large, and at least -MAX_KEY - 1.
MAX_KEY = 2**31 - 2


@keep_on_device
def device_logarithms(device: torch.device) -> Tensor:
    return packed_logarithms().to(device)


def weighted_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    weights: Tensor,
    n_keep: int,
    invert: bool,
) -> Masks:
    """``weights`` float32 [B, N]. All tokens but n_keep are drawn and masked; with ``invert``,
    n_keep are drawn and visible."""
    batch, n_tokens = weights.shape
    masks = Masks(*empty_masks(sample_ids, n_tokens, n_keep))
    if batch == 0:
        return masks
    with on_device_of(sample_ids):
        draw = (
            sample_ids.contiguous(),
            seed_tensor,
            seed,
            weights.contiguous(),
            device_logarithms(sample_ids.device),
            n_tokens,
        )
        if n_tokens <= MAX_TOKENS_ON_CHIP:
            tokens = next_power_of_two(n_tokens, 32)
            warps = 8 if tokens > 2**10 else 4
            blocks = next_power_of_two(-(-n_tokens // 4), 8)
            weighted_masks_on_chip[(batch,)](
                *draw, n_keep, *masks, invert, blocks, *in_columns(tokens, warps), num_warps=warps
            )
        else:
            keys = torch.empty_like(weights, dtype=torch.int32)
            weighted_keys[(batch, -(-n_tokens // (4 * BLOCKS)))](
                *draw, keys, invert, BLOCKS, num_warps=4
            )
            fill_masks(masks, keys, n_keep, frames=1, most=MAX_KEY)
    return masks

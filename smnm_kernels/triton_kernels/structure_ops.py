"""smnm::structure_masks in Triton."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..masks import Masks
from ..ops import empty_masks
from ..tables.constants import STRUCTURES
from .structures import fill_structure_keys, structure_masks_on_chip
from .threshold_ops import fill_masks, on_device_of
from .tiles import MAX_TOKENS_ON_CHIP, in_columns, next_power_of_two

#: Philox blocks of a program that makes keys of samples that do not fit on the chip.
BLOCKS = 256
#: Keys are at most so large.
MAX_KEY = 2**31 - 1
#: Parameters of the structure that has most.
N_PARAMETERS = 7


def structure_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    valid: Tensor | None,
    grid: Sequence[int],
    structure: str,
    parameters: Sequence[int],
    n_keep: int,
) -> Masks:
    """See ``ops.structure_masks``."""
    batch, n_tokens = len(sample_ids), math.prod(grid)
    masks = Masks(*empty_masks(sample_ids, n_tokens, n_keep))
    if batch == 0:
        return masks
    sample_ids = sample_ids.contiguous()
    repeats = grid[0] if STRUCTURES[structure] else 1
    n_places = n_tokens // repeats
    # Without ``valid``, one frame is made and repeated.
    frames = repeats if valid is None else 1
    n_keys = n_tokens // frames
    padded = (*parameters, *[0] * (N_PARAMETERS - len(parameters)))
    number = list(STRUCTURES).index(structure)
    with on_device_of(sample_ids):
        call = (sample_ids, seed_tensor, seed, None if valid is None else valid.contiguous(), *grid)
        if n_keys <= MAX_TOKENS_ON_CHIP:
            tokens = next_power_of_two(n_keys, 32)
            warps = 8 if tokens > 2**10 else 4
            structure_masks_on_chip[(batch,)](
                *(*call, n_keep // frames, *padded, *masks, number, repeats),
                next_power_of_two(-(-n_places // 4), 8),
                *in_columns(tokens, warps),
                num_warps=warps,
            )
            return masks
        is_long = valid is not None and repeats > 1
        keys = sample_ids.new_empty((batch, n_keys), dtype=torch.int64 if is_long else torch.int32)
        fill_structure_keys[batch, -(-n_places // (4 * BLOCKS))](
            *(*call, *padded, keys, number, repeats, BLOCKS), num_warps=4
        )
        fill_masks(masks, keys, n_keep // frames, frames, most=MAX_KEY)
    return masks

"""smnm::draw_masks in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from ..masks import Masks
from ..ops import empty_masks
from ..tables.constants import DRAW_RULES, Purpose
from ..tables.logarithms import packed_logarithms
from .device_tables import keep_on_device
from .draws import draw_masks_on_chip, fill_draw_keys, fill_swap_keys
from .threshold_ops import fill_masks, on_device_of
from .tiles import MAX_TOKENS_ON_CHIP, in_columns, next_power_of_two

#: Philox blocks of a program that draws keys of samples that do not fit on the chip.
BLOCKS = 256
#: Keys are at most so large, and at least -MAX_KEY - 1.
MAX_KEY = 2**31 - 2


@keep_on_device
def device_logarithms(device: torch.device) -> Tensor:
    return packed_logarithms().to(device)


def draw_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    values: Tensor,
    rule: str,
    n_keep: int,
    invert: bool,
    n_swapped: int,
    valid: Tensor | None = None,
) -> Masks:
    """See ``ops.draw_masks``."""
    batch, n_tokens = values.shape
    masks = Masks(*empty_masks(sample_ids, n_tokens, n_keep))
    if batch == 0:
        return masks
    sample_ids, values = sample_ids.contiguous(), values.contiguous()
    valid = None if valid is None else valid.contiguous()
    draw = (sample_ids, seed_tensor, seed)
    with on_device_of(sample_ids):
        logarithms = device_logarithms(sample_ids.device)
        if n_tokens <= MAX_TOKENS_ON_CHIP:
            tokens = next_power_of_two(n_tokens, 32)
            warps = 8 if tokens > 2**10 else 4
            draw_masks_on_chip[(batch,)](
                *(*draw, values, valid, logarithms, n_tokens, n_keep, n_swapped, *masks),
                *(DRAW_RULES.index(rule), invert, n_swapped > 0, tokens // 4),
                *in_columns(tokens, warps),
                num_warps=warps,
            )
            return masks
        programs = batch, -(-n_tokens // (4 * BLOCKS))
        keys = torch.empty_like(values, dtype=torch.int32)
        fill_draw_keys[programs](
            *(*draw, values, logarithms, n_tokens, keys, DRAW_RULES.index(rule), invert, BLOCKS),
            num_warps=4,
        )
        n_row: int | Tensor = n_swapped
        if valid is None:
            fill_masks(masks, keys, n_keep, frames=1, most=MAX_KEY)
            visible = masks.visible
        else:
            visible = largest_of(keys, valid, n_keep)
            if not invert and n_keep < n_tokens:
                n_row = n_swapped * (valid.sum(1, keepdim=True) - n_keep) // (n_tokens - n_keep)
        if n_swapped == 0 and valid is None:
            return masks
        turns = ((Purpose.REVEAL, invert), (Purpose.MASK_AGAIN, not invert))
        for purpose, from_visible in turns if n_swapped else ():
            fill_swap_keys[programs](
                *(*draw, visible, n_tokens, keys, int(purpose), int(from_visible), BLOCKS),
                num_warps=4,
            )
            if valid is None:
                chosen = Masks(*empty_masks(sample_ids, n_tokens, n_swapped))
                fill_masks(chosen, keys, n_swapped, frames=1, most=MAX_KEY)
                visible = visible ^ chosen.visible
            else:
                visible = visible ^ largest_of(keys, valid, n_row)
        fill_masks(masks, visible.int(), n_keep, frames=1, most=MAX_KEY)
    return masks


def largest_of(keys: Tensor, valid: Tensor, n: int | Tensor) -> Tensor:
    """bool [B, N]: of each row the n largest ``keys`` int32 where ``valid``, ties to the lower
    token; n may be int64 [B, 1]. By a sort, since no kernel takes a count for each row."""
    below_all = -(2**31) - 1
    in_order = keys.long().masked_fill(~valid, below_all).sort(dim=1, descending=True, stable=True)
    places = torch.arange(keys.shape[1], device=keys.device).expand_as(keys)
    rank = torch.empty_like(in_order.indices).scatter_(1, in_order.indices, places)
    return rank < n

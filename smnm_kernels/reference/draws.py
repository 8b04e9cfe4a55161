"""Draws without replacement by weight, in integers.

Tokens are drawn one after the other, each with a probability in proportion to its weight among
those that are left. That has the distribution of this: token i gets the exponential variate
E_i = -log2(U_i) of a uniform U_i, and tokens are drawn in the order of rising E_i / w_i
(Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006). So a token's key is

    log2(w_i) - log2(-log2(U_i))        larger ones are drawn first

as an integer in units of 2**-23. A float32 is a mantissa and an exponent; both logarithms come from
them by an integer table and integer interpolation (see ``tables.logarithms``), which is off by
2**-20 at most. No rounding of a floating-point operation decides the order of two keys.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import LOG_BITS, MAX_LOG2, Purpose
from smnm_kernels.tables.logarithms import mantissas, shares

from .fields import check_enough_valid, masks_from_visible
from .random_words import words

#: Bits of a float32: infinity, and the smallest number whose exponent is not that of subnormals.
_INFINITY, _NORMAL = 0x7F800000, 0x00800000
#: Keys of infinite weights and of what is no number: more than any other.
_FIRST = 2**31 - 2
#: Keys of weights that are zero (or negative) begin here, below all others.
_LAST = -(2**31) + 1
#: Keys of tokens that must not be visible: below those of all that may.
_NOT_VALID = -(2**31)


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
    seed = seed if seed_tensor is None else int(seed_tensor)
    may_show = np.ones(values.shape, dtype=bool)
    if valid is not None:
        check_enough_valid(valid, n_keep)
        may_show = valid.cpu().numpy()
    visible = np.empty(values.shape, dtype=bool)
    for row, sample_id in enumerate(sample_ids.tolist()):

        def drawn_for(purpose: Purpose, sample_id: int = sample_id) -> np.ndarray:
            return words(values.shape[1], purpose, sample_id, seed).astype(np.int64)

        keys = draw_keys(values[row].cpu().numpy(), rule, drawn_for(Purpose.DRAW))
        keys = np.where(may_show[row], keys if invert else -keys, _NOT_VALID)
        visible[row] = largest(keys, n_keep)
        n_drawn = n_keep if invert else values.shape[1] - n_keep
        if n_swapped:
            drawn = (visible[row] if invert else ~visible[row]) & may_show[row]
            n_row = n_swapped * int(drawn.sum()) // n_drawn
            revealed = largest(np.where(drawn, drawn_for(Purpose.REVEAL) >> 1, -1), n_row)
            left = (~drawn | revealed) & may_show[row]
            again = largest(np.where(left, drawn_for(Purpose.MASK_AGAIN) >> 1, -1), n_row)
            drawn = (drawn & ~revealed) | again
            visible[row] = drawn if invert else ~drawn & may_show[row]
    masks = masks_from_visible(torch.from_numpy(visible), n_keep)
    return Masks(*(part.to(sample_ids.device) for part in masks))


def largest(keys: np.ndarray, n: int) -> np.ndarray:
    """bool: the n largest, ties to the lower token."""
    found = np.zeros(len(keys), dtype=bool)
    found[np.argsort(-keys.astype(np.int64), kind="stable")[:n]] = True
    return found


def draw_keys(values: np.ndarray, rule: str, words: np.ndarray) -> np.ndarray:
    """int64, in the range of int32: tokens with larger keys are drawn first.

    Args:
        values: float32 [N].
        rule: one of ``tables.constants.DRAW_RULES``.
        words: int64 [N], in the range of uint32.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.int32).astype(np.int64)
    is_first = (bits & 0x7FFFFFFF) > _INFINITY
    if rule == "weights":
        keys = log2_of_weights(bits) - log2_of_waits(words)
        keys = np.where(bits > 0, keys, _LAST + (words >> 3))
        is_first |= bits == _INFINITY
    elif rule == "log2_weights":
        # Clamped values times a power of two are exact, and so is the part before the point.
        clamped = np.clip(np.where(is_first, 0, values), -MAX_LOG2, MAX_LOG2)
        keys = (clamped * np.float32(2**LOG_BITS)).astype(np.int64) - log2_of_waits(words)
    else:  # the bits of negative numbers grow with their magnitude, and -0 becomes 0
        keys = np.where(bits < 0, -(2**31) - bits, bits)
    return np.where(is_first, _FIRST, keys)


def log2_of_weights(bits: np.ndarray) -> np.ndarray:
    """int64, times 2**LOG_BITS: the logarithm of positive finite float32, given as their bits."""
    subnormal = log2_of_ints(np.maximum(bits, 1)) - (149 << LOG_BITS)
    return np.where(bits < _NORMAL, subnormal, _log2_of_bits(bits))


def log2_of_waits(words: np.ndarray) -> np.ndarray:
    """int64, times 2**LOG_BITS: log2(-log2(U)) of U = (word | 1) / 2**32."""
    uniform = words | 1
    # Of a U below one half: -log2(U) is at least 1, and so exact enough in fixed point.
    wait = (32 << LOG_BITS) - log2_of_ints(uniform)
    below = log2_of_ints(np.maximum(wait, 1)) - (LOG_BITS << LOG_BITS)
    # Of a larger U: -log2(U) is in proportion to 1 - U, but for a factor between 1.44 and 2.
    rest = 2**32 - uniform
    factor = _interpolated(shares(), rest >> 22, rest >> 9 & 8191)
    above = log2_of_ints(rest) - (32 << LOG_BITS) + factor
    return np.where(uniform < 2**31, below, above)


def log2_of_ints(n: np.ndarray) -> np.ndarray:
    """int64, times 2**LOG_BITS: the logarithm of ints in [1, 2**32), rounded to float32."""
    return _log2_of_bits(n.astype(np.float32).view(np.int32).astype(np.int64))


def _log2_of_bits(bits: np.ndarray) -> np.ndarray:
    """Of normal float32: exponent and mantissa are the logarithm, but for what the table adds."""
    mantissa = bits & 0x7FFFFF
    return bits - (127 << LOG_BITS) + _interpolated(mantissas(), mantissa >> 13, mantissa & 8191)


def _interpolated(table: np.ndarray, interval: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Between two entries, ``part`` / 8192 of the way."""
    interval = np.clip(interval, 0, len(table) - 2)  # of values that are not used
    low, high = table[interval], table[interval + 1]
    return low + ((high - low) * part >> 13)

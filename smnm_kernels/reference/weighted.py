"""Weighted draws without replacement, in integers.

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
from smnm_kernels.tables.constants import LOG_BITS, Purpose
from smnm_kernels.tables.logarithms import mantissas, shares

from .fields import masks_from_visible
from .random_words import words

#: Bits of a float32: infinity, and the smallest number whose exponent is not that of subnormals.
_INFINITY, _NORMAL = 0x7F800000, 0x00800000
#: Keys of weights that are infinite or no number: more than any other.
_FIRST = 2**31 - 2
#: Keys of weights that are zero (or negative) begin here, below all others.
_LAST = -(2**31) + 1


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
    seed = seed if seed_tensor is None else int(seed_tensor)
    keys = np.empty(weights.shape, dtype=np.int64)
    for row, sample_id in enumerate(sample_ids.tolist()):
        drawn = words(weights.shape[1], Purpose.DRAW, sample_id, seed)
        keys[row] = draw_keys(weights[row].cpu().numpy(), drawn)
    first = torch.from_numpy(keys if invert else -keys)
    kept = first.sort(dim=1, descending=True, stable=True).indices[:, :n_keep]
    visible = torch.zeros(weights.shape, dtype=torch.bool).scatter_(1, kept, True)
    return Masks(*(part.to(sample_ids.device) for part in masks_from_visible(visible, n_keep)))


def draw_keys(weights: np.ndarray, words: np.ndarray) -> np.ndarray:
    """int64, in the range of int32: float32 weights and uint32 words, larger keys first."""
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.int32).astype(np.int64)
    keys = log2_of_weights(bits) - log2_of_waits(words)
    keys = np.where(bits > 0, keys, _LAST + (words.astype(np.int64) >> 3))
    is_first = (bits & 0x7FFFFFFF > _INFINITY) | (bits == _INFINITY)
    return np.where(is_first, _FIRST, keys)


def log2_of_weights(bits: np.ndarray) -> np.ndarray:
    """int64, times 2**LOG_BITS: the logarithm of positive finite float32, given as their bits."""
    subnormal = log2_of_ints(np.maximum(bits, 1)) - (149 << LOG_BITS)
    return np.where(bits < _NORMAL, subnormal, _log2_of_bits(bits))


def log2_of_waits(words: np.ndarray) -> np.ndarray:
    """int64, times 2**LOG_BITS: log2(-log2(U)) of U = (word | 1) / 2**32."""
    uniform = words.astype(np.int64) | 1
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

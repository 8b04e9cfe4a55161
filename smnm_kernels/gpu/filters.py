"""The filters as products with circulant matrices of taps.

float16 in, float32 sums: exact, because every value is an integer of magnitude at most 2048 and
every sum stays below 2**24 (see ``noise_table``).
"""

import triton
import triton.language as tl

from ..noise_table import MAX_SIGNAL as _MAX_SIGNAL
from ..noise_table import TAP_SHIFT as _TAP_SHIFT
from ..noise_table import TAP_UNIT as _TAP_UNIT
from ..reference import MAX_FIELD as _MAX_FIELD

MAX_SIGNAL = tl.constexpr(_MAX_SIGNAL)
TAP_SHIFT = tl.constexpr(_TAP_SHIFT)
TAP_UNIT = tl.constexpr(_TAP_UNIT)
HALF_TAP = tl.constexpr(_TAP_UNIT // 2)
MAX_FIELD = tl.constexpr(_MAX_FIELD)


@triton.jit
def circulant(taps, source, target, side, n_out, valid):
    """float16: taps[(target - source) mod side], zero where invalid or beyond ``n_out``."""
    inside = valid & (target < n_out)
    return tl.load(taps + (target - source + side) % side, mask=inside, other=0).to(tl.float16)


@triton.jit
def scaled_circulant(taps, gain, source, target, side, n_out, valid):
    """As ``circulant``, the taps times gain and rescaled (a gain of TAP_UNIT leaves them)."""
    inside = valid & (target < n_out)
    tap = tl.load(taps + (target - source + side) % side, mask=inside, other=0).to(tl.int32)
    return ((tap * gain + HALF_TAP) >> TAP_SHIFT).to(tl.float16)


@triton.jit
def rescaled(total):
    """float16: a pass's sums shifted back to units of noise, halves up, and clamped."""
    shifted = (total.to(tl.int32) + HALF_TAP) >> TAP_SHIFT
    return tl.minimum(tl.maximum(shifted, -MAX_SIGNAL), MAX_SIGNAL).to(tl.float16)

"""The filters as products with circulant matrices of taps.

float16 in, float32 sums: exact, because every value is an integer of magnitude at most 2048 and
every sum stays below 2**24 (see ``noise_table``).
"""

import triton
import triton.language as tl

from ..tables.constants import MAX_FIELD as _MAX_FIELD
from ..tables.constants import MAX_SIGNAL as _MAX_SIGNAL
from ..tables.constants import TAP_SHIFT as _TAP_SHIFT
from ..tables.constants import TAP_UNIT as _TAP_UNIT

MAX_SIGNAL = tl.constexpr(_MAX_SIGNAL)
TAP_SHIFT = tl.constexpr(_TAP_SHIFT)
TAP_UNIT = tl.constexpr(_TAP_UNIT)
HALF_TAP = tl.constexpr(_TAP_UNIT // 2)
MAX_FIELD = tl.constexpr(_MAX_FIELD)
#: Numbers near this one have no fraction in float32.
ROUNDS = tl.constexpr(1.5 * 2**23)


@triton.jit
def circulant(taps, source, target, side, n_out, valid):
    """int16: taps[(target - source) mod side], zero where invalid or beyond ``n_out``.

    Both are less than ``side`` where it matters.
    """
    distance = target - source
    distance = tl.where(distance < 0, distance + side, distance)
    return tl.load(taps + distance, mask=valid & (target < n_out), other=0)


@triton.jit
def scaled(taps, gain):
    """float16: the taps times gain and rescaled (a gain of TAP_UNIT leaves them)."""
    return ((taps.to(tl.int32) * gain + HALF_TAP) >> TAP_SHIFT).to(tl.float16)


@triton.jit
def rescaled(total):
    """float16: a pass's sums shifted back to units of noise, halves up, and clamped.

    In float32, because integers would have to be converted twice. Half a unit more leaves nothing
    in the middle between two integers, and adding the large number rounds. Sums beyond 2**22 may
    round otherwise, but are clamped.
    """
    units = total * (1.0 / TAP_UNIT) + 0.5 / TAP_UNIT
    units = ((units + ROUNDS) - ROUNDS).to(tl.float16)
    return tl.minimum(tl.maximum(units, -MAX_SIGNAL), MAX_SIGNAL)

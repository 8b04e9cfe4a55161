"""The filters, as products with circulant matrices of taps.

Factors are float16 and sums float32. Both are exact, because every factor is an integer of
magnitude at most 2048 and every sum stays below 2**24 (see ``tables.noise``).
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
#: float32 numbers near this one have no fraction, so adding and subtracting it rounds.
ROUNDS = tl.constexpr(1.5 * 2**23)


@triton.jit
def circulant(taps, source, target, side, n_out, valid):
    """int16: taps[(target - source) mod side], zero where ``valid`` is False and for targets from
    ``n_out`` on. Elsewhere, source and target must be less than ``side``."""
    distance = target - source
    distance = tl.where(distance < 0, distance + side, distance)
    return tl.load(taps + distance, mask=valid & (target < n_out), other=0)


@triton.jit
def scale_taps(taps, gain):
    """float16: the taps times gain / TAP_UNIT, rounded."""
    return ((taps.to(tl.int32) * gain + HALF_TAP) >> TAP_SHIFT).to(tl.float16)


@triton.jit
def rescale(total):
    """float16: the sums of a pass divided by TAP_UNIT, rounded half up, and clamped.

    All in float32, because integers would have to be converted there and back. After the division,
    0.5 / TAP_UNIT is added, so that no value lies half way between two integers; then adding ROUNDS
    rounds each as it should. Sums beyond 2**22 may round otherwise, but they are clamped.
    """
    units = total * (1.0 / TAP_UNIT) + 0.5 / TAP_UNIT
    units = ((units + ROUNDS) - ROUNDS).to(tl.float16)
    return tl.minimum(tl.maximum(units, -MAX_SIGNAL), MAX_SIGNAL)

"""How much the values of each patch differ; ``reference.dispersion`` defines it."""

import triton
import triton.language as tl

from ..tables.constants import DEVIATION_UNIT_BITS, MAX_VALUE_BITS, VARIANCE_UNIT_BITS

DEVIATION_UNIT = tl.constexpr(2.0**DEVIATION_UNIT_BITS)
VARIANCE_UNIT = tl.constexpr(2.0**VARIANCE_UNIT_BITS)
LARGEST = tl.constexpr(2.0**MAX_VALUE_BITS)


@triton.jit
def quantised_part(
    first, start, CHANNELS, FRAMES, HEIGHT, WIDTH, PATCH: tl.constexpr, VARIANCE, PART: tl.constexpr
):
    """(int64 [PART], which of them there are): values of one patch from number ``start`` on."""
    # The second axis has one program, number 0, which compilers do not know. If they knew that
    # places are few, they would compute with pairs of 16 bits, and ptxas of CUDA 12.8 to 13.0 loses
    # constants that are added to those. The factor leaves more than 16 bits, also after divisions.
    place = tl.program_id(1) * 2**14 + start + tl.arange(0, PART)
    x = place % PATCH[2]
    y = place // PATCH[2] % PATCH[1]
    t = place // (PATCH[2] * PATCH[1]) % PATCH[0]
    c = place // (PATCH[2] * PATCH[1] * PATCH[0])
    valid = c < CHANNELS
    offset = ((c.to(tl.int64) * FRAMES + t) * HEIGHT + y) * WIDTH + x
    value = tl.load(first + offset, mask=valid, other=0.0)
    unit: tl.constexpr = VARIANCE_UNIT if VARIANCE else DEVIATION_UNIT
    most: tl.constexpr = unit * LARGEST
    value = value * unit
    value = tl.where(value > -most, value, -most)
    value = tl.where(value < most, value, most)
    # Rounded down by hand, because floor() takes subnormal numbers for zero on NVIDIA's GPUs.
    cut = value.to(tl.int32)
    return (cut - (value < cut.to(tl.float32)).to(tl.int32)).to(tl.int64), valid


@triton.jit(do_not_specialize=["data", "out"])
def patch_dispersion(
    data,
    out,
    CHANNELS: tl.constexpr,
    SIDES: tl.constexpr,
    PATCH: tl.constexpr,
    VARIANCE: tl.constexpr,
    PART: tl.constexpr,
):
    """``out`` float32 [B, N]: one patch per program, read in parts of PART values, twice."""
    n_values: tl.constexpr = CHANNELS * PATCH[0] * PATCH[1] * PATCH[2]
    rows: tl.constexpr = SIDES[1] // PATCH[1]
    columns: tl.constexpr = SIDES[2] // PATCH[2]
    n_tokens: tl.constexpr = SIDES[0] // PATCH[0] * rows * columns
    sample, token = tl.program_id(0) // n_tokens, tl.program_id(0) % n_tokens
    x, y = token % columns, token // columns % rows
    t = token // (columns * rows)
    first = data + sample.to(tl.int64) * (CHANNELS * SIDES[0] * SIDES[1] * SIDES[2])
    first += ((t * PATCH[0]).to(tl.int64) * SIDES[1] + y * PATCH[1]) * SIDES[2] + x * PATCH[2]
    total = tl.zeros([1], tl.int64)
    for start in tl.static_range(0, n_values, PART):
        value, valid = quantised_part(
            first, start, CHANNELS, SIDES[0], SIDES[1], SIDES[2], PATCH, VARIANCE, PART
        )
        total += tl.sum(tl.where(valid, value, 0), 0)
    # Division cuts towards zero: to round down, divide what is not negative.
    mean = (total + (n_values << 40)) // n_values - (1 << 40)
    found = tl.zeros([1], tl.int64)
    for start in tl.static_range(0, n_values, PART):
        value, valid = quantised_part(
            first, start, CHANNELS, SIDES[0], SIDES[1], SIDES[2], PATCH, VARIANCE, PART
        )
        if VARIANCE:
            difference = tl.where(valid, value - mean, 0)
            found += tl.sum(difference * difference, 0)
        else:
            above = valid & (value > mean)
            found += tl.sum(tl.where(above, n_values * value - total, 0), 0)
    place = out + sample.to(tl.int64) * n_tokens + token
    tl.store(place + tl.arange(0, 1), found.to(tl.float32))

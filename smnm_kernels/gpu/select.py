"""The threshold: the n_keep largest keys of a sample are visible, ties to the lower token."""

import triton
import triton.language as tl


@triton.jit
def kth_largest(keys, n_tokens, n_keep, low, high, values=None, CHUNK: tl.constexpr = 0):
    """The n_keep-th largest of ``keys`` [P], known to lie in [low, high].

    Halves the interval until one value is left, or until as many keys as wanted lie above its
    lower end (then that end separates just as well). Padding has keys below ``low``. Where
    ``values`` are given, ``keys`` are the first CHUNK of them, and all are read for each step.
    """
    low, high = tl.full([], low, keys.dtype), tl.full([], high, keys.dtype)
    at_least_low = tl.full([], n_tokens, tl.int32)
    while (low < high) & (at_least_low != n_keep):
        # The middle, rounded up, without overflow.
        middle = (low >> 1) + (high >> 1) + ((low | high) & 1)
        if values is None:
            count = tl.sum((keys >= middle).to(tl.int32), 0)
        else:
            count = count_at_least(values, n_tokens, middle, CHUNK)
        if count >= n_keep:
            low = middle
            at_least_low = count
        else:
            high = middle - 1
    return low


@triton.jit
def write_masks(
    keys,
    token,
    valid,
    bound,
    row,
    n_tokens,
    n_keep,
    visible,
    ids_keep,
    ids_restore,
    FRAMES: tl.constexpr,
):
    """Writes sample ``row`` from all of its keys [P], whose tokens ascend where they are valid."""
    above = tl.sum(((keys > bound) & valid).to(tl.int32), 0)
    write_part(
        keys,
        token,
        valid,
        bound,
        0,
        0,
        n_keep - above,
        row,
        n_tokens,
        n_keep,
        visible,
        ids_keep,
        ids_restore,
        FRAMES,
    )


@triton.jit
def write_part(
    keys,
    token,
    valid,
    bound,
    above_before,
    equal_before,
    room,
    row,
    n_tokens,
    n_keep,
    visible,
    ids_keep,
    ids_restore,
    FRAMES: tl.constexpr,
):
    """Shows the keys above ``bound`` and the first ``room`` of those equal to it.

    ``n_tokens`` and ``n_keep`` are those of one frame, which is repeated FRAMES times;
    ``above_before`` and ``equal_before`` count its tokens before this part. Returns both counts
    after it.
    """
    above = ((keys > bound) & valid).to(tl.int32)
    equal = ((keys == bound) & valid).to(tl.int32)
    # Both counts in one scan: a part has fewer than 2**15 tokens.
    both = above + (equal << 16)
    through = tl.cumsum(both, 0)
    total = tl.sum(both, 0)
    equal_rank = equal_before + ((through - both) >> 16)
    shown = (above == 1) | ((equal == 1) & (equal_rank < room))
    # Visible tokens of the frame before this one.
    rank = above_before + ((through - both) & 0xFFFF) + tl.minimum(equal_rank, room)
    visible += row.to(tl.int64) * n_tokens * FRAMES
    ids_restore += row.to(tl.int64) * n_tokens * FRAMES
    ids_keep += row.to(tl.int64) * n_keep * FRAMES
    for frame in range(FRAMES):
        place = frame * n_tokens + token
        slot = frame * n_keep + rank
        restore = tl.where(shown, slot, n_keep * FRAMES + place - slot)
        tl.store(visible + place, shown, mask=valid)
        tl.store(ids_restore + place, restore.to(tl.int64), mask=valid)
        tl.store(ids_keep + slot, place.to(tl.int64), mask=valid & shown)
    return above_before + (total & 0xFFFF), equal_before + (total >> 16)


@triton.jit
def loaded_keys(values, token, valid):
    """Integers in the order of ``torch.sort``: -0 equals 0, NaN is above everything.

    Padding is the lowest integer of the type, which no value maps to.
    """
    value = tl.load(values + token, mask=valid, other=0)
    if value.dtype == tl.float32:
        bits = value.to(tl.int32, bitcast=True)
        lowest = -(2**31)
        highest = 2**31 - 1
    elif value.dtype == tl.float64:
        bits = value.to(tl.int64, bitcast=True)
        lowest = -(2**63)
        highest = 2**63 - 1
    else:
        bits = value
        lowest = -(2**31)
    if value.dtype.is_floating():
        # The bits of negative numbers grow with their magnitude. -0 becomes 0.
        bits = tl.where(bits < 0, tl.full([], lowest, bits.dtype) - bits, bits)
        bits = tl.where(value != value, tl.full([], highest, bits.dtype), bits)
    return tl.where(valid, bits, tl.full([], lowest, bits.dtype))


# Rows start anywhere, so vectors would gain nothing.
@triton.jit(
    do_not_specialize=["values", "n_tokens", "n_keep", "visible", "ids_keep", "ids_restore"]
)
def threshold_rows(
    values,
    n_tokens: "i32",
    n_keep: "i32",
    visible,
    ids_keep,
    ids_restore,
    LOW: tl.constexpr,
    HIGH: tl.constexpr,
    FRAMES: tl.constexpr,
    CHUNK: tl.constexpr,
    ONE_CHUNK: tl.constexpr,
):
    """One sample per program, [B, N] floats or int32 in [LOW, HIGH] (the range of their keys).

    Where a chunk holds a sample, its keys are read once; else once for every step of the search.
    """
    row = tl.program_id(0)
    values += row.to(tl.int64) * n_tokens
    in_chunk = tl.arange(0, CHUNK)
    if ONE_CHUNK:
        valid = in_chunk < n_tokens
        keys = loaded_keys(values, in_chunk, valid)
        bound = kth_largest(keys, n_tokens, n_keep, LOW, HIGH)
        write_masks(
            keys,
            in_chunk,
            valid,
            bound,
            row,
            n_tokens,
            n_keep,
            visible,
            ids_keep,
            ids_restore,
            FRAMES,
        )
    else:
        keys = loaded_keys(values, in_chunk, in_chunk < n_tokens)
        bound = kth_largest(keys, n_tokens, n_keep, LOW, HIGH, values, CHUNK)
        room = n_keep
        if bound < HIGH:
            room = n_keep - count_at_least(values, n_tokens, bound + 1, CHUNK)
        above_before = 0
        equal_before = 0
        start = 0
        while start < n_tokens:
            token = start + in_chunk
            valid = token < n_tokens
            keys = loaded_keys(values, token, valid)
            above_before, equal_before = write_part(
                keys,
                token,
                valid,
                bound,
                above_before,
                equal_before,
                room,
                row,
                n_tokens,
                n_keep,
                visible,
                ids_keep,
                ids_restore,
                FRAMES,
            )
            start += CHUNK


@triton.jit
def count_at_least(values, n_tokens, bound, CHUNK: tl.constexpr):
    counts = tl.zeros([CHUNK], tl.int32)
    start = 0
    while start < n_tokens:
        token = start + tl.arange(0, CHUNK)
        counts += (loaded_keys(values, token, token < n_tokens) >= bound).to(tl.int32)
        start += CHUNK
    return tl.sum(counts, 0)

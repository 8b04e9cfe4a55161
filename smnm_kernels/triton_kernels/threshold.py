"""The threshold: the n_keep largest keys of a sample are visible, ties to the lower token.

Keys are the integers that are compared, int32 or int64 [rows, columns]. A column holds at most 8
consecutive tokens and belongs to one thread, so that counts along it stay in registers. Padding has
keys below every bound. The bound that the functions search for is the key of the last visible
token: a token is visible if its key reaches the bound, apart from ties.
"""

import triton
import triton.language as tl

from .filters import MAX_FIELD


@triton.jit
def bound_near(keys, n_tokens, n_keep, guess, spacing):
    """(bound, how many keys reach it). The count is n_keep; or, if keys tie there, the bound is the
    n_keep-th largest key, and the count includes all keys equal to it.

    Keys are at most MAX_FIELD in magnitude. ``guess`` is where the bound may be and ``spacing`` how
    far apart keys lie there, both float32. They change only how many steps the search takes, about
    five. Each step lays a straight line through the counts at the two nearest bounds that are known
    and tries the bound at which the line meets n_keep.
    """
    low, n_low = -MAX_FIELD - 1, n_tokens
    high, n_high = MAX_FIELD + 1, 0
    middle = guess.to(tl.int32)
    step = 0
    while (high - low > 1) & (n_low != n_keep):
        middle = tl.minimum(tl.maximum(middle, low + 1), high - 1)
        count = count_reaching_small(keys, middle)
        if count >= n_keep:
            low, n_low = middle, count
        else:
            high, n_high = middle, count
        step += 1
        if n_low != n_keep:
            if (low == -MAX_FIELD - 1) | (high == MAX_FIELD + 1):
                # Only one side is known. Go to where the other should be, and one key further.
                ahead = (count - n_keep) + tl.where(count >= n_keep, 1, -1)
                ahead = tl.minimum(tl.maximum(ahead * spacing, -2.0 * MAX_FIELD), 2.0 * MAX_FIELD)
                middle += ahead.to(tl.int32)
            else:
                share = (n_low - n_keep).to(tl.float32) / (n_low - n_high).to(tl.float32)
                middle = low + ((high - low).to(tl.float32) * share).to(tl.int32)
            # Halving the interval ends the search also if keys are spread very unevenly.
            if (step > 6) & (step % 2 == 0):
                middle = (low + high) >> 1
    return low, n_low


@triton.jit
def count_reaching_small(keys, bound):
    """How many keys, at most 2**22 in magnitude, reach the bound. It adds up the signs of the
    differences, for which the compiler needs fewer instructions than for comparisons."""
    return keys.numel + tl.sum(tl.sum((keys - bound) >> 31, 0), 0)


@triton.jit
def count_reaching(keys, bound):
    return tl.sum(tl.sum((keys >= bound).to(tl.int32), 0), 0)


@triton.jit
def bound_between(keys, n_tokens, n_keep, low, high, values=None):
    """As ``bound_near``, for any integers in [low, high], by halving the interval.

    If ``values`` are given, each step reads them again, in chunks with the shape and type of
    ``keys``, which is the first chunk.
    """
    low, high = tl.full([], low, keys.dtype), tl.full([], high, keys.dtype)
    n_low = tl.full([], n_tokens, tl.int32)
    while (low < high) & (n_low != n_keep):
        # The middle, rounded up, without overflow.
        middle = (low >> 1) + (high >> 1) + ((low | high) & 1)
        if values is None:
            count = count_reaching(keys, middle)
        else:
            count = count_reaching_in_chunks(values, n_tokens, middle, keys.shape[0], keys.shape[1])
        if count >= n_keep:
            low = middle
            n_low = count
        else:
            high = middle - 1
    return low, n_low


@triton.jit
def flags_before(flags):
    """int32 [rows, columns]: how many of the flags (0 or 1) before each are 1, column by column.

    The flags of a column are put into one number as its hexadecimal digits. Times 0x11111111, each
    digit is the sum of the digits up to it.
    """
    rows: tl.constexpr = flags.shape[0]
    digit = 4 * tl.arange(0, rows)[:, None]
    sums = tl.sum(flags << digit, 0) * 0x11111111
    in_column = (sums >> (4 * rows - 4)) & 15
    before = tl.cumsum(in_column, 0) - in_column
    return before[None, :] + (((sums << 4)[None, :] >> digit) & 15)


@triton.jit
def write_masks(
    keys,
    token,
    valid,
    bound,
    n_reaching,
    row,
    n_tokens,
    n_keep,
    visible,
    ids_keep,
    ids_restore,
    FRAMES: tl.constexpr,
):
    """Writes the masks of sample ``row`` from all of its keys, of which ``n_reaching`` reach the
    bound.

    ``n_tokens`` and ``n_keep`` count the tokens of one frame, which is repeated FRAMES times.
    """
    if n_reaching != n_keep:
        equal = (keys == bound).to(tl.int32)
        room = n_keep - (n_reaching - tl.sum(tl.sum(equal, 0), 0))
        keys = tl.where((equal == 1) & (flags_before(equal) >= room), bound - 1, keys)
    shown = keys >= bound
    rank = flags_before(shown.to(tl.int32))
    write_part(
        shown, rank, token, valid, row, n_tokens, n_keep, visible, ids_keep, ids_restore, FRAMES
    )


@triton.jit
def write_part(
    shown,
    rank,
    token,
    valid,
    row,
    n_tokens,
    n_keep,
    visible,
    ids_keep,
    ids_restore,
    FRAMES: tl.constexpr,
):
    """Writes some tokens of sample ``row``; ``rank`` is how many visible ones precede each."""
    visible += row.to(tl.int64) * n_tokens * FRAMES
    ids_restore += row.to(tl.int64) * n_tokens * FRAMES
    ids_keep += row.to(tl.int64) * n_keep * FRAMES
    for frame in range(FRAMES):
        place = frame * n_tokens + token
        slot = frame * n_keep + rank
        restore = tl.where(shown, slot, n_keep * FRAMES + place - slot)
        tl.store(visible + place, shown, mask=valid)
        tl.store(ids_restore + place, restore.to(tl.int64), mask=valid)
        tl.store(ids_keep + slot, place.to(tl.int64), mask=shown)


@triton.jit
def load_keys(values, token, valid):
    """Maps values to integers that compare as ``torch.sort`` orders the values: -0 equals 0, and
    NaN is above everything. Padding is the lowest integer of the type, which no value maps to.
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


# Most rows do not start at a multiple of 16 bytes, so kernels for aligned pointers gain nothing.
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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ONE_CHUNK: tl.constexpr,
):
    """The threshold of ``values`` [B, N], floats or int32, one sample per program. Their keys lie
    in [LOW, HIGH].

    If a chunk of ROWS * COLUMNS keys holds a sample, its values are read once; else once for every
    step of the search.
    """
    row = tl.program_id(0)
    values += row.to(tl.int64) * n_tokens
    keys, token, valid = chunk_of_keys(values, 0, n_tokens, ROWS, COLUMNS)
    if ONE_CHUNK:
        bound, n_reaching = bound_between(keys, n_tokens, n_keep, LOW, HIGH)
        write_masks(
            keys,
            token,
            valid,
            bound,
            n_reaching,
            row,
            n_tokens,
            n_keep,
            visible,
            ids_keep,
            ids_restore,
            FRAMES,
        )
    else:
        bound, n_reaching = bound_between(keys, n_tokens, n_keep, LOW, HIGH, values)
        room = n_keep
        if bound < HIGH:
            room = n_keep - count_reaching_in_chunks(values, n_tokens, bound + 1, ROWS, COLUMNS)
        equal_before = 0
        shown_before = 0
        start = 0
        while start < n_tokens:
            keys, token, valid = chunk_of_keys(values, start, n_tokens, ROWS, COLUMNS)
            equal = (keys == bound).to(tl.int32)
            shown = (keys > bound) | ((equal == 1) & (equal_before + flags_before(equal) < room))
            rank = shown_before + flags_before(shown.to(tl.int32))
            write_part(
                shown,
                rank,
                token,
                valid,
                row,
                n_tokens,
                n_keep,
                visible,
                ids_keep,
                ids_restore,
                FRAMES,
            )
            equal_before += tl.sum(tl.sum(equal, 0), 0)
            shown_before += tl.sum(tl.sum(shown.to(tl.int32), 0), 0)
            start += ROWS * COLUMNS


@triton.jit
def chunk_of_keys(values, start, n_tokens, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(keys, token, valid) [ROWS, COLUMNS] of the tokens from ``start`` on."""
    # Loads take tokens in order; then the keys are transposed into columns.
    token = start + tl.arange(0, ROWS * COLUMNS)
    keys = load_keys(values, token, token < n_tokens)
    keys = tl.trans(tl.reshape(keys, [COLUMNS, ROWS]))
    token = start + tl.arange(0, COLUMNS)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    return keys, token, token < n_tokens


@triton.jit
def count_reaching_in_chunks(values, n_tokens, bound, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    counts = tl.zeros([ROWS * COLUMNS], tl.int32)
    start = 0
    while start < n_tokens:
        token = start + tl.arange(0, ROWS * COLUMNS)
        counts += (load_keys(values, token, token < n_tokens) >= bound).to(tl.int32)
        start += ROWS * COLUMNS
    return tl.sum(counts, 0)

"""Masks by draws without replacement; ``reference.draws`` defines them.

All arithmetic is on integers, but for conversions between them and float32, which every device
rounds alike.
"""

import triton
import triton.language as tl

from ..tables.constants import DRAW_RULES, LOG_BITS, MAX_LOG2, N_MANTISSAS, Purpose
from .threshold import bound_between, flags_before, write_masks
from .words import philox_words, scalar_seed

DRAW = tl.constexpr(int(Purpose.DRAW))
REVEAL = tl.constexpr(int(Purpose.REVEAL))
MASK_AGAIN = tl.constexpr(int(Purpose.MASK_AGAIN))
WEIGHTS, LOG2_WEIGHTS = (
    tl.constexpr(DRAW_RULES.index(rule)) for rule in ("weights", "log2_weights")
)
#: As logarithms: float32's bias, its smallest subnormal number, the range of words, fixed point.
BIAS = tl.constexpr(127 << LOG_BITS)
SMALLEST = tl.constexpr(149 << LOG_BITS)
WORD_BITS = tl.constexpr(32 << LOG_BITS)
FIXED_POINT = tl.constexpr(LOG_BITS << LOG_BITS)
UNIT = tl.constexpr(float(1 << LOG_BITS))
MOST = tl.constexpr(float(MAX_LOG2))
#: Where the second table of ``tables.logarithms.packed_logarithms`` begins.
SHARES = tl.constexpr(N_MANTISSAS + 1)
#: Keys are in this range; padding is below.
LOWEST = tl.constexpr(-(2**31) + 1)
HIGHEST = tl.constexpr(2**31 - 1)


@triton.jit
def interpolated(table, interval, part):
    low, high = tl.load(table + interval), tl.load(table + interval + 1)
    return low + ((high - low) * part >> 13)


@triton.jit
def log2_of_bits(logarithms, bits):
    """Of normal float32 with these bits, times 2**LOG_BITS."""
    mantissa = bits & 0x7FFFFF
    return bits - BIAS + interpolated(logarithms, mantissa >> 13, mantissa & 8191)


@triton.jit
def log2_of_ints(logarithms, n):
    """Of uint32, at least 1, rounded to float32."""
    return log2_of_bits(logarithms, n.to(tl.float32).to(tl.int32, bitcast=True))


@triton.jit
def log2_of_waits(logarithms, words):
    """log2(-log2(U)) of U = (word | 1) / 2**32."""
    uniform = words | 1
    wait = tl.maximum(WORD_BITS - log2_of_ints(logarithms, uniform), 1).to(tl.uint32)
    below = log2_of_ints(logarithms, wait) - FIXED_POINT
    rest = (uniform ^ 0xFFFFFFFF) + 1  # "~" of uint32 is refused by the interpreter of Triton 3.6
    # Beyond the table where U is below one half, whose value is not used.
    interval = tl.minimum(rest >> 22, 511).to(tl.int32)
    factor = interpolated(logarithms + SHARES, interval, (rest >> 9 & 8191).to(tl.int32))
    above = log2_of_ints(logarithms, rest) - WORD_BITS + factor
    return tl.where(uniform >> 31 == 0, below, above)


@triton.jit
def draw_keys(logarithms, values, words, RULE: tl.constexpr):
    """int32 from float32 values and uint32 words: larger ones are drawn first."""
    bits = values.to(tl.int32, bitcast=True)
    is_first = (bits & 0x7FFFFFFF) > 0x7F800000
    if RULE == WEIGHTS:
        subnormal = log2_of_ints(logarithms, tl.maximum(bits, 1).to(tl.uint32)) - SMALLEST
        log2 = tl.where(bits < 0x00800000, subnormal, log2_of_bits(logarithms, bits))
        keys = log2 - log2_of_waits(logarithms, words)
        keys = tl.where(bits > 0, keys, LOWEST + (words >> 3).to(tl.int32))
        is_first |= bits == 0x7F800000
    elif RULE == LOG2_WEIGHTS:
        clamped = tl.where(is_first, 0.0, values)
        clamped = tl.where(clamped > MOST, MOST, tl.where(clamped < -MOST, -MOST, clamped))
        keys = (clamped * UNIT).to(tl.int32) - log2_of_waits(logarithms, words)
    else:
        keys = tl.where(bits < 0, LOWEST - 1 - bits, bits)
    return tl.where(is_first, HIGHEST - 1, keys)


@triton.jit
def words_in_order(seed, sample_id, purpose: tl.constexpr, n_tokens, BLOCKS: tl.constexpr, token):
    """uint32: the word of each token, which are in segments: token i has word i // n_blocks of
    block i % n_blocks."""
    word0, word1, word2, word3 = philox_words(seed, sample_id, tl.arange(0, BLOCKS), purpose)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    n_blocks = (n_tokens + 3) // 4
    place = tl.where(token < n_tokens, token % n_blocks * 4 + token // n_blocks, 0)
    return tl.gather(tl.reshape(words, [4 * BLOCKS]), place, 0)


@triton.jit
def in_columns(keys, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """From tokens in order to columns of up to eight."""
    return tl.trans(tl.reshape(keys, [COLUMNS, ROWS]))


@triton.jit
def evenly_chosen(seed, sample_id, purpose: tl.constexpr, n_tokens, n, among, BLOCKS: tl.constexpr):
    """bool [rows, columns]: n of the tokens that are ``among``, each as likely as any other."""
    rows: tl.constexpr = among.shape[0]
    columns: tl.constexpr = among.shape[1]
    token = tl.arange(0, rows * columns)
    words = words_in_order(seed, sample_id, purpose, n_tokens, BLOCKS, token) >> 1
    keys = tl.where(among, in_columns(words.to(tl.int32), rows, columns), -1)
    bound, n_reaching = bound_between(keys, rows * columns, n, -1, HIGHEST)
    equal = (keys == bound).to(tl.int32)
    room = n - (n_reaching - tl.sum(tl.sum(equal, 0), 0))
    return (keys > bound) | ((equal == 1) & (flags_before(equal) < room))


@triton.jit(
    do_not_specialize=[
        "sample_ids", "seed_pointer", "seed", "values", "may_show", "n_tokens", "n_keep",
        "n_swapped", "visible", "ids_keep", "ids_restore",
    ]
)  # fmt: skip
def draw_masks_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    values,
    may_show,
    logarithms,
    n_tokens: "i32",
    n_keep: "i32",
    n_swapped: "i32",
    visible,
    ids_keep,
    ids_restore,
    RULE: tl.constexpr,
    INVERT: tl.constexpr,
    SWAPS: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One sample per program: 4 * BLOCKS words and ROWS * COLUMNS keys hold it. SWAPS says whether
    ``n_swapped`` is more than 0. Tokens that may not show, bool [B, N] or None, are as padding."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    token = tl.arange(0, ROWS * COLUMNS)
    words = words_in_order(seed, sample_id, DRAW, n_tokens, BLOCKS, token)
    value = tl.load(values + row.to(tl.int64) * n_tokens + token, mask=token < n_tokens, other=0.0)
    keys = draw_keys(logarithms, value, words, RULE)
    # The largest keys are those of the visible tokens.
    keys = in_columns(keys if INVERT else ~keys, ROWS, COLUMNS)
    token = tl.arange(0, COLUMNS)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    valid = token < n_tokens
    usable = valid
    n_usable = n_tokens
    if may_show is not None:
        shows = tl.load(may_show + row.to(tl.int64) * n_tokens + token, mask=valid, other=0)
        usable = valid & (shows != 0)
        n_usable = tl.sum(tl.sum(usable.to(tl.int32), 0), 0)
    keys = tl.where(usable, keys, LOWEST - 1)
    bound, n_reaching = bound_between(keys, n_usable, n_keep, LOWEST, HIGHEST)
    if SWAPS:
        equal = (keys == bound).to(tl.int32)
        room = n_keep - (n_reaching - tl.sum(tl.sum(equal, 0), 0))
        shown = (keys > bound) | ((equal == 1) & (flags_before(equal) < room))
        drawn = shown if INVERT else usable & (shown == 0)
        if may_show is not None and not INVERT:
            # More than 0 are drawn: else none were swapped.
            n_drawn = (n_tokens - n_keep).to(tl.int64)
            n_swapped = (n_swapped.to(tl.int64) * (n_usable - n_keep) // n_drawn).to(tl.int32)
        shown ^= evenly_chosen(seed, sample_id, REVEAL, n_tokens, n_swapped, drawn, BLOCKS)
        left = usable & (shown == 0) if INVERT else shown
        shown ^= evenly_chosen(seed, sample_id, MASK_AGAIN, n_tokens, n_swapped, left, BLOCKS)
        keys = tl.where(usable, shown.to(tl.int32), -1)
        bound = bound * 0 + 1
        n_reaching = n_keep
    write_masks(
        keys, token, valid, bound, n_reaching, row, n_tokens, n_keep,
        visible, ids_keep, ids_restore, 1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "values", "n_tokens", "keys"])
def fill_draw_keys(
    sample_ids,
    seed_pointer,
    seed: "i64",
    values,
    logarithms,
    n_tokens: "i32",
    keys,
    RULE: tl.constexpr,
    INVERT: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Fills ``keys`` int32 [B, N] of samples that do not fit on the chip, BLOCKS * 4 a program."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    words, token, valid = words_in_segments(seed, sample_id, DRAW, n_tokens, BLOCKS)
    start = row.to(tl.int64) * n_tokens
    value = tl.load(values + start + token, mask=valid, other=0.0)
    made = draw_keys(logarithms, value, words, RULE)
    tl.store(keys + start + token, made if INVERT else ~made, mask=valid)


@triton.jit(
    do_not_specialize=[
        "sample_ids", "seed_pointer", "seed", "visible", "n_tokens", "keys", "purpose",
        "from_visible",
    ]
)  # fmt: skip
def fill_swap_keys(
    sample_ids,
    seed_pointer,
    seed: "i64",
    visible,
    n_tokens: "i32",
    keys,
    purpose: "i32",
    from_visible: "i32",
    BLOCKS: tl.constexpr,
):
    """Fills ``keys`` int32 [B, N]: random ones of the tokens that may be chosen, -1 of others."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    words, token, valid = words_in_segments(seed, sample_id, purpose, n_tokens, BLOCKS)
    start = row.to(tl.int64) * n_tokens
    shown = tl.load(visible + start + token, mask=valid, other=0).to(tl.int32)
    made = tl.where(shown == from_visible, (words >> 1).to(tl.int32), -1)
    tl.store(keys + start + token, made, mask=valid)


@triton.jit
def words_in_segments(seed, sample_id, purpose, n_tokens, BLOCKS: tl.constexpr):
    """(words, tokens, which of them there are) [4, BLOCKS] of the program's blocks."""
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    word0, word1, word2, word3 = philox_words(seed, sample_id, block, purpose)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    n_blocks = (n_tokens + 3) // 4
    token = tl.arange(0, 4)[:, None] * n_blocks + block[None, :]
    valid = (block[None, :] < n_blocks) & (token < n_tokens)
    return tl.trans(tl.reshape(words, [BLOCKS, 4])), token, valid

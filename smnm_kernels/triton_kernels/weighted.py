"""The keys of weighted draws and their threshold; ``reference.weighted`` defines them.

All arithmetic is on integers, but for the conversion of integers to float32, which every device
rounds alike.
"""

import triton
import triton.language as tl

from ..tables.constants import LOG_BITS, N_MANTISSAS, Purpose
from .threshold import bound_between, write_masks
from .words import philox_words, scalar_seed

DRAW = tl.constexpr(int(Purpose.DRAW))
#: Exponents, as logarithms: of the bias of float32, of the smallest subnormal number, and others.
BIAS = tl.constexpr(127 << LOG_BITS)
SMALLEST = tl.constexpr(149 << LOG_BITS)
WORD_BITS = tl.constexpr(32 << LOG_BITS)
FIXED_POINT = tl.constexpr(LOG_BITS << LOG_BITS)
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
    wait = WORD_BITS - log2_of_ints(logarithms, uniform)
    wait = tl.maximum(wait, 1).to(tl.uint32)
    below = log2_of_ints(logarithms, wait) - FIXED_POINT
    rest = ~uniform + 1
    # Beyond the table where U is below one half, whose value is not used.
    interval = tl.minimum(rest >> 22, 511).to(tl.int32)
    factor = interpolated(logarithms + SHARES, interval, (rest >> 9 & 8191).to(tl.int32))
    above = log2_of_ints(logarithms, rest) - WORD_BITS + factor
    return tl.where(uniform >> 31 == 0, below, above)


@triton.jit
def draw_keys(logarithms, weights, words):
    """int32 from float32 weights and uint32 words: larger ones are drawn first."""
    bits = weights.to(tl.int32, bitcast=True)
    subnormal = log2_of_ints(logarithms, tl.maximum(bits, 1).to(tl.uint32)) - SMALLEST
    of_weights = tl.where(bits < 0x00800000, subnormal, log2_of_bits(logarithms, bits))
    keys = of_weights - log2_of_waits(logarithms, words)
    keys = tl.where(bits > 0, keys, LOWEST + (words >> 3).to(tl.int32))
    is_first = ((bits & 0x7FFFFFFF) > 0x7F800000) | (bits == 0x7F800000)
    return tl.where(is_first, HIGHEST - 1, keys)


@triton.jit(
    do_not_specialize=[
        "sample_ids", "seed_pointer", "seed", "weights", "n_tokens", "n_keep",
        "visible", "ids_keep", "ids_restore",
    ]
)  # fmt: skip
def weighted_masks_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    weights,
    logarithms,
    n_tokens: "i32",
    n_keep: "i32",
    visible,
    ids_keep,
    ids_restore,
    INVERT: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One sample per program: 4 * BLOCKS words and ROWS * COLUMNS keys hold it."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    word0, word1, word2, word3 = philox_words(seed, sample_id, tl.arange(0, BLOCKS), DRAW)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    token = tl.arange(0, ROWS * COLUMNS)
    # Words are in segments: token i has word i // n_blocks of block i % n_blocks.
    n_blocks = (n_tokens + 3) // 4
    place = tl.where(token < n_tokens, token % n_blocks * 4 + token // n_blocks, 0)
    words = tl.gather(tl.reshape(words, [4 * BLOCKS]), place, 0)
    weights += row.to(tl.int64) * n_tokens
    keys = draw_keys(logarithms, tl.load(weights + token, mask=token < n_tokens, other=0.0), words)
    if not INVERT:
        keys = ~keys
    keys = tl.where(token < n_tokens, keys, LOWEST - 1)
    # From tokens in order to columns of up to eight.
    keys = tl.trans(tl.reshape(keys, [COLUMNS, ROWS]))
    token = tl.arange(0, COLUMNS)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    bound, n_reaching = bound_between(keys, n_tokens, n_keep, LOWEST, HIGHEST)
    write_masks(
        keys, token, token < n_tokens, bound, n_reaching, row, n_tokens, n_keep,
        visible, ids_keep, ids_restore, 1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "weights", "n_tokens", "keys"])
def weighted_keys(
    sample_ids,
    seed_pointer,
    seed: "i64",
    weights,
    logarithms,
    n_tokens: "i32",
    keys,
    INVERT: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Fills ``keys`` int32 [B, N] of samples that do not fit on the chip, BLOCKS * 4 a program."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    word0, word1, word2, word3 = philox_words(seed, sample_id, block, DRAW)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    words = tl.trans(tl.reshape(words, [BLOCKS, 4]))
    n_blocks = (n_tokens + 3) // 4
    token = tl.arange(0, 4)[:, None] * n_blocks + block[None, :]
    valid = (block[None, :] < n_blocks) & (token < n_tokens)
    start = row.to(tl.int64) * n_tokens
    made = draw_keys(logarithms, tl.load(weights + start + token, mask=valid, other=0.0), words)
    if not INVERT:
        made = ~made
    tl.store(keys + start + token, made, mask=valid)

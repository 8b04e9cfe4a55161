"""Masks of structures; ``reference.structures`` defines them.

A program computes the marks of its places one by one, each from all blocks, bands or lines of the
sample: these are few, and their random numbers are scalars.
"""

import triton
import triton.language as tl

from ..tables.constants import (
    MAX_MARK,
    N_BANDS,
    N_BLOCKS,
    STRUCTURE_SEED,
    STRUCTURES,
    WHITE_BITS,
)
from .draws import in_columns, words_in_order, words_in_segments
from .threshold import bound_between, write_masks
from .words import NOISE, philox_words, scalar_seed

BITS = tl.constexpr(WHITE_BITS)
SHIFT = tl.constexpr(32 - WHITE_BITS)
SEED = tl.constexpr(STRUCTURE_SEED)
BLOCKS_OF_MASK = tl.constexpr(N_BLOCKS)
BANDS_OF_MASK = tl.constexpr(N_BANDS)
MARKS = tl.constexpr(MAX_MARK)
(
    GRID, BLOCK, INVERSE_BLOCK, TIME_FREQUENCY, BANDS, MULTI_BLOCK, TARGET_BLOCK, FRAMES,
    RUNNING_CELL,
) = (tl.constexpr(number) for number in range(len(STRUCTURES)))  # fmt: skip
#: Keys of tokens that are not valid, and the largest keys. Padding is below.
NOT_VALID = tl.constexpr(-1)
HIGHEST_INT = tl.constexpr(2**31 - 1)
HIGHEST_LONG = tl.constexpr(2**62 - 1)


@triton.jit
def four_numbers(seed, sample_id, block):
    """int64 in [0, 2**22): those of one block of Philox, or of each block."""
    word0, word1, word2, word3 = philox_words(
        seed, sample_id, tl.full([], 0, tl.int32) + block, NOISE
    )
    return (
        (word0 >> SHIFT).to(tl.int64),
        (word1 >> SHIFT).to(tl.int64),
        (word2 >> SHIFT).to(tl.int64),
        (word3 >> SHIFT).to(tl.int64),
    )


@triton.jit
def uniform(number, n):
    """int32 in [0, n)."""
    return (number * n >> BITS).to(tl.int32)


@triton.jit
def inside(y, x, top, left, rows, columns):
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)


@triton.jit
def lattice(seed, sample_id, y, x, period_y, period_x):
    number_y, number_x, _, _ = four_numbers(seed, sample_id, 0)
    on_row = (y - uniform(number_y, period_y)) % period_y == 0
    return (on_row & ((x - uniform(number_x, period_x)) % period_x == 0)).to(tl.int32)


@triton.jit
def part_of(side, number):
    """A quarter to a half of a side."""
    least = (side + 3) // 4
    return least + uniform(number, (side + 1) // 2 - least + 1)


@triton.jit
def first_block(seed, sample_id, y, x, height, width):
    first = y * 0 + BLOCKS_OF_MASK
    i = 0
    while i < BLOCKS_OF_MASK:
        number0, number1, number2, number3 = four_numbers(seed, sample_id, i)
        rows, columns = part_of(height, number0), part_of(width, number2)
        top, left = uniform(number1, height - rows + 1), uniform(number3, width - columns + 1)
        first = tl.minimum(first, tl.where(inside(y, x, top, left, rows, columns), i, first))
        i += 1
    return first


@triton.jit
def in_square(y, x, height, width, size, number, is_one):
    """int32: whether places are in the square round a random centre, if it is one of the sample's
    at all."""
    centre = uniform(number, height * width)
    top, left = centre // width - size // 2, centre % width - size // 2
    return (is_one & inside(y, x, top, left, size, size)).to(tl.int32)


@triton.jit
def in_squares(seed, sample_id, y, x, height, width, size, n):
    covered = y * 0
    n_blocks = (n + 3) // 4
    i = 0
    while i < n_blocks:
        number0, number1, number2, number3 = four_numbers(seed, sample_id, i)
        covered |= in_square(y, x, height, width, size, number0, i < n)
        covered |= in_square(y, x, height, width, size, number1, i + n_blocks < n)
        covered |= in_square(y, x, height, width, size, number2, i + 2 * n_blocks < n)
        covered |= in_square(y, x, height, width, size, number3, i + 3 * n_blocks < n)
        i += 1
    return covered


@triton.jit
def number_of(seed, sample_id, i, n):
    """int64: number i of n, which are in segments."""
    n_blocks = (n + 3) // 4
    number0, number1, number2, number3 = four_numbers(seed, sample_id, i % n_blocks)
    low = tl.where(i < n_blocks, number0, number1)
    return tl.where(i < 2 * n_blocks, low, tl.where(i < 3 * n_blocks, number2, number3))


@triton.jit
def is_before(number, i, first, n, own, own_i):
    """Whether number i is one of the n from ``first`` on, and ranks before an own one of these."""
    there = (i >= first) & (i < first + n)
    return (there & ((number > own) | ((number == own) & (i < own_i)))).to(tl.int32)


@triton.jit
def rank_among(seed, sample_id, i, first, n, n_all):
    """int32: how many of the n numbers from ``first`` on, of n_all, rank before number i: those
    that are larger, or equal and before it."""
    own = number_of(seed, sample_id, i, n_all)
    rank = i * 0
    n_blocks = (n_all + 3) // 4
    block = 0
    while block < n_blocks:
        number0, number1, number2, number3 = four_numbers(seed, sample_id, block)
        rank += is_before(number0, block, first, n, own, i)
        rank += is_before(number1, block + n_blocks, first, n, own, i)
        rank += is_before(number2, block + 2 * n_blocks, first, n, own, i)
        rank += is_before(number3, block + 3 * n_blocks, first, n, own, i)
        block += 1
    return rank


@triton.jit
def first_band(
    seed, sample_id, y, x, height, width, time_bands, freq_bands, time_width, freq_width
):
    first = y * 0 + BANDS_OF_MASK
    i = 0
    while i < BANDS_OF_MASK:
        number0, number1, _, _ = four_numbers(seed, sample_id, i)
        is_time = i * time_bands % (time_bands + freq_bands) < time_bands
        length = 1 + uniform(number0, tl.where(is_time, time_width, freq_width))
        start = uniform(number1, tl.where(is_time, height, width) - length + 1)
        line = tl.where(is_time, y, x)
        covered = (line >= start) & (line < start + length)
        first = tl.minimum(first, tl.where(covered, i, first))
        i += 1
    return first


@triton.jit
def integer_sqrt(x):
    """Of int64 below 2**44."""
    root = x * 0
    bit = 1 << 21
    while bit > 0:
        root = tl.where((root + bit) * (root + bit) <= x, root + bit, root)
        bit = bit >> 1
    return root


@triton.jit
def block_of_area(area, aspect, height, width):
    """(rows, columns) of at least ``area`` places, about ``aspect`` thousandths of rows for a
    column."""
    product = 4 * area.to(tl.int64) * aspect // 1000
    rows = ((integer_sqrt(product) + 1) // 2).to(tl.int32)
    rows = tl.minimum(tl.maximum(rows, 1), height)
    columns = (area + rows - 1) // rows
    rows = tl.where(columns > width, (area + width - 1) // width, rows)
    return rows, tl.minimum(columns, width)


@triton.jit
def target_size(seed, sample_id, height, width, area, most_area, aspect, most_aspect):
    """(rows, columns) of the sample's target blocks."""
    number0, number1, _, _ = four_numbers(seed, sample_id, 0)
    drawn_area = area + uniform(number0, most_area - area + 1)
    drawn_aspect = aspect + uniform(number1, most_aspect - aspect + 1)
    return block_of_area(drawn_area, drawn_aspect, height, width)


@triton.jit
def in_target(seed, sample_id, i, y, x, height, width, rows, columns):
    number_y, number_x, _, _ = four_numbers(seed, sample_id, i + 2)
    top, left = uniform(number_y, height - rows + 1), uniform(number_x, width - columns + 1)
    return inside(y, x, top, left, rows, columns)


@triton.jit
def first_target(
    seed, sample_id, y, x, height, width,
    n_blocks, area, most_area, aspect, most_aspect, context, most_context,
):  # fmt: skip
    number0, number1, number2, _ = four_numbers(seed, sample_id, 1)
    drawn_context = context + uniform(number0, most_context - context + 1)
    rows, columns = block_of_area(drawn_context, drawn_context * 0 + 1000, height, width)
    top, left = uniform(number1, height - rows + 1), uniform(number2, width - columns + 1)
    first = n_blocks + inside(y, x, top, left, rows, columns).to(tl.int32)
    rows, columns = target_size(
        seed, sample_id, height, width, area, most_area, aspect, most_aspect
    )
    i = 0
    while i < n_blocks:
        covered = in_target(seed, sample_id, i, y, x, height, width, rows, columns)
        first = tl.minimum(first, tl.where(covered, i, first))
        i += 1
    return first


@triton.jit
def marks_of(
    seed, sample_id, place, frames, height, width,
    p0, p1, p2, p3, p4, p5, p6, STRUCTURE: tl.constexpr,
):  # fmt: skip
    """int32, from the places of a grid in row-major order and the structure's parameters."""
    seed = seed.to(tl.int64) ^ SEED
    t, y, x = place // (height * width), place // width % height, place % width
    if STRUCTURE == GRID:
        marks = lattice(seed, sample_id, y, x, p0, p1)
    elif STRUCTURE == BLOCK:
        marks = first_block(seed, sample_id, y, x, height, width)
    elif STRUCTURE == INVERSE_BLOCK:
        marks = in_squares(seed, sample_id, y, x, height, width, p0, p1)
    elif STRUCTURE == TIME_FREQUENCY:
        row_rank = rank_among(seed, sample_id, y, 0, height, height + width)
        column_rank = rank_among(seed, sample_id, x + height, height, width, height + width)
        marks = ((row_rank < p0) & (column_rank < p1)).to(tl.int32)
    elif STRUCTURE == BANDS:
        marks = first_band(seed, sample_id, y, x, height, width, p0, p1, p2, p3)
    elif STRUCTURE == MULTI_BLOCK:
        marks = first_target(
            seed, sample_id, y, x, height, width, p0, p1, p2, p3, p4, p5, p6
        )  # fmt: skip
    elif STRUCTURE == TARGET_BLOCK:
        rows, columns = target_size(seed, sample_id, height, width, p1, p2, p3, p4)
        covered = in_target(seed, sample_id, p0, y, x, height, width, rows, columns)
        marks = covered.to(tl.int32)
    elif STRUCTURE == FRAMES:
        line, n_lines = tl.where(frames > 1, t, y), tl.where(frames > 1, frames, height)
        rank = rank_among(seed, sample_id, line, 0, n_lines, n_lines)
        marks = tl.maximum(MARKS - tl.maximum(rank + 1 - p0, 0), 0)
    else:
        number, _, _, _ = four_numbers(seed, sample_id, 0)
        marks = (uniform(number, 4) + t + y % 2 * 2 + x % 2) % 4
    return marks


@triton.jit(
    do_not_specialize=[
        "sample_ids", "seed_pointer", "seed", "valid", "frames", "height", "width", "n_keep",
        "p0", "p1", "p2", "p3", "p4", "p5", "p6", "visible", "ids_keep", "ids_restore",
    ]
)  # fmt: skip
def structure_masks_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    valid,
    frames: "i32",
    height: "i32",
    width: "i32",
    n_keep: "i32",
    p0: "i32",
    p1: "i32",
    p2: "i32",
    p3: "i32",
    p4: "i32",
    p5: "i32",
    p6: "i32",
    visible,
    ids_keep,
    ids_restore,
    STRUCTURE: tl.constexpr,
    REPEATS: tl.constexpr,
    BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One sample per program: 4 * BLOCKS words hold its places and ROWS * COLUMNS keys its tokens.
    REPEATS is how many frames have the same places. If some tokens are not valid, all tokens have
    keys; else those of one such frame, and ``n_keep`` counts the visible ones of it."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    n_places = frames * height * width // REPEATS
    place = tl.arange(0, 4 * BLOCKS)
    words = words_in_order(seed, sample_id, NOISE, n_places, BLOCKS, place) >> SHIFT
    marks = marks_of(
        seed, sample_id, place, frames, height, width, p0, p1, p2, p3, p4, p5, p6, STRUCTURE
    )
    keys = marks << BITS | words.to(tl.int32)
    token = tl.arange(0, ROWS * COLUMNS)
    if valid is None:
        n_tokens = n_places
    else:
        n_tokens = n_places * REPEATS
        place = token % n_places
        if REPEATS > 1:
            keys = tl.gather(keys, place, 0)
        keys = keys_where_valid(
            valid + row.to(tl.int64) * n_tokens, keys, token, place, n_places, n_tokens, REPEATS
        )
    keys = in_columns(tl.where(token < n_tokens, keys, NOT_VALID - 1), ROWS, COLUMNS)
    token = tl.arange(0, COLUMNS)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    highest: tl.constexpr = HIGHEST_INT if valid is None or REPEATS == 1 else HIGHEST_LONG
    bound, n_reaching = bound_between(keys, n_tokens, n_keep, NOT_VALID, highest)
    write_masks(
        keys, token, token < n_tokens, bound, n_reaching, row, n_tokens, n_keep,
        visible, ids_keep, ids_restore, REPEATS if valid is None else 1,
    )  # fmt: skip


@triton.jit
def keys_where_valid(valid, keys, token, place, n_places, n_tokens, REPEATS: tl.constexpr):
    """Of the row that ``valid`` points to. Where places repeat, keys are int64, so that all frames
    of a place come before those of the next."""
    is_valid = tl.load(valid + token, mask=token < n_tokens, other=0) != 0
    if REPEATS == 1:
        made = tl.where(is_valid, keys, NOT_VALID)
    else:
        in_order = (keys.to(tl.int64) << 31) | (n_places - 1 - place)
        made = tl.where(is_valid, in_order, NOT_VALID)
    return made


@triton.jit(
    do_not_specialize=[
        "sample_ids", "seed_pointer", "seed", "valid", "frames", "height", "width",
        "p0", "p1", "p2", "p3", "p4", "p5", "p6", "keys",
    ]
)  # fmt: skip
def fill_structure_keys(
    sample_ids,
    seed_pointer,
    seed: "i64",
    valid,
    frames: "i32",
    height: "i32",
    width: "i32",
    p0: "i32",
    p1: "i32",
    p2: "i32",
    p3: "i32",
    p4: "i32",
    p5: "i32",
    p6: "i32",
    keys,
    STRUCTURE: tl.constexpr,
    REPEATS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Fills ``keys`` [B, N], int64 where places repeat, of samples that do not fit on the chip;
    where all tokens are valid int32 [B, places]. 4 * BLOCKS places a program."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    n_places = frames * height * width // REPEATS
    words, place, there = words_in_segments(seed, sample_id, NOISE, n_places, BLOCKS)
    marks = marks_of(
        seed, sample_id, place, frames, height, width, p0, p1, p2, p3, p4, p5, p6, STRUCTURE
    )
    made = marks << BITS | (words >> SHIFT).to(tl.int32)
    if valid is None:
        tl.store(keys + row.to(tl.int64) * n_places + place, made, mask=there)
    else:
        n_tokens = n_places * REPEATS
        start = row.to(tl.int64) * n_tokens
        for frame in range(REPEATS):
            token = frame * n_places + place
            of_valid = keys_where_valid(
                valid + start, made, token, place, n_places, n_tokens, REPEATS
            )
            tl.store(keys + start + token, of_valid, mask=there)

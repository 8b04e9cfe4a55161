"""Noise of grids that do not fit on the chip: one launch per pass, with signals in memory between.

The passes are those of ``on_chip``, done tile by tile: products with pieces of the circulant
matrices. Signals are float16 [chains, B, ...]; a program makes a tile of one chain of one sample.
All tiles of all samples lie along the first axis of the launch, the only one not limited to 65,535.
TILE is (outputs of a tile along the filtered axis, inputs that are read at a time, size of the tile
across the axis). REACH is the largest distance at which a tap is not zero. A tile reads no inputs
beyond it, so that work grows linearly with the tokens.
"""

import triton
import triton.language as tl

from .filters import MAX_FIELD, TAP_UNIT, circulant, rescale, scale_taps
from .words import noise_values, scalar_seed, sigma_pair, white_keys


@triton.jit
def chain_taps(seed, sample_id, taps, pairs, n_pairs, chain, TORUS: tl.constexpr):
    """Points to the taps of the sample's chain: those along T, then along H, then along W."""
    _, level1, level2, _ = sigma_pair(seed, sample_id, pairs, n_pairs)
    level = tl.where(chain == 0, level1, level2)
    return taps + level * (TORUS[0] + TORUS[1] + TORUS[2])


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs"])
def pass_along_w(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    quantiles,
    signal,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    REACH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Draws white noise and filters it: [torus T * torus H, torus W] -> [torus T * torus H, W].

    A segment of the noise is whole rows, so a tile of Philox blocks makes eight tiles of rows.
    """
    table = tl.load(quantiles + tl.arange(0, 4096))
    n_rows: tl.constexpr = TORUS[0] * TORUS[1]
    if GRID[0] == 1:
        segment: tl.constexpr = (TORUS[1] + 7) // 8
    else:
        segment: tl.constexpr = (TORUS[0] + 7) // 8 * TORUS[1]
    n_across: tl.constexpr = (segment + TILE[2] - 1) // TILE[2]
    n_tiles: tl.constexpr = n_across * ((GRID[2] + TILE[0] - 1) // TILE[0])
    sample, chain = tl.program_id(0) // n_tiles, tl.program_id(1)
    tile = tl.program_id(0) % n_tiles % n_across
    sample_id, seed = tl.load(sample_ids + sample), scalar_seed(seed_pointer, seed)
    taps = chain_taps(seed, sample_id, taps, pairs, n_pairs, chain, TORUS) + TORUS[0] + TORUS[1]
    row = tile * TILE[2] + tl.arange(0, TILE[2])[:, None]
    rows: tl.constexpr = 8 * TILE[2]
    n_in: tl.constexpr = TILE[1]
    n_out: tl.constexpr = TILE[0]
    first_out = tl.program_id(0) % n_tiles // n_across * n_out
    x_out = first_out + tl.arange(0, n_out)[None, :]
    total = tl.zeros([rows, n_out], tl.float32)
    reach: tl.constexpr = min(REACH, TORUS[2])
    seen: tl.constexpr = min(TILE[0] + 2 * REACH, TORUS[2])
    for start in range(0, seen, n_in):
        nth = start + tl.arange(0, n_in)
        x = (first_out - reach + TORUS[2] + nth) % TORUS[2]
        noise = noise_values(seed, sample_id, row * TORUS[2] + x[None, :], table)
        noise = tl.reshape(tl.permute(noise, (2, 0, 1)), [rows, n_in])
        inside = nth[:, None] < seen
        along_w = circulant(taps, x[:, None], x_out, TORUS[2], GRID[2], inside)
        total = tl.dot(noise, along_w.to(tl.float16), total)
    index = tl.arange(0, rows)[:, None]
    in_segment = tile * TILE[2] + index % TILE[2]
    row_out = index // TILE[2] * segment + in_segment
    batch = tl.num_programs(0) // n_tiles
    signal += (chain * batch + sample).to(tl.int64) * (n_rows * GRID[2])
    inside = (in_segment < segment) & (row_out < n_rows) & (x_out < GRID[2])
    tl.store(signal + row_out.to(tl.int64) * GRID[2] + x_out, rescale(total), mask=inside)


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs"])
def pass_along_h(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    signal,
    out,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    REACH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Filters [torus T, torus H, W] -> [torus T, H, W]."""
    n_across: tl.constexpr = (GRID[2] + TILE[2] - 1) // TILE[2]
    n_tiles: tl.constexpr = n_across * ((GRID[1] + TILE[0] - 1) // TILE[0])
    plane, chain = tl.program_id(0) // n_tiles, tl.program_id(1)
    tile = tl.program_id(0) % n_tiles
    sample_id = tl.load(sample_ids + plane // TORUS[0])
    seed = scalar_seed(seed_pointer, seed)
    taps = chain_taps(seed, sample_id, taps, pairs, n_pairs, chain, TORUS) + TORUS[0]
    plane = (chain * (tl.num_programs(0) // n_tiles) + plane).to(tl.int64)
    first_y = tile // n_across * TILE[0]
    y = first_y + tl.arange(0, TILE[0])[:, None]
    x = tile % n_across * TILE[2] + tl.arange(0, TILE[2])[None, :]
    signal += plane * (TORUS[1] * GRID[2])
    total = filter_tile(signal, taps, TAP_UNIT, first_y, x, REACH, TORUS[1], GRID[1], GRID[2], TILE)
    out += plane * (GRID[1] * GRID[2])
    tl.store(out + y * GRID[2] + x, rescale(total), mask=(y < GRID[1]) & (x < GRID[2]))


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs", "out"])
def last_pass(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    scale,
    signal,
    out,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    REACH: tl.constexpr,
    CHAINS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Filters both chains along T (along H in two dimensions) and subtracts chain 2 from chain 1.

    ``out`` gets the integers of the field if it is int32, noise of unit variance if it is float32.
    """
    if GRID[0] == 1:
        taps += TORUS[0]
        side: tl.constexpr = TORUS[1]
        n_out: tl.constexpr = GRID[1]
        across: tl.constexpr = GRID[2]
    else:
        side: tl.constexpr = TORUS[0]
        n_out: tl.constexpr = GRID[0]
        across: tl.constexpr = GRID[1] * GRID[2]
    n_across: tl.constexpr = (across + TILE[2] - 1) // TILE[2]
    n_tiles: tl.constexpr = n_across * ((n_out + TILE[0] - 1) // TILE[0])
    sample, tile = (tl.program_id(0) // n_tiles).to(tl.int64), tl.program_id(0) % n_tiles
    sample_id, seed = tl.load(sample_ids + sample), scalar_seed(seed_pointer, seed)
    pair, level1, level2, gain = sigma_pair(seed, sample_id, pairs, n_pairs)
    first = tile // n_across * TILE[0]
    target = first + tl.arange(0, TILE[0])[:, None]
    place = tile % n_across * TILE[2] + tl.arange(0, TILE[2])[None, :]
    n_taps: tl.constexpr = TORUS[0] + TORUS[1] + TORUS[2]
    signal1 = signal + sample * (side * across)
    taps1 = taps + level1 * n_taps
    total = filter_tile(signal1, taps1, TAP_UNIT, first, place, REACH, side, n_out, across, TILE)
    keys = total.to(tl.int32)
    if CHAINS == 2:
        signal2 = signal1 + (tl.num_programs(0) // n_tiles).to(tl.int64) * (side * across)
        taps2 = taps + level2 * n_taps
        total = filter_tile(signal2, taps2, gain, first, place, REACH, side, n_out, across, TILE)
        keys -= total.to(tl.int32)
    keys = tl.minimum(tl.maximum(keys, -MAX_FIELD), MAX_FIELD)
    if out.dtype.element_ty == tl.float32:
        keys = keys.to(tl.float32) * tl.load(scale + pair)
    out = start_of_sample(out, sample, n_out * across)
    tl.store(
        out + target.to(tl.int64) * across + place, keys, mask=(target < n_out) & (place < across)
    )


@triton.jit
def filter_tile(
    signal,
    taps,
    gain,
    first,
    place,
    REACH: tl.constexpr,
    SIDE: tl.constexpr,
    N_OUT: tl.constexpr,
    ACROSS: tl.constexpr,
    TILE: tl.constexpr,
):
    """float32: one tile of the filter's outputs along the first axis of ``signal`` [SIDE, ACROSS],
    from output ``first`` on."""
    n_out: tl.constexpr = TILE[0]
    n_across: tl.constexpr = TILE[2]
    target = first + tl.arange(0, n_out)[:, None]
    total = tl.zeros([n_out, n_across], tl.float32)
    reach: tl.constexpr = min(REACH, SIDE)
    seen: tl.constexpr = min(TILE[0] + 2 * REACH, SIDE)
    for start in range(0, seen, TILE[1]):
        nth = start + tl.arange(0, TILE[1])
        source = (first - reach + SIDE + nth) % SIDE
        inside = (nth[:, None] < seen) & (place < ACROSS)
        values = tl.load(
            signal + source[:, None].to(tl.int64) * ACROSS + place, mask=inside, other=0.0
        )
        matrix = circulant(taps, source[None, :], target, SIDE, N_OUT, nth[None, :] < seen)
        total = tl.dot(scale_taps(matrix, gain), values, total)
    return total


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "out"])
def white_pass(
    sample_ids,
    seed_pointer,
    seed: "i64",
    scale,
    out,
    GRID: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Makes white noise from a tile of Philox blocks; ``out`` as in ``last_pass``."""
    n_tokens: tl.constexpr = GRID[0] * GRID[1] * GRID[2]
    n_blocks: tl.constexpr = (n_tokens + 3) // 4
    n_tiles: tl.constexpr = (n_blocks + BLOCKS - 1) // BLOCKS
    sample, tile = tl.program_id(0) // n_tiles, tl.program_id(0) % n_tiles
    sample_id, seed = tl.load(sample_ids + sample), scalar_seed(seed_pointer, seed)
    block = tile * BLOCKS + tl.arange(0, BLOCKS)
    keys = white_keys(seed, sample_id, block)
    token = tl.arange(0, 4)[:, None] * n_blocks + block[None, :]
    inside = (block[None, :] < n_blocks) & (token < n_tokens)
    if out.dtype.element_ty == tl.float32:
        keys = keys.to(tl.float32) * tl.load(scale)
    out = start_of_sample(out, sample.to(tl.int64), n_tokens)
    tl.store(out + token, keys, mask=inside)


@triton.jit
def start_of_sample(out, sample, N: tl.constexpr):
    """Points to the N values of a sample.

    If 4 divides N, every sample of 32-bit values starts at a multiple of 16 bytes, also in a part
    of a batch. Triton is told so here. Without this it would compile a kernel for each alignment of
    the argument.
    """
    out += sample * N
    if N % 4 == 0:
        out = tl.multiple_of(out, 16)
    return out

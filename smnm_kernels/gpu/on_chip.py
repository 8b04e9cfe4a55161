"""Noise and masks of one sample per program, from random words to indices in one launch.

For grids whose torus fits into the registers and shared memory of one multiprocessor. Tiles have
powers of two for sides: PAD is (T, H, W, torus H, torus W), but in two dimensions torus H is that
of a segment, and for white noise W counts Philox blocks. What a tile holds beyond
the torus is noise like any other, and meets taps that are zero. CHAINS is 2 for green and blue
noise, 1 for red, 0 for white.
"""

import triton
import triton.language as tl

from .filters import MAX_FIELD, circulant, rescaled, scaled_circulant
from .select import kth_largest, write_masks
from .words import drawn_pair, noise_values, scalar_seed, white_keys


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs", "n_keep"])
def noise_masks_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    quantiles,
    n_keep: "i32",
    visible,
    ids_keep,
    ids_restore,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    PAD: tl.constexpr,
    FRAMES: tl.constexpr,
):
    """``n_keep`` is that of one of FRAMES equal frames."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    keys, token, valid, _ = field(
        seed, sample_id, taps, pairs, n_pairs, quantiles, GRID, TORUS, CHAINS, PAD
    )
    n_tokens: tl.constexpr = GRID[0] * GRID[1] * GRID[2]
    keys = tl.where(valid, keys, -MAX_FIELD - 2)
    bound = kth_largest(keys, n_tokens, n_keep, -MAX_FIELD - 1, MAX_FIELD)
    write_masks(
        keys, token, valid, bound, row, n_tokens, n_keep, visible, ids_keep, ids_restore, FRAMES
    )


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs"])
def noise_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    quantiles,
    scale,
    out,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    PAD: tl.constexpr,
):
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    keys, token, valid, pair = field(
        seed, sample_id, taps, pairs, n_pairs, quantiles, GRID, TORUS, CHAINS, PAD
    )
    out += row.to(tl.int64) * (GRID[0] * GRID[1] * GRID[2])
    tl.store(out + token, keys.to(tl.float32) * tl.load(scale + pair), mask=valid)


@triton.jit
def field(
    seed,
    sample_id,
    taps,
    pairs,
    n_pairs,
    quantiles,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    PAD: tl.constexpr,
):
    """(keys, token, valid, pair): the integers that are compared, int32 [P], their tokens, which
    of them are padding, and the row of the scale."""
    if CHAINS == 0:
        return white_field(seed, sample_id, GRID, PAD)
    else:
        return colored_field(
            seed, sample_id, taps, pairs, n_pairs, quantiles, GRID, TORUS, CHAINS, PAD
        )


@triton.jit
def white_field(seed, sample_id, GRID: tl.constexpr, PAD: tl.constexpr):
    """Four segments of one word per Philox block."""
    n_tokens: tl.constexpr = GRID[0] * GRID[1] * GRID[2]
    n_blocks: tl.constexpr = (n_tokens + 3) // 4
    pad_blocks: tl.constexpr = PAD[2]
    keys = tl.reshape(white_keys(seed, sample_id, tl.arange(0, pad_blocks)), [4 * pad_blocks])
    index = tl.arange(0, 4 * pad_blocks)
    token = index // pad_blocks * n_blocks + index % pad_blocks
    return keys, token, (index % pad_blocks < n_blocks) & (token < n_tokens), 0


@triton.jit
def colored_field(
    seed,
    sample_id,
    taps,
    pairs,
    n_pairs,
    quantiles,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    PAD: tl.constexpr,
):
    pair, level1, level2, gain = drawn_pair(seed, sample_id, pairs, n_pairs)
    taps1 = taps + level1 * (TORUS[0] + TORUS[1] + TORUS[2])
    # Red noise has no chain 2 (level -1).
    taps2 = taps + tl.maximum(level2, 0) * (TORUS[0] + TORUS[1] + TORUS[2])
    if GRID[0] == 1:
        taps1, taps2 = taps1 + TORUS[0], taps2 + TORUS[0]
        total = field_2d(seed, sample_id, taps1, taps2, gain, quantiles, GRID, TORUS, CHAINS, PAD)
    else:
        total = field_3d(seed, sample_id, taps1, taps2, gain, quantiles, GRID, TORUS, CHAINS, PAD)
    keys = tl.minimum(tl.maximum(total, -MAX_FIELD), MAX_FIELD)
    index = tl.arange(0, PAD[0] * PAD[1] * PAD[2])
    x, y, t = index % PAD[2], index // PAD[2] % PAD[1], index // (PAD[2] * PAD[1])
    valid = (x < GRID[2]) & (y < GRID[1]) & (t < GRID[0])
    return keys, (t * GRID[1] + y) * GRID[2] + x, valid, pair


@triton.jit
def field_3d(
    seed,
    sample_id,
    taps1,
    taps2,
    gain,
    quantiles,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    PAD: tl.constexpr,
):
    """int32 [PAD_T * PAD_H * PAD_W].

    A segment of the noise is ceil(torus T / 8) whole planes, so two planes of Philox blocks make
    16 planes of noise, which every pass takes at once. The pass along T is a batch of products,
    one per column of patches: a single one has so many rows that Triton gives it to Blackwell's
    tensor memory, and Triton 3.6 then fails to compile the sums over its result.
    """
    segment: tl.constexpr = (TORUS[0] + 7) // 8
    pad_t: tl.constexpr = PAD[0]
    pad_h: tl.constexpr = PAD[1]
    pad_w: tl.constexpr = PAD[2]
    pad_torus_h: tl.constexpr = PAD[3]
    pad_torus_w: tl.constexpr = PAD[4]
    total1 = tl.zeros([pad_w, pad_h, pad_t], tl.float32)
    total2 = tl.zeros([pad_w, pad_h, pad_t], tl.float32)
    y, x = tl.arange(0, pad_torus_h)[None, :, None], tl.arange(0, pad_torus_w)[None, None, :]
    t_out = tl.arange(0, pad_t)[None, :]
    for first in range(0, segment, 2):
        plane = first + tl.arange(0, 2)[:, None, None]
        block = (plane * TORUS[1] + y) * TORUS[2] + x
        noise = tl.permute(noise_values(seed, sample_id, block, quantiles), (3, 0, 1, 2))
        noise = tl.reshape(noise, [16 * pad_torus_h, pad_torus_w])
        # Plane (j, p) of the sixteen is plane j * segment + first + p of the torus.
        sixteen = tl.arange(0, 16)[:, None]
        t_in = sixteen // 2 * segment + first + sixteen % 2
        inside = (first + sixteen % 2 < segment) & (t_in < TORUS[0])
        signal = filtered_planes(noise, taps1 + TORUS[0], GRID, TORUS, PAD)
        along_t = circulant(taps1, t_in, t_out, TORUS[0], GRID[0], inside)
        along_t = tl.broadcast_to(along_t[None, :, :], [pad_w, 16, pad_t])
        total1 = tl.dot(signal, along_t, total1)
        if CHAINS == 2:
            signal = filtered_planes(noise, taps2 + TORUS[0], GRID, TORUS, PAD)
            along_t = scaled_circulant(taps2, gain, t_in, t_out, TORUS[0], GRID[0], inside)
            along_t = tl.broadcast_to(along_t[None, :, :], [pad_w, 16, pad_t])
            total2 = tl.dot(signal, along_t, total2)
    total = total1.to(tl.int32) - total2.to(tl.int32)
    return tl.reshape(tl.permute(total, (2, 1, 0)), [pad_t * pad_h * pad_w])


@triton.jit
def filtered_planes(noise, taps, GRID: tl.constexpr, TORUS: tl.constexpr, PAD: tl.constexpr):
    """float16 [PAD_W, PAD_H, 16]: sixteen planes after the passes along W and H."""
    pad_h: tl.constexpr = PAD[1]
    pad_w: tl.constexpr = PAD[2]
    pad_torus_h: tl.constexpr = PAD[3]
    pad_torus_w: tl.constexpr = PAD[4]
    x_in, x_out = tl.arange(0, pad_torus_w)[:, None], tl.arange(0, pad_w)[None, :]
    along_w = circulant(taps + TORUS[1], x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
    signal = rescaled(tl.dot(noise, along_w))
    signal = tl.permute(tl.reshape(signal, [16, pad_torus_h, pad_w]), (0, 2, 1))
    y_in, y_out = tl.arange(0, pad_torus_h)[:, None], tl.arange(0, pad_h)[None, :]
    along_h = circulant(taps, y_in, y_out, TORUS[1], GRID[1], y_in < TORUS[1])
    signal = rescaled(tl.dot(tl.reshape(signal, [16 * pad_w, pad_torus_h]), along_h))
    return tl.permute(tl.reshape(signal, [16, pad_w, pad_h]), (1, 2, 0))


@triton.jit
def field_2d(
    seed,
    sample_id,
    taps1,
    taps2,
    gain,
    quantiles,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    PAD: tl.constexpr,
):
    """int32 [PAD_H * PAD_W]. A segment of the noise is ceil(torus H / 8) whole rows, and PAD's
    torus H is that of a segment."""
    segment: tl.constexpr = (TORUS[1] + 7) // 8
    pad_h: tl.constexpr = PAD[1]
    pad_w: tl.constexpr = PAD[2]
    pad_segment: tl.constexpr = PAD[3]
    pad_torus_w: tl.constexpr = PAD[4]
    y, x = tl.arange(0, pad_segment)[:, None], tl.arange(0, pad_torus_w)[None, :]
    noise = noise_values(seed, sample_id, y * TORUS[2] + x, quantiles)
    noise = tl.reshape(tl.permute(noise, (2, 0, 1)), [8 * pad_segment, pad_torus_w])
    # Row (j, p) of the noise is row j * segment + p of the torus.
    row = tl.arange(0, 8 * pad_segment)[:, None]
    y_in, y_out = row // pad_segment * segment + row % pad_segment, tl.arange(0, pad_h)[None, :]
    inside = (row % pad_segment < segment) & (y_in < TORUS[1])
    x_in, x_out = tl.arange(0, pad_torus_w)[:, None], tl.arange(0, pad_w)[None, :]
    along_w = circulant(taps1 + TORUS[1], x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
    along_h = circulant(taps1, y_in, y_out, TORUS[1], GRID[1], inside)
    total = tl.dot(tl.trans(rescaled(tl.dot(noise, along_w))), along_h).to(tl.int32)
    if CHAINS == 2:
        along_w = circulant(taps2 + TORUS[1], x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
        along_h = scaled_circulant(taps2, gain, y_in, y_out, TORUS[1], GRID[1], inside)
        total -= tl.dot(tl.trans(rescaled(tl.dot(noise, along_w))), along_h).to(tl.int32)
    return tl.reshape(tl.trans(total), [pad_h * pad_w])

"""Noise and masks in one launch, from random words to indices: each program makes one sample.

This is for grids whose torus fits into the registers and shared memory of one multiprocessor.
CHAINS is 2 for green and blue noise, 1 for red, 0 for white. SIDES, PIECES, COLUMNS and TOKENS are
``tiles.Tile.constants``.
"""

import triton
import triton.language as tl

from .fields import field_2d, field_3d, white_field
from .filters import MAX_FIELD
from .threshold import bound_near, write_masks
from .words import scalar_seed, sigma_pair


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs", "n_keep"])
def noise_masks_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    scale,
    quantiles,
    places,
    n_keep: "i32",
    guess: "fp32",
    spacing: "fp32",
    visible,
    ids_keep,
    ids_restore,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    SIDES: tl.constexpr,
    PIECES: tl.constexpr,
    COLUMNS: tl.constexpr,
    TOKENS: tl.constexpr,
    FRAMES: tl.constexpr,
):
    """``n_keep`` counts the visible tokens of one of FRAMES equal frames. ``guess`` and ``spacing``
    are ``noise_ops.likely_bound``."""
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    keys, token, valid, unit = field(
        seed,
        sample_id,
        taps,
        pairs,
        n_pairs,
        scale,
        quantiles,
        places,
        GRID,
        TORUS,
        CHAINS,
        SIDES,
        PIECES,
        COLUMNS,
        TOKENS,
    )
    n_tokens: tl.constexpr = GRID[0] * GRID[1] * GRID[2]
    keys = tl.where(valid, keys, -MAX_FIELD - 2)
    bound, n_reaching = bound_near(keys, n_tokens, n_keep, guess / unit, spacing / unit)
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


@triton.jit(do_not_specialize=["sample_ids", "seed_pointer", "seed", "n_pairs"])
def noise_on_chip(
    sample_ids,
    seed_pointer,
    seed: "i64",
    taps,
    pairs,
    n_pairs: "i32",
    scale,
    quantiles,
    places,
    out,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    SIDES: tl.constexpr,
    PIECES: tl.constexpr,
    COLUMNS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    row = tl.program_id(0)
    sample_id, seed = tl.load(sample_ids + row), scalar_seed(seed_pointer, seed)
    keys, token, valid, unit = field(
        seed,
        sample_id,
        taps,
        pairs,
        n_pairs,
        scale,
        quantiles,
        places,
        GRID,
        TORUS,
        CHAINS,
        SIDES,
        PIECES,
        COLUMNS,
        TOKENS,
    )
    out += row.to(tl.int64) * (GRID[0] * GRID[1] * GRID[2])
    tl.store(out + token, keys.to(tl.float32) * unit, mask=valid)


@triton.jit
def field(
    seed,
    sample_id,
    taps,
    pairs,
    n_pairs,
    scale,
    quantiles,
    places,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    SIDES: tl.constexpr,
    PIECES: tl.constexpr,
    COLUMNS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """(keys, token, valid, unit): the integers of the field, int32 [TOKENS]; the token of each;
    whether the grid has that token; and the factor that gives the field unit variance."""
    # On NVIDIA a column belongs to one thread.
    rows: tl.constexpr = TOKENS[0]
    columns: tl.constexpr = TOKENS[1]
    token = tl.arange(0, columns)[None, :] * rows + tl.arange(0, rows)[:, None]
    # Loaded first though it is needed last, so that the load runs beside the other work.
    place = tl.load(places + token)
    if CHAINS == 0:
        unit = tl.load(scale)
        keys = white_field(seed, sample_id, COLUMNS)
    else:
        pair, level1, level2, gain = sigma_pair(seed, sample_id, pairs, n_pairs)
        unit = tl.load(scale + pair)
        table = tl.load(quantiles + tl.arange(0, 4096))
        if GRID[0] == 1:
            total = field_2d(
                seed,
                sample_id,
                taps,
                level1,
                level2,
                gain,
                table,
                GRID,
                TORUS,
                CHAINS,
                SIDES,
                PIECES,
                COLUMNS,
            )
        else:
            total = field_3d(
                seed,
                sample_id,
                taps,
                level1,
                level2,
                gain,
                table,
                GRID,
                TORUS,
                CHAINS,
                SIDES,
                PIECES,
                COLUMNS,
            )
        keys = tl.minimum(tl.maximum(total, -MAX_FIELD), MAX_FIELD).to(tl.int32)
    # From the order of the tile to that of the tokens: each thread gets up to eight in a row.
    place = tl.reshape(place.to(tl.int32), [rows * columns])
    keys = tl.reshape(tl.gather(keys, place, 0), [rows, columns])
    return keys, token, token < GRID[0] * GRID[1] * GRID[2], unit

"""The field of one sample in the registers of one program.

A tile is an array whose sides are powers of two, as Triton wants them. Beyond the torus it holds
noise like everywhere else, but the taps there are zero. Values are in the order of the tile:
``tiles.places`` says where each token is. A warp can write and read this order with few bank
conflicts. Loads stand well before the code that uses them, because memory is slow to answer.
"""

import triton
import triton.language as tl

from .filters import circulant, rescale, scale_taps
from .words import look_up, noise_picks, white_keys


@triton.jit
def white_field(seed, sample_id, COLUMNS: tl.constexpr):
    """int32 [4 * COLUMNS]: four segments of one word per Philox block."""
    return tl.reshape(white_keys(seed, sample_id, tl.arange(0, COLUMNS)), [4 * COLUMNS])


@triton.jit
def field_3d(
    seed,
    sample_id,
    taps,
    level1,
    level2,
    gain,
    table,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    SIDES: tl.constexpr,
    PIECES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """float32: chain 1 minus chain 2, exact below 2**24.

    A segment of the noise is ceil(torus T / 8) whole planes. So two planes of Philox blocks make 16
    planes of noise, and every pass filters these 16 at once. Their rows come in PIECES: to pad them
    to one power of two would take a third more rows. The pass along T is a batch of products, one
    for each column of patches. A single product would have so many rows that Triton puts it into
    Blackwell's tensor memory, and Triton 3.6 then fails to compile the sums over its result.
    """
    segment: tl.constexpr = (TORUS[0] + 7) // 8
    pad_t: tl.constexpr = SIDES[0]
    pad_h: tl.constexpr = SIDES[1]
    pad_w: tl.constexpr = SIDES[2]
    total1 = tl.zeros([pad_w, pad_h, pad_t], tl.float32)
    total2 = tl.zeros([pad_w, pad_h, pad_t], tl.float32)
    t_out = tl.arange(0, pad_t)[None, :]
    x_in, x_out = tl.arange(0, COLUMNS)[:, None], tl.arange(0, pad_w)[None, :]
    for first in range(0, segment, 2):
        picks = plane_picks(seed, sample_id, first, TORUS, COLUMNS, *PIECES[0])
        taps1 = taps + level1 * (TORUS[0] + TORUS[1] + TORUS[2])
        # Red noise has no chain 2 (level -1).
        taps2 = taps + tl.maximum(level2, 0) * (TORUS[0] + TORUS[1] + TORUS[2])
        taps1_h, taps2_h = taps1 + TORUS[0], taps2 + TORUS[0]
        taps1_w, taps2_w = taps1_h + TORUS[1], taps2_h + TORUS[1]
        # Plane (j, p) of the sixteen is plane j * segment + first + p of the torus.
        sixteen = tl.arange(0, 16)[:, None]
        t_in = sixteen // 2 * segment + first + sixteen % 2
        inside = (first + sixteen % 2 < segment) & (t_in < TORUS[0])
        along_w1 = circulant(taps1_w, x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
        along_h1 = along_h(taps1_h, GRID, TORUS, SIDES, *PIECES[0])
        along_t1 = circulant(taps1, t_in, t_out, TORUS[0], GRID[0], inside)
        signal1 = tl.zeros([16 * pad_w, pad_h], tl.float32)
        if CHAINS == 2:
            along_w2 = circulant(taps2_w, x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
            along_h2 = along_h(taps2_h, GRID, TORUS, SIDES, *PIECES[0])
            along_t2 = circulant(taps2, t_in, t_out, TORUS[0], GRID[0], inside)
            signal2 = tl.zeros([16 * pad_w, pad_h], tl.float32)
        for i in tl.static_range(len(PIECES)):
            noise = tl.permute(look_up(picks, table), (3, 0, 1, 2))
            noise = tl.reshape(noise, [16 * PIECES[i][1], COLUMNS])
            signal1 = filter_rows(noise, along_w1, along_h1, signal1, SIDES, PIECES[i][1])
            if CHAINS == 2:
                signal2 = filter_rows(noise, along_w2, along_h2, signal2, SIDES, PIECES[i][1])
            if i + 1 < len(PIECES):
                picks = plane_picks(seed, sample_id, first, TORUS, COLUMNS, *PIECES[i + 1])
                along_h1 = along_h(taps1_h, GRID, TORUS, SIDES, *PIECES[i + 1])
                if CHAINS == 2:
                    along_h2 = along_h(taps2_h, GRID, TORUS, SIDES, *PIECES[i + 1])
        total1 = filter_along_t(signal1, along_t1.to(tl.float16), total1)
        if CHAINS == 2:
            total2 = filter_along_t(signal2, scale_taps(along_t2, gain), total2)
    total = tl.reshape(total1 - total2, [pad_w // 8, 8, pad_h // 8, 8, pad_t // 2, 2])
    return tl.reshape(tl.permute(total, (1, 2, 5, 4, 0, 3)), [pad_w * pad_h * pad_t])


@triton.jit
def plane_picks(
    seed,
    sample_id,
    first,
    TORUS: tl.constexpr,
    COLUMNS: tl.constexpr,
    START: tl.constexpr,
    ROWS: tl.constexpr,
):
    """[2, rows, COLUMNS, 8]: one piece of planes ``first`` and ``first`` + 1 of each segment."""
    plane = first + tl.arange(0, 2)[:, None, None]
    y = START + tl.arange(0, ROWS)[None, :, None]
    # Beyond the torus, the last column is repeated: one read of the table serves equal picks.
    x = tl.minimum(tl.arange(0, COLUMNS)[None, None, :], TORUS[2] - 1)
    return noise_picks(seed, sample_id, (plane * TORUS[1] + y) * TORUS[2] + x)


@triton.jit
def along_h(
    taps,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    SIDES: tl.constexpr,
    START: tl.constexpr,
    ROWS: tl.constexpr,
):
    """int16 [max(rows, 16), H]: the taps along H for the rows of a piece."""
    row = tl.arange(0, max(ROWS, 16))[:, None]
    y_in, y_out = START + row, tl.arange(0, SIDES[1])[None, :]
    inside = (row < ROWS) & (y_in < TORUS[1])
    return circulant(taps, y_in, y_out, TORUS[1], GRID[1], inside)


@triton.jit
def filter_rows(noise, along_w, along_h, signal, SIDES: tl.constexpr, ROWS: tl.constexpr):
    """float32 [16 * W, H]: ``signal`` plus a piece of the noise, filtered along W and H."""
    pad_w: tl.constexpr = SIDES[2]
    rows = rescale(tl.dot(noise, along_w.to(tl.float16)))
    rows = tl.permute(tl.reshape(rows, [16, ROWS, pad_w]), (0, 2, 1))
    if ROWS == 8:
        # A product needs at least 16 rows; zeros are added to these 8.
        rows = tl.permute(tl.join(rows, tl.zeros_like(rows)), (0, 1, 3, 2))
    rows = tl.reshape(rows, [16 * pad_w, max(ROWS, 16)])
    return tl.dot(rows, along_h.to(tl.float16), signal)


@triton.jit
def filter_along_t(signal, along_t, total):
    """float32 [W, H, T]: ``total`` plus sixteen planes, filtered along T."""
    pad_w: tl.constexpr = total.shape[0]
    planes = tl.reshape(rescale(signal), [16, pad_w, total.shape[1]])
    along_t = tl.broadcast_to(along_t[None, :, :], [pad_w, 16, total.shape[2]])
    return tl.dot(tl.permute(planes, (1, 2, 0)), along_t, total)


@triton.jit
def field_2d(
    seed,
    sample_id,
    taps,
    level1,
    level2,
    gain,
    table,
    GRID: tl.constexpr,
    TORUS: tl.constexpr,
    CHAINS: tl.constexpr,
    SIDES: tl.constexpr,
    PIECES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """float32: chain 1 minus chain 2, exact below 2**24.

    A segment of the noise is ceil(torus H / 8) whole rows; the one piece is that of a segment.
    """
    segment: tl.constexpr = (TORUS[1] + 7) // 8
    pad_segment: tl.constexpr = PIECES[0][1]
    pad_h: tl.constexpr = SIDES[1]
    pad_w: tl.constexpr = SIDES[2]
    y = tl.arange(0, pad_segment)[:, None]
    x = tl.minimum(tl.arange(0, COLUMNS)[None, :], TORUS[2] - 1)
    picks = noise_picks(seed, sample_id, y * TORUS[2] + x)
    taps1 = taps + level1 * (TORUS[0] + TORUS[1] + TORUS[2]) + TORUS[0]
    taps2 = taps + tl.maximum(level2, 0) * (TORUS[0] + TORUS[1] + TORUS[2]) + TORUS[0]
    # Row (j, p) of the noise is row j * segment + p of the torus.
    row = tl.arange(0, 8 * pad_segment)[:, None]
    y_in, y_out = row // pad_segment * segment + row % pad_segment, tl.arange(0, pad_h)[None, :]
    inside = (row % pad_segment < segment) & (y_in < TORUS[1])
    x_in, x_out = tl.arange(0, COLUMNS)[:, None], tl.arange(0, pad_w)[None, :]
    along_w1 = circulant(taps1 + TORUS[1], x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
    along_h1 = circulant(taps1, y_in, y_out, TORUS[1], GRID[1], inside)
    if CHAINS == 2:
        along_w2 = circulant(taps2 + TORUS[1], x_in, x_out, TORUS[2], GRID[2], x_in < TORUS[2])
        along_h2 = circulant(taps2, y_in, y_out, TORUS[1], GRID[1], inside)
    noise = tl.permute(look_up(picks, table), (2, 0, 1))
    noise = tl.reshape(noise, [8 * pad_segment, COLUMNS])
    total = filter_2d(noise, along_w1, along_h1.to(tl.float16))
    if CHAINS == 2:
        total -= filter_2d(noise, along_w2, scale_taps(along_h2, gain))
    total = tl.reshape(total, [pad_w // 8, 8, pad_h // 8, 4, 2])
    return tl.reshape(tl.permute(total, (0, 2, 4, 3, 1)), [pad_w * pad_h])


@triton.jit
def filter_2d(noise, along_w, along_h):
    """float32 [W, H]: both passes of one chain."""
    signal = rescale(tl.dot(noise, along_w.to(tl.float16)))
    return tl.dot(tl.trans(signal), along_h)

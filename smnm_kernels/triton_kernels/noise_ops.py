"""smnm::noise and smnm::noise_masks in Triton.

The host never waits for the device: kernels read seeds and ids there, and tables stay there after
their first use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import Grid
from ..masks import Masks
from ..ops import empty_masks
from ..tables.colors import Color
from ..tables.constants import WHITE_SCALE
from ..tables.noise import NoiseTable, noise_quantiles, noise_table
from .device_tables import keep_on_device
from .on_chip import noise_masks_on_chip, noise_on_chip
from .passes import last_pass, pass_along_h, pass_along_w, white_pass
from .threshold_ops import fill_masks, on_device_of
from .tiles import Tile, next_power_of_two, places, tile_of

#: Bound of the scratch memory for grids that do not fit on the chip. It limits how many samples are
#: made at once.
MAX_SCRATCH_BYTES = 2**28


class DeviceTable(NamedTuple):
    """A noise table on the device. Of white noise only the scale is used."""

    #: Chains of filters: 2 for green and blue, 1 for red, 0 for white.
    chains: int
    torus: Grid
    taps: Tensor
    pairs: Tensor
    scale: Tensor
    #: float16, which holds every quantile exactly.
    quantiles: Tensor
    #: The largest distance on the torus at which a tap is not zero.
    reach: int


@keep_on_device
def device_table(
    grid: Grid,
    color: Color,
    sigma: tuple[float, ...],
    time_scale: float,
    device: torch.device,
) -> DeviceTable:
    if color == "white":
        nothing = torch.zeros(1, dtype=torch.int16, device=device)
        scale = torch.tensor([float(WHITE_SCALE)], device=device)
        return DeviceTable(0, grid, nothing, nothing, scale, nothing.half(), 0)
    table = noise_table(grid, color, sigma, time_scale)
    return DeviceTable(
        1 if color == "red" else 2,
        table.torus,
        table.taps.to(device),
        table.pairs.to(device),
        table.scale.to(device),
        noise_quantiles().half().to(device),
        tap_reach(table),
    )


@keep_on_device
def device_places(grid: Grid, tile: Tile, chains: int, device: torch.device) -> Tensor:
    return places(grid, tile, chains).to(device)


def tap_reach(table: NoiseTable) -> int:
    """The largest distance on the torus at which a tap is not zero."""
    reach = 0
    for taps in table.taps.split(table.torus, dim=1):
        distance = taps.any(dim=0).nonzero().flatten().tolist()
        reach = max(reach, *(min(d, taps.shape[1] - d) for d in distance), 0)
    return reach


def noise_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    time_scale: float = 1.0,
) -> Tensor:
    """float32 [B, T, H, W]."""
    sides, sample_ids = (grid[0], grid[1], grid[2]), sample_ids.contiguous()
    out = sample_ids.new_empty((len(sample_ids), *sides), dtype=torch.float32)
    if len(out) == 0:
        return out
    table = device_table(sides, color, tuple(sigma), time_scale, sample_ids.device)
    tile = tile_of(sides, table.torus, table.chains)
    with on_device_of(sample_ids):
        if tile is None:
            for part in parts(len(out), sides, table.torus):
                fill_field(out[part], sample_ids[part], seed_tensor, seed, sides, table)
            return out
        noise_on_chip[(len(out),)](
            sample_ids,
            seed_tensor,
            seed,
            table.taps,
            table.pairs,
            len(table.pairs),
            table.scale,
            table.quantiles,
            device_places(sides, tile, table.chains, sample_ids.device),
            out,
            sides,
            table.torus,
            table.chains,
            *tile.constants,
            **tile.launch_options,
        )
    return out


def noise_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    n_keep: int,
    tube: bool,
    time_scale: float = 1.0,
) -> Masks:
    """The threshold of the noise. With ``tube``, one (1, H, W) mask is repeated over T."""
    masks = Masks(*empty_masks(sample_ids, math.prod(grid), n_keep))
    sample_ids = sample_ids.contiguous()
    if len(sample_ids) == 0:
        return masks
    sides = grid[0], grid[1], grid[2]
    frames, drawn_grid = (sides[0], (1, *sides[1:])) if tube else (1, sides)
    table = device_table(drawn_grid, color, tuple(sigma), time_scale, sample_ids.device)
    tile = tile_of(drawn_grid, table.torus, table.chains)
    with on_device_of(sample_ids):
        if tile is None:
            for part in parts(len(sample_ids), drawn_grid, table.torus):
                field = sample_ids.new_empty(
                    (len(sample_ids[part]), math.prod(drawn_grid)), dtype=torch.int32
                )
                fill_field(field, sample_ids[part], seed_tensor, seed, drawn_grid, table)
                fill_masks(Masks(*(m[part] for m in masks)), field, n_keep // frames, frames)
            return masks
        noise_masks_on_chip[(len(sample_ids),)](
            sample_ids,
            seed_tensor,
            seed,
            table.taps,
            table.pairs,
            len(table.pairs),
            table.scale,
            table.quantiles,
            device_places(drawn_grid, tile, table.chains, sample_ids.device),
            n_keep // frames,
            *likely_bound(table.chains, n_keep // frames, math.prod(drawn_grid)),
            *masks,
            drawn_grid,
            table.torus,
            table.chains,
            *tile.constants,
            frames,
            **tile.launch_options,
        )
    return masks


@cache
def likely_bound(chains: int, n_keep: int, n_tokens: int) -> tuple[float, float]:
    """The (guess, spacing) that ``bound_near`` takes, for noise of unit variance.

    The guess is the quantile of the noise's distribution above which n_keep tokens are expected;
    the spacing is how far apart values lie there. White noise is uniform, other noise normal.
    """
    if chains == 0:
        return 3**0.5 * (1 - 2 * n_keep / n_tokens), 2 * 3**0.5 / n_tokens
    normal = NormalDist()
    guess = normal.inv_cdf(1 - min(max(n_keep, 0.5), n_tokens - 0.5) / n_tokens)
    return guess, 1 / (n_tokens * normal.pdf(guess))


def parts(batch: int, grid: Grid, torus: Grid) -> Iterator[slice]:
    """Splits the batch into parts whose signals and fields fit in MAX_SCRATCH_BYTES; a part has at
    least one sample."""
    signals = 4 * torus[0] * grid[2] * (torus[1] + grid[1])
    size = max(1, MAX_SCRATCH_BYTES // (signals + 4 * math.prod(grid)))
    return (slice(start, min(start + size, batch)) for start in range(0, batch, size))


def fill_field(
    out: Tensor,
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Grid,
    table: DeviceTable,
) -> None:
    """Fills ``out`` pass by pass: int32 with the integer field that is thresholded, float32 with
    noise of unit variance."""
    frames, height, width = grid
    torus, batch = table.torus, len(sample_ids)
    if table.chains == 0:
        blocks = 256
        n_tiles = -(-math.prod(grid) // (4 * blocks))
        white_pass[(batch * n_tiles,)](
            sample_ids, seed_tensor, seed, table.scale, out, grid, blocks, num_warps=4
        )
        return
    draw = (sample_ids, seed_tensor, seed, table.taps, table.pairs, len(table.pairs))
    chains = table.chains
    signal = out.new_empty((chains, batch, torus[0] * torus[1], width), dtype=torch.float16)
    tile = (next_power_of_two(width, 16, 64), 32, 8)
    segment = -(-torus[1] // 8) if frames == 1 else -(-torus[0] // 8) * torus[1]
    n_tiles = -(-width // tile[0]) * -(-segment // tile[2])
    pass_along_w[(batch * n_tiles, chains)](
        *draw, table.quantiles, signal, grid, torus, table.reach, tile, num_warps=4
    )
    if frames > 1:
        source, tile = (
            signal,
            (next_power_of_two(height, 16, 64), 32, next_power_of_two(width, 16, 64)),
        )
        signal = out.new_empty((chains, batch, torus[0], height, width), dtype=torch.float16)
        n_tiles = -(-height // tile[0]) * -(-width // tile[2])
        pass_along_h[(batch * torus[0] * n_tiles, chains)](
            *draw, source, signal, grid, torus, table.reach, tile, num_warps=4
        )
    n_out, across = (height, width) if frames == 1 else (frames, height * width)
    tile = (next_power_of_two(n_out, 16, 64), 32, next_power_of_two(across, 16, 64))
    n_tiles = -(-n_out // tile[0]) * -(-across // tile[2])
    # One stage, because Triton 3.6's pipelining of this kernel is wrong: it hands copies to the
    # tensor cores without the fence that PTX requires, and writes over memory that a product may
    # still read.
    last_pass[(batch * n_tiles,)](
        *draw,
        table.scale,
        signal,
        out,
        grid,
        torus,
        table.reach,
        chains,
        tile,
        num_warps=4,
        num_stages=1,
    )

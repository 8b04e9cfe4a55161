"""How large the tiles of the kernels are, and which grids fit on the chip."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import Grid

#: One program may hold this many values of noise or taps, and this many tokens.
MAX_VALUES_ON_CHIP = 2**14
MAX_TOKENS_ON_CHIP = 2**12
#: In two dimensions, the last product has a row for every patch along W. 64 rows or more fail to
#: compile on Blackwell, as ``fields.field_3d`` says.
MAX_WIDTH_2D = 32


class Tile(NamedTuple):
    """The sizes of the arrays in which one program makes one sample. Sides are powers of two, as
    Triton wants them."""

    #: (T, H, W) of the field; unused for white noise.
    sides: tuple[int, int, int]
    #: (first row, rows) of each piece in which the noise on the torus is drawn. In two dimensions
    #: there is one piece: the rows of a segment.
    pieces: tuple[tuple[int, int], ...]
    #: Columns of the torus; for white noise the number of Philox blocks.
    columns: int
    #: (rows, columns) of the keys, with consecutive tokens in each column.
    tokens: tuple[int, int]
    warps: int
    #: 128, so that two programs of eight warps share a multiprocessor; or None for no limit.
    max_registers: int | None

    @property
    def constants(self) -> tuple:
        """SIDES, PIECES, COLUMNS and TOKENS of the kernels in ``on_chip``."""
        return self.sides, self.pieces, self.columns, self.tokens

    @property
    def launch_options(self) -> dict[str, int]:
        """Options of a Triton launch. ``maxnreg`` is an option for NVIDIA and an error for AMD."""
        options = {"num_warps": self.warps}
        if self.max_registers is not None and torch.version.hip is None:
            options["maxnreg"] = self.max_registers
        return options


@cache
def tile_of(grid: Grid, torus: Grid, chains: int) -> Tile | None:
    """The tile for this grid, or None if the grid is too large for one program."""
    sides = (
        next_power_of_two(grid[0], 8),
        next_power_of_two(grid[1], 16),
        next_power_of_two(grid[2], 16),
    )
    pieces: tuple[tuple[int, int], ...] = ()
    if chains == 0:
        sides = (1, 1, 1)
        columns = next_power_of_two(-(-math.prod(grid) // 4), 32)
        n_values = n_tokens = 4 * columns
    elif grid[0] == 1:
        sides = (1, *sides[1:])
        if sides[2] > MAX_WIDTH_2D:
            return None
        columns = next_power_of_two(torus[2], 16)
        pieces = ((0, next_power_of_two(-(-torus[1] // 8), 2)),)
        n_values = 8 * pieces[0][1] * max(columns, sides[1])
        n_tokens = math.prod(sides)
    else:
        columns, pieces = next_power_of_two(torus[2], 16), pieces_of_rows(torus[1])
        n_values = 16 * sum(rows for _, rows in pieces) * columns
        n_tokens = math.prod(sides)
    if n_values > MAX_VALUES_ON_CHIP or n_tokens > MAX_TOKENS_ON_CHIP:
        return None
    warps = 8 if max(n_values, 4 * n_tokens) > 2**12 else 4
    tokens = in_columns(next_power_of_two(math.prod(grid), 32), warps)
    two_fit = warps == 8 and grid[0] > 1 and n_tokens <= 2**11
    return Tile(sides, pieces, columns, tokens, warps, 128 if two_fit else None)


def pieces_of_rows(n: int) -> tuple[tuple[int, int], ...]:
    """(first row, rows) of pieces that together hold n rows and at most 7 more. The rows of each
    are a power of two, at least 8."""
    eights = -(-n // 8)
    sizes = [8 << i for i in reversed(range(eights.bit_length())) if eights >> i & 1]
    return tuple((sum(sizes[:i]), size) for i, size in enumerate(sizes))


def in_columns(n: int, warps: int) -> tuple[int, int]:
    """(rows, columns) of an array of n tokens, with at least one column for each thread."""
    rows = min(8, max(1, n // (32 * warps)))
    return rows, n // rows


def places(grid: Grid, tile: Tile, chains: int) -> Tensor:
    """int16: where each token is in the order of the tile, in which ``fields`` leaves its result.
    Entries beyond the last token are 0."""
    n = math.prod(grid)
    token = torch.arange(n).view(grid)
    if chains == 0:
        segment = -(-n // 4)
        place = token // segment * tile.columns + token % segment
    else:
        frames, height, width = tile.sides
        order = torch.arange(math.prod(tile.sides))
        if frames == 1:
            order = order.view(width // 8, height // 8, 2, 4, 8).permute(0, 4, 1, 3, 2)
        else:
            order = order.view(8, height // 8, 2, frames // 2, width // 8, 8)
            order = order.permute(4, 0, 1, 5, 3, 2)
        place = order.reshape(width, height, frames)[: grid[2], : grid[1], : grid[0]].permute(
            2, 1, 0
        )
    made = torch.zeros(math.prod(tile.tokens), dtype=torch.int16)
    made[:n] = place.flatten()
    return made


def next_power_of_two(n: int, least: int, most: int | None = None) -> int:
    """The next power of two, at least ``least``, at most ``most``."""
    size = max(least, 1 << (n - 1).bit_length())
    return size if most is None else min(size, most)

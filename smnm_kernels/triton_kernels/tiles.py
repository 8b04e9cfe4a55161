"""How large the tiles of the kernels are, and which grids fit on the chip."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import Grid

#: Values of one tile (noise, or taps), and tokens, that one program may hold.
MAX_VALUES_ON_CHIP = 2**14
MAX_TOKENS_ON_CHIP = 2**12
#: The last product of two dimensions has a row for every patch along W; from 64 on, see
#: ``fields.field_3d``.
MAX_WIDTH_2D = 32


class Tile(NamedTuple):
    """The tile of one program per sample. Its sides are powers of two, as Triton's tensors."""

    #: (T, H, W) of the field; not of white noise.
    sides: tuple[int, int, int]
    #: (first row, rows) of the pieces in which the torus is drawn; in two dimensions one, of a
    #: segment of the noise.
    pieces: tuple[tuple[int, int], ...]
    #: Of the torus; for white noise all Philox blocks.
    columns: int
    #: (rows, columns): consecutive tokens in each column.
    tokens: tuple[int, int]
    warps: int
    #: 128, so that two programs of eight warps share a multiprocessor, or None.
    max_registers: int | None

    @property
    def constants(self) -> tuple:
        """SIDES, PIECES, COLUMNS and TOKENS of the kernels in ``on_chip``."""
        return self.sides, self.pieces, self.columns, self.tokens

    @property
    def launch_options(self) -> dict[str, int]:
        """Triton's. ``maxnreg`` is an option of its compiler for NVIDIA, and an error for AMD."""
        options = {"num_warps": self.warps}
        if self.max_registers is not None and torch.version.hip is None:
            options["maxnreg"] = self.max_registers
        return options


@cache
def tile_of(grid: Grid, torus: Grid, chains: int) -> Tile | None:
    """None where the grid is too large for one program."""
    sides = padded(grid[0], 8), padded(grid[1], 16), padded(grid[2], 16)
    pieces: tuple[tuple[int, int], ...] = ()
    if chains == 0:
        sides = (1, 1, 1)
        columns = padded(-(-math.prod(grid) // 4), 32)
        n_values = n_tokens = 4 * columns
    elif grid[0] == 1:
        sides = (1, *sides[1:])
        if sides[2] > MAX_WIDTH_2D:
            return None
        columns = padded(torus[2], 16)
        pieces = ((0, padded(-(-torus[1] // 8), 2)),)
        n_values = 8 * pieces[0][1] * max(columns, sides[1])
        n_tokens = math.prod(sides)
    else:
        columns, pieces = padded(torus[2], 16), pieces_of_rows(torus[1])
        n_values = 16 * sum(rows for _, rows in pieces) * columns
        n_tokens = math.prod(sides)
    if n_values > MAX_VALUES_ON_CHIP or n_tokens > MAX_TOKENS_ON_CHIP:
        return None
    warps = 8 if max(n_values, 4 * n_tokens) > 2**12 else 4
    tokens = in_columns(padded(math.prod(grid), 32), warps)
    two_fit = warps == 8 and grid[0] > 1 and n_tokens <= 2**11
    return Tile(sides, pieces, columns, tokens, warps, 128 if two_fit else None)


def pieces_of_rows(n: int) -> tuple[tuple[int, int], ...]:
    """(first row, rows): powers of two from 8 on, which together hold n rows and at most 7 more."""
    eights = -(-n // 8)
    sizes = [8 << i for i in reversed(range(eights.bit_length())) if eights >> i & 1]
    return tuple((sum(sizes[:i]), size) for i, size in enumerate(sizes))


def in_columns(n: int, warps: int) -> tuple[int, int]:
    """(rows, columns) of n tokens or more, a column or several for each thread."""
    rows = min(8, max(1, n // (32 * warps)))
    return rows, n // rows


def places(grid: Grid, tile: Tile, chains: int) -> Tensor:
    """int16: where each token is in the order of the tile, as ``fields`` leaves it; for what is no
    token, 0."""
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


def padded(n: int, least: int, most: int | None = None) -> int:
    """The next power of two, at least ``least``, at most ``most``."""
    size = max(least, 1 << (n - 1).bit_length())
    return size if most is None else min(size, most)

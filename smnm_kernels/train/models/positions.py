"""Fixed position codes, float32 [N, dim] for the N tokens of a grid in row-major order.

Each function is one way to make them: sines and cosines of frequencies that fall from 1 to about
1/10000. Weights of other codebases may bring their own ("given").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Grid = tuple[int, int, int]
Positions = Literal[
    "flat",
    "flat_columns",
    "rows_columns",
    "rows_columns_transposed",
    "columns_rows",
    "axes",
    "given",
]


def flat(grid: Grid, dim: int) -> Tensor:
    """VideoMAE: the token's index, sine and cosine of each frequency side by side."""
    _check_dim(dim, 2)
    tokens = grid[0] * grid[1] * grid[2]
    angle = _angles(torch.arange(tokens, dtype=torch.float64), dim // 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()


def flat_columns(grid: Grid, dim: int) -> Tensor:
    """MSM-MAE's decoder: as `flat`, with tokens counted down the columns. Its spectrograms lie with
    time to the right, so that its rows are our columns."""
    codes = flat((grid[0], grid[2], grid[1]), dim)
    return codes.unflatten(0, (grid[0], grid[2], grid[1])).transpose(1, 2).flatten(0, 2)


def rows_columns(grid: Grid, dim: int) -> Tensor:
    """MAE: the first half of the values encodes the column, the second half the row."""
    _check_dim(dim, 4)
    if grid[0] != 1:
        raise ValueError(f"grid must be (1, H, W) for these positions, got {grid}")
    rows, columns = (
        torch.arange(n, dtype=torch.float64).view(shape).expand(grid[1], grid[2]).flatten()
        for n, shape in ((grid[1], (-1, 1)), (grid[2], (1, -1)))
    )
    codes = []
    for places in (columns, rows):
        angle = _angles(places, dim // 4)
        codes += [angle.sin(), angle.cos()]
    return torch.cat(codes, dim=1).float()


def rows_columns_transposed(grid: Grid, dim: int) -> Tensor:
    """AudioMAE: as MAE, but for a grid of W rows and H columns.

    Its code exchanges the two sides: token i of a 64 x 8 grid gets the code of row i // 64 and
    column i % 64 of an 8 x 64 one. Its weights were trained with that.
    """
    return rows_columns((grid[0], grid[2], grid[1]), dim)


def columns_rows(grid: Grid, dim: int) -> Tensor:
    """CAV-MAE's audio, MaskSpec, MSM-MAE: as MAE, for the picture with its sides exchanged. Their
    spectrograms lie with time to the right, so the first half of the values encodes our row and
    the second our column."""
    codes = rows_columns((grid[0], grid[2], grid[1]), dim)
    return codes.unflatten(0, (grid[2], grid[1])).transpose(0, 1).flatten(0, 1)


def axes(grid: Grid, dim: int) -> Tensor:
    """Each axis longer than 1 gets an equal share of the values, along T, H and W."""
    used = [a for a in range(3) if grid[a] > 1] or [2]
    _check_dim(dim, 2)
    if dim // 2 < len(used):
        raise ValueError(f"dim must be at least {2 * len(used)} for grid {grid}, got {dim}")
    codes = []
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid))
    for i, axis in enumerate(used):
        pairs = dim // 2 // len(used) + (i < dim // 2 % len(used))
        angle = _angles(places[:, axis], pairs)
        codes += [angle.sin(), angle.cos()]
    return torch.cat(codes, dim=1).float()


def given(grid: Grid, dim: int) -> Tensor:
    """No rule: they come with the weights. Zeros until these are loaded."""
    return torch.zeros(grid[0] * grid[1] * grid[2], dim)


POSITIONS: dict[Positions, Callable[[Grid, int], Tensor]] = {
    "flat": flat,
    "flat_columns": flat_columns,
    "rows_columns": rows_columns,
    "rows_columns_transposed": rows_columns_transposed,
    "columns_rows": columns_rows,
    "axes": axes,
    "given": given,
}


def position_codes(positions: Positions, grid: Grid, dim: int, class_token: bool) -> Tensor:
    """[N, dim], or [1 + N, dim] with zeros for the class token in front."""
    codes = POSITIONS[positions](grid, dim)
    return torch.cat([codes.new_zeros(1, dim), codes]) if class_token else codes


def _angles(places: Tensor, frequencies: int) -> Tensor:
    """float64 [n] -> [n, frequencies]"""
    powers = torch.arange(frequencies, dtype=torch.float64) / frequencies
    return places[:, None] * 10000.0**-powers


def _check_dim(dim: int, multiple: int) -> None:
    if dim % multiple:
        raise ValueError(f"dim must be a multiple of {multiple} for these positions, got {dim}")

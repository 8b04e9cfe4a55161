"""How large the tiles of the kernels are, and which grids fit on the chip."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from ..arguments import Grid

#: Values of one tile (noise, or taps), and tokens, that one program may hold.
MAX_VALUES_ON_CHIP = 2**14
MAX_TOKENS_ON_CHIP = 2**12
#: The last product of two dimensions has a row for every patch along W; from 64 on, see
#: ``on_chip.field_3d``.
MAX_WIDTH_2D = 32


class OnChip(NamedTuple):
    """The tile of one program per sample."""

    #: PAD of the kernels in ``on_chip``; for white noise the Philox blocks along W.
    pad: tuple[int, int, int, int, int]
    warps: int
    #: 128, so that two programs of eight warps share a multiprocessor, or None.
    max_registers: int | None

    @property
    def launch_options(self) -> dict[str, int]:
        """Triton's. ``maxnreg`` is an option of its compiler for NVIDIA, and an error for AMD."""
        options = {"num_warps": self.warps}
        if self.max_registers is not None and torch.version.hip is None:
            options["maxnreg"] = self.max_registers
        return options


def on_chip(grid: Grid, torus: Grid, chains: int) -> OnChip | None:
    """None where the grid is too large for one program."""
    if chains == 0:
        pad = (1, 1, padded(-(-math.prod(grid) // 4), 32), 1, 1)
        n_tokens = n_values = 4 * pad[2]
    else:
        height, width, torus_width = padded(grid[1], 16), padded(grid[2], 16), padded(torus[2], 16)
        if grid[0] == 1:
            if width > MAX_WIDTH_2D:
                return None
            segment = padded(-(-torus[1] // 8), 2)
            pad = (1, height, width, segment, torus_width)
            n_values = 8 * segment * max(torus_width, height)
        else:
            pad = (padded(grid[0], 8), height, width, padded(torus[1], 16), torus_width)
            n_values = 16 * pad[3] * pad[4]
        n_tokens = math.prod(pad[:3])
    if n_values > MAX_VALUES_ON_CHIP or n_tokens > MAX_TOKENS_ON_CHIP:
        return None
    warps = 8 if max(n_values, 4 * n_tokens) > 2**12 else 4
    return OnChip(pad, warps, 128 if warps == 8 and grid[0] > 1 and n_tokens <= 2**11 else None)


def padded(n: int, least: int, most: int | None = None) -> int:
    """The next power of two, at least ``least``, at most ``most``."""
    size = max(least, 1 << (n - 1).bit_length())
    return size if most is None else min(size, most)

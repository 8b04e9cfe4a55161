"""Which tokens of a sample are real, where files end before the window does.

The rest of the window is padding: its tokens are never visible and the loss leaves them out. Where
so little is real that hardly any of it could be masked, the padding nearest to it counts as real.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from .modality import Modality, Record

Sides = tuple[int, int, int]


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of one input, and how many of them masks show."""

    size: Sides  # (T, H, W) values
    grid: Sides  # patches
    n_keep: int

    @property
    def least(self) -> int:
        """So many tokens count as real at least, so that masks hide at least half the share of
        them that they hide of a whole window."""
        n = math.prod(self.grid)
        return -(-2 * n * self.n_keep // (n + self.n_keep))

    def real(self, real: Sides) -> Tensor:
        """bool [T, H, W] of tokens that hold any of the first `real` values along each axis."""
        return _beyond(self, real) == 0

    def valid(self, real: Sides) -> Tensor:
        """bool [N]: those, and where they are too few the padding nearest to them: as many patches
        further along the axes that are padded as `least` takes."""
        return _valid(self, real)


def _beyond(tokens: TokenGrid, real: Sides) -> Tensor:
    """int64 [T, H, W]: by how many patches a token lies beyond what is real."""
    beyond = torch.zeros(tokens.grid, dtype=torch.int64)
    for axis in range(3):
        patch = tokens.size[axis] // tokens.grid[axis]
        last = -(-real[axis] // patch) - 1
        place = torch.arange(tokens.grid[axis]).view([-1 if i == axis else 1 for i in range(3)])
        beyond = torch.maximum(beyond, place - last)
    return beyond


@lru_cache(maxsize=4096)  # recordings have as many lengths as the grid has rows, or few more
def _valid(tokens: TokenGrid, real: Sides) -> Tensor:
    beyond = _beyond(tokens, real).flatten()
    farthest = beyond.sort().values[tokens.least - 1]
    return beyond <= farthest.clamp(min=0)


@dataclass(frozen=True)
class Padding:
    """What a run knows of the padding of its files: which of its inputs any of them pads."""

    modality: Modality
    tokens: dict[str, TokenGrid]  # of each input
    files: Sequence[Record]

    @cached_property
    def padded(self) -> dict[str, int]:
        """How many files pad each input; those that none pads are left out."""
        return self._count(lambda tokens, real: True)

    @cached_property
    def too_short(self) -> dict[str, int]:
        """How many files have so little for an input that some padding counts as real."""
        return self._count(lambda tokens, real: int(tokens.real(real).sum()) < tokens.least)

    def _count(self, counts) -> dict[str, int]:  # noqa: ANN001
        found: dict[str, int] = {}
        for record in self.files:
            for name, real in self.modality.padded(record).items():
                found[name] = found.get(name, 0) + counts(self.tokens[name], real)
        return {name: n for name, n in found.items() if n}

    def valid(self, file_numbers: Sequence[int]) -> dict[str, Tensor]:
        """bool [B, N] of each input that some file of the run pads: the tokens of samples of these
        files that may be visible."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.padded}
        for number in file_numbers:
            real = self.modality.padded(self.files[number])
            for name, rows in found.items():
                tokens = self.tokens[name]
                rows.append(tokens.valid(real.get(name, tokens.size)))
        return {name: torch.stack(rows) for name, rows in found.items()}

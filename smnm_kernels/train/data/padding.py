"""Which tokens of a sample are real, where files end before the window does.

The rest of the window is padding: its tokens are never visible and the loss leaves them out. Where
so little is real that hardly any of it could be masked, the padding nearest to it counts as real.
Masks that follow an input's values see quiet padding: zeros can be loud beside what is real.
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
    """The tokens of one input, and how many of them masks show; None where there are no masks."""

    size: Sides  # (T, H, W) values
    grid: Sides  # patches
    n_keep: int | None

    @property
    def least(self) -> int:
        """So many tokens count as real at least, so that masks hide at least half the share of
        them that they hide of a whole window. Without masks one is enough."""
        if self.n_keep is None:
            return 1
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


def is_real(real: Tensor, shape: Sequence[int]) -> Tensor:
    """int64 [B, 3], so many along (T, H, W) are real -> bool [B, T, H, W] of this shape."""
    inside = torch.ones((), dtype=torch.bool, device=real.device)
    for axis, size in enumerate(shape):
        place = torch.arange(size, device=real.device).view(
            [-1 if i == axis else 1 for i in range(3)]
        )
        inside = inside & (place < real[:, axis].view(-1, 1, 1, 1))
    return inside


def with_quiet_padding(x: Tensor, real: Tensor) -> Tensor:
    """[B, C, T, H, W] with each sample's smallest real value wherever it is padded.

    real: int64 [B, 3], how many values along (T, H, W) are real, one or more.
    """
    inside = is_real(real, x.shape[2:])[:, None]
    smallest = x.masked_fill(~inside, torch.inf).amin((1, 2, 3, 4), keepdim=True)
    return torch.where(inside, x, smallest)


@dataclass(frozen=True)
class Padding:
    """What a run knows of the padding of its files: which of its inputs any of them pads."""

    modality: Modality
    tokens: dict[str, TokenGrid]  # of each input that a model looks at
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
                if name in self.tokens:
                    found[name] = found.get(name, 0) + counts(self.tokens[name], real)
        return {name: n for name, n in found.items() if n}

    def valid(self, file_numbers: Sequence[int]) -> dict[str, Tensor]:
        """bool [B, N] of each input that some file of the run pads: the tokens of samples of these
        files that may be visible, without masks those that hold anything real."""
        return {
            name: torch.stack([self.tokens[name].valid(sides) for sides in of_samples])
            for name, of_samples in self._real(file_numbers).items()
        }

    def real(self, file_numbers: Sequence[int]) -> dict[str, Tensor]:
        """int64 [B, 3] of each input that some file pads: how many of its values along (T, H, W)
        are real."""
        return {name: torch.tensor(sides) for name, sides in self._real(file_numbers).items()}

    def _real(self, file_numbers: Sequence[int]) -> dict[str, list[Sides]]:
        found: dict[str, list[Sides]] = {name: [] for name in self.padded}
        for number in file_numbers:
            real = self.modality.padded(self.files[number])
            for name, of_samples in found.items():
                of_samples.append(real.get(name, self.tokens[name].size))
        return found

"""Thresholded noise: random, tube, and red, blue and green in two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import (
    Grid,
    Seed,
    as_constant,
    parse_flag,
    parse_grid,
    parse_n_keep,
    parse_once,
)
from smnm_kernels.masks import Masks
from smnm_kernels.tables.colors import (
    Color,
    Sigma,
    parse_color,
    parse_sigma,
    parse_time_scale,
)

from .kind import Kind


@dataclass(frozen=True)
class NoiseField:
    """Noise of one color on one grid. Sample ids and a seed are all that ``draw`` needs besides."""

    grid: Grid
    color: Color
    #: In the canonical form of ``parse_sigma``.
    sigma: tuple[float, ...]
    #: Multiplies sigma along T.
    time_scale: float = 1.0
    #: The op's arguments that follow ids and seed, put together once.
    op_arguments: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        arguments = (self.grid, self.color, self.sigma, self.time_scale)
        object.__setattr__(self, "op_arguments", arguments)

    @property
    def given_sigma(self) -> Sigma:
        """Sigma as an argument of ``noise``, every value as a (low, high) range."""
        if self.color == "white":
            return None
        return (self.sigma[:2], self.sigma[2:]) if self.color == "green" else self.sigma

    @staticmethod
    @parse_once
    def parse(
        grid: Sequence[int], color: Color, sigma: Sigma = None, time_scale: float = 1.0
    ) -> NoiseField:
        """From the arguments of ``smnm_kernels.noise``."""
        sides, color = parse_grid(grid), parse_color(color)
        ends = tuple(parse_sigma(color, sigma))
        return NoiseField(
            sides, color, ends, parse_time_scale(color, ends, time_scale, has_time=sides[0] > 1)
        )

    def draw(self, sample_ids: Tensor, seed: Seed) -> Tensor:
        """float32 [B, T, H, W]."""
        return ops.noise(sample_ids, seed.tensor, seed.value, *as_constant(self.op_arguments))


@dataclass(frozen=True)
class NoiseKind(Kind):
    """The largest values of each sample's noise are visible (the paper's Algorithm 2)."""

    #: On the whole grid; on one frame, (1, H, W), if ``tube`` is True.
    noise: NoiseField
    grid: Grid
    n_keep: int
    #: Whether one two-dimensional mask is repeated over T.
    tube: bool
    freq_major: bool
    #: The op's arguments that follow ids and seed, put together once.
    op_arguments: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        noise = self.noise
        how = (self.n_keep, self.tube, noise.time_scale)
        arguments = (self.grid, noise.color, noise.sigma, *how)
        object.__setattr__(self, "op_arguments", arguments)

    @staticmethod
    @parse_once
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        color: Color,
        n_keep: int | None = None,
        sigma: Sigma = None,
        time_scale: float = 1.0,
        tube: bool = False,
        freq_major: bool = False,
    ) -> NoiseKind:
        """From the arguments of ``smnm_kernels.noise_masks``."""
        sides = parse_grid(grid)
        frames, drawn = (sides[0], (1, *sides[1:])) if parse_flag("tube", tube) else (1, sides)
        noise = NoiseField.parse(drawn, color, sigma, time_scale)
        parse_flag("freq_major", freq_major)
        n_keep = parse_n_keep(math.prod(sides), mask_ratio, n_keep, frames)
        return NoiseKind(noise, sides, n_keep, tube, freq_major)

    @property
    def name(self) -> str:
        if self.noise.color == "white":
            return "tube" if self.tube else "random"
        return f"{self.noise.color}{2 if self.tube else 3}d"

    @property
    def repeats_over_time(self) -> bool:
        return self.tube

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        if valid is None:
            arguments = as_constant(self.op_arguments)
            return Masks(*ops.noise_masks(sample_ids, seed.tensor, seed.value, *arguments))
        return self._draw_within(valid.unflatten(1, as_constant(self.grid)), sample_ids, seed)

    def draw_within(self, places: Tensor, sample_ids: Tensor, seed: Seed) -> Masks:
        """Masks whose visible tokens all lie where ``places`` is True: the largest values of the
        noise there.

        Where one mask is repeated over T, its places come in the order of their values in every
        frame, and of a place the earlier frames first.

        Args:
            places: bool, broadcast to [B, T, H, W], True for at least n_keep tokens of each sample.
        """
        return self.in_token_order(self._draw_within(places, sample_ids, seed))

    def _draw_within(self, places: Tensor | None, sample_ids: Tensor, seed: Seed) -> Masks:
        return self.of_noise(self.noise.draw(sample_ids, seed), places)

    def of_noise(self, noise: Tensor, places: Tensor | None = None) -> Masks:
        """Masks of noise from elsewhere, tokens row-major.

        Args:
            noise: floating point, [B, *self.noise.grid]: of all frames, or of the one that repeats.
            places: as of ``draw_within``; None: everywhere.
        """
        if self.tube:
            frames = as_constant(self.grid)[0]
            noise = _ranks(noise.flatten(1)).view_as(noise).expand(-1, frames, -1, -1)
        if places is not None:
            noise = noise.masked_fill(~places, -math.inf)
        return Masks(*ops.threshold(noise.flatten(1), as_constant(self.n_keep)))


def _ranks(noise: Tensor) -> Tensor:
    """float64 of the shape of ``noise`` [B, N]: the order of its values, in which no two are equal;
    of equal values the first is the largest."""
    in_order = noise.sort(dim=1, descending=True, stable=True).indices
    n = noise.shape[1]
    ranks = torch.arange(n, 0, -1, dtype=torch.float64, device=noise.device)
    return torch.empty_like(noise, dtype=torch.float64).scatter_(
        1, in_order, ranks.expand_as(in_order)
    )

"""From a color and its sigma to the integers that noise is made with.

Everything a kernel needs besides random words is computed here, once per (grid, color, sigma), in
exact or correctly rounded arithmetic. So every machine has the same few kilobytes.

Every color is chain 1 minus chain 2 (see ``colors``). A chain is a separable Gaussian: one circular
filter per axis, along W, then H, then T. A grid with T = 1 is two-dimensional: nothing is filtered
along T. The numbers of a filter are its taps. They are integers of L2 norm 2048, so noise of 256
units per standard deviation keeps that scale after the shift by 11 between passes. A normalised
Gaussian would instead shrink the noise by its own L2 norm on each axis. Chain 2 would shrink more
than chain 1; the quotient is its ``gain`` (in units of 1/2048), and multiplies the taps of its last
pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.arguments import Grid

from .colors import Color, sigma_pairs
from .constants import N_QUANTILES, NOISE_UNIT, TAP_SHIFT, TAP_UNIT
from .torus import halos


@dataclass(frozen=True)
class NoiseTable:
    """The integers of one (grid, color, sigma), on the CPU."""

    #: Sides of the torus, window plus halo; (1, PH, PW) for a two-dimensional grid.
    torus: Grid
    #: int16 [n_levels, PT + PH + PW]: circular taps by distance along T, H and W.
    taps: Tensor
    #: int16 [n_pairs, 3]: level of chain 1, level of chain 2 (-1: none), gain of chain 2 / 2048.
    pairs: Tensor
    #: float32 [n_pairs]: from the integer field to unit variance.
    scale: Tensor


@lru_cache(maxsize=64)
def noise_table(
    grid: Grid, color: Color, sigma: tuple[float, ...], time_scale: float = 1.0
) -> NoiseTable:
    """The table of a colored noise (not white, which needs none). ``sigma`` is canonical, and
    ``time_scale`` 1 where T = 1."""
    axes = grid if grid[0] > 1 else grid[1:]
    pairs = sigma_pairs(color, sigma)
    torus = tuple(n + width for n, width in zip(axes, halos(axes, pairs, time_scale), strict=True))
    scales = (time_scale, 1.0, 1.0)[-len(axes) :]

    levels = list(dict.fromkeys(s for pair in pairs for s in pair if s is not None))
    chain1 = np.array([levels.index(s1) for s1, _ in pairs])
    chain2 = np.array([-1 if s2 is None else levels.index(s2) for _, s2 in pairs])
    sides = list(zip(torus, scales, strict=True))
    taps = [
        np.array([_taps(s * scale, side) for s in levels], dtype=np.int64) for side, scale in sides
    ]
    # A pass of L2 norm 2048, shifted back, does not shrink the signal as the true Gaussian would.
    shrink = np.array(
        [math.prod(_l2_norm(s * scale, side) for side, scale in sides) for s in levels]
    )
    gain = np.floor(TAP_UNIT * shrink[chain2] / shrink[chain1] + 0.5).astype(np.int64)
    gain[chain2 < 0] = 0

    last2 = scaled_taps(taps[0][chain2], gain[:, None])
    power = (
        _inner(taps, chain1, chain1)
        - 2 * _inner(taps, chain1, chain2, last2=last2)
        + _inner(taps, chain2, chain2, last1=last2, last2=last2)
    )
    # All passes but the last are shifted back to units of noise.
    std = NOISE_UNIT * np.sqrt(power) / TAP_UNIT ** (len(torus) - 1)
    two_dimensional = len(torus) == 2
    rows = np.concatenate([np.zeros((len(levels), int(two_dimensional)), np.int64), *taps], axis=1)
    return NoiseTable(
        torus=(1, *torus) if two_dimensional else torus,  # type: ignore[arg-type]
        taps=torch.from_numpy(rows.astype(np.int16)),
        pairs=torch.from_numpy(np.stack([chain1, chain2, gain], 1).astype(np.int16)),
        scale=torch.from_numpy((1 / std).astype(np.float32)),
    )


@lru_cache(maxsize=64)
def packed_table(
    grid: Grid, color: Color, sigma: tuple[float, ...], time_scale: float = 1.0
) -> Tensor:
    """int32: all numbers of a noise's table and the quantiles of white noise, as
    csrc/cpu/noise_table.h reads them. Of white noise, only that it has no table."""
    if color == "white":
        return torch.tensor([*grid, 0, 0], dtype=torch.int32, device="cpu")
    return pack(noise_table(grid, color, sigma, time_scale), noise_quantiles())


def pack(table: NoiseTable, quantiles: Tensor) -> Tensor:
    """``packed_table``, of a table and quantiles that are given."""
    numbers = np.array([*table.torus, len(table.taps), len(table.pairs)], np.int32)
    shorts = [part.numpy().ravel() for part in (table.taps, table.pairs, quantiles)]
    if sum(map(len, shorts)) % 2:
        shorts.append(np.zeros(1, np.int16))
    parts = (numbers, table.scale.numpy(), np.concatenate(shorts))
    return torch.from_numpy(np.concatenate([part.view(np.int32) for part in parts]))


def _inner(
    taps: list[np.ndarray],
    i: np.ndarray,
    j: np.ndarray,
    last1: np.ndarray | None = None,
    last2: np.ndarray | None = None,
) -> np.ndarray:
    """float64 [n_pairs]: the inner products of the separable filters i and j, exact per axis.

    ``last1`` and ``last2`` replace the taps of the last pass (the first axis).
    """
    first = (taps[0][i] if last1 is None else last1) * (taps[0][j] if last2 is None else last2)
    factors = [first.sum(1)] + [(t[i] * t[j]).sum(1) for t in taps[1:]]
    return np.prod(np.array(factors, dtype=np.float64), axis=0)


@lru_cache(maxsize=1)
def noise_quantiles() -> Tensor:
    """int16 [4096]: the quantiles of N(0, 1) at (i + 1/2) / 4096, in units of 1/256.

    Before rounding, none is within 5e-5 of a half, and mathematics libraries differ by far less. So
    every machine rounds alike.
    """
    normal = NormalDist()
    upper = [
        math.floor(NOISE_UNIT * normal.inv_cdf((i + 0.5) / N_QUANTILES) + 0.5)
        for i in range(N_QUANTILES // 2, N_QUANTILES)
    ]
    return torch.tensor([-q for q in reversed(upper)] + upper, dtype=torch.int16, device="cpu")


@lru_cache(maxsize=8192)
def _gaussian(sigma: float, side: int) -> tuple[float, ...]:
    """The normalised sampled Gaussian wrapped around a circle of ``side`` patches."""
    if sigma == 0:
        return (1.0,) + (0.0,) * (side - 1)
    reach = math.ceil(6 * sigma)
    # Mathematics libraries round exp differently; decimal's is correctly rounded everywhere.
    with localcontext(Context(prec=28)):
        bell = [
            float((-Decimal(x * x) / (2 * Decimal(sigma) ** 2)).exp()) for x in range(reach + 1)
        ]
    weights = [0.0] * side
    for x in range(-reach, reach + 1):
        weights[x % side] += bell[abs(x)]
    total = math.fsum(weights)
    return tuple(w / total for w in weights)


def _l2_norm(sigma: float, side: int) -> float:
    return math.sqrt(math.fsum(w * w for w in _gaussian(sigma, side)))


@lru_cache(maxsize=8192)
def _taps(sigma: float, side: int) -> tuple[int, ...]:
    norm = _l2_norm(sigma, side)
    return tuple(math.floor(TAP_UNIT * w / norm + 0.5) for w in _gaussian(sigma, side))


def scaled_taps(taps: np.ndarray, gain: np.ndarray | int) -> np.ndarray:
    """Taps of chain 2's last pass (along T, or H in two dimensions): times gain / 2048, rounded."""
    return (taps * gain + TAP_UNIT // 2) >> TAP_SHIFT

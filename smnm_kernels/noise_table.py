"""From a color and its sigma to the integers the noise is made with.

Everything a kernel needs besides random words is worked out here, once per (grid, color, sigma),
in exact or correctly rounded arithmetic, so that every machine holds the same few kilobytes.

The filters. red = G(s)*w, blue = w - G(s)*w, green = G(s1)*w - G(s2)*w. All three are
``chain(s1) - chain(s2)`` of separable Gaussians: blue has s1 = 0 (the identity), red has no
second chain. Each chain runs one 1-D circular filter per axis, along W, then H, then T (a grid
with T = 1 is two-dimensional: no filter along T). Taps are integers with L2 norm 1024, so noise
of 256 units per standard deviation keeps that scale after the shift by 10 between passes. A
normalised Gaussian would instead shrink by its own L2 norm on each axis; what chain 2 shrinks
more than chain 1 is its ``gain`` (10-bit fixed point), applied to its taps of the last pass.

The torus. The filters are circular on a torus larger than the window by a ``halo`` on each axis:
the least that keeps what wraps around into the window below 0.6% of the variance
(0.4% are left for the rounding of the taps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from .arguments import Grid

Color = str
COLORS = ("white", "red", "blue", "green")

#: A sigma drawn from a range takes one of this many equally spaced values.
N_LEVELS = 32
#: Units of the integer noise per standard deviation; quantiles of N(0, 1) in a table this long.
NOISE_UNIT = 256
N_QUANTILES = 4096
#: L2 norm of the taps of a pass, and the shift that undoes it.
TAP_UNIT = 1024
MAX_SIGMA = 8.0
#: Drawn pairs whose sigmas are closer than this are drawn again: their difference is so faint
#: that 11-bit taps no longer carry its spectrum.
MAX_DRAWN_QUOTIENT = 0.9
#: A fixed sigma (or pair) needs at least this share of chain 1's variance to survive in the
#: difference, for the same reason.
MIN_VARIANCE = 0.002
#: Covariance that may wrap around the torus, as a share of the variance.
MAX_WRAP = 0.006

#: The paper's Table A.1 (sigma1, sigma2 of green noise) and its main text, in patches.
PRESETS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "variant-1": ((0.5, 0.5), (2.0, 2.0)),
    "variant-2": ((1.5, 1.5), (3.0, 3.0)),
    "variant-3": ((0.5, 1.5), (2.0, 3.0)),
    "variant-4": ((0.2, 1.7), (0.8, 2.3)),
    "variant-5": ((0.4, 1.5), (1.4, 3.0)),
    "main-text": ((0.5, 2.0), (0.5, 2.0)),
}
DEFAULT_GREEN = "variant-5"
DEFAULT_RANGE = (0.5, 2.0)

Sigma = str | float | Sequence[float] | Sequence[Sequence[float]] | None


@dataclass(frozen=True)
class NoiseTable:
    """The integers of one (grid, color, sigma). Tensors live on one device."""

    #: Sides of the torus, window plus halo; (1, PH, PW) for a two-dimensional grid.
    torus: Grid
    #: int16 [n_levels, PT + PH + PW]: circular taps by distance along T, H and W.
    taps: Tensor
    #: int16 [n_pairs, 3]: level of chain 1, level of chain 2 (-1: none), gain of chain 2 / 1024.
    pairs: Tensor
    #: float32 [n_pairs]: from the integer field to unit variance.
    scale: Tensor


def parse_color(color: str) -> str:
    if not isinstance(color, str) or color not in COLORS:
        raise ValueError(f"color must be one of {', '.join(COLORS)}, got {color!r}")
    return color


def parse_sigma(color: Color, sigma: Sigma) -> list[float]:
    """Sigma in its canonical form: [] for white, [low, high] for red and blue,
    [low1, high1, low2, high2] for green. A fixed value has low = high. Units: patches."""
    allowed = {
        "white": "None",
        "red": "None, a number or a (low, high) range",
        "blue": "None, a number or a (low, high) range",
        "green": "None, a preset name, or a pair (sigma1, sigma2) of numbers or (low, high) ranges",
    }[color]
    complaint = f"sigma for {color} noise must be {allowed}"
    if color == "white":
        if sigma is not None:
            raise ValueError(f"{complaint}, got {sigma!r}")
        return []
    if isinstance(sigma, str):
        if color != "green" or sigma not in PRESETS:
            raise ValueError(f"{complaint}; presets of green: {', '.join(PRESETS)}; got {sigma!r}")
        sigma = PRESETS[sigma]
    if sigma is None:
        sigma = PRESETS[DEFAULT_GREEN] if color == "green" else DEFAULT_RANGE
    if color != "green":
        low, high = _parse_range(sigma, complaint)
        return [low, high]
    if not isinstance(sigma, Sequence) or len(sigma) != 2:
        raise ValueError(f"{complaint}, got {sigma!r}")
    ranges = [*_parse_range(sigma[0], complaint), *_parse_range(sigma[1], complaint)]
    if ranges[0] >= ranges[3]:
        raise ValueError(f"{complaint} with sigma1 < sigma2, got {sigma!r}")
    return ranges


def _parse_range(value: object, complaint: str) -> tuple[float, float]:
    ends = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(ends) != 2 or not all(_is_number(end) for end in ends):
        raise ValueError(f"{complaint}, got {value!r}")
    low, high = float(ends[0]), float(ends[1])
    if not 0.2 <= low <= high <= MAX_SIGMA:
        raise ValueError(f"{complaint} in [0.2, {MAX_SIGMA:g}], low <= high, got {value!r}")
    return low, high


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


@lru_cache(maxsize=64)
def noise_table(grid: Grid, color: Color, sigma: tuple[float, ...], device: str) -> NoiseTable:
    """The table of a colored noise (not white, which needs none). ``sigma`` is canonical."""
    axes = grid if grid[0] > 1 else grid[1:]
    pairs = drawn_pairs(color, sigma)
    halo = _halo(axes, pairs)
    torus = tuple(n + halo for n in axes)

    levels = list(dict.fromkeys(s for pair in pairs for s in pair if s is not None))
    chain1 = np.array([levels.index(s1) for s1, _ in pairs])
    chain2 = np.array([-1 if s2 is None else levels.index(s2) for _, s2 in pairs])
    taps = [np.array([_taps(s, side) for s in levels], dtype=np.int64) for side in torus]
    # A pass of L2 norm 1024 does not shrink the signal as the true Gaussian would.
    shrink = np.array([math.prod(_l2_norm(s, side) for side in torus) for s in levels])
    gain = np.floor(TAP_UNIT * shrink[chain2] / shrink[chain1] + 0.5).astype(np.int64)
    gain[chain2 < 0] = 0

    power1 = _inner(taps, chain1, chain1)
    last2 = scaled_taps(taps[0][chain2], gain[:, None])
    power = (
        power1
        - 2 * _inner(taps, chain1, chain2, last2=last2)
        + _inner(taps, chain2, chain2, last1=last2, last2=last2)
    )
    if np.any(power < MIN_VARIANCE * power1):
        raise ValueError(
            f"sigma={list(sigma)} leaves {(power / power1).min():.1e} of the variance in {color} "
            f"noise; at least {MIN_VARIANCE} must survive: "
            + ("move sigma1 and sigma2 apart" if color == "green" else "use a larger sigma")
        )
    # All passes but the last are shifted back by 10 bits.
    std = NOISE_UNIT * np.sqrt(power) / TAP_UNIT ** (len(torus) - 1)
    two_dimensional = len(torus) == 2
    rows = np.concatenate([np.zeros((len(levels), int(two_dimensional)), np.int64), *taps], axis=1)
    return NoiseTable(
        torus=(1, *torus) if two_dimensional else torus,  # type: ignore[arg-type]
        taps=torch.from_numpy(rows.astype(np.int16)).to(device),
        pairs=torch.from_numpy(np.stack([chain1, chain2, gain], 1).astype(np.int16)).to(device),
        scale=torch.from_numpy((1 / std).astype(np.float32)).to(device),
    )


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
    """int16 [4096]: the quantiles of N(0, 1) at (i + 1/2) / 4096, in units of 1/256."""
    normal = NormalDist()
    upper = [
        math.floor(NOISE_UNIT * normal.inv_cdf((i + 0.5) / N_QUANTILES) + 0.5)
        for i in range(N_QUANTILES // 2, N_QUANTILES)
    ]
    return torch.tensor([-q for q in reversed(upper)] + upper, dtype=torch.int16)


def drawn_pairs(color: Color, sigma: Sequence[float]) -> list[tuple[float, float | None]]:
    """Every (sigma1, sigma2) a sample may draw, each with the same probability. Blue has
    sigma1 = 0, red no sigma2. ``sigma`` is canonical."""
    if color == "red":
        return [(s1, None) for s1 in _levels(*sigma)]
    levels1 = [0.0] if color == "blue" else _levels(*sigma[:2])
    levels2 = _levels(*sigma[-2:])
    drawn = len(levels1) > 1 or len(levels2) > 1
    most = MAX_DRAWN_QUOTIENT if drawn else 1.0
    pairs = [(s1, s2) for s1 in levels1 for s2 in levels2 if s1 < s2 and s1 <= most * s2]
    if not pairs:
        raise ValueError(
            f"sigma for {color} noise must allow sigma1 <= {most} * sigma2; "
            f"sigma1 is at least {levels1[0]:g}, sigma2 at most {levels2[-1]:g}"
        )
    return pairs  # type: ignore[return-value]


def _levels(low: float, high: float) -> list[float]:
    if low == high:
        return [low]
    return [low + (high - low) * (i + 0.5) / N_LEVELS for i in range(N_LEVELS)]


def _halo(axes: tuple[int, ...], pairs: list[tuple[float, float | None]]) -> int:
    """How much larger than the window the torus must be on each axis.

    Along an axis of length n the largest lag, n - 1, also sees the covariance at the lag halo + 1
    that wraps around: the halo is the largest lag at which any pair of sigmas still has more than
    MAX_WRAP of its variance. On windows no longer than their halo, several axes wrap at once and
    share that budget.
    """
    halo = max(_last_lag(s1, s2, len(axes), MAX_WRAP) for s1, s2 in pairs)
    n_short = sum(n <= halo for n in axes)
    if n_short > 1:
        halo = max(_last_lag(s1, s2, len(axes), MAX_WRAP / n_short) for s1, s2 in pairs)
    return max(halo, 3)


@lru_cache(maxsize=8192)
def _last_lag(s1: float, s2: float | None, n_dims: int, share: float) -> int:
    """Largest lag along an axis whose covariance exceeds ``share`` of the variance.

    Continuous Gaussians: G(a)*w and G(b)*w have covariance N(d; 0, a^2 + b^2) in n_dims
    dimensions; G(0)*w is white.
    """

    def cross(a: float, b: float, d: int) -> float:
        v = a * a + b * b
        if v == 0:
            return float(d == 0)
        return (2 * math.pi * v) ** (-n_dims / 2) * math.exp(-d * d / (2 * v))

    def covariance(d: int) -> float:
        if s2 is None:
            return cross(s1, s1, d)
        return cross(s1, s1, d) - 2 * cross(s1, s2, d) + cross(s2, s2, d)

    floor = share * covariance(0)
    lag = math.ceil(7 * (s1 if s2 is None else s2))
    while lag > 0 and abs(covariance(lag)) <= floor:
        lag -= 1
    return lag


@lru_cache(maxsize=8192)
def _gaussian(sigma: float, side: int) -> tuple[float, ...]:
    """The normalised sampled Gaussian wrapped around a circle of ``side`` patches."""
    if sigma == 0:
        return (1.0,) + (0.0,) * (side - 1)
    reach = math.ceil(6 * sigma)
    # exp is the one function here that mathematics libraries round differently; decimal's is
    # correctly rounded everywhere.
    bell = [float((-Decimal(x * x) / (2 * Decimal(sigma) ** 2)).exp()) for x in range(reach + 1)]
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


def scaled_taps(taps: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Taps of chain 2's last pass (along T, or H in two dimensions): times gain / 1024, rounded."""
    return (taps * gain + TAP_UNIT // 2) // TAP_UNIT

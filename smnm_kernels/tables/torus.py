"""How large the torus must be on which noise is filtered.

A torus is a grid on which every axis wraps around. Filters are circular on it. It is larger than
the window, the grid of the mask, by some patches on each axis: the ``halos``. Where sigma is the
same on all axes, so are they. They are the smallest for which no covariance in the window changes
by more than about 0.6% of the variance because of the wrapping. With the rounding of the taps, no
covariance is then off by 1%.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

#: Covariance that may wrap around the torus, as a share of the variance.
MAX_WRAP = 0.006


Pair = tuple[float, float | None]


def halos(axes: tuple[int, ...], pairs: list[Pair], time_scale: float = 1.0) -> tuple[int, ...]:
    """How much larger than the window the torus must be on each axis. ``time_scale`` multiplies
    the sigmas along the first of three axes.

    With another scale of time, the search begins at the halos of equal sigmas, stretched along T.
    Each step takes the axis that brings the covariances closer.
    """
    if time_scale == 1:
        return (_halo(axes, pairs),) * len(axes)
    scales = (time_scale, 1.0, 1.0)
    in_space = max(_last_lag(*pair, len(axes)) for pair in pairs)
    widths = (math.ceil(in_space * time_scale), max(in_space, 3), max(in_space, 3))
    worst = _worst_pairs(pairs, len(axes))

    def error(widths: tuple[int, ...]) -> float:
        return max(_wrap_error(axes, widths, *pair, scales) for pair in worst)

    now = error(widths)
    while now > MAX_WRAP:
        t, y, x = widths
        closer = min((t + 1, y, x), (t, y + 1, x + 1), key=error)
        # Where neither comes closer, the covariances wrap around all axes.
        widths = closer if error(closer) < now else (t + 1, y + 1, x + 1)
        now = error(widths)
    return widths


def _worst_pairs(pairs: list[Pair], n_dims: int) -> list[Pair]:
    """The pairs with the longest lags; and the largest sigma2 with the smallest sigma1 beside
    it."""
    by_lag = sorted(pairs, key=lambda pair: _last_lag(*pair, n_dims))
    return [*by_lag[-8:], max(pairs, key=lambda pair: ((pair[1] or pair[0]), -pair[0]))]


def _halo(axes: tuple[int, ...], pairs: list[Pair]) -> int:
    """That of sigmas which are the same on all axes.

    Two patches at the largest lag of an axis of length n, n - 1, are also halo + 1 apart the other
    way round the torus. So the search begins at a halo for which the covariance at that lag is
    below MAX_WRAP for every pair of sigmas. On short axes several ways round add up, so the search
    goes on until the worst lag of the window is below MAX_WRAP, too.
    """
    width = max(3, *(_last_lag(*pair, len(axes)) for pair in pairs))
    worst, scales = _worst_pairs(pairs, len(axes)), (1.0,) * len(axes)
    while any(_wrap_error(axes, (width,) * len(axes), *pair, scales) > MAX_WRAP for pair in worst):
        width += 1
    return width


@lru_cache(maxsize=8192)
def _last_lag(s1: float, s2: float | None, n_dims: int) -> int:
    """Largest lag along an axis whose covariance exceeds MAX_WRAP of the variance.

    Continuous Gaussians: G(a)*w and G(b)*w have covariance N(d; 0, a^2 + b^2) in n_dims
    dimensions; G(0)*w is white.
    """

    def cross(a: float, b: float, d: int) -> float:
        v = a * a + b * b
        if v == 0:
            return float(d == 0)
        return (2 * math.pi * v) ** (-n_dims / 2) * math.exp(-d * d / (2 * v))

    def covariance(d: int) -> float:
        return sum(factor * cross(a, b, d) for a, b, factor in covariance_terms(s1, s2))

    floor = MAX_WRAP * covariance(0)
    lag = math.ceil(7 * (s1 if s2 is None else s2))
    while lag > 0 and abs(covariance(lag)) <= floor:
        lag -= 1
    return lag


def _wrap_error(
    axes: tuple[int, ...],
    widths: tuple[int, ...],
    s1: float,
    s2: float | None,
    scales: tuple[float, ...],
) -> float:
    """Largest difference, over the lags of the window, between the covariances on the torus and on
    the endless lattice, as a share of the variance. On long axes only the 24 shortest and the 24
    longest lags are computed. ``scales`` multiply the sigmas along each axis."""
    torus, endless = np.zeros(()), np.zeros(())
    for a, b, factor in covariance_terms(s1, s2):
        on_torus, on_lattice = np.array(float(factor)), np.array(float(factor))
        for n, width, scale in zip(axes, widths, scales, strict=True):
            along = _lag_covariance(a * scale, b * scale)
            lags = np.unique(np.r_[: min(n, 24), max(n - 24, 0) : n])
            images = np.arange(-len(along), len(along) + 1) * (n + width) + lags[:, None]
            inside = np.abs(images) < len(along)
            sums = np.where(inside, along[np.where(inside, np.abs(images), 0)], 0).sum(1)
            on_torus = np.multiply.outer(on_torus, sums)
            padded = np.where(lags < len(along), along[np.minimum(lags, len(along) - 1)], 0)
            on_lattice = np.multiply.outer(on_lattice, padded)
        torus, endless = torus + on_torus, endless + on_lattice
    return float(np.abs(torus / torus.flat[0] - endless / endless.flat[0]).max())


def covariance_terms(s1: float, s2: float | None) -> list[tuple[float, float, int]]:
    """The covariance of chain 1 - chain 2 is a sum of covariances of G(a)*w with G(b)*w: (a, b,
    factor) of each."""
    if s2 is None:
        return [(s1, s1, 1)]
    return [(s1, s1, 1), (s1, s2, -2), (s2, s2, 1)]


@lru_cache(maxsize=8192)
def _lag_covariance(a: float, b: float) -> np.ndarray:
    """float64: the covariance of the one-dimensional G(a)*w and G(b)*w at lags 0, 1, 2, ..."""

    def bell(sigma: float) -> np.ndarray:
        if sigma**2 == 0:  # also where the square is too small for a float
            return np.ones(1)
        reach = math.ceil(6 * sigma)
        x = np.arange(-reach, reach + 1)
        return np.exp(-(x**2) / (2 * sigma**2)) / np.exp(-(x**2) / (2 * sigma**2)).sum()

    both = np.convolve(bell(a), bell(b))
    return both[len(both) // 2 :]

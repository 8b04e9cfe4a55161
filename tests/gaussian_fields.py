"""Colored noise on the endless lattice in float64: analytic covariances, and the same filters on a
torus. Filters are sums of sign * separable normalised sampled Gaussian; sigma 0 is the identity."""

import itertools
import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from philox_4x32 import block_words

from smnm_kernels.tables.constants import NOISE_UNIT, TAP_UNIT
from smnm_kernels.tables.noise import NoiseTable

REACH = 8  # standard deviations, where a Gaussian is below 1e-14


def chains(color, sigma):
    """[(sign, sigma)]"""
    return {
        "white": lambda: [(1, 0.0)],
        "red": lambda: [(1, sigma)],
        "blue": lambda: [(1, 0.0), (-1, sigma)],
        "green": lambda: [(1, sigma[0]), (-1, sigma[1])],
    }[color]()


def filtered_axes(grid):
    """A grid of one frame is two-dimensional."""
    return grid if grid[0] > 1 else grid[1:]


def gaussian(sigma, reach):
    x = np.arange(-reach, reach + 1)
    bell = np.exp(-x * x / (2 * sigma**2)) if sigma > 0 else (x == 0).astype(float)
    return bell / bell.sum()


@lru_cache(maxsize=10_000)
def correlation(a, b, n):
    """sum over x of G_a(x) * G_b(x + d), for d < n."""
    reach = math.ceil(REACH * max(a, b)) + n
    ga, gb = gaussian(a, reach), gaussian(b, reach)
    return np.array([ga[: len(ga) - d] @ gb[d:] for d in range(n)])


def outer(factors):
    product = np.array(1.0)
    for factor in factors:
        product = np.multiply.outer(product, factor)
    return product


def analytic_covariance(color, sigma, grid, time_scale=1):
    """Covariance at every lag 0..side-1 of each filtered axis, over the variance."""
    axes = filtered_axes(grid)
    scales = (time_scale, 1, 1)[-len(axes) :]
    terms = chains(color, sigma)
    total = np.zeros(axes)
    for (sign_a, a), (sign_b, b) in itertools.product(terms, repeat=2):
        total += (
            sign_a
            * sign_b
            * outer([correlation(a * s, b * s, n) for n, s in zip(axes, scales, strict=True)])
        )
    return total / total.flat[0]


def covariance_to(token, color, sigma, grid, time_scale=1):
    """[T, H, W]: covariance of one token with every token of the window."""
    by_lag = analytic_covariance(color, sigma, grid, time_scale)
    at = token if grid[0] > 1 else token[1:]
    lags = [abs(np.arange(n) - i) for n, i in zip(by_lag.shape, at, strict=True)]
    return by_lag[np.ix_(*lags)].reshape(grid)


def covariance_of_taps(table: NoiseTable, pair: int, grid) -> np.ndarray:
    """Covariance, at every lag of the window, of noise filtered with the integer taps of a table:
    exact but for the rounding between passes."""
    axes, torus = filtered_axes(grid), filtered_axes(table.torus)
    rows = table.taps.numpy().astype(np.int64)
    level1, level2, gain = table.pairs[pair].tolist()
    skipped = sum(table.torus) - sum(torus)

    def along_each_axis(level, last_gain):
        along = np.split(rows[level, skipped:], np.cumsum(torus)[:-1])
        return [(along[0] * last_gain + TAP_UNIT // 2) // TAP_UNIT, *along[1:]]

    terms = [(1, along_each_axis(level1, TAP_UNIT))]
    if level2 >= 0:
        terms.append((-1, along_each_axis(level2, gain)))
    total = np.zeros(axes)
    for (sign_a, a), (sign_b, b) in itertools.product(terms, repeat=2):
        products = [
            np.array([float(x @ np.roll(y, d)) for d in range(n)])
            for n, x, y in zip(axes, a, b, strict=True)
        ]
        total += sign_a * sign_b * outer(products)
    passes_shifted = len(axes) - 1
    noise_variance = float((np.floor(quantiles() * NOISE_UNIT + 0.5) ** 2).mean())
    scale = float(table.scale[pair]) / TAP_UNIT**passes_shifted
    return total * noise_variance * scale**2


def quantiles():
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / 4096) for i in range(4096)])


def white_torus(torus, sample_id, seed, stream):
    """Standard normal noise: the top 12 bits of each 16-bit half of the words, low half first; half
    h of block b is element h*q + b, where q blocks make whole planes (rows, if there is one plane).
    """
    sides = filtered_axes(torus)
    q = -(-sides[0] // 8) * math.prod(sides[1:])
    blocks = np.array([block_words(b, stream, sample_id, seed) for b in range(q)]).T
    halves = np.stack([blocks % 2**16, blocks // 2**16], axis=1).reshape(-1)
    return quantiles()[halves[: math.prod(torus)] // 16].reshape(torus)


def filtered_torus(white, grid, color, sigma):
    """The window [T, H, W] of the filtered torus, scaled to unit variance."""
    sides = filtered_axes(white.shape)
    total = np.zeros(sides, dtype=complex)
    for sign, s in chains(color, sigma):
        reach = math.ceil(REACH * s)
        spectra = []
        for side in sides:
            wrapped = np.zeros(side)
            np.add.at(wrapped, np.arange(-reach, reach + 1) % side, gaussian(s, reach))
            spectra.append(np.fft.fft(wrapped))
        total += sign * outer(spectra)
    spectrum = total * np.fft.fftn(white.reshape(sides))
    window = np.fft.ifftn(spectrum).real.reshape(white.shape)[tuple(slice(n) for n in grid)]
    return window / np.sqrt((abs(total) ** 2).mean())

"""Radial power spectra: estimated from fields, and expected from the formula of their color.

The estimate is the plain periodogram of a window of the field, |DFT|^2 / N, averaged over fields
and over frequencies of equal length. A window has edges, so its expected periodogram is not the
power spectrum of the endless field. It is the DFT of the field's covariance times the window's
triangle, (1 - |d| / n) along each axis of length n. ``expected_spectrum`` computes exactly that, so
it and the estimate differ by sampling error alone. No taper is used; it would blur both. Units:
cycles per patch; power 1 is white noise of unit variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.kinds import NoiseField
from smnm_kernels.tables.colors import Color, Sigma, sigma_pairs
from smnm_kernels.tables.torus import covariance_terms

#: The sampled Gaussian is cut at this many sigmas, where it is 1e-14 of its centre.
REACH = 8.0


def radial_spectrum(fields: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean periodogram of floating-point fields [B, T, H, W] over shells of equal frequency.

    Returns:
        frequency: float64 [n_bins], mean length of the frequency vectors of each shell, in cycles
            per patch, up to sqrt(dimensions) / 2.
        power: float64 [n_bins]. Fields of zero mean and unit variance have about mean 1.
    """
    if fields.dim() != 4 or 0 in fields.shape or not fields.dtype.is_floating_point:
        raise ValueError(
            f"fields must be floating point [B, T, H, W], got {fields.dtype} {list(fields.shape)}"
        )
    transform = torch.view_as_real(torch.fft.fftn(fields, dim=(1, 2, 3)))
    periodogram = transform.square().sum(-1).mean(0) / fields[0].numel()
    return _over_shells(periodogram.double().cpu().numpy())


def expected_spectrum(
    grid: Sequence[int],
    color: Color,
    sigma: Sigma = None,
    *,
    time_scale: float = 1.0,
    window: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """What ``radial_spectrum(smnm.noise(ids, grid, color, sigma=sigma))`` converges to.

    |G1(f)|^2 for red, |1 - G1(f)|^2 for blue and |G1(f) - G2(f)|^2 for green, where G(f) is the
    transform of the normalised Gaussian sampled on the patches. The spectrum of each pair of sigmas
    is scaled to unit variance, as ``smnm.noise`` does it, and then averaged over all pairs that
    ``smnm.noise`` draws from.

    Args:
        grid, color, sigma, time_scale: as for ``smnm.noise``.
        window: True for the expected periodogram of the (T, H, W) window. False for the transfer
            function itself, the spectrum of the endless field, at the same frequencies.

    Returns:
        frequency, power: float64 [n_bins], as ``radial_spectrum`` returns them.
    """
    return _over_shells(expected_power(NoiseField.parse(grid, color, sigma, time_scale), window))


def expected_power(field: NoiseField, window: bool = True) -> np.ndarray:
    """The same over the frequencies of an FFT of the grid, float64 [T, H, W]: its mean is 1 for an
    endless field, and with the window, whose mean is a part of it, as well."""
    if field.color == "white":
        return np.ones(field.grid)

    # Every color is G(first) - G(second): blue has the identity, sigma 0, first; red no second.
    pairs = sigma_pairs(field.color, field.sigma)
    power = np.zeros(field.grid)
    terms: dict[tuple[float, float], tuple[float, list[np.ndarray]]] = {}
    for first, second in pairs:
        spectrum, variance = np.zeros(field.grid), 0.0
        for a, b, factor in covariance_terms(first, second):
            if (a, b) not in terms:
                terms[a, b] = _cross_term(a, b, field.grid, window, field.time_scale)
            at_zero, (along_t, along_h, along_w) = terms[a, b]
            variance += factor * at_zero
            spectrum += (factor * along_t)[:, None, None] * (along_h[:, None] * along_w)
        power += spectrum / variance
    return power / len(pairs)


def _cross_term(
    a: float, b: float, grid: tuple[int, int, int], window: bool, time_scale: float
) -> tuple[float, list[np.ndarray]]:
    """Covariance of G(a)*w and G(b)*w at lag 0, and its spectrum as one factor for each axis.

    A grid with T = 1 is two-dimensional: nothing is filtered along T.
    """
    factors: list[np.ndarray] = []
    at_zero = 1.0
    for n, scale in zip(grid, (time_scale, 1.0, 1.0), strict=True):
        if n == 1 and not factors:  # one frame
            factors.append(np.ones(1))
            continue
        # Gaussians are even.
        covariance = np.convolve(_gaussian(a * scale), _gaussian(b * scale))
        lags = np.arange(len(covariance)) - len(covariance) // 2
        triangle = np.maximum(0, 1 - np.abs(lags) / n) if window else np.ones(len(lags))
        waves = np.cos(2 * math.pi * np.arange(n)[:, None] * lags / n)
        factors.append(waves @ (triangle * covariance))
        at_zero *= float(covariance[len(covariance) // 2])
    return at_zero, factors


def _gaussian(sigma: float) -> np.ndarray:
    """The normalised sampled Gaussian, float64 [2 * reach + 1]; sigma 0 is the identity."""
    if sigma == 0:
        return np.ones(1)
    reach = math.ceil(REACH * sigma)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return bell / bell.sum()


def _over_shells(periodogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average over shells as thick as the finest frequency step of the grid.

    Frequency 0 is left out. It is the mean of the window, which is the same for all masks with the
    same count.
    """
    axes = [np.fft.fftfreq(n) for n in periodogram.shape]
    length = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij"))).ravel()
    shell = np.rint(length * max(periodogram.shape)).astype(int)
    shell[length == 0] = 0
    count = np.bincount(shell)[1:]
    present = count > 0
    frequency = np.bincount(shell, length)[1:][present] / count[present]
    power = np.bincount(shell, periodogram.ravel())[1:][present] / count[present]
    return frequency, power

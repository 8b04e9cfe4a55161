"""Noise is a window of a stationary field on the endless lattice: 10,000 fields of each color (and
20,000 in the exhaustive tier) against the analytic covariance, with bounds of sampling error plus
1% of the variance."""

import numpy as np
import pytest
import torch
from gaussian_fields import analytic_covariance, covariance_to
from testing import devices

import smnm_kernels as smnm

SYSTEMATIC = 0.01
CASES = [("white", None), ("red", 1.1), ("blue", 1.3), ("green", (0.9, 2.1)), ("green", (1.5, 3.0))]
GRIDS = [(1, 14, 14), (1, 64, 8), (8, 14, 14)]


pytestmark = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=[(device, grid, *case) for device in devices() for grid in GRIDS for case in CASES],
    ids=lambda p: f"{p[0]}-{'x'.join(map(str, p[1]))}-{p[2]}-{p[3]}",
)
def fields(request, exhaustive):
    """(float32 [B, T, H, W], color, sigma, grid)"""
    device, grid, color, sigma = request.param
    n = 20_000 if exhaustive else 10_000
    ids = torch.arange(-n // 2, n // 2, device=device)
    return smnm.noise(ids, grid, color, sigma=sigma, seed=2025), color, sigma, grid


def within_sampling_error(products_mean, expected, n):
    """5 standard errors of the mean product of two unit Gaussians with that covariance."""
    excess = np.abs(products_mean - expected) - 5 * np.sqrt((1 + expected**2) / n)
    return float(np.max(excess)) < SYSTEMATIC


def test_corner_and_centre_against_every_token(fields):
    noise, color, sigma, grid = fields
    corners = [(0, 0, 0), tuple(n - 1 for n in grid)]
    for token in (*corners, tuple(n // 2 for n in grid)):
        one = noise[(slice(None), *token)]
        covariance = torch.einsum("b,bthw->thw", one, noise).double().cpu().numpy() / len(noise)
        expected = covariance_to(token, color, sigma, grid)
        assert within_sampling_error(covariance, expected, len(noise))


def test_zero_mean_and_unit_variance_of_every_token(fields):
    noise = fields[0].double()
    assert noise.mean(0).abs().max() < 5 / len(noise) ** 0.5
    assert (noise.square().mean(0) - 1).abs().max() < SYSTEMATIC + 5 * (2 / len(noise)) ** 0.5


def test_all_lags_along_each_axis_pooled_over_the_window(fields):
    """Sampling error falls to a few thousandths here; the longest lags, from one face of the window
    to the other, are where a field on a torus wraps around."""
    noise, color, sigma, grid = fields
    by_lag = analytic_covariance(color, sigma, grid)
    by_lag = by_lag.reshape(grid) if by_lag.ndim == 3 else by_lag[None]
    for axis, side in enumerate(grid):
        for lag in range(side):
            products = noise.narrow(axis + 1, 0, side - lag) * noise.narrow(
                axis + 1, lag, side - lag
            )
            per_field = products.flatten(1).mean(1).double()
            expected = by_lag[tuple(lag if i == axis else 0 for i in range(3))]
            bound = SYSTEMATIC + 5 * per_field.std() / len(noise) ** 0.5
            assert abs(per_field.mean() - expected) < bound, (axis, lag)


def test_fields_of_neighbouring_ids_are_independent(fields):
    noise = fields[0].flatten(1)
    covariance = (noise[1:] * noise[:-1]).mean(0)
    # The largest of up to 1568 tokens.
    assert covariance.abs().max() < 5.5 / len(noise) ** 0.5


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("color", ["red", "blue", "green"])
def test_drawn_sigmas_give_unit_variance_too(device, color):
    ids = torch.arange(4000, device=device)
    noise = smnm.noise(ids, (4, 8, 8), color, seed=9).double()
    per_field = noise.square().flatten(1).mean(1)
    assert abs(per_field.mean() - 1) < SYSTEMATIC + 5 * per_field.std() / 4000**0.5

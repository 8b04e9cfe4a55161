"""How energy is spread over frequency: equal to its definition, and what is proposed from it."""

import cmath
import math

import numpy as np
import pytest
import torch

import smnm_kernels as smnm
from smnm_kernels.analysis.energy import apart, distribution, periodogram, propose


def slow_periodogram(values):
    """|sum of x exp(-2 pi i f x)|^2 / N for every frequency, term by term."""
    sides = values.shape
    power = np.zeros(sides)
    for f in np.ndindex(sides):
        total = 0
        for place in np.ndindex(sides):
            turns = sum(k * x / n for k, x, n in zip(f, place, sides, strict=True))
            total += values[place] * cmath.exp(-2j * math.pi * turns)
        power[f] = abs(total) ** 2 / values.size
    power[0, 0, 0] = 0
    return power


def test_periodogram_is_its_definition_and_keeps_the_energy():
    values = np.random.default_rng(0).normal(size=(2, 3, 4))
    assert np.allclose(periodogram(values), slow_periodogram(values))
    assert periodogram(values).sum() == pytest.approx(((values - values.mean()) ** 2).sum())
    # One clip after the other, or all at once.
    assert np.array_equal(periodogram(np.stack([values, 2 * values]))[0], periodogram(values))


@pytest.mark.parametrize(
    ("axes", "patch"), [((0, 1, 2), (1, 1, 1)), ((1, 2), (2, 2, 3)), ((0,), (2, 1, 1))]
)
def test_a_distribution_sums_energy_by_the_length_of_the_frequency(axes, patch):
    sides = (4, 6, 9)
    power = periodogram(np.random.default_rng(1).normal(size=sides))
    found = distribution(power, axes, patch)

    longest = max(sides[a] / patch[a] for a in axes)
    bins, lengths = {}, {}
    for f in np.ndindex(sides):
        cycles = [min(f[a], sides[a] - f[a]) / sides[a] * patch[a] for a in axes]
        length = math.hypot(*cycles)
        number = round(round(length * longest, 9))
        bins.setdefault(number, []).append(power[f])
        lengths.setdefault(number, []).append(length)
    assert len(found.frequency) == len(bins)
    for i, number in enumerate(sorted(bins)):
        assert found.frequency[i] == pytest.approx(np.mean(lengths[number]))
        assert found.share[i] == pytest.approx(sum(bins[number]) / power.sum())
        per_value = math.prod(patch[a] for a in axes)
        assert found.power[i] == pytest.approx(np.mean(bins[number]) / per_value)
    assert found.below[-1] == pytest.approx(1)


def test_white_values_and_white_patches_have_the_same_energy_by_unit_of_frequency():
    rng = np.random.default_rng(2)
    # The mean of four values a patch has a quarter of their power, and so has the band of patches.
    values = rng.normal(size=(400, 2, 16, 16))
    patches = values.reshape(400, 2, 8, 2, 8, 2).mean((3, 5))
    of_values = distribution(periodogram(values).mean(0), (1, 2), (1, 2, 2))
    of_patches = distribution(periodogram(patches).mean(0), (1, 2))
    low = slice(1, 3)
    assert np.allclose(of_values.power[low], 0.25, rtol=0.1)
    assert np.allclose(of_patches.power[low], 0.25, rtol=0.1)


def test_the_median_halves_the_energy():
    power = np.zeros((1, 1, 8))
    power[0, 0, [1, 7]], power[0, 0, [2, 6]] = 1, 3
    spread = distribution(power, (2,))
    assert spread.below.tolist() == [0, 0.25, 1, 1, 1]
    assert spread.median == pytest.approx((1 + 1 / 3) / 8)


@pytest.mark.parametrize(
    ("grid", "sigma", "time_scale"),
    [((8, 14, 14), (0.7, 1.4), 2.0), ((8, 14, 14), (1.1, 2.2), 1.0), ((1, 64, 8), (0.5, 1.5), 1.0)],
)
def test_the_proposal_for_green_noise_spreads_energy_as_it_does(grid, sigma, time_scale):
    ids = torch.arange(100)
    fields = smnm.noise(ids, grid, "green", sigma=sigma, time_scale=time_scale).numpy()
    found = propose(periodogram(fields))
    assert max(found.distance) < 0.05 < max(found.default_distance)
    assert found.time_scale == pytest.approx(time_scale, rel=0.5)
    (low, high), (low2, high2) = found.sigma
    assert low <= high
    assert low2 <= high2
    smnm.noise(ids[:2], grid, "green", sigma=found.sigma, time_scale=found.time_scale)


def test_the_range_is_that_of_the_clips():
    ids, grid = torch.arange(60), (1, 32, 32)
    parts = [smnm.noise(ids, grid, "green", sigma=(s, 2 * s)).numpy() for s in (0.5, 1.0, 2.0)]
    (low, high), _ = propose(periodogram(np.concatenate(parts))).sigma
    assert low == pytest.approx(0.5, rel=0.3)
    assert high == pytest.approx(2.0, rel=0.3)
    (low, high), _ = propose(periodogram(parts[1])).sigma
    assert high / low < 1.4


def test_distance_is_the_largest_difference_below_a_frequency():
    one, other = np.zeros((1, 1, 8)), np.zeros((1, 1, 8))
    one[0, 0, [1, 7]] = 1
    other[0, 0, 4] = 1
    spreads = [distribution(p, (2,)) for p in (one, other)]
    assert apart(*spreads) == 1
    assert apart(spreads[0], spreads[0]) == 0


def test_clips_of_which_no_patch_differs_have_no_proposal():
    fields = smnm.noise(torch.arange(20), (1, 8, 8), "green").numpy()
    powers = periodogram(fields)
    flat = np.zeros_like(powers[:5])
    assert propose(np.concatenate([flat, powers])) == propose(powers)
    with pytest.raises(ValueError, match="the patches of all are flat"):
        propose(flat)

"""How energy is spread over frequency, of data and of masks in the same terms; and the green noise
whose energy is spread most like that of data.

The structured-noise paper (its A.15) compares the radial power of clips and spectrograms with that
of masks, and the energy that lies below each frequency. Here frequencies are in cycles per patch:
masks have one value a patch and nothing beyond half a cycle along an axis, data go on to half a
cycle per value. As in `spectrum`, the transform is the plain one, without a taper. The proposal of
sigma is ours; the paper has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smnm_kernels.analysis.spectrum import expected_power
from smnm_kernels.arguments import Grid
from smnm_kernels.kinds import NoiseField
from smnm_kernels.tables.colors import (
    DEFAULT_GREEN,
    MAX_SIGMA,
    MIN_SIGMA,
    MIN_SUBTRACTED_SIGMA,
    SIGMA_PRESETS,
)

#: What a proposal is chosen from: sigma1, sigma2 / sigma1, sigma along time / sigma. Steps of about
#: a seventh; two steps beside each other spread energy nearly alike.
SIGMAS = tuple(float(f"{v:.2g}") for v in np.geomspace(MIN_SIGMA, 4.0, 24))
QUOTIENTS = (1.25, 1.5, 2.0, 3.0, 4.0)
#: Misfits that differ by less count as equal, because a larger sigma1 with a smaller quotient
#: spreads energy nearly alike; then the quotient nearest to the default noise's wins.
NEAR = 0.02
_USUAL_QUOTIENT = sum(SIGMA_PRESETS[DEFAULT_GREEN][1]) / sum(SIGMA_PRESETS[DEFAULT_GREEN][0])
TIME_SCALES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


@dataclass(frozen=True)
class Distribution:
    """Energy over frequency, along some of the axes together."""

    frequency: np.ndarray  # float64 [n], cycles per patch, rising; the mean of each bin
    power: np.ndarray  # float64 [n], energy by unit of frequency; 1 of white noise on the patches
    share: np.ndarray  # float64 [n], of all the energy; their sum is 1

    @property
    def below(self) -> np.ndarray:
        """Share of the energy at this frequency and below."""
        return np.cumsum(self.share)

    @property
    def median(self) -> float:
        """Half of the energy lies below this frequency; between bins on a straight line."""
        return float(np.interp(0.5, self.below, self.frequency))


def periodogram(values: np.ndarray) -> np.ndarray:
    """[..., T, H, W] -> |DFT|^2 / N over the last three axes, float64 of the same shape: the mean
    of values of unit variance is 1. What is constant, frequency 0, is left out."""
    transform = np.fft.fftn(values, axes=(-3, -2, -1))
    power = (transform.real**2 + transform.imag**2) / math.prod(values.shape[-3:])
    power[..., 0, 0, 0] = 0
    return power.astype(np.float64)


def distribution(power: np.ndarray, axes: Sequence[int], patch: Grid = (1, 1, 1)) -> Distribution:
    """The periodogram [T, H, W], summed over the other axes, by the length of the frequency along
    `axes` (0, 1, 2 for T, H, W).

    Bins are as wide as the finest step of frequency. patch: values of a patch along (T, H, W);
    (1, 1, 1) where the field has one value a patch.
    """
    others = tuple(axis for axis in range(3) if axis not in axes)
    energy = power.sum(others)
    sides = [power.shape[axis] for axis in axes]
    along = [np.fft.fftfreq(power.shape[axis]) * patch[axis] for axis in axes]
    length = np.sqrt(sum(f**2 for f in np.meshgrid(*along, indexing="ij"))).ravel()
    longest = max(side / patch[axis] for side, axis in zip(sides, axes, strict=True))
    # Half a bin is half a bin, whatever the last digits say.
    number = np.rint(np.round(length * longest, 9)).astype(int)
    count = np.bincount(number)
    there = count > 0
    energies = np.bincount(number, energy.ravel())[there]
    # White noise of so many values a patch has its energy spread over as many times the band.
    per_value = math.prod(patch[axis] for axis in axes)
    return Distribution(
        np.bincount(number, length)[there] / count[there],
        energies / (count[there] * math.prod(power.shape[a] for a in others) * per_value),
        energies / energies.sum(),
    )


def apart(one: Distribution, other: Distribution) -> float:
    """The largest difference of the energy below a frequency (Kolmogorov's distance), in [0, 1].
    Both must have the same bins."""
    return float(np.abs(one.below - other.below).max())


@dataclass(frozen=True)
class Proposal:
    """Green noise whose energy is spread like that of data."""

    sigma: tuple[tuple[float, float], tuple[float, float]]  # ranges of sigma1 and sigma2, patches
    time_scale: float
    #: Largest difference of the energy below a frequency, in space and, where there are frames, in
    #: time: of this noise, and of the default one.
    distance: tuple[float, ...]
    default_distance: tuple[float, ...]


def propose(powers: np.ndarray) -> Proposal:
    """The green noise whose energy is spread over space and time most like that of data.

    powers: float64 [n, T, H, W], periodograms of n clips, pictures or spectrograms brought to one
        value a patch. Those without any energy are left out; ValueError where none has any.

    Of fixed pairs of sigmas one is taken whose energy below each frequency differs least from the
    data's mean: the sum of the largest difference along space and the largest along time (within
    `NEAR` of the least). Its quotient and its time scale stay. The range of sigma1 is then what the
    middle half of the clips take one by one.
    """
    grid = powers.shape[1:]
    powers = powers[powers.sum((1, 2, 3)) > 0]
    if not len(powers):
        raise ValueError("powers must have energy in some clip: the patches of all are flat")
    axes = _axes(grid)
    pairs = [
        (first, quotient, scale)
        for first in SIGMAS
        for quotient in QUOTIENTS
        for scale in (TIME_SCALES if grid[0] > 1 else (1.0,))
        if MIN_SUBTRACTED_SIGMA <= first * quotient <= MAX_SIGMA / max(1.0, scale)
    ]
    spread = {pair: _spread(_field(grid, (pair[0],) * 2, pair[1], pair[2]), axes) for pair in pairs}
    mean = [distribution(powers.mean(0), a) for a in axes]

    def misfit(pair: tuple[float, float, float], data: list[Distribution]) -> float:
        return sum(map(apart, spread[pair], data))

    misfits = {pair: misfit(pair, mean) for pair in pairs}
    good = [pair for pair in pairs if misfits[pair] <= min(misfits.values()) + NEAR]
    off = {pair: abs(math.log(pair[1] / _USUAL_QUOTIENT)) for pair in good}
    _, quotient, scale = min(good, key=lambda pair: (off[pair], misfits[pair]))
    firsts = [pair for pair in pairs if pair[1:] == (quotient, scale)]
    taken = []
    for power in powers:
        of_clip = [distribution(power, a) for a in axes]
        taken.append(min(firsts, key=lambda pair: misfit(pair, of_clip))[0])
    low, high = np.percentile(taken, (25, 75), method="nearest").tolist()
    best = _field(grid, (low, high), quotient, scale)
    default = NoiseField.parse(grid, "green", None)
    low2, high2 = (float(f"{quotient * v:.3g}") for v in (low, high))
    return Proposal(
        ((low, high), (low2, high2)),
        scale,
        tuple(map(apart, _spread(best, axes), mean)),
        tuple(map(apart, _spread(default, axes), mean)),
    )


def _axes(grid: Grid) -> list[tuple[int, ...]]:
    return [(1, 2), (0,)] if grid[0] > 1 else [(1, 2)]


def _field(grid: Grid, first: tuple[float, float], quotient: float, scale: float) -> NoiseField:
    second = tuple(float(f"{quotient * v:.3g}") for v in first)
    return NoiseField.parse(grid, "green", (first, second), scale)


def _spread(field: NoiseField, axes: Sequence[tuple[int, ...]]) -> list[Distribution]:
    power = expected_power(field)
    power[0, 0, 0] = 0
    return [distribution(power, a) for a in axes]

"""Power spectra: the noise has the spectrum of its formula, to sampling error."""

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image
from testing import need_packages

import smnm_kernels as smnm
from smnm_kernels.analysis.spectrum import expected_spectrum, radial_spectrum
from smnm_kernels.pictures.panels import panels
from smnm_kernels.pictures.spectrum_plot import spectra

GRIDS = [(1, 14, 14), (8, 14, 14), (1, 64, 8)]
N_GROUPS, GROUP = 20, 50


@lru_cache
def estimate(grid, color, sigma):
    """Mean and standard error over groups of fields, float64 [n_bins] each."""
    ids = torch.arange(N_GROUPS * GROUP).split(GROUP)
    powers = [radial_spectrum(smnm.noise(i, grid, color, sigma=sigma))[1] for i in ids]
    return np.mean(powers, axis=0), np.std(powers, axis=0, ddof=1) / math.sqrt(N_GROUPS)


def disagreement(grid, color, sigma, formula):
    """Largest distance of the estimate from a formula's curve, in allowed distances."""
    mean, error = estimate(grid, color, sigma)
    _, expected = expected_spectrum(grid, *formula)
    # Besides sampling error the noise may be off by a percent, of its curve or (the covariances
    # that noise promises to within a percent of the variance) of white noise's.
    return np.max(np.abs(mean - expected) / (5 * error + 0.01 * expected + 0.01))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("color", "sigma"),
    [
        ("white", None),
        ("red", 0.7),
        ("red", None),
        ("blue", 0.7),
        ("blue", None),
        ("green", (0.6, 1.7)),
        ("green", None),
        ("green", "main-text"),
    ],
)
def test_noise_has_the_expected_spectrum(grid, color, sigma):
    assert disagreement(grid, color, sigma, (color, sigma)) < 1


@pytest.mark.parametrize("grid", GRIDS)
def test_another_color_or_sigma_does_not_agree(grid):
    green, red, blue = ("green", (0.6, 1.7)), ("red", 0.7), ("blue", 0.7)
    formulas = [("white", None), red, blue, green, ("red", 0.8), ("green", (0.6, 2.0))]
    for true in (green, red, blue):
        for formula in formulas:
            assert (disagreement(grid, *true, formula) < 1) == (formula == true), (true, formula)


def test_expected_spectrum_is_that_of_the_covariance():
    """From the definition: |DFT|^2 / N of G*w in one window, with the filter as a matrix."""
    grid, sigma = (1, 5, 6), 0.8
    reach = 9
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    bell /= bell.sum()

    def periodogram(n):
        rows = np.array([np.pad(bell, (i, n - 1 - i)) for i in range(n)])  # window of the filter
        waves = np.fft.fft(rows, axis=0)
        return (np.abs(waves) ** 2).sum(1) / n

    power = np.outer(periodogram(5), periodogram(6)) / (bell**2).sum() ** 2
    lengths = np.hypot(*np.meshgrid(np.fft.fftfreq(5), np.fft.fftfreq(6), indexing="ij"))
    frequency, expected = expected_spectrum(grid, "red", sigma)
    shell = np.rint(lengths * 6)
    for radius, f, p in zip(np.unique(shell)[1:], frequency, expected, strict=True):
        assert f == pytest.approx(lengths[shell == radius].mean())
        assert p == pytest.approx(power[shell == radius].mean(), rel=1e-9)


def test_transfer_function_without_window():
    """On one axis and one frequency: the transform of the sampled Gaussian, not the continuous."""
    sigma = (0.4, 1.1)
    frequency, power = expected_spectrum((1, 1, 64), "green", sigma, window=False)
    x = np.arange(-20, 21)
    bells = [np.exp(-0.5 * (x / s) ** 2) for s in sigma]
    g1, g2 = (
        (bell / bell.sum() * np.cos(2 * np.pi * np.multiply.outer(frequency, x))).sum(-1)
        for bell in bells
    )
    ratio = power / (g1 - g2) ** 2
    assert ratio == pytest.approx(ratio[0])  # one scale, to unit variance


def test_a_wave_is_a_line_at_its_frequency():
    x = torch.arange(32)
    wave = torch.cos(2 * math.pi * 5 / 32 * x).expand(1, 1, 32, 32)
    frequency, power = radial_spectrum(wave)
    assert frequency[power.argmax()] == pytest.approx(5 / 32, rel=0.05)
    n_in_shell = np.sum(np.rint(32 * np.hypot(*np.meshgrid(*[np.fft.fftfreq(32)] * 2))) == 5)
    assert power.max() == pytest.approx(2 * 32 * 32 / 4 / n_in_shell, rel=1e-5)
    assert np.delete(power, power.argmax()).max() < 1e-6


def test_wrong_fields_are_named():
    with pytest.raises(ValueError, match="fields must be floating point"):
        radial_spectrum(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="fields must be floating point"):
        radial_spectrum(torch.zeros(1, 1, 4, 4, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["green3d", "tube", "rbn"])
def test_curves_of_a_kind(kind):
    (panel,) = panels((kind,), (4, 12, 12), (1, 32, 8), None, None, (), seed=0)
    lines = spectra(panel, 300)
    assert (lines.noise is None) == (kind == "rbn")
    if kind == "tube":
        assert lines.masks == pytest.approx(np.ones(len(lines.masks)), abs=0.2)
    if kind == "green3d":  # a band: the peak lies inside, for the masks as for their noise
        for power in (lines.noise, lines.expected, lines.masks):
            assert frequency_of_peak(lines.frequency, power) == pytest.approx(0.13, abs=0.06)
    if kind == "rbn":  # few long waves, as blue noise
        assert lines.masks[:4].mean() < 0.5 * lines.masks.mean()


def frequency_of_peak(frequency, power):
    return frequency[np.argmax(power)]


def test_picture_is_written(tmp_path):
    need_packages("tyro", "matplotlib")
    from smnm_kernels.pictures.show import Show

    out = tmp_path / "spectra.png"
    Show(kinds=("blue2d", "rbn"), grid=(1, 12, 12), samples=20, spectrum=True, out=out).run()
    assert Image.open(out).size[0] > 500
    assert [path.name for path in tmp_path.iterdir()] == ["spectra.png"]

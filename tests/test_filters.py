"""What the integers of a noise table cost: no sampling error here."""

import numpy as np
import pytest
import torch
from gaussian_fields import (
    analytic_covariance,
    covariance_of_taps,
    filtered_torus,
    white_torus,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples

import smnm_kernels as smnm
from smnm_kernels.tables.colors import parse_sigma, sigma_pairs
from smnm_kernels.tables.noise import noise_table

GRIDS = [(1, 14, 14), (1, 64, 8), (8, 14, 14), (16, 14, 14), (4, 7, 7), (1, 8, 8)]
SINGLE = [0.5, 0.7, 1.0, 1.3, 1.7, 2.0]
PAIRS = [(0.4, 1.4), (0.5, 2), (0.5, 3), (0.9, 2.1), (1.0, 1.5), (1.3, 2.6), (1.5, 3), (1.4, 1.7)]
FIXED = [
    *(("red", s) for s in (0.2, 0.4, *SINGLE, 2.9, 4.3, 8)),
    *(("blue", s) for s in (0.4, *SINGLE, 2.9)),
    *(("green", pair) for pair in PAIRS),
]
N_LEVELS = 32


def table_of(grid, color, sigma):
    return noise_table(grid, color, tuple(parse_sigma(color, sigma)))


def worst(grid, color, sigma):
    """Largest error of the covariance of a fixed sigma at any lag, over the variance."""
    taps = covariance_of_taps(table_of(grid, color, sigma), 0, grid)
    return np.abs(taps - analytic_covariance(color, sigma, grid)).max()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("color", "sigma"), FIXED)
def test_every_covariance_within_one_percent(grid, color, sigma):
    assert worst(grid, color, sigma) < 0.01


WINDOWS = st.tuples(*[st.integers(1, 20)] * 3) | st.tuples(st.just(1), *[st.integers(1, 40)] * 2)
WIDTHS = st.one_of(st.integers(200, 3000), st.integers(200, 8000)).map(lambda n: n / 1000)


def assert_refused_or_within_one_percent(grid, color, sigma):
    try:
        table_of(grid, color, sigma)
    except ValueError:
        assume(False)
    assert worst(grid, color, sigma) < 0.01


@examples(300)
@given(
    grid=WINDOWS,
    color=st.sampled_from(["red", "blue", "green"]),
    wide=WIDTHS,
    quotient=st.integers(50, 850).map(lambda n: n / 1000),
)
def test_any_sigma_is_refused_or_within_one_percent(grid, color, wide, quotient):
    sigma = (wide * quotient, wide) if color == "green" else wide
    assert_refused_or_within_one_percent(grid, color, sigma)


@pytest.mark.parametrize(
    ("grid", "sigma"),
    [
        ((8, 14, 14), (2.727, 2.882)),
        ((1, 64, 8), (2.602, 2.778)),
        ((1, 14, 14), (5.076, 5.417)),
        ((1, 1, 4), (1.269943, 1.367)),
        ((1, 11, 1), (4.642, 5.245)),
    ],
)
def test_close_sigmas_of_green_within_one_and_a_half_percent(grid, sigma):
    assert worst(grid, "green", sigma) < 0.015


def test_closer_sigmas_of_green_are_refused():
    with pytest.raises(ValueError, match=r"sigma1 <= 0\.95 \* sigma2"):
        table_of((8, 14, 14), "green", (1.0, 1.04))


@pytest.mark.parametrize(
    ("grid", "color", "sigma"),
    [
        ((1, 14, 14), "green", (1.765, 6.0)),
        ((8, 14, 14), "green", (0.288, 0.349)),
        ((1, 14, 14), "green", (0.951, 1.06)),
        ((1, 64, 8), "green", (2.558, 2.642)),
        ((1, 14, 14), "green", (2.416, 2.496)),
        ((3, 5, 8), "green", (0.907, 7.946)),
        ((4, 14, 12), "green", (0.899, 7.418)),
        ((3, 3, 3), "green", (0.649, 5.789)),
        ((9, 2, 12), "green", (1.886, 2.721)),
        ((1, 14, 7), "green", (2.138, 2.216)),
        ((8, 14, 14), "blue", 0.319),
        ((1, 22, 28), "blue", 0.331),
        ((1, 3, 1), "blue", 6.534),
    ],
)
def test_the_worst_sigmas_are_refused_or_within_one_percent(grid, color, sigma):
    try:
        table_of(grid, color, sigma)
    except ValueError:
        return
    assert worst(grid, color, sigma) < 0.01


def levels(low, high):
    """The values a drawn sigma takes: the middles of 32 equal parts of its range."""
    if low == high:
        return [low]
    return [low + (high - low) * (i + 0.5) / N_LEVELS for i in range(N_LEVELS)]


DRAWN = [
    *(("red", None), ("blue", None)),
    *(("green", preset) for preset in ("variant-1", "variant-2", "main-text")),
    # A thousand pairs of sigmas each.
    *(
        pytest.param("green", preset, marks=pytest.mark.exhaustive)
        for preset in ("variant-3", "variant-4", "variant-5")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(1, 14, 14), (1, 64, 8), (8, 14, 14)])
@pytest.mark.parametrize(("color", "sigma"), DRAWN)
def test_every_drawn_sigma_within_one_percent(grid, color, sigma):
    canonical = parse_sigma(color, sigma)
    table = noise_table(grid, color, tuple(canonical))
    pairs = sigma_pairs(color, canonical)
    assert len(set(pairs)) == len(pairs) == len(table.pairs)
    assert {s1 for s1, _ in pairs} <= {0.0, *levels(*canonical[:2])}
    assert {s2 for _, s2 in pairs} <= {None, *levels(*canonical[-2:])}
    for number, (s1, s2) in enumerate(pairs):
        if color == "green":
            assert s1 < s2
        fixed = {"red": s1, "blue": s2, "green": (s1, s2)}[color]
        taps = covariance_of_taps(table, number, grid)
        assert np.abs(taps - analytic_covariance(color, fixed, grid)).max() < 0.01, fixed


@pytest.mark.parametrize("grid", [(1, 14, 14), (1, 64, 8), (8, 14, 14), (3, 5, 9), (1, 1, 30)])
@pytest.mark.parametrize(
    ("color", "sigma"),
    [
        *(("red", s) for s in (0.5, 1.3, 2.0)),
        *(("blue", s) for s in (0.5, 1.3, 2.0)),
        *(("green", pair) for pair in [(0.4, 1.4), (0.9, 2.1), (1.5, 3.0), (0.5, 3.0)]),
    ],
)
def test_the_field_is_the_float64_filter_of_the_same_torus(grid, color, sigma):
    torus = table_of(grid, color, sigma).torus
    purpose = smnm.reference.Purpose.NOISE
    for sample_id, seed in ((3, 4), (-(2**61), 2**63 - 1)):
        white = white_torus(torus, sample_id, seed, purpose)
        exact = filtered_torus(white, grid, color, sigma).ravel()
        drawn = smnm.noise(torch.tensor([sample_id]), grid, color, sigma=sigma, seed=seed)
        drawn = drawn.double().numpy().ravel()
        assert np.corrcoef(exact, drawn)[0, 1] > 0.9999
        # In place and in scale, too: within a hundredth of a standard deviation, mostly.
        assert np.sqrt(np.mean((exact - drawn) ** 2)) < 0.02

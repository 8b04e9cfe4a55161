"""``time_scale`` multiplies sigma along T: covariances, purity, masks, errors."""

import numpy as np
import pytest
import torch
from gaussian_fields import analytic_covariance, covariance_of_taps, covariance_to
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import SEEDS, examples, sample_ids
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels.analysis.quality import spectrum_error
from smnm_kernels.tables.colors import parse_sigma
from smnm_kernels.tables.noise import noise_table

WINDOWS = st.tuples(st.integers(2, 16), st.integers(1, 16), st.integers(1, 16))
SCALES = st.one_of(st.just(0.0), st.integers(0, 4000).map(lambda n: n / 1000))


@st.composite
def colors_and_fixed_sigmas(draw):
    color = draw(st.sampled_from(["red", "blue", "green"]))
    high = draw(st.integers(350, 4000)) / 1000
    return color, (round(0.7 * high, 3), high) if color == "green" else high


@examples(150)
@given(grid=WINDOWS, color_and_sigma=colors_and_fixed_sigmas(), time_scale=SCALES)
def test_every_covariance_within_one_percent(grid, color_and_sigma, time_scale):
    color, sigma = color_and_sigma
    assume(time_scale * np.max(sigma) <= 8)
    assume(color != "green" or sigma[0] >= 0.2)
    table = noise_table(grid, color, tuple(parse_sigma(color, sigma)), time_scale)
    error = covariance_of_taps(table, 0, grid) - analytic_covariance(color, sigma, grid, time_scale)
    assert np.abs(error).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("time_scale", [0, 0.5, 2.5])
def test_fields_have_the_covariance_of_their_formula(time_scale):
    n, grid, sigma = 10_000, (8, 10, 10), (0.9, 2.1)
    noise = smnm.noise(torch.arange(n), grid, "green", sigma=sigma, time_scale=time_scale, seed=8)
    for token in ((0, 0, 0), (4, 5, 5), (7, 9, 9)):
        covariance = torch.einsum("b,bthw->thw", noise[(slice(None), *token)], noise).numpy() / n
        expected = covariance_to(token, "green", sigma, grid, time_scale)
        excess = np.abs(covariance - expected) - 5 * np.sqrt((1 + expected**2) / n)
        assert excess.max() < 0.01


@pytest.mark.parametrize("time_scale", [0, 0.4, 2])
def test_the_expected_spectrum_knows_it(time_scale):
    ids, grid = torch.arange(2000), (8, 8, 8)
    fields = smnm.noise(ids, grid, "green", sigma=(0.8, 1.9), time_scale=time_scale)
    right = spectrum_error(fields, grid, "green", (0.8, 1.9), time_scale=time_scale)
    wrong = spectrum_error(fields, grid, "green", (0.8, 1.9))
    assert right.error < 0.03 < wrong.error


def test_blobs_move_slower_at_larger_scales():
    changes = []
    for time_scale in (0, 0.5, 1, 2.5):
        masks = smnm.noise_masks(torch.arange(50), (8, 14, 14), "green", 0.9, time_scale=time_scale)
        visible = masks.visible.unflatten(1, (8, 14, 14))
        changes.append((visible[:, 1:] != visible[:, :-1]).float().mean().item())
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 2 * changes[-1]


def test_a_scale_whose_square_is_no_float_is_zero():
    ids = torch.arange(2)
    fields = [smnm.noise(ids, (4, 6, 6), "green", time_scale=scale) for scale in (0, 1e-200)]
    assert torch.equal(*fields)


@examples(20)
@given(
    ids=sample_ids(3),
    grid=st.sampled_from([(2, 3, 5), (3, 5, 7), (8, 4, 4)]),
    color=st.sampled_from(["red", "blue", "green"]),
    time_scale=st.sampled_from([0, 0.3, 0.8, 1.0, 2, 2.5]),
    seed=SEEDS,
)
def test_noise_and_masks_of_the_reference(ids, grid, color, time_scale, seed):
    how = {"time_scale": time_scale, "seed": seed}
    assert_same(smnm.noise(ids, grid, color, **how), smnm.reference.noise(ids, grid, color, **how))
    masks = smnm.noise_masks(ids, grid, color, 0.8, **how)
    assert_same(masks, smnm.reference.noise_masks(ids, grid, color, 0.8, **how))
    assert_same(masks, smnm.threshold(smnm.noise(ids, grid, color, **how), 0.8))


def test_one_is_the_default():
    ids = torch.arange(3)
    plain = smnm.noise(ids, (4, 6, 5), "green")
    assert_same(smnm.noise(ids, (4, 6, 5), "green", time_scale=1), plain)
    assert_same(
        smnm.noise(ids, (1, 6, 5), "green", time_scale=1.0), smnm.noise(ids, (6, 5), "green")
    )


def test_samplers_and_schedules_take_it():
    sampler = smnm.MaskSampler("green3d", (4, 6, 6), 0.75, time_scale=2)
    assert_same(
        sampler(3), smnm.noise_masks(torch.arange(3), (4, 6, 6), "green", 0.75, time_scale=2)
    )
    assert "time_scale=2" in repr(sampler)
    slower = smnm.ScheduledSampler(
        "green3d", (4, 6, 6), 0.75, time_scale=smnm.schedules.linear(0.5, 2.0, steps=2)
    )
    slower(1)
    expected = smnm.noise_masks(torch.tensor([1]), (4, 6, 6), "green", 0.75, time_scale=1.25)
    assert_same(slower(1), expected)


def test_compiled_in_one_graph():
    def step(ids):
        return smnm.noise_masks(ids, (4, 6, 6), "green", 0.75, time_scale=2)

    ids = torch.arange(3)
    assert_same(torch.compile(step, fullgraph=True, backend="aot_eager")(ids), step(ids))


@pytest.mark.parametrize(
    ("color", "grid", "time_scale", "message"),
    [
        ("white", (4, 6, 6), 2, r"time_scale is for red, blue and green.*got 2"),
        ("green", (1, 6, 6), 2, r"grid with T > 1, got 2"),
        ("green", (4, 6, 6), -0.5, r"time_scale must be in \[0, 2\.66667\].*got -0\.5"),
        ("green", (4, 6, 6), 3, r"at most 8 patches, got 3"),
        ("red", (4, 6, 6), float("nan"), r"got nan"),
    ],
)
def test_wrong_scales(color, grid, time_scale, message):
    with pytest.raises(ValueError, match=message):
        smnm.noise(torch.arange(2), grid, color, time_scale=time_scale)


def test_wrong_types_and_tubes():
    with pytest.raises(TypeError, match="time_scale must be a number, got 'slow'"):
        smnm.noise(torch.arange(2), (4, 6, 6), "green", time_scale="slow")
    with pytest.raises(ValueError, match="three dimensions"):
        smnm.noise_masks(torch.arange(2), (4, 6, 6), "green", 0.5, tube=True, time_scale=2)

"""Dispersion-weighted masking: the definition, its backends, its shares of chance, its schedule."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from testing import assert_same, devices, triton_kernels

import smnm_kernels as smnm
from smnm_kernels import schedules
from smnm_kernels.tables.constants import METRICS

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def some_data(shape, seed, scale=1.0):
    """Normal values, and some that are large, equal, infinite or no number."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(shape, generator=generator) * scale
    special = torch.tensor([0.0, 1e30, -1e30, math.inf, -math.inf, math.nan, 1023.99, 2**-17])
    which = torch.randint(0, 40, shape, generator=generator)
    return torch.where(which < 8, special[which.clamp(max=7)], data)


def exact(data, patch, metric):
    """The sums of the definition, in integers and fractions, of values as it rounds them."""
    b, c, t, h, w = data.shape
    bits = 16 if metric == "mad" else 12
    x = (
        (data.double() * 2**bits)
        .nan_to_num(-(2.0**40))
        .clamp(-(2.0 ** (10 + bits)), 2.0 ** (10 + bits))
    )
    x = (
        x.floor()
        .long()
        .view(b, c, t // patch[0], patch[0], h // patch[1], patch[1], w // patch[2], patch[2])
    )
    x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, -1, c * math.prod(patch))
    found = []
    for values in x.flatten(0, 1).tolist():
        n, total = len(values), sum(values)
        if metric == "mad":
            found.append(sum(abs(n * v - total) for v in values))
        else:
            found.append(sum((v - Fraction(total, n)) ** 2 for v in values))
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_the_definition_is_the_metric(metric):
    data = some_data((2, 2, 2, 6, 8), 0)
    ours = smnm.reference.patch_dispersion(data, (2, 3, 4), metric).double().flatten()
    truth = torch.tensor([float(v) for v in exact(data, (2, 3, 4), metric)], dtype=torch.float64)
    if metric == "mad":
        assert torch.equal(ours, (truth / 2).float().double())
    else:  # the mean is rounded down to a unit
        assert ((ours - truth) / truth).abs().max() < 1e-6


@pytest.mark.parametrize("device", devices())
@given(
    lengths=st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 16])] * 3),
    grid=st.tuples(*[st.integers(1, 3)] * 3),
    channels=st.integers(1, 3), batch=st.integers(0, 2), metric=st.sampled_from(METRICS),
    scale=st.sampled_from([1e-4, 1.0, 100.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_the_definition(device, lengths, grid, channels, batch, metric, scale, seed):
    sides = [length * n for length, n in zip(lengths, grid, strict=True)]
    data = some_data((batch, channels, *sides), seed, scale)
    ours = smnm.patch_dispersion(data.to(device), lengths, metric)
    assert_same(ours, smnm.reference.patch_dispersion(data, lengths, metric))
    assert ours.shape == (batch, math.prod(grid))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((1, 1, 1, 160, 32), (1, 16, 16)), ((2, 3, 4, 32, 32), (2, 16, 16)),
        ((1, 1, 1, 2, 2), (1, 1, 1)),
    ],
)  # fmt: skip
def test_triton_equals_the_cpu(shape, patch, metric):
    data = some_data(shape, 3)
    ours = triton_kernels().dispersion_kernel(data.to(DEVICE), patch, metric)
    assert_same(ours, torch.ops.smnm.dispersion(data, patch, metric))


@given(
    hint=st.sampled_from([0, 0.1, 0.5, 1]), metric=st.sampled_from(METRICS), exactly=st.booleans(),
    freq_major=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@examples(30)
def test_masks_equal_the_definition(hint, metric, exactly, freq_major, seed):
    ids, data = torch.tensor([3, -7]), some_data((2, 1, 1, 48, 64), seed)
    arguments = (ids, data, (1, 16, 16), 0.7)
    options = {
        "hint_ratio": hint, "metric": metric, "deterministic": exactly, "freq_major": freq_major,
        "seed": seed,
    }  # fmt: skip
    ours = smnm.dispersion_masks(*arguments, **options)
    assert_same(ours, smnm.reference.dispersion_masks(*arguments, **options))
    assert (ours.visible.sum(1) == 3).all()
    sampler = smnm.MaskSampler(
        "dispersion", (1, 3, 4), 0.7, hint_ratio=hint, metric=metric, deterministic=exactly,
        freq_major=freq_major, seed=seed,
    )  # fmt: skip
    assert_same(sampler.masks(ids, data), ours)


def levels(n):
    """[n, 1, 1, 16, 160]: a patch of each of ten levels, the same in every sample."""
    signs = torch.tensor([1.0, -1.0]).repeat(128).view(16, 16)
    return torch.cat([signs * 2.0**i for i in range(10)], 1).expand(n, 1, 1, 16, 160)


def test_what_differs_most_is_masked_most():
    n = 4000
    masks = smnm.dispersion_masks(torch.arange(n), levels(n) / 8, (1, 16, 16), n_keep=5)
    shares = masks.masked.float().mean(0)
    assert (shares.diff() > -0.02).all()
    assert shares[0] < 0.1 < 0.95 < shares[-1]
    top = smnm.dispersion_masks(
        torch.arange(2), levels(2) / 8, (1, 16, 16), n_keep=5, deterministic=True
    )
    assert top.masked.tolist() == [[False] * 5 + [True] * 5] * 2


@pytest.mark.parametrize("hint", [0.25, 0.5, 1.0])
def test_the_share_of_chance(hint):
    """Of the first draw, 1 - h stays masked, and of the rest s of keep + s are masked again."""
    n, n_keep = 20_000, 4
    top = torch.arange(10).expand(n, 10)
    masks = smnm.guided_masks(torch.arange(n), top, n_keep=n_keep, hint_ratio=hint)
    n_masked = 10 - n_keep
    swapped = math.floor(n_masked * hint)
    again = swapped / (n_keep + swapped)
    expected = 1 - swapped / n_masked + swapped / n_masked * again
    shares = masks.masked.float().mean(0)
    assert (shares[n_keep:] - expected).abs().max() < 0.02
    assert (shares[:n_keep] - again).abs().max() < 0.02
    if hint == 1:
        assert (shares - n_masked / 10).abs().max() < 0.02


@pytest.mark.parametrize("hint", [0.0, 0.4])
def test_masked_by_decile_of_the_weight(hint):
    """Against draws in another way, with the weights, counts and swaps of the method's code: 5 by
    38 patches at a ratio of 0.7, P in proportion to the mean absolute deviation + 1e-12."""
    n, shape = 3000, (5, 16, 38, 16)
    random = np.random.default_rng(3)
    log_mel = random.normal(size=shape) * np.exp(random.normal(size=(5, 1, 38, 1)))
    patches = log_mel.transpose(0, 2, 1, 3).reshape(190, 256)
    weights = np.abs(patches - patches.mean(1, keepdims=True)).mean(1) + 1e-12
    n_masked = 190 - int(190 * (1 - 0.7))
    swapped = int(n_masked * hint)
    expected = np.zeros(190)
    for _ in range(n):
        first = random.choice(190, n_masked, replace=False, p=weights / weights.sum())
        shown = random.choice(first, swapped, replace=False)
        masked = np.zeros(190)
        masked[first] = 1
        masked[shown] = 0
        masked[random.choice(np.flatnonzero(masked == 0), swapped, replace=False)] = 1
        expected += masked / n
    data = torch.from_numpy(log_mel.reshape(80, 608)).expand(n, 1, 1, 80, 608)
    sampler = smnm.MaskSampler("dispersion", (1, 5, 38), n_keep=190 - n_masked, hint_ratio=hint)
    shares = sampler(n, data.float()).masked.float().mean(0).numpy()
    deciles = np.array_split(np.argsort(weights), 10)
    ours, theirs = ([values[d].mean() for d in deciles] for values in (shares, expected))
    np.testing.assert_allclose(ours, theirs, atol=0.01)
    assert ours == sorted(ours)
    assert ours[-1] - ours[0] > 0.2


def test_guided_by_temperature():
    """With a temperature, tokens are drawn with weights exp(score / t)."""
    n, scores = 30_000, torch.tensor([0.0, 1.0, 2.0, 3.0])
    masks = smnm.guided_masks(torch.arange(n), scores.expand(n, 4), n_keep=3, temperature=0.7)
    expected = torch.softmax(scores / 0.7, 0)
    assert (masks.masked.float().mean(0) - expected).abs().max() < 0.01
    low = smnm.guided_masks(
        torch.arange(n), scores.expand(n, 4), n_keep=3, temperature=0.7, masked="lowest"
    )
    assert (low.masked.float().mean(0) - expected.flip(0)).abs().max() < 0.01


@pytest.mark.parametrize("masked", ["highest", "lowest"])
@pytest.mark.parametrize("temperature", [0, 0.5, 1e-30])
def test_guided_equals_the_definition(masked, temperature):
    scores = some_data((3, 37), 1)
    arguments = (torch.tensor([1, 2, -3]), scores, 0.6)
    options = {"masked": masked, "temperature": temperature, "hint_ratio": 0.3, "seed": 4}
    ours = smnm.guided_masks(*arguments, **options)
    assert_same(ours, smnm.reference.guided_masks(*arguments, **options))


def test_the_hint_falls():
    hint = schedules.hint(300, start=50)
    assert [hint(e) for e in (0, 49, 50, 150, 299, 300, 1000)] == [
        1, 1, 0.9722, 0.75, 0.0067, 0, 0
    ]  # fmt: skip
    assert schedules.hint(300)(49) == 1 > schedules.hint(300)(50)
    assert schedules.hint(6, power=1)(3) == 0.5
    data, grid = levels(4) / 8, (1, 1, 10)
    sampler = smnm.ScheduledSampler(
        "dispersion", grid, 0.5, hint_ratio=schedules.hint(10, start=2), seed=3
    )
    for step in range(12):
        expected = smnm.dispersion_masks(
            torch.arange(4 * step, 4 * step + 4), data, (1, 16, 16), 0.5,
            hint_ratio=schedules.hint(10, start=2)(step), seed=3,
        )  # fmt: skip
        assert_same(sampler(4, data), expected)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"data": [1.0]}, TypeError, "data must be a tensor of numbers, got list"),
        ({"data": torch.ones(2, 1, 16, 32)}, ValueError, r"data must have shape \[B, C, T, H, W\]"),
        ({"data": torch.ones(3, 1, 1, 16, 32)}, ValueError, "data must have a row for each"),
        ({"patch": (1, 5, 16)}, ValueError, r"patch must divide the sides \(1, 16, 32\) of data"),
        ({"patch": (16, 16)}, ValueError, "patch must be three positive ints"),
        ({"patch": (1, 0, 16)}, ValueError, "patch must be three positive ints"),
        ({"metric": "std"}, ValueError, "metric must be one of mad, variance, got 'std'"),
        ({"hint_ratio": 1.1}, ValueError, r"hint_ratio must be in \[0, 1\], got 1.1"),
        ({"hint_ratio": "a"}, TypeError, "hint_ratio must be a real number"),
        ({"deterministic": 1}, TypeError, "deterministic must be True or False"),
        ({"mask_ratio": 1.0}, ValueError, "mask_ratio"),
        ({"seed": None}, TypeError, "seed"),
    ],
)  # fmt: skip
def test_mistakes_are_named(change, error, named):
    arguments = {
        "sample_ids": torch.arange(2), "data": torch.ones(2, 1, 1, 16, 32), "patch": (1, 16, 16),
        "mask_ratio": 0.5,
    }  # fmt: skip
    for function in (smnm.dispersion_masks, smnm.reference.dispersion_masks):
        with pytest.raises(error, match=named):
            function(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"scores": torch.ones(3, 4)}, ValueError, "scores must have a row for each of the 2"),
        ({"masked": "low"}, ValueError, 'masked must be "highest" or "lowest"'),
        ({"temperature": -1}, ValueError, "temperature must be a finite number >= 0, got -1"),
        ({"temperature": "warm"}, TypeError, "temperature must be a real number"),
    ],
)
def test_mistakes_of_guides_are_named(change, error, named):
    arguments = {"sample_ids": torch.arange(2), "scores": torch.ones(2, 4), "mask_ratio": 0.5}
    for function in (smnm.guided_masks, smnm.reference.guided_masks):
        with pytest.raises(error, match=named):
            function(**(arguments | change))


def test_mistakes_of_the_kind_and_the_schedule():
    sampler = smnm.MaskSampler("dispersion", (1, 3, 4), 0.5)
    with pytest.raises(TypeError, match="data must be a tensor: dispersion masks"):
        sampler(2)
    with pytest.raises(ValueError, match=r"multiples of the grid \(1, 3, 4\)"):
        sampler(2, torch.ones(2, 1, 1, 16, 64))
    for arguments in ({"steps": 0}, {"steps": 9, "start": 1.5}, {"steps": 9, "power": 0}):
        with pytest.raises(ValueError, match="must be"):
            schedules.hint(**arguments)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["dispersion", "motion", "self_guided"])
def test_where_all_is_chance_the_data_are_ignored(kind, padded):
    ids, grid = torch.arange(40), (3, 4, 5)
    valid = (torch.arange(60) % 5 < 3).expand(40, 60) if padded else None
    data = torch.randn(40, 2, *grid, generator=torch.Generator().manual_seed(0))
    for hint, ratio, ignored in ((1.0, 0.7, True), (0.0, 0.0, True), (0.9, 0.7, False)):
        if padded and not ratio:
            continue  # all tokens would be visible
        sampler = smnm.MaskSampler(kind, grid, ratio, hint_ratio=hint, seed=3)
        one, other = (sampler.masks(ids, x, valid).visible for x in (data, torch.zeros_like(data)))
        assert torch.equal(one, other) == ignored == sampler.settings.ignores_data

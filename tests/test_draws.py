"""Weighted draws: the definition, its distribution, and that every backend equals it."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import IDS, SEEDS, examples, seeds_in_any_form
from testing import assert_same, devices, triton_kernels

import smnm_kernels as smnm
from smnm_kernels.reference import draws
from smnm_kernels.tables import logarithms
from smnm_kernels.tables.constants import DRAW_RULES

pytestmark = pytest.mark.usefixtures("poisoned_memory")
WEIGHTS = st.one_of(
    st.sampled_from([0.0, 1.0, 1e-45, 1e-38, 1.1754944e-38, 1e-30, 1e30, 3.4028234663852886e38]),
    st.floats(0, 3.4028234663852886e38, width=32),
    st.floats(0.5, 2, width=32),
)


@st.composite
def rows_of_weights(draw, max_tokens=70):
    n = draw(st.one_of(st.integers(1, 9), st.integers(1, max_tokens)))
    rows = draw(st.lists(st.lists(WEIGHTS, min_size=n, max_size=n), min_size=1, max_size=3))
    return torch.tensor(rows, dtype=torch.float32)


class TestKeys:
    """``reference.draws`` is the logarithms it says it is."""

    def test_of_weights(self):
        x = (2.0 ** np.random.default_rng(0).uniform(-149, 128, 20_000)).astype(np.float32)
        x = np.append(x, np.float32([1e-45, 1.1754942e-38, 1.1754944e-38, 1, 3.4028235e38]))
        ours = draws.log2_of_weights(x.view(np.int32).astype(np.int64)) / 2**23
        assert abs(ours - np.log2(x.astype(np.float64))).max() < 2**-20

    def test_of_waits(self):
        rng = np.random.default_rng(0)
        near_ends = (2.0 ** rng.uniform(0, 32, 10_000)).astype(np.uint64)
        words = np.concatenate(
            [rng.integers(0, 2**32, 20_000), near_ends, 2**32 - 1 - near_ends,
             [0, 1, 2**31 - 1, 2**31, 2**32 - 1]]
        ).astype(np.int64)  # fmt: skip
        uniform = (words | 1).astype(np.float64) / 2**32
        true = np.where(
            uniform < 0.5,
            np.log2(-np.log2(uniform)),
            np.log2(-np.log1p(-(1 - uniform)) / math.log(2)),
        )
        assert abs(draws.log2_of_waits(words) / 2**23 - true).max() < 2**-20

    def test_tables_end_where_they_should(self):
        assert logarithms.mantissas()[[0, -1]].tolist() == [0, 0]
        assert logarithms.shares()[-1] == 2**23
        assert logarithms.packed_logarithms().shape == (1025 + 513,)

    def test_what_has_no_logarithm(self):
        words = np.array([0, 1 << 31, 2**32 - 1])
        zero = draws.draw_keys(np.zeros(3, np.float32), "weights", words)
        assert (draws.draw_keys(np.float32([-0.0, -1, -np.inf]), "weights", words) == zero).all()
        assert zero[0] < zero[1] < zero[2]
        smallest = draws.draw_keys(np.full(3, 1e-45, np.float32), "weights", words[[0, 0, 0]])
        assert zero[2] < smallest[0]
        largest = draws.draw_keys(np.full(1, 3.4028235e38, np.float32), "weights", words[2:])
        first = draws.draw_keys(np.float32([np.inf, np.nan, -np.nan]), "weights", words)
        assert (first == 2**31 - 2).all()
        assert largest[0] < first[0]


def probabilities(weights, n_drawn):
    """Probability of each set of n_drawn tokens, over all orders in which it can be drawn."""
    total = {}
    for order in itertools.permutations(range(len(weights)), n_drawn):
        left, probability = sum(weights), 1.0
        for token in order:
            probability *= weights[token] / left
            left -= weights[token]
        key = frozenset(order)
        total[key] = total.get(key, 0.0) + probability
    return total


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("weights", [[1, 2, 3, 4, 5], [1e-3, 1, 1, 0.01, 30], [7, 7, 7, 7]])
def test_draws_have_their_probabilities(weights, invert):
    n_draws, n_keep = 200_000, 2
    n_drawn = n_keep if invert else len(weights) - n_keep
    ids = torch.arange(n_draws)
    rows = torch.tensor(weights, dtype=torch.float64).expand(n_draws, -1)
    masks = smnm.weighted_masks(ids, rows, n_keep=n_keep, invert=invert, seed=5)
    drawn = masks.visible if invert else masks.masked
    codes = (drawn.long() << torch.arange(len(weights))).sum(1)
    seen = torch.bincount(codes, minlength=2 ** len(weights))
    chi2, free = 0.0, -1
    rare_seen = rare = 0.0
    for tokens, probability in probabilities(weights, n_drawn).items():
        expected, count = probability * n_draws, int(seen[sum(1 << t for t in tokens)])
        if expected < 5:
            rare, rare_seen = rare + expected, rare_seen + count
            continue
        chi2, free = chi2 + (count - expected) ** 2 / expected, free + 1
    if rare >= 5:
        chi2, free = chi2 + (rare_seen - rare) ** 2 / rare, free + 1
    from scipy.stats import chi2 as distribution

    assert distribution.sf(chi2, free) > 0.001


def test_weights_of_zero_are_drawn_last_and_evenly():
    weights = torch.tensor([0.0, 3, 0, 1e-30, 0, 0]).expand(60_000, -1)
    masks = smnm.weighted_masks(torch.arange(60_000), weights, n_keep=2)
    assert masks.masked[:, [1, 3]].all()  # four are drawn: both that weigh something, two others
    shares = masks.masked[:, [0, 2, 4, 5]].float().mean(0)
    assert (shares - 0.5).abs().max() < 0.01
    kept = smnm.weighted_masks(torch.arange(60_000), weights, n_keep=3, invert=True).visible
    assert kept[:, [1, 3]].all()
    assert (kept[:, [0, 2, 4, 5]].float().mean(0) - 0.25).abs().max() < 0.01


@pytest.mark.parametrize("device", devices())
@given(weights=rows_of_weights(), seed=SEEDS, invert=st.booleans(), data=st.data())
def test_equals_the_definition(device, weights, seed, invert, data):
    ids = torch.tensor(data.draw(st.lists(IDS, min_size=len(weights), max_size=len(weights))))
    n_keep = data.draw(st.integers(1, weights.shape[1]))
    ours = smnm.weighted_masks(
        ids.to(device), weights.to(device), n_keep=n_keep, invert=invert, seed=seed
    )
    theirs = smnm.reference.weighted_masks(ids, weights, n_keep=n_keep, invert=invert, seed=seed)
    assert_same(ours, theirs)
    assert (ours.visible.sum(1) == n_keep).all()


def any_floats(rows, n, seed):
    """float32 [rows, n] of random bits: infinities, NaN, negative and subnormal ones among them."""
    bits = torch.randint(-(2**31), 2**31, (rows, n), generator=torch.Generator().manual_seed(seed))
    special = torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-45, 1.0])
    floats = bits.int().view(torch.float32)
    return torch.where(bits % 5 == 0, special[bits % 6], floats)


@pytest.mark.parametrize("n", [1, 3, 4, 37, 512, 1568, 5000])
@pytest.mark.parametrize("invert", [False, True])
def test_any_float_has_its_place(n, invert):
    weights, ids = any_floats(3, n, n), torch.tensor([5, -1, 2**40])
    for n_keep in {1, (n + 1) // 2, n}:
        for rule in DRAW_RULES:
            for n_swapped in {0, (n_keep if invert else n - n_keep) // 2}:
                call = (ids, None, 3, weights, rule, n_keep, invert, n_swapped)
                masks = smnm.Masks(*torch.ops.smnm.draw_masks(*call))
                assert_same(masks, smnm.reference.draw_masks_kernel(*call))
                assert_same(masks, smnm.Masks.from_visible(masks.visible, n_keep))


@pytest.fixture(scope="module")
def gpu():
    return triton_kernels()


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assert_triton_equal(gpu, *call):
    there = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in call]
    assert_same(gpu.draw_masks_kernel(*there), torch.ops.smnm.draw_masks(*call))


@given(
    n=st.integers(1, 70), rule=st.sampled_from(DRAW_RULES), seed=seeds_in_any_form(),
    invert=st.booleans(), bits=st.integers(0, 999),
    data=st.data(),
)  # fmt: skip
@examples(25)
def test_triton_equals_the_cpu(gpu, n, rule, seed, invert, bits, data):
    ids = torch.tensor(data.draw(st.lists(IDS, max_size=3)), dtype=torch.int64)
    weights = any_floats(len(ids), n, bits)
    n_keep = data.draw(st.integers(1, n))
    seeds = (seed, 0) if isinstance(seed, torch.Tensor) else (None, seed)
    n_swapped = data.draw(st.integers(0, n_keep if invert else n - n_keep))
    assert_triton_equal(gpu, ids, *seeds, weights, rule, n_keep, invert, n_swapped)


@pytest.mark.parametrize("n", [512, 1568, pytest.param(4100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("invert", [False, True])
def test_triton_on_large_grids(gpu, n, invert):
    ids, weights = torch.tensor([7, -3]), any_floats(2, n, n)
    for n_swapped in (0, n // 9):
        assert_triton_equal(gpu, ids, None, 11, weights, "weights", n // 5, invert, n_swapped)


@given(weights=rows_of_weights(), seed=SEEDS, data=st.data())
def test_rows_do_not_depend_on_each_other(weights, seed, data):
    ids = torch.tensor(data.draw(st.lists(IDS, min_size=len(weights), max_size=len(weights))))
    n_keep = data.draw(st.integers(1, weights.shape[1]))
    whole = smnm.weighted_masks(ids, weights, n_keep=n_keep, seed=seed)
    for row in range(len(ids)):
        own = smnm.weighted_masks(
            ids[row : row + 1], weights[row : row + 1], n_keep=n_keep, seed=seed
        )
        assert_same(own, smnm.Masks(*(part[row : row + 1] for part in whole)))


@given(weights=rows_of_weights(), power=st.integers(-20, 20), data=st.data())
def test_only_ratios_count(weights, power, data):
    """Powers of two move all keys alike, as long as no weight leaves the normal numbers."""
    weights = weights.clamp(2.0**-100, 2.0**100)
    ids = torch.arange(len(weights))
    n_keep = data.draw(st.integers(1, weights.shape[1]))
    assert_same(
        smnm.weighted_masks(ids, weights, n_keep=n_keep),
        smnm.weighted_masks(ids, weights * 2.0**power, n_keep=n_keep),
    )


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8]
)
def test_types(dtype):
    weights = torch.arange(20).view(2, 10).to(dtype)
    ids = torch.tensor([1, 2])
    assert_same(
        smnm.weighted_masks(ids, weights, 0.5), smnm.weighted_masks(ids, weights.float(), 0.5)
    )
    grids = weights.view(2, 1, 5, 2)
    assert_same(smnm.weighted_masks(ids, grids, 0.5), smnm.weighted_masks(ids, weights, 0.5))


def test_no_gradient_goes_through():
    weights = torch.ones(2, 8, requires_grad=True)
    masks = smnm.weighted_masks(torch.arange(2), weights, 0.5)
    assert not any(part.requires_grad for part in masks)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"weights": [[1.0]]}, TypeError, "weights must be a tensor of numbers, got list"),
        ({"weights": torch.ones(2, 4) > 0}, TypeError, "weights .* got torch.bool"),
        ({"weights": torch.ones(2, 4) * 1j}, TypeError, "weights .* got torch.complex64"),
        ({"weights": torch.ones(2)}, ValueError, r"weights must have shape .* got \[2\]"),
        ({"weights": torch.ones(2, 0)}, ValueError, r"weights must have shape .* got \[2, 0\]"),
        ({"weights": torch.ones(3, 4)}, ValueError, r"row for each of the 2 .* got shape \[3, 4\]"),
        ({"weights": torch.tensor([[1.0, 2], [3, -1]])}, ValueError, r"-1.0 in row 1 at token 1"),
        ({"weights": torch.tensor([[1, math.nan], [3, 1]])}, ValueError, "nan in row 0 at token 1"),
        ({"weights": torch.tensor([[1.0, 2], [math.inf, 1]])}, ValueError, "inf in row 1"),
        ({"weights": torch.full((2, 2), 1e39, dtype=torch.float64)}, ValueError, "must be in"),
        ({"sample_ids": torch.ones(2)}, TypeError, "sample_ids must have dtype"),
        ({"mask_ratio": 1.0}, ValueError, "mask_ratio"),
        ({"mask_ratio": 0.5, "n_keep": 1}, ValueError, "exactly one"),
        ({"invert": 1}, TypeError, "invert must be True or False, got 1"),
        ({"seed": 0.5}, TypeError, "seed"),
    ],
)  # fmt: skip
def test_mistakes_are_named(change, error, named):
    arguments = {"sample_ids": torch.arange(2), "weights": torch.ones(2, 4), "mask_ratio": 0.5}
    arguments |= change
    for function in (smnm.weighted_masks, smnm.reference.weighted_masks):
        with pytest.raises(error, match=named):
            function(**arguments)


def test_nothing_and_everything():
    none = smnm.weighted_masks(torch.empty(0, dtype=torch.int64), torch.ones(0, 5), 0.5)
    assert [list(part.shape) for part in none] == [[0, 5], [0, 2], [0, 5]]
    assert smnm.weighted_masks(torch.arange(3), torch.ones(3, 5), 0).visible.all()
    assert smnm.weighted_masks(torch.arange(3), torch.zeros(3, 1), n_keep=1).visible.all()

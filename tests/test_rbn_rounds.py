"""The CUDA ops' algorithm on the CPU, its threads in shuffled order, equals the CPU ops."""

import cpp_module
import pytest
import torch
from algorithm_1 import algorithm_1
from hypothesis import given
from hypothesis import strategies as st
from rbn_banks import WEIGHTS, as_sets, bank_order, tie_breaker
from strategies import IDS, SEEDS, examples
from testing import assert_same

import smnm_kernels as smnm

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.usefixtures("poisoned_memory", "by_rounds"),
    pytest.mark.skipif(smnm.build_info() is None, reason="needs the C++ extension"),
]


@pytest.fixture(scope="module")
def by_rounds():
    """Registers torch.ops.smnm_by_rounds."""
    cpp_module.load()


SHUFFLES = st.integers(0, 2**31)
DEFAULT = ([3, 5], [400, 400, 100, 100])


@st.composite
def rules(draw, max_tokens=300):
    """(seed tensor, seed, grid, n_keep, K, windows, weights, random ties)"""
    height = draw(st.sampled_from([1, 1, 2, 3, 5, 7, 8, 13, 31, 64, 97, 211]))
    width = draw(st.integers(1, max(1, min(64, max_tokens // height))))
    height, width = draw(st.sampled_from([(height, width), (width, height)]))
    n_tokens = height * width
    weight = st.integers(0, 3000)
    # One of many windows and masks costs as much as a hundred others.
    small = n_tokens <= 60
    return (
        None,
        draw(SEEDS),
        [1, height, width],
        draw(st.one_of(st.integers(1, n_tokens), st.integers(1, max(1, n_tokens // 8)))),
        draw(st.one_of(st.integers(1, 7), st.integers(1, 2 * n_tokens if small else 12))),
        draw(st.lists(st.sampled_from([1, 3, 3, 5, 7, 9, 25, 999]), min_size=1, max_size=3)),
        draw(
            st.one_of(
                st.sampled_from([[round(1000 * w) for w in ws] for ws in WEIGHTS]),
                st.lists(weight, min_size=4, max_size=4),
            )
        ),
        draw(st.booleans()),
    )


def assert_masks_equal(ids, rule, shuffle):
    *ours, n_runs = torch.ops.smnm_by_rounds.rbn_masks(ids, *rule, shuffle)
    assert_same(ours, torch.ops.smnm.rbn_masks(ids, *rule))
    # Rows of a bank share a run within each chunk of 256.
    banks = ids.div(rule[4], rounding_mode="floor")
    assert n_runs == sum(len(chunk.unique()) for chunk in banks.split(256))


def assert_valid_masks_equal(ids, rule, shuffle, valid):
    *ours, n_runs = torch.ops.smnm_by_rounds.rbn_masks(ids, *rule, shuffle, valid)
    assert_same(ours, torch.ops.smnm.rbn_masks(ids, *rule, valid))
    assert n_runs == len(ids)  # rows do not share a run


def assert_banks_equal(orders, rule, shuffle):
    ours = torch.ops.smnm_by_rounds.rbn_bank(orders, *rule, shuffle)
    assert_same(ours, torch.ops.smnm.rbn_bank(orders, *rule))
    return ours


@examples(300)
@given(rule=rules(), ids=st.lists(IDS, max_size=4), shuffle=SHUFFLES)
def test_masks(rule, ids, shuffle):
    assert_masks_equal(torch.tensor(ids, dtype=torch.int64), rule, shuffle)


@examples(200)
@given(rule=rules(), ids=st.lists(IDS, max_size=4), shuffle=SHUFFLES, data=st.data())
def test_masks_of_valid_positions(rule, ids, shuffle, data):
    _, height, width = rule[2]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    n_valid = data.draw(st.integers(rule[3], height * width))
    keys = torch.rand(len(ids), height * width, generator=generator)
    valid = keys.argsort(1).argsort(1) < n_valid
    assert_valid_masks_equal(torch.tensor(ids, dtype=torch.int64), rule, shuffle, valid)


@pytest.mark.parametrize("random_ties", [False, True])
def test_a_padded_spectrogram(random_ties):
    valid = torch.arange(512).expand(10, -1) < torch.arange(104, 512, 41)[:, None]
    rule = (None, 3, [1, 64, 8], 102, 5, *DEFAULT, random_ties)
    assert_valid_masks_equal(torch.arange(10), rule, 5, valid)


def test_too_few_valid_positions_end():
    """As with an order that is none: what is valid is shown, and the memory is kept to."""
    valid = torch.zeros(3, 20, dtype=torch.bool)
    valid[1, :2] = valid[2, 5:12] = True
    rule = (None, 0, [1, 4, 5], 4, 5, *DEFAULT, False)
    visible, *_ = torch.ops.smnm_by_rounds.rbn_masks(torch.arange(3), *rule, 0, valid)
    assert visible.sum(1).tolist() == [0, 2, 4]
    assert not (visible & ~valid).any()


@examples(300)
@given(rule=rules(), generator=st.integers(0, 2**31), shuffle=SHUFFLES)
def test_banks(rule, generator, shuffle):
    _, height, width = rule[2]
    generator = torch.Generator().manual_seed(generator)
    orders = torch.stack([torch.randperm(height * width, generator=generator) for _ in range(2)])
    assert_banks_equal(orders, rule, shuffle)


@given(
    sides=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    n_candidates=st.integers(1, 9),
    random_ties=st.booleans(),
    seed=SEEDS,
    shuffle=SHUFFLES,
    data=st.data(),
)
def test_banks_are_algorithm_1(sides, n_candidates, random_ties, seed, shuffle, data):
    n_tokens = sides[0] * sides[1]
    n_keep = data.draw(st.integers(1, n_tokens))
    order = data.draw(st.permutations(range(n_tokens)))
    tied = {"choose": tie_breaker(order, seed, 0)} if random_ties else {}
    rule = (None, seed, [1, *sides], n_keep, n_candidates, *DEFAULT, random_ties)
    bank = torch.ops.smnm_by_rounds.rbn_bank(torch.tensor([order]), *rule, shuffle)
    assert as_sets(bank) == [algorithm_1(order, n_candidates, n_keep, *sides, **tied)]


def test_the_drawn_order_is_that_of_the_words():
    """A bank of the size people train with, from its own order, against Algorithm 1."""
    order = bank_order(-3, 512, 7)
    rule = (None, 7, [1, 64, 8], 102, 5, *DEFAULT, False)
    masks = torch.ops.smnm_by_rounds.rbn_masks(torch.arange(-15, -10), *rule, 1)
    expected = algorithm_1(order, 5, 102, 64, 8)
    assert [set(row.tolist()) for row in masks[1]] == expected


@pytest.mark.parametrize("random_ties", [False, True])
@pytest.mark.parametrize(
    ("sides", "n_keep", "n_candidates"),
    [
        ((64, 8), 102, 5),
        ((64, 8), 128, 4),
        ((64, 8), 300, 5),  # three sweeps
        ((64, 8), 512, 3),
        ((14, 14), 39, 5),
        ((1, 997), 100, 9),
        ((6, 5), 3, 1024),
        ((128, 16), 512, 4),
    ],
)
def test_the_sizes_people_train_with(sides, n_keep, n_candidates, random_ties):
    rule = (None, 3, [1, *sides], n_keep, n_candidates, *DEFAULT, random_ties)
    for shuffle in range(3):
        assert_masks_equal(torch.arange(3 * n_candidates)[:40], rule, shuffle)


@pytest.mark.parametrize("random_ties", [False, True])
@pytest.mark.parametrize(
    ("windows", "weights", "n_candidates"),
    [
        (*rule, n_candidates)
        for rule in (
            DEFAULT,
            ([3, 5, 7, 11], [400, 400, 100, 100]),  # 40 neighbours
            ([1, 3], [0, 0, 0, 0]),  # none
            ([3], [10**8, 1, 0, 7]),  # pairs of 64 bits
        )
        for n_candidates in (1, 2, 6, 7, 10, 31, 32, 33, 64, 1024)
        # So many take as long as all others together.
        if n_candidates < 1024 or rule == DEFAULT
    ],
)
def test_every_way_to_choose(n_candidates, windows, weights, random_ties):
    for n_keep in (1, 9, 42):
        rule = (None, 7, [1, 7, 6], n_keep, n_candidates, windows, weights, random_ties)
        # Few lanes to a warp, and many.
        for shuffle in (6, 11):
            assert_masks_equal(torch.tensor([0, n_candidates - 1, -1]), rule, shuffle)


@examples(60)
@given(
    n_candidates=st.integers(1, 9),
    bank=st.sampled_from([0, -1, 2**32, -(2**32), 2**59, -(2**59)]),
    rows=st.integers(1, 700),
    spread=st.sampled_from([1, 3, 40, 2000]),
    shuffle=SHUFFLES,
    data=st.data(),
)
def test_any_ids_in_any_order(n_candidates, bank, rows, spread, shuffle, data):
    """Runs of one bank that cross the chunks of 256 rows, gaps, repeats, no order at all."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    ids = bank * n_candidates + torch.randint(0, spread, (rows,), generator=generator)
    if data.draw(st.booleans()):
        ids = ids.sort().values
    rule = (None, 5, [1, 3, 4], 3, n_candidates, *DEFAULT, False)
    assert_masks_equal(ids, rule, shuffle)


def test_consecutive_ids_over_several_chunks():
    rule = (None, 5, [1, 3, 4], 3, 5, *DEFAULT, False)
    assert_masks_equal(torch.arange(-700, 700), rule, 0)
    assert_masks_equal(torch.zeros(600, dtype=torch.int64), rule, 0)
    assert_masks_equal(torch.arange(20000, 0, -20), rule, 0)


def test_empty_batch_and_tensor_seed():
    rule = (torch.tensor([2**62]), 0, [1, 4, 5], 4, 5, *DEFAULT, True)
    assert_masks_equal(torch.empty(0, dtype=torch.int64), rule, 0)
    assert_masks_equal(torch.arange(5), rule, 0)
    assert_banks_equal(torch.empty(0, 20, dtype=torch.int64), rule, 0)


@pytest.mark.parametrize("random_ties", [False, True])
def test_an_order_that_is_none_ends(random_ties):
    """The CUDA op does not read orders back to refuse them: it must end and stay in its memory."""
    generator = torch.Generator().manual_seed(0)
    for order in (
        torch.zeros(1, 20, dtype=torch.int64),
        torch.full((1, 20), -1),
        torch.full((1, 20), 2**40),
        torch.randint(-3, 23, (5, 20), generator=generator),
    ):
        for n_keep in (3, 20):
            rule = (None, 0, [1, 4, 5], n_keep, 5, *DEFAULT, random_ties)
            bank = torch.ops.smnm_by_rounds.rbn_bank(order, *rule, 0)
            assert bank.sum(-1).max() <= n_keep
            # Thread order does not matter even then.
            for shuffle in (1, 2, 3):
                assert_same(bank, torch.ops.smnm_by_rounds.rbn_bank(order, *rule, shuffle))


def test_limits_are_named():
    ids = torch.arange(3)
    many = (None, 0, [1, 4, 5], 3, 5, [3] * 65, [1, 1, 1, 1], False)
    with pytest.raises(RuntimeError, match="a GPU takes at most 64 windows, got 65"):
        torch.ops.smnm_by_rounds.rbn_masks(ids, *many, 0)
    large = (None, 0, [1, 2**12, 2**12], 3, 1024, [3], [1, 1, 1, 1], False)
    with pytest.raises(RuntimeError, match="fewer than 2\\^31 scores"):
        torch.ops.smnm_by_rounds.rbn_masks(ids, *large, 0)
    for windows, weights, complaint in (
        ([2], [1] * 4, "windows must be odd"),
        ([-3], [1] * 4, "windows must be odd"),
        ([3], [1, 1, 1, -1], "weights must be in"),
        ([2**27 + 1] * 2, [1, 1, 0, 0], "scores must be at most"),
    ):
        wrong = (None, 0, [1, 4, 5], 3, 5, windows, weights, False)
        with pytest.raises(RuntimeError, match=complaint):
            torch.ops.smnm.rbn_masks(ids, *wrong)
        with pytest.raises(RuntimeError, match=complaint):
            torch.ops.smnm_by_rounds.rbn_masks(ids, *wrong, 0)

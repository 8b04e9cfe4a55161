"""rbn_bank is Algorithm 1, exactly."""

import pytest
import torch
from algorithm_1 import LINES, algorithm_1, as_written, score
from hypothesis import given
from hypothesis import strategies as st
from rbn_banks import WEIGHTS, as_sets, tie_breaker
from strategies import SEEDS, examples
from testing import devices

import smnm_kernels as smnm

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("device", devices()),
]


@st.composite
def problems(draw):
    height = draw(st.integers(1, 12))
    width = draw(st.integers(1, min(12, 100 // height)))
    n_tokens = height * width
    windows = draw(st.lists(st.sampled_from([1, 3, 5, 7, 9, 25]), min_size=1, max_size=3))
    weight = st.integers(0, 3000).map(lambda thousandths: thousandths / 1000)
    return {
        "height": height,
        "width": width,
        "orders": [draw(st.permutations(range(n_tokens))) for _ in range(2)],
        "n_candidates": draw(st.one_of(st.integers(1, 6), st.integers(1, 17))),
        "n_keep": draw(st.integers(1, n_tokens)),
        "rule": {
            "windows": windows,
            "weights": draw(st.one_of(st.sampled_from(WEIGHTS), st.tuples(*[weight] * 4))),
        },
    }


def run(problem, device, **more):
    grid = (1, problem["height"], problem["width"])
    order = torch.tensor(problem["orders"], device=device)
    call = (problem["n_candidates"], problem["n_keep"], grid)
    bank = smnm.rbn_bank(order, *call, **problem["rule"], **more)
    assert bank.dtype == torch.bool
    assert bool((bank.sum(-1) == problem["n_keep"]).all())
    return as_sets(bank)


def expected(problem, order, **more):
    call = (problem["n_candidates"], problem["n_keep"], problem["height"], problem["width"])
    return algorithm_1(order, *call, **problem["rule"], **more)


@examples(250)
@given(problem=problems())
def test_first_is_algorithm_1(device, problem):
    assert run(problem, device) == [expected(problem, order) for order in problem["orders"]]


@given(problem=problems(), seed=SEEDS)
def test_random_breaks_ties_with_the_documented_words(device, problem, seed):
    drawn = run(problem, device, tie_break="random", seed=seed)
    for bank, order in enumerate(problem["orders"]):
        assert drawn[bank] == expected(problem, order, choose=tie_breaker(order, seed, bank))


@pytest.mark.parametrize("n_candidates", [2, 5])
def test_random_orders_at_the_sizes_people_train_with(device, n_candidates):
    generator = torch.Generator().manual_seed(n_candidates)
    for height, width, n_keep in ((64, 8, 102), (14, 14, 39), (14, 14, 100)):
        problem = {
            "height": height,
            "width": width,
            "orders": [torch.randperm(height * width, generator=generator).tolist()],
            "n_candidates": n_candidates,
            "n_keep": n_keep,
            "rule": {},
        }
        assert run(problem, device) == [expected(problem, problem["orders"][0])]


def test_many_candidates(device):
    problem = {
        "height": 6,
        "width": 5,
        "orders": [torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()],
        "n_candidates": 200,
        "n_keep": 3,
        "rule": {},
    }
    assert run(problem, device) == [expected(problem, problem["orders"][0])]


@examples(40)
@given(height=st.integers(1, 8), width=st.integers(1, 8), data=st.data())
def test_coverage(device, height, width, data):
    """While the masks of a bank fit side by side, no position is visible twice; once they do not,
    every position is visible at least once."""
    n_tokens = height * width
    order = torch.tensor([data.draw(st.permutations(range(n_tokens)))], device=device)
    n_candidates, n_keep = data.draw(st.integers(1, 6)), data.draw(st.integers(1, n_tokens))
    bank = smnm.rbn_bank(order, n_candidates, n_keep, (1, height, width))
    times_visible = bank[0].sum(0)
    if n_candidates * n_keep <= n_tokens:
        assert times_visible.max() <= 1
    else:
        assert times_visible.min() >= 1


def test_decimal_weights_tie_exactly(device):
    """One patch on the 0.3 line equals one on the 0.1 and one on the 0.2 line; 0.1 + 0.2 does not
    equal 0.3 in binary, and the wrong mask would win."""
    assert 0.1 + 0.2 > 0.3
    height = width = 3
    weights = as_written((0.1, 0.2, 0.3, 0.3))
    assert score({3, 1}, 4, height, width, (3,), weights) == score(
        {0}, 4, height, width, (3,), weights
    )
    found = 0
    for draw in range(300):
        order = torch.randperm(9, generator=torch.Generator().manual_seed(draw))
        problem = {
            "height": height,
            "width": width,
            "orders": [order.tolist()],
            "n_candidates": 2,
            "n_keep": 4,
            "rule": {"windows": (3,), "weights": (0.1, 0.2, 0.3, 0.3)},
        }
        exact = expected(problem, problem["orders"][0])
        assert run(problem, device) == [exact]
        found += exact != rounded(problem)
    assert found > 0, "no order tells exact from rounded scores"


def test_a_thousandth_decides(device):
    """The centre of a 3 by 3 grid: mask 0 shows its left neighbour, mask 1 its upper one, and the
    mask whose line weighs a thousandth more does not get it."""
    order = torch.tensor([[3, 1, 4, 0, 2, 5, 6, 7, 8]], device=device)
    for weights, winner in (((1.001, 1, 0, 1), 1), ((1, 1.001, 0, 1), 0), ((1, 1, 0, 1), 0)):
        bank = smnm.rbn_bank(order, 2, 2, (1, 3, 3), windows=(3,), weights=weights)
        assert bank[0, :, 4].tolist() == [winner == 0, winner == 1]


def rounded(problem):
    """Algorithm 1 as it comes out when scores are sums of doubles."""

    class Rounded(float):
        def __radd__(self, other):
            return float(other) + float(self)

    def floats(weights):
        return [Rounded(weight) for weight in weights]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("algorithm_1.as_written", floats)
        return expected(problem, problem["orders"][0])


def test_the_lines_of_a_window(device):
    """One visible patch at a time: each of the four lines, its reach, and nothing else, by which
    of two masks takes the centre."""
    side, centre = 9, 40
    for weights in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        dy, dx = LINES[weights.index(1)]
        seen = set()
        for neighbour in set(range(81)) - {centre}:
            # Mask 0 takes the neighbour; the centre then goes to mask 1 only if mask 0 counts it.
            rest = [p for p in range(81) if p not in (neighbour, centre)]
            order = torch.tensor([[neighbour, centre, *rest]], device=device)
            bank = smnm.rbn_bank(order, 2, 2, (1, side, side), windows=(5,), weights=weights)
            if bank[0, 1, centre]:
                seen.add(neighbour)
        assert seen == {centre + s * (dy * side + dx) for s in (-2, -1, 1, 2)}

"""Which file a sample reads: passes, repeated samples, weighted draws."""

from collections import Counter

import numpy as np
import pytest

from smnm_kernels.train.data.orders import Balanced, Drawn, Passes, label_weights
from smnm_kernels.train.data.sample_randomness import file_of


def test_plain_passes_are_those_of_pretraining():
    order = Passes(range(7))
    assert [order.file_of(3, i) for i in range(40)] == [file_of(3, i, 7) for i in range(40)]
    assert order.file_of(3, 5, attempt=2) == file_of(3, 5, 7, 2)


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_pass_gives_each_file_its_repeats_and_neighbours_are_of_two_files(repeats):
    numbers = [4, 9, 2, 30, 11, 5]
    order = Passes(numbers, repeats)
    for epoch in range(3):
        begin = epoch * len(numbers) * repeats
        of_pass = [order.file_of(0, begin + i) for i in range(len(numbers) * repeats)]
        assert Counter(of_pass) == dict.fromkeys(numbers, repeats)
        assert all(a != b for a, b in zip(of_pass[::2], of_pass[1::2], strict=True))


def test_repeats_stay_together():
    order = Passes(range(100), 4)
    for block in range(25):
        assert len({order.file_of(1, 8 * block + i) for i in range(8)}) == 2


def test_weighted_draws_are_without_replacement_and_a_function_of_seed_and_index():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 5, 20)
    order = Balanced(range(20), weights, draws=8)
    drawn = [order.file_of(5, i) for i in range(8 * 50)]
    for epoch in range(50):
        assert len(set(drawn[8 * epoch : 8 * epoch + 8])) == 8
    again = Balanced(range(20), weights, draws=8)
    assert [again.file_of(5, i) for i in reversed(range(400))] == drawn[::-1]
    assert drawn != [again.file_of(6, i) for i in range(400)]


def test_the_first_draw_follows_the_weights():
    weights = np.array([1.0, 2.0, 5.0])
    order = Balanced(range(3), weights, draws=1)
    n = 4000
    counts = Counter(order.file_of(0, i) for i in range(n))
    for file, weight in enumerate(weights):
        share = weight / weights.sum()
        assert abs(counts[file] / n - share) < 4 * np.sqrt(share * (1 - share) / n)


def test_the_second_draw_follows_the_weights_of_those_that_are_left():
    weights = np.array([1.0, 2.0, 5.0])
    order = Balanced(range(3), weights, draws=2)
    pairs = [(order.file_of(0, 2 * i), order.file_of(0, 2 * i + 1)) for i in range(4000)]
    seconds = [second for first, second in pairs if first == 2]
    assert abs(np.mean(np.array(seconds) == 1) - 2 / 3) < 0.05


def test_where_a_file_fails_the_next_of_the_order_steps_in():
    order = Balanced([10, 20, 30, 40], np.ones(4), draws=2)
    tried = [order.file_of(0, 1, attempt) for attempt in range(4)]
    assert sorted(tried) == [10, 20, 30, 40]
    assert tried[0] == order.file_of(0, 1)


def test_draws_have_bounds():
    with pytest.raises(ValueError, match="draws must be from 1 to the number of files 3, got 4"):
        Balanced(range(3), np.ones(3), 4)


def test_label_weights_are_audiomaes():
    labels = [[0], [0, 1], [0, 2], []]
    counts = [3, 1, 1]
    inverse = [1000 / (count + 0.01) for count in counts]
    expected = [inverse[0], inverse[0] + inverse[1], inverse[0] + inverse[2], inverse[0]]
    assert label_weights(labels, 3) == pytest.approx(expected)


def test_with_replacement_each_sample_draws_by_weight_alone():
    weights = np.array([1.0, 2.0, 5.0])
    order = Drawn([7, 8, 9], weights)
    draws = 4000
    counts = Counter(order.file_of(3, index) for index in range(draws))
    for number, weight in zip((7, 8, 9), weights, strict=True):
        share = weight / weights.sum()
        assert abs(counts[number] / draws - share) < 4 * (share * (1 - share) / draws) ** 0.5
    assert [order.file_of(3, i) for i in range(50)] == [order.file_of(3, i) for i in range(50)]
    assert [order.file_of(3, i) for i in range(50)] != [order.file_of(4, i) for i in range(50)]
    assert {order.file_of(3, 0, attempt) for attempt in range(3)} == {7, 8, 9}

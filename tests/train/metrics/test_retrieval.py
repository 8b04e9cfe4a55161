"""Retrieval against counting in every order of what is tied."""

from itertools import permutations

import numpy as np
import pytest

from smnm_kernels.train.metrics.intervals import bootstrap, bootstrap_difference
from smnm_kernels.train.metrics.retrieval import Ranks, ranks, ranks_of, recall_at


def by_counting(queries, candidates, k):
    """(recall at k, mean ranks): the mean over all orders of the candidates, which a stable sort by
    cosine then keeps where they are tied."""
    n = len(queries)
    inside, places = np.zeros(n), np.zeros(n)
    orders = list(permutations(range(n)))
    for i, query in enumerate(queries):
        cosines = [
            round(float(query @ c / np.linalg.norm(query) / np.linalg.norm(c)), 9)
            for c in candidates
        ]
        for order in orders:
            ranked = sorted(order, key=lambda j: -cosines[j])
            place = 1 + ranked.index(i)
            inside[i] += (place <= k) / len(orders)
            places[i] += place / len(orders)
    return inside.mean(), places


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    queries, candidates = rng.integers(-1, 2, (2, 5, 2)).astype(float)
    queries += 2  # no zeros; many are the same
    candidates += 2
    found = ranks(queries, 3 * candidates)
    cosines = [[q @ c / np.linalg.norm(q) / np.linalg.norm(c) for c in candidates] for q in queries]
    assert ranks_of(np.array(cosines)).means.tolist() == found.means.tolist()
    for k in range(1, 6):
        recall, places = by_counting(queries, candidates, k)
        assert recall_at(found, k) == pytest.approx(recall)
        assert found.means == pytest.approx(places)
        assert found.measures()["median_rank"] == pytest.approx(np.median(places))


def test_the_best_and_chance():
    x = np.random.default_rng(0).standard_normal((200, 16))
    assert ranks(x, x).measures() == {
        "recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0, "median_rank": 1.0,
    }  # fmt: skip
    same = ranks(np.ones((200, 16)), np.ones((200, 16)))
    assert same.measures()["recall@10"] == pytest.approx(10 / 200)
    assert same.measures()["median_rank"] == pytest.approx(201 / 2)
    # A pair of clips with one sound: either may be the answer.
    twice = np.repeat(x[:100], 2, axis=0)
    assert recall_at(ranks(x[:200], x[:200]), 1) == 1
    assert recall_at(ranks(twice, twice), 1) == pytest.approx(0.5)
    assert recall_at(ranks(twice, twice), 2) == 1
    assert "recall@5" not in ranks(x[:5], x[:5]).measures()


def test_counts_are_copies():
    rng = np.random.default_rng(1)
    found = Ranks(rng.integers(0, 20, 30), rng.integers(0, 3, 30))
    counts = rng.integers(0, 4, 30)
    copied = Ranks(np.repeat(found.above, counts), np.repeat(found.tied, counts))
    measures = found.measures(counts)
    assert measures == pytest.approx(copied.measures())
    assert measures["median_rank"] == np.median(np.repeat(found.means, counts))
    assert measures["recall@5"] == pytest.approx(recall_at(copied, 5))
    interval = bootstrap(found, draws=200)["recall@5"]
    assert interval.low < interval.value < interval.high
    assert bootstrap_difference(found, found, draws=20)["median_rank"].high == 0


def test_what_cannot_be_ranked():
    x = np.ones((3, 2))
    for queries, candidates in ((x, x[:2]), (x[:0], x[:0]), (x[0], x[0])):
        with pytest.raises(ValueError, match="of the same shape"):
            ranks(queries, candidates)
    with pytest.raises(ValueError, match="must be finite"):
        ranks(x * np.nan, x)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        recall_at(ranks(x, x), 0)

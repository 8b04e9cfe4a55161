"""Verdicts: scipy's paired test, the stated error rate, the stated power."""

import math

import numpy as np
import pytest
from scipy import stats

from smnm_kernels.train.tasks.studying import verdicts
from smnm_kernels.train.tasks.studying.verdicts import (
    overall,
    paired,
    power_of,
    seeds_needed,
    verdict,
)


def of(lower, higher):
    return {"a": dict(enumerate(lower)), "b": dict(enumerate(higher))}


def test_only_seeds_that_both_have_are_paired():
    assert paired({0: 3.0, 2: 5.0, 7: 1.0}, {2: 1.0, 0: 1.0, 5: 9.0}) == [2.0, 4.0]


def test_verdicts_are_those_of_the_paired_t_test():
    rng, words = np.random.default_rng(0), set()
    for _ in range(60):
        lower = rng.normal(size=5)
        higher = lower + rng.normal(rng.uniform(-1, 1), 0.5, 5)
        found = verdict("a", "b", of(lower, higher))
        test = stats.ttest_rel(higher, lower)
        word = "not decided at this scale"
        if test.pvalue < 0.05:
            word = "reproduced" if test.statistic > 0 else "contradicted"
        assert found.word == word
        interval = test.confidence_interval(0.95)
        assert (found.difference.low, found.difference.high) == pytest.approx(tuple(interval))
        words.add(word)
    assert len(words) == 3


def test_intervals_are_close_to_a_bootstraps():
    rng = np.random.default_rng(3)
    lower, gained = rng.normal(size=400), rng.normal(0.2, 1, 400)
    found = verdict("a", "b", of(lower, lower + gained)).difference
    means = gained[rng.integers(0, 400, (4000, 400))].mean(1)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_without_a_difference_five_of_a_hundred_are_called_one(monkeypatch):
    """1000 studies of five seeds: the share of false verdicts, half in each direction."""
    monkeypatch.setattr(verdicts, "seeds_needed", lambda _: None)
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(1000, 2, 5))
    found = [verdict("a", "b", of(*one)).word for one in drawn]
    for word in ("reproduced", "contradicted"):
        assert stats.binomtest(found.count(word), 1000, 0.025).pvalue > 0.01


def test_power_is_the_share_of_simulated_studies_that_decide():
    rng = np.random.default_rng(2)
    for n, effect in ((2, 3.0), (5, 1.2), (12, 0.5), (30, 0.5)):
        drawn = rng.normal(effect, 1, (4000, n))
        decided = (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).sum()
        assert stats.binomtest(int(decided), 4000, power_of(n, effect)).pvalue > 0.001


def test_the_fewest_seeds_that_would_decide():
    for differences in ([1.0, 0.5, 0.8, -0.3], [0.1, -0.05, 0.2], [5.0, 4.0, 6.0]):
        effect = abs(np.mean(differences)) / np.std(differences, ddof=1)
        needed = seeds_needed(differences)
        by_hand = next(n for n in range(2, 1000) if power_of(n, effect) >= 0.8)
        assert needed == by_hand
    assert seeds_needed([1.0]) is None
    assert seeds_needed([1.0, -1.0]) is None
    assert seeds_needed([1e-6 + 1.0, -1.0]) is None
    assert seeds_needed([2.0, 2.0]) is None
    assert not math.isnan(power_of(verdicts.MOST_SEEDS, 50.0))


def test_of_a_claim_of_many_pairs_either_is_rare_where_nothing_differs(monkeypatch):
    """1000 studies of five seeds, in each a run that is said to be above six others."""
    monkeypatch.setattr(verdicts, "seeds_needed", lambda _: None)
    rng, words, single = np.random.default_rng(4), [], 0
    for drawn in rng.normal(size=(1000, 7, 5)):
        values = {str(run): dict(enumerate(of)) for run, of in enumerate(drawn)}
        pairs = [verdict(str(other), "0", values) for other in range(1, 7)]
        words.append(overall(pairs))
        single += any(pair.word == "contradicted" for pair in pairs)
    most = stats.binom.ppf(0.999, 1000, 0.025)
    assert words.count("contradicted") <= most < single
    assert words.count("reproduced") <= most


def test_a_pairs_p_is_scipys():
    rng = np.random.default_rng(5)
    lower, higher = rng.normal(size=(2, 6))
    expected = stats.ttest_rel(higher, lower).pvalue
    assert verdict("a", "b", of(lower, higher)).p == pytest.approx(expected)
    assert math.isnan(verdict("a", "b", of([0.0], [1.0])).p)


def test_a_claim_stands_where_all_its_pairs_do():
    reproduced, contradicted = of([0, 0, 0], [1, 1.1, 0.9]), of([1, 1.1, 0.9], [0, 0, 0])
    undecided, none = of([0, 0, 0], [1, -1, 0.1]), {"a": {0: 1.0}, "b": {}}
    words = {
        "reproduced": [reproduced, reproduced],
        "contradicted": [reproduced, contradicted, undecided],
        "not decided at this scale": [reproduced, undecided],
        "no rows": [reproduced, none],
    }
    for word, values in words.items():
        assert overall([verdict("a", "b", one) for one in values]) == word


def test_one_seed_decides_nothing():
    found = verdict("a", "b", of([0.0], [1.0]))
    assert (found.word, found.seeds, found.needed) == ("not decided at this scale", 1, None)


@pytest.mark.parametrize("lower", [(0.2, 0.4), (0.2, 0.4, 0.5), (0.4, 0.4)])
def test_differences_that_are_all_the_same_decide_nothing(lower):
    """Those of accuracies are fractions of so many files; 0.3 - 0.2 is not 0.5 - 0.4 in floats."""
    higher = [round(x + 0.1, 1) for x in lower]
    for one, other in ((lower, higher), (higher, lower), (lower, lower)):
        found = verdict("a", "b", of(one, other))
        assert (found.word, found.needed) == ("not decided at this scale", None)
        assert math.isnan(found.p)

"""Measures equal scikit-learn's, ties and absent classes included; intervals cover the truth."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from smnm_kernels.train.metrics.intervals import (
    Interval,
    affordable_draws,
    bootstrap,
    bootstrap_difference,
    t_interval,
)
from smnm_kernels.train.metrics.measures import MAIN, judge, measure

SEEDS = range(20)


def drawn(seed, n=60, classes=9):
    """Scores of few values, so that there are ties, and classes that do not occur."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (n, classes), generator=generator).float()
    if seed % 2:
        scores += torch.rand(n, classes, generator=generator)
    targets = torch.randint(0, classes - 2, (n,), generator=generator)
    counts = torch.randint(0, 4, (n,), generator=generator).numpy()
    return scores, targets, counts


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_one_class(seed):
    scores, targets, counts = drawn(seed)
    # scikit-learn takes the higher class first where scores are equal.
    flipped, other = scores.flip(1).numpy(), (scores.shape[1] - 1 - targets).numpy()
    for weights in (None, counts):
        found = judge("class", scores, targets).measures(weights)
        for name, k in (("top1", 1), ("top5", 5)):
            expected = metrics.top_k_accuracy_score(
                other, flipped, k=k, labels=range(scores.shape[1]), sample_weight=weights
            )
            assert found[name] == pytest.approx(expected, abs=1e-12)
        expected = metrics.balanced_accuracy_score(targets, scores.argmax(1), sample_weight=weights)
        assert found["mean_class"] == pytest.approx(expected, abs=1e-12)


def test_few_classes_have_no_top_five():
    scores, targets = torch.eye(5), torch.arange(5)
    assert measure("class", scores, targets) == {"top1": 1.0, "mean_class": 1.0}
    assert "top5" in measure("class", torch.eye(6), torch.arange(6))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", SEEDS)
def test_several_classes(seed):
    scores, _, counts = drawn(seed)
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(scores.shape, generator=generator) < 0.3).float()
    targets[:, 2], targets[:, 5] = 0, 1
    for weights in (None, counts):
        found = judge("classes", scores, targets).measures(weights)
        each = [
            metrics.average_precision_score(targets[:, i], scores[:, i], sample_weight=weights)
            for i in range(scores.shape[1])
            if i not in (2, 5)
        ]
        assert found["mAP"] == pytest.approx(np.mean(each), abs=1e-12)
        assert found["classes_left_out"] == 2


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9], [0.8], [0.8], [0.1]])
    targets = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    # Thresholds 0.9, 0.8, 0.1: precision 1, 2/3, 3/4, and a third of recall each.
    found = measure("classes", scores, targets)
    assert found["mAP"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    nothing = measure("classes", scores, torch.ones(4, 1))
    assert math.isnan(nothing["mAP"])
    assert nothing["classes_left_out"] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers(seed):
    generator = torch.Generator().manual_seed(seed)
    scores, targets = torch.randn(2, 40, generator=generator)
    counts = drawn(seed, 40)[2]
    for weights in (None, counts):
        found = judge("number", scores, targets).measures(weights)
        expected = metrics.mean_absolute_error(targets, scores, sample_weight=weights)
        assert found["mae"] == pytest.approx(expected)
        expected = metrics.r2_score(targets, scores, sample_weight=weights)
        assert found["r2"] == pytest.approx(expected)
    assert math.isnan(measure("number", torch.ones(3), torch.ones(3))["r2"])


def test_counts_are_repeated_files():
    for kind in ("class", "classes", "number"):
        scores, targets, counts = drawn(3)
        if kind == "classes":
            targets = torch.nn.functional.one_hot(targets, scores.shape[1])
        elif kind == "number":
            scores, targets = scores[:, 0], scores[:, 1]
        rows = np.repeat(np.arange(len(scores)), counts)
        found = judge(kind, scores, targets).measures(counts)
        assert found == pytest.approx(measure(kind, scores[rows], targets[rows]))
        assert MAIN[kind].name in found


@pytest.mark.parametrize(
    ("kind", "scores", "targets", "said"),
    [
        ("class", torch.zeros(3), torch.zeros(3).long(), "do not fit"),
        ("class", torch.zeros(3, 2), torch.zeros(2).long(), "do not fit"),
        ("class", torch.zeros(3, 2), torch.tensor([0, 1, 2]), r"classes in \[0, 2\)"),
        ("class", torch.zeros(0, 2), torch.zeros(0).long(), "no predictions"),
        ("class", torch.full((1, 2), math.nan), torch.zeros(1).long(), "finite"),
        ("classes", torch.zeros(3, 2), torch.zeros(3), "do not fit"),
        ("number", torch.zeros(3, 1), torch.zeros(3), "do not fit"),
    ],
)
def test_what_cannot_be_measured(kind, scores, targets, said):
    with pytest.raises(ValueError, match=said):
        measure(kind, scores, targets)


def right(share, n, seed):
    """Predictions of two classes of which about a share is right."""
    generator = torch.Generator().manual_seed(seed)
    is_right = torch.rand(n, generator=generator) < share
    scores = torch.stack([is_right, ~is_right], dim=1).float()
    return judge("class", scores, torch.zeros(n, dtype=torch.int64))


def test_a_bootstrap_of_an_accuracy_is_binomial():
    judged = right(0.7, 400, 0)
    found = bootstrap(judged)["top1"]
    assert found.value == judged.measures()["top1"]
    low, high = stats.binom.interval(0.95, 400, found.value)
    assert (found.low, found.high) == pytest.approx((low / 400, high / 400), abs=0.006)
    assert bootstrap(judged)["top1"] == found
    assert bootstrap(judged, seed=1)["top1"] != found
    narrower = bootstrap(judged, level=0.5)["top1"]
    assert found.low < narrower.low < narrower.high < found.high


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    hits = 0
    for seed in range(100):
        found = bootstrap(right(0.7, 100, seed), draws=300, seed=seed)["top1"]
        hits += found.low <= 0.7 <= found.high
    assert 88 <= hits <= 99


def test_groups_are_drawn_whole():
    """Ten copies of each file tell no more than the files do."""
    judged = right(0.7, 100, 0)
    is_right = torch.from_numpy(judged.rank == 0).repeat_interleave(10)
    copies = judge(
        "class",
        torch.stack([is_right, ~is_right], dim=1).float(),
        torch.zeros(1000, dtype=torch.int64),
    )
    groups = [f"episode {i // 10}" for i in range(1000)]
    assert bootstrap(copies, groups)["top1"] == bootstrap(judged)["top1"]
    careless = bootstrap(copies)["top1"]
    assert careless.high - careless.low < 0.5 * (0.83 - 0.57)
    alone = bootstrap(copies, ["one"] * 1000)["top1"]
    assert math.isnan(alone.low)
    assert alone.as_row()["low"] is None


def test_a_difference_is_paired():
    ours, theirs = right(0.7, 200, 0), right(0.7, 200, 1)
    same = bootstrap_difference(ours, ours)["top1"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    found = bootstrap_difference(ours, theirs)["top1"]
    assert found.value == ours.measures()["top1"] - theirs.measures()["top1"]
    differs = (ours.rank == 0).astype(float) - (theirs.rank == 0)
    error = differs.std() / math.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    with pytest.raises(ValueError, match="200 and 100 files"):
        bootstrap_difference(ours, right(0.7, 100, 0))


def test_student():
    values = [0.7, 0.72, 0.75, 0.71, 0.74]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert t_interval(values) == Interval(
        pytest.approx(np.mean(values)), pytest.approx(low), pytest.approx(high)
    )
    assert str(Interval(0.81234, 0.78, 0.843)) == "0.812 [0.780, 0.843]"
    assert math.isnan(t_interval([0.5], possible=(0, 1)).high)
    of_shares = t_interval([0.9, 1.0, 1.0, 1.0], possible=(0, 1))
    assert (of_shares.low, of_shares.high) == (t_interval([0.9, 1.0, 1.0, 1.0]).low, 1)
    for wrong in ([], None):
        with pytest.raises((ValueError, TypeError)):
            t_interval(wrong)
    with pytest.raises(ValueError, match="level"):
        t_interval(values, level=95)


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="2 groups were given for 3 files"):
        bootstrap(right(0.5, 3, 0), ["a", "b"])
    with pytest.raises(ValueError, match="draws"):
        bootstrap(right(0.5, 3, 0), draws=0)


def test_groups_of_all_sizes_are_those_that_were_drawn():
    judged, rng = right(0.6, 60, 5), np.random.default_rng(0)
    groups = rng.integers(0, 7, 60) ** 2
    found = bootstrap(judged, groups.tolist(), draws=40, seed=3)["top1"]
    generator = np.random.Generator(np.random.PCG64(3))
    members = [np.flatnonzero(groups == g) for g in dict.fromkeys(groups.tolist())]
    is_right = judged.rank == 0
    drawn = []
    for _ in range(40):
        units = generator.integers(0, len(members), len(members))
        drawn.append(np.concatenate([is_right[members[u]] for u in units]).mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_all_measures_are_of_the_same_draws():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(80, 4, generator=generator)
    targets = (torch.rand(80, 4, generator=generator) < 0.4).float()
    targets[:, 3] = 1
    judged, counted = judge("classes", scores, targets), []
    found = bootstrap(judged, draws=50)
    assert list(found) == ["mAP", "classes_left_out"]
    assert found["mAP"].low < found["mAP"].value < found["mAP"].high
    assert found["classes_left_out"].value == 1
    assert math.isnan(found["classes_left_out"].low)  # a count

    class Counting:
        def __len__(self):
            return 80

        def measures(self, counts=None):
            counted.append(counts)
            return judged.measures(counts)

    assert bootstrap(Counting(), draws=50)["mAP"] == found["mAP"]
    assert len(counted) == 51


def test_large_sets_have_fewer_draws():
    assert affordable_draws("class", 1_000_000, 1000) == 2000
    assert affordable_draws("number", 1000, 0) == 2000
    assert affordable_draws("classes", 20_000, 500) == 200
    assert affordable_draws("classes", 4000, 500) == 1000

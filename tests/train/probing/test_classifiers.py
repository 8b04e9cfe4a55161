"""The probes on arrays: what scikit-learn gives, and what chance has no part in."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from strategies import examples

from smnm_kernels.train.metrics.measures import measure
from smnm_kernels.train.tasks.probing import knn as knn_module
from smnm_kernels.train.tasks.probing.attentive import (
    AttentiveFit,
    AttentiveProbe,
    AttentiveSettings,
    attentive,
)
from smnm_kernels.train.tasks.probing.knn import choose_neighbours, knn, largest
from smnm_kernels.train.tasks.probing.linear import choose_strength, fit_linear
from smnm_kernels.train.tasks.probing.targets import Standard, Task, quality

CLASS, CLASSES, NUMBER = Task("class", 3), Task("classes", 3), Task("number", 0)
CPU = torch.device("cpu")


def data(kind, n=60, dim=8, seed=0):
    """Features, values that they tell of, and as many of both again."""
    rng = np.random.default_rng(seed)
    x = 5 + rng.normal(size=(2 * n, dim)) * np.arange(1, dim + 1)
    told = x @ rng.normal(size=(dim, 3)) + 8 * rng.normal(size=(2 * n, 3))
    told -= np.median(told, axis=0)
    values = {"class": told.argmax(1), "classes": (told > 0).astype(float), "number": told[:, 0]}
    return x[:n], values[kind][:n], x[n:], values[kind][n:]


@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_linear_probes_are_those_of_scikit_learn(strength):
    for task in (CLASS, CLASSES, NUMBER):
        x, values, given, _ = data(task.kind)
        found = fit_linear(task, x, values, strength)(given)
        scaler = StandardScaler().fit(x)
        ours, theirs = scaler.transform(x), scaler.transform(given)
        if task.kind == "class":
            model = LogisticRegression(C=strength, max_iter=1000, tol=1e-8).fit(ours, values)
            expected = model.predict_proba(theirs)
        elif task.kind == "classes":
            expected = np.stack(
                [
                    LogisticRegression(C=strength, max_iter=1000, tol=1e-8)
                    .fit(ours, column)
                    .predict_proba(theirs)[:, 1]
                    for column in values.T
                ],
                axis=1,
            )
        else:
            expected = Ridge(alpha=1 / strength).fit(ours, values).predict(theirs)
        assert np.allclose(found, expected, atol=2e-3), task


def test_classes_that_the_training_files_lack_get_nothing():
    x, values, given, _ = data("class")
    some = values != 1
    scores = fit_linear(CLASS, x[some], values[some], 1.0)(given)
    assert (scores[:, 1] == 0).all()
    assert np.allclose(scores.sum(1), 1)
    only = fit_linear(CLASS, x[values == 2], values[values == 2], 1.0)(given)
    assert (only == [0, 0, 1]).all()
    # Of several labels: a class that no file has is never likely.
    x, values, given, _ = data("classes")
    values[:, 0] = 0
    assert fit_linear(CLASSES, x, values, 1.0)(given)[:, 0].max() < 0.05


def test_the_strength_is_the_best_of_the_choosing_files():
    x, values, given, expected = data("class", n=30, dim=20)
    chosen = choose_strength(CLASS, (x, values), (given, expected), (1e-4, 1e-2, 1.0))
    tried = {
        c: quality(CLASS, fit_linear(CLASS, x, values, c)(given), expected)
        for c in (1e-4, 1e-2, 1.0)
    }
    assert tried[chosen] == max(tried.values())
    nothing = (given[:0], expected[:0])
    assert choose_strength(CLASS, (x, values), nothing) == 1.0


def test_neighbours_vote_by_their_similarity():
    for task in (CLASS, CLASSES, NUMBER):
        x, values, given, _ = data(task.kind)
        scaler = StandardScaler().fit(x)
        ours, theirs = scaler.transform(x), scaler.transform(given)
        distance, near = (
            NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute")
            .fit(ours)
            .kneighbors(theirs)
        )
        weights = np.exp((1 - distance) / 0.07)
        weights /= weights.sum(1, keepdims=True)
        votes = np.eye(3)[values] if task.kind == "class" else values
        expected = np.stack([w @ votes[n] for w, n in zip(weights, near, strict=True)])
        assert np.allclose(knn(task, x, values, given, 7), expected)
    x, values, given, _ = data("class")
    assert (knn(CLASS, x, values, x, 1).argmax(1) == values).all()
    assert np.allclose(knn(CLASS, x, values, given, 1000).sum(1), 1)


@given(
    arrays(np.int8, (3, 9), elements=st.integers(-2, 2)),
    st.integers(1, 9),
)
@examples(100)
def test_of_equal_ones_the_first_is_among_the_largest(rows, k):
    rows = rows.astype(float)
    assert np.array_equal(largest(rows, k), np.argsort(-rows, axis=1, kind="stable")[:, :k])


def test_similarities_that_are_held_do_not_grow_with_the_training_files(monkeypatch):
    x, values, given, _ = data("class")
    whole = knn(CLASS, x, values, given, 5)
    held = []

    def noted(rows, k):
        held.append(rows.size)
        return largest(rows, k)

    monkeypatch.setattr(knn_module, "largest", noted)
    monkeypatch.setattr(knn_module, "_MOST_SIMILARITIES", 100)
    assert np.allclose(knn(CLASS, x, values, given, 5), whole)
    assert max(held) <= 100


def test_settings_are_chosen_by_the_measure_that_is_reported():
    rng = np.random.default_rng(0)
    scores, values = rng.random((20, 3)), (rng.random((20, 3)) < 0.5).astype(float)
    values[:, 1] = 1  # all files have it
    reported = measure("classes", torch.from_numpy(scores), torch.from_numpy(values))["mAP"]
    assert quality(CLASSES, scores, values)[0] == reported
    assert quality(CLASSES, scores, np.ones((20, 3)))[0] == 0


def test_as_many_neighbours_as_serve_the_choosing_files():
    x, values, given, expected = data("class")
    chosen = choose_neighbours(CLASS, (x, values), (given, expected))
    tried = {k: quality(CLASS, knn(CLASS, x, values, given, k), expected) for k in (1, 3, 5, 10)}
    assert quality(CLASS, knn(CLASS, x, values, given, chosen), expected) >= max(tried.values())
    assert choose_neighbours(CLASS, (x, values), (given[:0], expected[:0])) == 20
    assert choose_neighbours(CLASS, (x[:2], values[:2]), (given, expected)) == 1


def test_features_that_do_not_vary_stay_out_of_the_way():
    x = np.array([[1e6, 1.0], [1e6, 3.0]])
    assert np.allclose(Standard.of(x)(x), [[0, -1], [0, 1]])


def sequences(n, dim=8, seed=0):
    """Tokens of which one tells the class, at a place of its own; sequences of many lengths."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2, n)
    tokens = []
    for value in values:
        x = rng.normal(size=(rng.integers(4, 9), dim))
        place = rng.integers(len(x))
        x[place, 0] = 6
        x[place, 1] = 6 * (2 * value - 1)
        tokens.append(torch.from_numpy(x).half())
    return tokens, values


@pytest.mark.slow
def test_the_attentive_probe_looks_where_the_class_is_told():
    task = Task("class", 2)
    tokens, values = sequences(160)
    given, expected = sequences(80, seed=1)
    settings = AttentiveSettings(heads=2, epochs=1, least_steps=150, rounds=3, lr=1e-2)
    fit, choose = np.arange(32, 160), np.arange(32)
    scores, steps = attentive(
        task, tokens, values, fit, choose, np.arange(len(tokens)), given, settings, CPU
    )
    assert steps in (50, 100, 150)
    assert np.allclose(scores.sum(1), 1)
    assert (scores.argmax(1) == expected).mean() > 0.95
    means = np.stack([t.float().mean(0).numpy() for t in tokens])
    others = np.stack([t.float().mean(0).numpy() for t in given])
    linear = fit_linear(task, means, values, 1.0)(others)
    assert (scores.argmax(1) == expected).mean() >= (linear.argmax(1) == expected).mean()


def test_the_attentive_probe_is_a_function_of_its_seed():
    tokens, values = sequences(12)
    found = []
    for seed in (3, 3, 4):
        settings = AttentiveSettings(heads=2, epochs=1, least_steps=4, rounds=2, seed=seed)
        one = AttentiveFit(Task("class", 2), tokens, values, settings, CPU)
        assert list(one.rounds(2)) == [1, 2]
        found.append(one.predict(tokens))
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_the_attentive_probe_is_attention_from_one_query():
    torch.manual_seed(0)
    probe = AttentiveProbe(dim=12, heads=3, outputs=4)
    torch.nn.init.normal_(probe.query)
    torch.nn.init.normal_(probe.v.bias)
    tokens, there = torch.randn(5, 7, 12), torch.rand(5, 7) < 0.6
    there[:, 0] = True
    x = probe.norm1(tokens)
    heads = [
        part.unflatten(-1, (3, 4)).transpose(-2, -3)
        for part in (probe.q(probe.query).expand(5, 1, 12), probe.k(x), probe.v(x))
    ]
    found = F.scaled_dot_product_attention(*heads, attn_mask=there[:, None, None])
    out = probe.query + probe.proj(found.transpose(1, 2).flatten(1))
    out = out + probe.mlp(probe.norm2(out))
    expected = probe.head(probe.norm3(out))
    assert torch.allclose(probe(tokens, there), expected, atol=1e-5)


def test_tokens_that_are_not_there_change_nothing():
    tokens, values = sequences(12)
    probe = AttentiveFit(Task("class", 2), tokens, values, AttentiveSettings(heads=2), CPU)
    together = probe.predict(tokens)
    alone = np.concatenate([probe.predict([t]) for t in tokens])
    assert np.allclose(together, alone, atol=1e-6)


@pytest.mark.slow
def test_the_attentive_probe_learns_numbers_and_several_classes():
    tokens, values = sequences(64)
    settings = AttentiveSettings(heads=2, epochs=1, least_steps=120, rounds=2, lr=1e-2)
    numbers = AttentiveFit(NUMBER, tokens, 100 + 10.0 * values, settings, CPU)
    before = np.abs(numbers.predict(tokens) - (100 + 10 * values)).mean()
    for _ in numbers.rounds(2):
        pass
    assert np.abs(numbers.predict(tokens) - (100 + 10 * values)).mean() < 0.5 * before
    several = np.stack([values, 1 - values], axis=1).astype(float)
    classes = AttentiveFit(Task("classes", 2), tokens, several, settings, CPU)
    for _ in classes.rounds(2):
        pass
    assert quality(Task("classes", 2), classes.predict(tokens), several)[0] > 0.9

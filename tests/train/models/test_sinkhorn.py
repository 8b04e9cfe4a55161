"""Balanced assignments: their definition, their balance, and what no number overflows."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sinkhorn_definition import defined

from smnm_kernels.train.models import sinkhorn as module
from smnm_kernels.train.models.collapse import CollapseWatch
from smnm_kernels.train.models.sinkhorn import entropy_share, sinkhorn


def cosines(tokens=23, prototypes=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    z, c = (torch.randn(n, 5, generator=generator, dtype=dtype) for n in (tokens, prototypes))
    z, c = z + 1, c + 0.5  # some prototypes are near to many tokens
    return torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(c, dim=1).T


# Below 1 / 35 with logarithms.
@pytest.mark.parametrize("epsilon", [0.02, 0.03, 0.05, 1.0])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_it_is_what_the_definition_says(epsilon, iterations):
    scores = cosines()
    expected = defined(scores, epsilon, iterations)
    made = sinkhorn(scores, epsilon, iterations)
    assert made.dtype == torch.float64
    assert torch.allclose(made, expected, rtol=1e-10, atol=0)
    single = sinkhorn(scores.float(), epsilon, iterations)
    assert single.dtype == torch.float32
    assert torch.allclose(single, expected.float(), rtol=1e-3, atol=1e-6)


def test_prototypes_and_tokens_come_out_balanced():
    scores = cosines(tokens=640, prototypes=16)
    shares = {n: sinkhorn(scores, 0.05, n).sum(0) / 40 for n in (1, 10, 300)}
    assert torch.allclose(sinkhorn(scores, 0.05).sum(1), torch.ones(640, dtype=torch.float64))
    assert (shares[1] - 1).abs().max() > 0.3  # it was not so from the beginning
    assert (shares[10] - 1).abs().max() < 0.1
    assert (shares[300] - 1).abs().max() < 1e-3


@pytest.mark.parametrize("epsilon", [0.02, 0.0286, 0.05])
def test_float32_holds_cosines_at_their_ends(epsilon):
    """Nearly all tokens are at one prototype, as far as can be from all others; one is far from
    every prototype."""
    scores = torch.full((640, 16), -1.0)
    scores[:, 0] = 1
    scores[:8] = -scores[:8]
    scores[8] = -1
    scores += 1e-3 * torch.rand(640, 16, generator=torch.Generator().manual_seed(0))
    made = sinkhorn(scores, epsilon)
    assert torch.allclose(made, sinkhorn(scores.double(), epsilon).float(), rtol=1e-2, atol=1e-6)
    assert torch.allclose(made.sum(1), torch.ones(640), atol=1e-5)


def test_factors_do_not_drift():
    """However many tokens there are to a prototype, after however many iterations."""
    scores = cosines(tokens=4000, prototypes=3).float()
    made = sinkhorn(scores, 0.05, 60)
    assert torch.allclose(made.sum(0), torch.full((3,), 4000 / 3), rtol=1e-3)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_temperatures_stay_finite(epsilon, dtype):
    scores = cosines(64, 8).to(dtype)
    scores[:, 0] = -1  # a prototype that nothing is near to
    made = sinkhorn(scores, epsilon)
    assert made.dtype == torch.float32
    assert made.isfinite().all()
    assert torch.allclose(made.sum(1), torch.ones(64), atol=1e-5)
    if epsilon > 1:
        assert torch.allclose(made, torch.full((64, 8), 1 / 8), atol=1e-2)


def test_neither_gradients_nor_autocast_reach_it():
    scores = cosines().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = sinkhorn(scores, 0.05)
    assert not made.requires_grad
    assert torch.equal(made, sinkhorn(scores, 0.05))


@pytest.mark.parametrize("epsilon", [0.02, 0.05])
def test_tokens_of_other_processes_count(monkeypatch, epsilon):
    """Two threads stand for two processes, of which each has half of the tokens."""
    scores = cosines(24, 6).float()
    local, barrier, given = threading.local(), threading.Barrier(2, timeout=20), [None, None]

    def gathered(x, over_ranks):
        assert over_ranks
        given[local.rank] = x.clone()
        barrier.wait()
        everyones = torch.stack(given)
        barrier.wait()
        return everyones

    def process(rank):
        local.rank = rank
        return sinkhorn(scores.chunk(2)[rank], epsilon, 4, over_ranks=True)

    alone = sinkhorn(scores, epsilon, 4)
    monkeypatch.setattr(module, "gathered", gathered)
    with ThreadPoolExecutor(2) as pool:
        made = torch.cat([*pool.map(process, range(2))])
    assert torch.allclose(made, alone, atol=1e-5)
    halves = torch.cat([defined(s, epsilon, 4) for s in scores.double().chunk(2)]).float()
    assert not torch.allclose(halves, alone, atol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.zeros(3), 0.05), r"scores must be \[M, K\], got \(3,\)"),
        ((torch.zeros(3, 2), 0.0), "epsilon must be a finite number above 0, got 0.0"),
        ((torch.zeros(3, 2), math.nan), "epsilon must be a finite number above 0, got nan"),
        ((torch.zeros(3, 2), 0.05, 0), "iterations must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        sinkhorn(*arguments)


@pytest.mark.parametrize(
    ("chosen", "prototypes", "expected"),
    [
        ([0, 1, 2, 3], 4, 1.0),
        ([3, 3, 3, 3], 4, 0.0),
        ([0, 0, 1, 1], 4, 0.5),
        ([0, 9, 5, 7], 100, 1.0),  # as even as four tokens can be
        ([0, 0, 0, 1], 2, -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))),
        ([0, 0], 1, 0.0),
    ],
)
def test_entropy_is_the_share_of_the_largest_entropy(chosen, prototypes, expected):
    assert entropy_share(torch.tensor(chosen), prototypes).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_the_watch_warns_once_and_by_name_when_a_share_stays_low():
    watch = CollapseWatch(("a", "b"), low=0.2, patience=3)
    a = [0.1, 0.1, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.0, 0.0, 0.0]
    said = {i: watch({"step": i, "lr": 1.0, "a": v, "b": 0.9}) for i, v in enumerate(a)}
    assert [i for i, line in said.items() if line] == [5, 11]
    assert "at step 5: a 0.100 of the largest, below 0.2 for 3 steps" in said[5]


def test_the_watch_waits_until_the_rate_has_risen():
    watch = CollapseWatch(("a",), patience=3)
    rates = [1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0]
    said = [watch({"step": i, "lr": rate, "a": 0.0}) for i, rate in enumerate(rates)]
    assert [i for i, line in enumerate(said) if line] == [6]

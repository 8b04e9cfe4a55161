"""Under torchrun the ranks together draw the stream of one process, whatever their number and
whatever wraps the model that holds the sampler."""

import os
import signal
import subprocess
import sys

import pytest
import ranks
import torch
from mask_hashes import hashed
from testing import assert_same, made_once

import smnm_kernels as smnm

pytestmark = pytest.mark.slow

WORLD_SIZES = (1, 2, 4)
CALLS = [n for step in ranks.STEPS for n in step]
N = sum(CALLS)
#: How models are wrapped, and in groups of how many; some in the exhaustive tier only.
WRAPPED = [
    pytest.param(way, n, marks=[] if way in ranks.WAYS[n] else pytest.mark.exhaustive)
    for n in WORLD_SIZES
    for way in ranks.ALL_WAYS
]
SAVED_AT = sum(n for step in ranks.STEPS[: ranks.SAVED_AFTER] for n in step)


def run(*command):
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # and torchrun ends its ranks
        said, _ = process.communicate()
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def launched(tmp_path_factory, exhaustive):
    """Of each world size, what each rank saved."""

    def launch_all(folder):
        script = (ranks.__file__, folder, *(["--all-ways"] if exhaustive else []))
        # --standalone takes a free port, so that tests can run at the same time.
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
        run(*torchrun, 2, *script)
        if exhaustive:
            run(*torchrun, 1, *script)
            run(*torchrun, 4, *script)
        else:
            run(*script, "--fork", 1, 4)

    folder = made_once(tmp_path_factory, "ranks", launch_all)
    return {
        world_size: [
            torch.load(folder / f"{world_size}-{rank}.pt", weights_only=True)
            for rank in range(world_size)
        ]
        for world_size in WORLD_SIZES
    }


@pytest.fixture(scope="module")
def alone():
    """One process without a group."""
    return ranks.train(ranks.Model(), 0, 1)


def in_rank_order(saved_by_ranks):
    """Masks of each rank and call, as the masks of one process: every call rank after rank."""
    calls = zip(*saved_by_ranks, strict=True)
    parts = [masks for of_all_ranks in calls for masks in of_all_ranks]
    return [torch.cat(forms) for forms in zip(*parts, strict=True)]


def stream(name, first=0):
    if name == "rbn":
        return smnm.rbn_masks(torch.arange(first, N), (1, 16, 8), 0.8, seed=ranks.SEED)
    color, ratio = {"green3d": ("green", 0.9), "tube": ("white", 0.75)}[name]
    ids = torch.arange(first, N)
    return smnm.noise_masks(ids, (4, 6, 6), color, ratio, tube=name == "tube", seed=ranks.SEED)


@pytest.mark.parametrize("name", ranks.SAMPLERS)
def test_any_world_size_draws_the_single_stream(launched, name):
    hashes = {
        world_size: hashed(in_rank_order([rank[name]["masks"] for rank in launched[world_size]]))
        for world_size in WORLD_SIZES
    }
    assert hashes == dict.fromkeys(WORLD_SIZES, hashed(stream(name)))


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("name", ranks.SAMPLERS)
def test_uneven_batches_have_the_sizes_asked_for(launched, name, world_size):
    uneven = CALLS.index(7)
    for rank, n in zip(launched[world_size], ranks.UNEVEN[world_size], strict=True):
        assert {len(form) for form in rank[name]["masks"][uneven]} == {n}


@pytest.mark.parametrize("name", ranks.SAMPLERS)
def test_every_rank_of_every_world_size_has_the_same_state(launched, name):
    states = [rank[name]["state"] for group in launched.values() for rank in group]
    assert states == [{"seed": ranks.SEED, "next_id": SAVED_AT}] * sum(WORLD_SIZES)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("name", ranks.SAMPLERS)
def test_a_state_of_two_ranks_goes_on_with_any_number(launched, name, world_size):
    resumed = in_rank_order([rank[name]["resumed"] for rank in launched[world_size]])
    assert_same(resumed, stream(name, SAVED_AT))


@pytest.mark.parametrize(("way", "world_size"), WRAPPED)
def test_a_wrapped_model_draws_the_single_stream(launched, way, world_size):
    ids = torch.arange(N)
    expected = smnm.noise_masks(ids, ranks.GRID, "green", 0.75, seed=ranks.SEED)
    drawn = [rank[way] for rank in launched[world_size]]
    assert_same(in_rank_order([rank["masks"] for rank in drawn]), expected)
    assert [rank["next_id"] for rank in drawn] == [N] * world_size


@pytest.mark.parametrize(("way", "world_size"), WRAPPED)
def test_training_together_equals_training_alone(launched, alone, way, world_size):
    """Losses of every example, and on every rank the gradients of the whole batch. In float64, so
    that nothing but the order of a sum is within the tolerance."""
    together = [rank[way] for rank in launched[world_size]]
    for losses, expected in zip(
        zip(*[rank["losses"] for rank in together], strict=True), alone["losses"], strict=True
    ):
        torch.testing.assert_close(torch.cat(losses), expected)
    for rank in together:
        torch.testing.assert_close(rank["gradients"], alone["gradients"])

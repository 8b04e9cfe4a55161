"""CUDA graphs: a replay draws the next masks of the stream, as an eager call would."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from first_graphs import WITHOUT_DATA
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import VIDEOMAE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

VIDEO = {"kind": "green3d", "grid": (8, 14, 14), "mask_ratio": 0.9}
AUDIO = {"kind": "rbn", "grid": (1, 64, 8), "mask_ratio": 0.8}
SAMPLERS = {
    "green3d": lambda: smnm.MaskSampler(**VIDEO, seed=5),
    "rbn": lambda: smnm.MaskSampler(**AUDIO, seed=5),
    "tube": lambda: smnm.MaskSampler("tube", (8, 14, 14), 0.9, seed=5),
    "both, hiding the same moments": lambda: smnm.AudioVideoSampler(
        VIDEO, AUDIO, hidden_time=0.5, seed=5
    ),
}


@pytest.fixture(params=SAMPLERS.values(), ids=SAMPLERS)
def make(request):
    return request.param


def forms(masks):
    """Copies of all tensors: a replay writes over what the last one made."""
    return [form.clone() for form in torch.utils._pytree.tree_leaves(masks)]


def launches_of_graphs(call):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
        torch.cuda.synchronize()
    return sum(event.name == "cudaGraphLaunch" for event in profile.events())


def test_replays_are_the_steps_of_the_stream(make):
    sampler, eager = make().cuda(), make()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masks = sampler(64)
    sampler.reset()
    steps = []
    for _ in range(8):
        graph.replay()
        steps.append(forms(masks))
        assert_same(steps[-1], forms(eager(64)))
    assert len(torch.cat([step[0] for step in steps]).unique(dim=0)) > 8
    sampler.reset()
    graph.replay()
    assert_same(forms(masks), steps[0])
    sampler.seed.fill_(-6)
    sampler.reset(2**40)
    graph.replay()
    eager.seed.fill_(-6)
    eager.reset(2**40)
    assert_same(forms(masks), forms(eager(64)))


@pytest.mark.parametrize("how", ["capture", "compile"])
def test_the_first_masks_of_a_process_come_from_a_graph(how):
    """Nothing is compiled, loaded or copied any more, and nothing stays in the graph's pool."""
    script = Path(__file__).with_name("first_graphs.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script), how],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"equal": len(WITHOUT_DATA) + 2}


def test_a_function_whose_first_call_is_captured_says_so():
    ids, grid = torch.arange(9, device="cuda"), (3, 5, 9)
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match=r"cannot be captured.*one call before"),
        torch.cuda.graph(graph),
    ):
        smnm.noise_masks(ids, grid, "green", 0.75)
    expected = smnm.noise_masks(ids.cpu(), grid, "green", 0.75)
    assert_same(smnm.noise_masks(ids, grid, "green", 0.75), expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masks = smnm.noise_masks(ids, grid, "green", 0.75)
    graph.replay()
    assert_same(masks, expected)


@pytest.mark.skipif(smnm.backends()["cuda"] != "available", reason="needs the CUDA library")
def test_the_first_call_of_the_cuda_library_can_be_captured():
    """Its kernels come loaded; a new grid takes other amounts of shared memory or a workspace."""
    ids = torch.arange(9, device="cuda")
    for grid in ((1, 40, 9), (1, 96, 96)):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            masks = smnm.rbn_masks(ids, grid, 0.8)
        graph.replay()
        assert_same(masks, smnm.rbn_masks(ids.cpu(), grid, 0.8))


def test_reduce_overhead_uses_graphs_and_draws_new_masks(make):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    sampler, eager = make().cuda(), make()
    compiled = torch.compile(sampler, mode="reduce-overhead", fullgraph=True)

    def step():
        torch.compiler.cudagraph_mark_step_begin()
        return forms(compiled(64))

    for _ in range(6):
        assert_same(step(), forms(eager(64)))
    assert launches_of_graphs(step) > 0
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0


def test_a_train_step_under_reduce_overhead():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    settings = VIDEOMAE.resized(
        dim=32, depth=1, heads=2, decoder_dim=32, decoder_depth=1, decoder_heads=2
    )
    settings = replace(settings, encoder=replace(settings.encoder, patch=(2, 8, 8)))
    model = build_model(settings, (3, 4, 32, 32), seed=0).cuda()
    samplers = [smnm.MaskSampler("green3d", (2, 4, 4), 0.75, seed=3).cuda() for _ in range(2)]

    def loss_with(sampler):
        return lambda x: model(x, sampler(x.shape[0]))

    compiled = torch.compile(loss_with(samplers[0]), mode="reduce-overhead", fullgraph=True)
    eager = loss_with(samplers[1])
    for _ in range(6):
        x = torch.randn(4, 3, 4, 32, 32, device="cuda")
        torch.compiler.cudagraph_mark_step_begin()
        loss = compiled(x)
        torch.testing.assert_close(loss.clone(), eager(x), rtol=1e-3, atol=1e-4)
        loss.backward()
        model.zero_grad()
    assert torch.equal(samplers[0].next_id, samplers[1].next_id)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0

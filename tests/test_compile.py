"""Under torch.compile: no graph break, the same masks, no compilation for each new batch size."""

import pytest
import torch
from testing import assert_same
from torch._dynamo.testing import CompileCounterWithBackend

import smnm_kernels as smnm

CALLS = {
    "noise": lambda ids: smnm.noise(ids, (2, 4, 4), "green"),
    "noise_masks": lambda ids: smnm.noise_masks(ids, (2, 4, 4), "blue", 0.75, tube=True),
    "rbn_masks": lambda ids: smnm.rbn_masks(ids, (1, 8, 4), 0.8),
    "threshold": lambda ids: smnm.threshold(ids[:, None] * torch.tensor([[1.5, -2.0, 0.25]]), 0.5),
    "sampler": smnm.MaskSampler("rbn", (1, 8, 4), 0.75).masks,
}


@pytest.mark.parametrize("name", CALLS)
def test_compiled_equals_eager(name):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(CALLS[name], fullgraph=True, backend=counter)
    for batch in (6, 3, 11):
        ids = torch.arange(batch) * 2**33 - 5
        assert_same(compiled(ids), CALLS[name](ids))
    assert counter.frame_count <= 2  # one static, one for any size


def test_a_compiled_sampler_goes_through_the_stream():
    torch._dynamo.reset()
    eager, other = (smnm.MaskSampler("green3d", (2, 4, 4), 0.75) for _ in range(2))
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for _ in range(4):
        assert_same(compiled(3), eager(3))


@pytest.mark.parametrize(("kind", "grid"), [("rbn", (1, 8, 4)), ("tube", (2, 4, 4))])
@pytest.mark.parametrize("dynamic", [None, True])
def test_a_sampler_compiles_once(kind, grid, dynamic):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    eager, other = (smnm.MaskSampler(kind, grid, 0.75) for _ in range(2))
    compiled = torch.compile(other, fullgraph=True, backend=counter, dynamic=dynamic)
    for batch in [3, 5, 2, 9] * 5 if dynamic else [3] * 20:
        assert_same(compiled(batch), eager(batch))
    assert counter.frame_count == 1

"""Under torch.compile: no graph break, the same masks, one compilation; and torch.export."""

import io
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from testing import assert_same
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._pytree import tree_leaves as leaves
from torch.utils.checkpoint import checkpoint

import smnm_kernels as smnm
from smnm_kernels.arguments import constant_in_graphs
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import VIDEOMAE

RATIO, SIGMA, WINDOWS, WEIGHTS = 0.8, ((0.4, 1.0), (1.4, 2.0)), (5,), (0.1, 0.2, 0.3, 0.4)
DISPERSION = smnm.MaskSampler("dispersion", (1, 4, 4), 0.75, hint_ratio=0.1)


def _data_of(ids):
    """[B, 1, 1, 16, 8]"""
    return (ids[:, None] % torch.arange(3, 131)).float().view(-1, 1, 1, 16, 8)


CALLS = {
    "noise": lambda ids: smnm.noise(ids, (2, 4, 4), "green"),
    "noise_masks": lambda ids: smnm.noise_masks(ids, (2, 4, 4), "blue", 0.75, tube=True),
    "rbn_masks": lambda ids: smnm.rbn_masks(ids, (1, 8, 4), 0.8),
    "rbn_bank": lambda ids: smnm.rbn_bank(
        (ids[:, None] + torch.arange(20)) % 20, 3, 6, (1, 4, 5), tie_break="random"
    ),
    "threshold": lambda ids: smnm.threshold(ids[:, None] * torch.tensor([[1.5, -2.0, 0.25]]), 0.5),
    "weighted_masks": lambda ids: smnm.weighted_masks(ids, ids[:, None] % torch.arange(3, 15), 0.5),
    "guided_masks": lambda ids: smnm.guided_masks(
        ids, (ids[:, None] % torch.arange(3, 15)).float(), 0.5, temperature=0.7, hint_ratio=0.25
    ),
    "dispersion_masks": lambda ids: smnm.dispersion_masks(
        ids, _data_of(ids), (1, 4, 2), RATIO, hint_ratio=0.5, freq_major=True
    ),
    "sampler that looks at data": lambda ids: DISPERSION.masks(ids, _data_of(ids)),
    "sampler": smnm.MaskSampler("rbn", (1, 8, 4), 0.75).masks,
    "arguments from outside": lambda ids: smnm.noise_masks(
        ids, (2, 4, 4), "green", RATIO, sigma=SIGMA
    ),
    "rbn arguments from outside": lambda ids: smnm.rbn_masks(
        ids, (1, 8, 4), RATIO, windows=WINDOWS, weights=WEIGHTS, freq_major=True
    ),
}
SAMPLERS = {
    **{f"{c}{d}": (2, 4, 4) for c in ("green", "red", "blue") for d in ("2d", "3d")},
    **{"random": (2, 4, 4), "tube": (2, 4, 4), "rbn": (1, 8, 4)},
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", CALLS)
def test_compiled_equals_eager(name, dynamic):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(CALLS[name], fullgraph=True, backend=counter, dynamic=dynamic)
    for batch in (6, 3, 11, 4):
        ids = torch.arange(batch) * 2**33 - 5
        assert_same(compiled(ids), CALLS[name](ids))
    # PyTorch's own way: one graph for the first size and one for any. Under dynamic=True it starts
    # once more when a float of the caller turns out to be a constant.
    assert counter.frame_count <= 2


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_compiles_once(kind, dynamic):
    counter = CompileCounterWithBackend("aot_eager")
    eager, other = (smnm.MaskSampler(kind, SAMPLERS[kind], 0.75, seed=4) for _ in range(2))
    compiled = torch.compile(other, fullgraph=True, backend=counter, dynamic=dynamic)
    for batch in [3, 5, 2, 9] * 5 if dynamic else [3] * 20:
        assert_same(compiled(batch), eager(batch))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compiled_samplers_do_not_share_their_masks():
    """They share their code: what sets them apart must be part of what torch.compile guards."""
    grid, audio = (2, 4, 4), {"kind": "rbn", "grid": (1, 8, 4), "mask_ratio": 0.75}
    video = {"kind": "green3d", "grid": grid, "mask_ratio": 0.75}
    makers = [
        *(lambda k=k: smnm.MaskSampler(k, SAMPLERS[k], 0.75) for k in SAMPLERS),
        lambda: smnm.MaskSampler("green3d", grid, 0.5),
        lambda: smnm.MaskSampler("green3d", grid, 0.75, sigma="variant-2"),
        lambda: smnm.MaskSampler("rbn", (1, 8, 4), 0.75, weights=(0.1, 0.2, 0.3, 0.4)),
        lambda: smnm.MaskSampler("rbn", (1, 8, 4), 0.75, freq_major=True),
        lambda: smnm.AudioVideoSampler(video, audio, hidden_time=None),
        lambda: smnm.AudioVideoSampler(video, audio, hidden_time=0.5),
    ]
    model = torch.nn.Module()
    model.forward = lambda n: model.sampler(n)
    of_model = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(recompile_limit=64):
        for make in [*makers, *makers]:
            expected = leaves(make()(3))
            compiled = torch.compile(make(), fullgraph=True, backend="aot_eager")
            assert_same(leaves(compiled(3)), expected)
            model.sampler = make()
            assert_same(leaves(of_model(3)), expected)


@pytest.mark.slow
def test_arguments_that_change_outside_change_the_masks():
    now = {"ratio": 0.75, "sigma": (0.5, 1.0), "windows": (3, 5), "ties": "first", "kind": "block"}

    def masks(ids):
        return [
            smnm.noise_masks(ids, (2, 4, 4), "red", now["ratio"], sigma=now["sigma"]).visible,
            smnm.rbn_masks(
                ids, (1, 8, 4), now["ratio"], windows=now["windows"], tie_break=now["ties"]
            ).visible,
            smnm.baseline_masks(ids, (1, 8, 4), now["kind"], now["ratio"]).visible,
        ]

    compiled, ids = torch.compile(masks, fullgraph=True, backend="aot_eager"), torch.arange(5)
    assert_same(compiled(ids), masks(ids))
    for change in (
        {"ratio": 0.5},
        {"sigma": (1.0, 2.0)},
        {"sigma": 1.5},
        {"windows": (5,)},
        {"ties": "random"},
        {"kind": "grid"},
    ):
        before = masks(ids)
        now |= change
        assert any(not torch.equal(a, b) for a, b in zip(before, masks(ids), strict=True))
        assert_same(compiled(ids), masks(ids))


def test_compiled_masks_follow_the_buffers():
    """Nothing of seed and step is in the graph: what a CUDA graph needs, too."""
    counter = CompileCounterWithBackend("aot_eager")
    sampler = smnm.MaskSampler("green3d", (2, 4, 4), 0.75)
    compiled = torch.compile(sampler, fullgraph=True, backend=counter)
    first = compiled(4)
    assert_same(compiled(4), smnm.noise_masks(torch.arange(4, 8), (2, 4, 4), "green", 0.75))
    sampler.reset()
    assert_same(compiled(4), first)
    sampler.seed.fill_(7)
    sampler.reset(2**40)
    ids = 2**40 + torch.arange(4)
    assert_same(compiled(4), smnm.noise_masks(ids, (2, 4, 4), "green", 0.75, seed=7))
    sampler.load_state_dict(smnm.MaskSampler("green3d", (2, 4, 4), 0.75).state_dict())
    assert_same(compiled(4), first)
    assert counter.frame_count == 1


def test_all_that_the_graph_changes_has_a_fixed_address():
    """torch.compile's CUDA graphs skip a graph that changes another input than a buffer."""
    seen = []

    def look(graph, _):
        metadata = torch._guards.TracingContext.get().fw_metadata
        seen.append((metadata.mutated_inp_runtime_indices, metadata.static_input_indices))
        return graph

    sampler = smnm.MaskSampler("green3d", (2, 4, 4), 0.75)
    torch.compile(sampler, fullgraph=True, backend=aot_autograd(fw_compiler=look))(3)
    [(changed, fixed)] = seen
    assert len(changed) == 1
    assert set(changed) <= set(fixed)


class Step(torch.nn.Module):
    """Sample, gather, encode, decode, loss."""

    def __init__(self, checkpointed=False, **options):
        super().__init__()
        self.sampler = smnm.MaskSampler("green3d", (2, 3, 3), 0.7, seed=1)
        settings = VIDEOMAE.resized(
            dim=24, depth=1, heads=2, decoder_dim=24, decoder_depth=1, decoder_heads=2
        )
        settings = replace(settings, encoder=replace(settings.encoder, patch=(2, 8, 8)))
        self.model = build_model(settings, (3, 4, 24, 24), seed=0)
        self.checkpointed, self.options = checkpointed, options

    def forward(self, x):
        masks = self.sampler(x.shape[0])
        if self.checkpointed:
            return checkpoint(self.model, x, masks, **self.options)
        return self.model(x, masks)


def trained(step, call, batches=(2, 2, 3)):
    """Losses and gradients of a few steps of gradient descent."""
    generator = torch.Generator().manual_seed(1)
    losses = []
    for batch in batches:
        # A reentrant checkpoint wants an input with a gradient.
        x = torch.randn(batch, 3, 4, 24, 24, generator=generator, requires_grad=True)
        loss = call(x)
        loss.backward()
        losses.append(loss.detach())
        with torch.no_grad():
            for p in step.model.parameters():
                p -= 0.1 * p.grad
    return [*losses, *(p.grad for p in step.model.parameters())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "batches"),
    [
        # A minute, nearly all of it a C++ compiler's. The test below takes a layer instead.
        pytest.param("inductor", (2, 2, 2), marks=pytest.mark.exhaustive),
        ("aot_eager", (2, 4, 3, 5)),
    ],
)
def test_a_whole_train_step_compiles_once(backend, batches):
    eager, other = Step(), Step()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(other, fullgraph=True, backend=counter)

    def call(x):
        if len(set(batches)) > 1:
            torch._dynamo.mark_dynamic(x, 0)
        return compiled(x)

    expected = trained(eager, eager, batches)
    torch.testing.assert_close(trained(other, call, batches), expected, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
    assert torch.equal(eager.sampler.next_id, other.sampler.next_id)


@pytest.mark.slow
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("preserve_rng_state", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_checkpointing_leaves_the_gradients_alone(compiled, preserve_rng_state, use_reentrant):
    plain = Step()
    step = Step(True, preserve_rng_state=preserve_rng_state, use_reentrant=use_reentrant)
    call = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
    batches = (2, 2)
    expected = trained(plain, plain, batches)
    torch.testing.assert_close(trained(step, call, batches), expected)


class Sampling(torch.nn.Module):
    """A model with a sampler and nothing else that is random."""

    def __init__(self, kind="green3d", grid=(2, 4, 4)):
        super().__init__()
        torch.manual_seed(0)
        self.sampler = smnm.MaskSampler(kind, grid, 0.75)
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x):
        masks = self.sampler(x.shape[0])
        tokens = x.gather(1, masks.ids_keep[..., None].expand(-1, -1, x.shape[2]))
        return self.layer(tokens), masks


@pytest.mark.slow
def test_inductor_trains_a_layer_on_the_same_masks():
    eager, other = Sampling(), Sampling()
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(other, fullgraph=True, backend=counter)
    for _ in range(3):
        x = torch.randn(3, 32, 8)
        found = []
        for model, call in ((eager, eager), (other, compiled)):
            tokens, masks = call(x)
            tokens.square().sum().backward()
            found.append((tokens, tuple(masks), model.layer.weight.grad))
        (ours, made, gradient), (expected, drawn, gradient_there) = found
        assert_same(made, drawn)
        torch.testing.assert_close((ours, gradient), (expected, gradient_there))
    assert counter.frame_count == 1


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["green3d", "rbn"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_export(kind, strict, dynamic):
    x = torch.randn(3, 32, 8)
    shapes = {"x": {0: torch.export.Dim("batch")}} if dynamic else None
    model = Sampling(kind, SAMPLERS[kind])
    file = io.BytesIO()
    program = torch.export.export(model, (x,), strict=strict, dynamic_shapes=shapes)
    torch.export.save(program, file)
    file.seek(0)
    loaded, eager = torch.export.load(file).module(), Sampling(kind, SAMPLERS[kind])
    for batch in (3, 5, 2) if dynamic else (3, 3):
        x = torch.randn(batch, 32, 8)
        (tokens, masks), (expected_tokens, expected) = loaded(x), eager(x)
        assert_same(tuple(masks), tuple(expected))
        torch.testing.assert_close(tokens, expected_tokens)


def test_constants_are_marked_as_torch_marks_them():
    def ours(): ...
    def theirs(): ...

    assert constant_in_graphs(ours) is ours
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs) != {}


@pytest.mark.slow
def test_only_who_compiles_waits_for_the_compiler():
    """It takes twice the time of torch itself to import."""
    program = """
import sys
import smnm_kernels as smnm
smnm.MaskSampler("green3d", (2, 4, 4), 0.75)(3).ids_keep
smnm.MaskSampler("rbn", (1, 8, 4), 0.75)(3).ids_keep
print("torch._dynamo" in sys.modules, "sympy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr

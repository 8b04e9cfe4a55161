"""torch.ops.smnm.*: what PyTorch itself asks of a custom op."""

from dataclasses import replace

import pytest
import torch
from testing import devices
from torch._subclasses.fake_tensor import FakeTensorMode

import smnm_kernels as smnm
from smnm_kernels.tables.logarithms import packed_logarithms
from smnm_kernels.tables.noise import noise_quantiles, noise_table, pack, packed_table

OPS = (
    *("noise", "noise_masks", "threshold", "rbn_masks", "rbn_bank"),
    *("draw_masks", "structure_masks", "dispersion", "advance"),
)
FROM_TABLE = ("noise_from_table", "noise_masks_from_table", "draw_masks_from_table")
SEED = torch.tensor(2**62)
RULE = (4, 3, [3, 5], [400, 400, 100, 100])


def ids(n):
    return torch.arange(n) - 2**40


def arguments():
    """(op, arguments): every op over empty and strided batches, int and tensor seeds."""
    for batch in (ids(0), ids(1), ids(10)[::3]):
        for seed in ((None, -3), (SEED, 0)):
            yield "noise", (batch, *seed, [1, 4, 6], "green", [0.4, 1.5, 1.4, 3.0])
            yield "noise", (batch, *seed, [3, 4, 6], "white", [])
            yield "noise_masks", (batch, *seed, [1, 9, 1], "green", [0.4, 1.5, 1.4, 3.0], 2, False)
            yield "noise_masks", (batch, *seed, [2, 4, 6], "red", [0.5, 2.0], 12, False)
            yield "noise_masks", (batch, *seed, [2, 4, 6], "blue", [1.0, 1.0], 12, True)
            yield "rbn_masks", (batch, *seed, [1, 4, 5], *RULE, True)
            valid = torch.ones(len(batch), 24, dtype=torch.bool)
            yield "structure_masks", (batch, *seed, None, [2, 3, 4], "block", [], 6)
            yield "structure_masks", (batch, *seed, valid, [2, 3, 4], "grid", [2, 2], 5)
            yield "structure_masks", (batch, *seed, valid, [2, 3, 4], "frames", [1], 13)
            weights = torch.rand(len(batch), 9)
            yield "draw_masks", (batch, *seed, weights, "weights", 3, False, 2)
            yield "draw_masks", (batch, *seed, weights, "scores", 3, True, 0)
            yield (
                "rbn_bank",
                (torch.arange(20).repeat(len(batch), 1), *seed, [1, 4, 5], *RULE, False),
            )
    yield "advance", (torch.tensor(2**40), 64, 128, 256)
    for noise in (torch.zeros(0, 9), torch.randn(3, 9, dtype=torch.float64), torch.randn(9, 3).t()):
        yield "threshold", (noise, 2)
    for data in (torch.zeros(0, 1, 2, 4, 6), torch.randn(2, 4, 6, 3, 2).permute(0, 4, 3, 1, 2)):
        yield "dispersion", (data, [1, 2, 3], "mad")
        yield "dispersion", (data, [1, 4, 1], "variance")


@pytest.mark.parametrize("device", [*devices(), "meta"])
@pytest.mark.parametrize(("op", "call"), list(arguments()))
def test_opcheck(op, call, device):
    call = [a.to(device) if isinstance(a, torch.Tensor) else a for a in call]
    results = torch.library.opcheck(getattr(torch.ops.smnm, op).default, call)
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("op", ["noise_from_table", "noise_masks_from_table"])
def test_opcheck_of_the_ops_that_take_a_table(op):
    table = noise_table((1, 4, 6), "green", (0.5, 0.5, 2.0, 2.0))
    call = (ids(3), None, 5, [1, 4, 6], pack(table, noise_quantiles()))
    if op == "noise_masks_from_table":
        call += (12, 1)
    torch.library.opcheck(getattr(torch.ops.smnm, op).default, call)


def test_opcheck_of_draws_from_a_table():
    call = (ids(3), None, 5, torch.rand(3, 9), packed_logarithms(), 0, 3, False, 2)
    torch.library.opcheck(torch.ops.smnm.draw_masks_from_table.default, call)


def test_no_op_is_left_out():
    registered = {
        name.removeprefix("smnm::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("smnm::")
    }
    assert set(OPS) <= registered <= {*OPS, *FROM_TABLE}


def public_calls(batch):
    yield smnm.noise(batch, (2, 4, 6), "green"), (smnm.noise(ids(3), (2, 4, 6), "green"))
    for more in ({}, {"tube": True}, {"freq_major": True}):
        call = ((2, 4, 6), "green", 0.75)
        yield smnm.noise_masks(batch, *call, **more), smnm.noise_masks(ids(3), *call, **more)
    for more in ({}, {"tie_break": "random"}, {"n_candidates": 7, "freq_major": True}):
        yield (
            smnm.rbn_masks(batch, (1, 4, 6), 0.75, **more),
            smnm.rbn_masks(ids(3), (1, 4, 6), 0.75, **more),
        )
    weights = torch.ones(3, 1, 4, 6)
    for more in ({}, {"invert": True}):
        yield (
            smnm.weighted_masks(batch, weights.to(batch.device), 0.75, **more),
            smnm.weighted_masks(ids(3), weights, 0.75, **more),
        )
    data = torch.ones(3, 2, 2, 8, 6)
    for more in ({"hint_ratio": 0.5}, {"deterministic": True, "freq_major": True}):
        yield (
            smnm.dispersion_masks(batch, data.to(batch.device), (1, 2, 3), 0.75, **more),
            smnm.dispersion_masks(ids(3), data, (1, 2, 3), 0.75, **more),
        )
    noise = torch.empty(3, 2, 4, 6, device=batch.device)
    yield smnm.threshold(noise, 0.75), smnm.threshold(torch.zeros(3, 2, 4, 6), 0.75)


def assert_alike(fake, real):
    assert type(fake) is type(real) or isinstance(fake, torch.Tensor)
    pairs = [(fake, real)] if isinstance(real, torch.Tensor) else zip(fake, real, strict=True)
    for a, b in pairs:
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


def test_meta_tensors_have_the_shapes_of_real_ones():
    for fake, real in public_calls(ids(3).to("meta")):
        assert_alike(fake, real)


def test_fake_tensors_have_the_shapes_of_real_ones():
    results = list(public_calls(ids(3)))
    with FakeTensorMode():
        fakes = [fake for fake, _ in public_calls(torch.empty(3, dtype=torch.int64))]
    for fake, (_, real) in zip(fakes, results, strict=True):
        assert_alike(fake, real)


def test_ops_are_functions_of_tensors_that_no_gradient_flows_through():
    noise = torch.randn(2, 8, requires_grad=True)
    masks = smnm.threshold(noise, 0.5)
    assert not any(form.requires_grad for form in masks)
    tokens = torch.randn(2, 8, 3, requires_grad=True)
    kept = tokens.gather(1, masks.ids_keep[..., None].expand(-1, -1, 3))
    kept.sum().backward()
    assert torch.equal(tokens.grad[..., 0] == 1, masks.visible)


def test_a_seed_tensor_is_read_when_the_op_runs():
    seed = torch.tensor(1)
    first = smnm.noise(ids(2), (1, 4, 4), "green", seed=seed)
    seed.fill_(2)
    second = smnm.noise(ids(2), (1, 4, 4), "green", seed=seed)
    assert torch.equal(first, smnm.noise(ids(2), (1, 4, 4), "green", seed=1))
    assert torch.equal(second, smnm.noise(ids(2), (1, 4, 4), "green", seed=2))
    many = torch.arange(10)
    strided = smnm.noise(ids(2), (1, 4, 4), "green", seed=many[7::5])
    assert torch.equal(strided, smnm.noise(ids(2), (1, 4, 4), "green", seed=7))


ORDER = torch.arange(20).repeat(2, 1)
MISUSED = [
    ("rbn_bank", (ORDER + 1, None, 0, [1, 4, 5], *RULE, False), "order"),
    ("rbn_bank", (ORDER // 2, None, 0, [1, 4, 5], *RULE, False), "order"),
    ("rbn_masks", (ids(2), SEED.int(), 0, [1, 4, 5], *RULE, False), "seed_tensor"),
    ("noise", (ids(2), SEED.repeat(2), 0, [1, 4, 5], "white", []), "seed_tensor"),
    ("rbn_bank", (ORDER.int(), None, 0, [1, 4, 5], *RULE, False), "order"),
    ("rbn_bank", (ORDER[:, :9], None, 0, [1, 4, 5], *RULE, False), "order"),
    ("rbn_masks", (ids(2), None, 0, [1, 4, 5], 21, *RULE[1:], False), "n_keep"),
    ("rbn_masks", (ids(2), None, 0, [1, 4, 5], 4, 2000, *RULE[2:], False), "n_candidates"),
    ("rbn_masks", (ids(2), None, 0, [2, 4, 5], *RULE, False), "grid"),
    ("rbn_masks", (ids(2), None, 0, [1, 4, 5], 4, 3, [], [400] * 4, False), "windows"),
    ("rbn_masks", (ids(2).int(), None, 0, [1, 4, 5], *RULE, False), "sample_ids"),
    ("threshold", (torch.zeros(2, 3, 8), 2), "noise"),
    ("threshold", (torch.zeros(2, 8).half(), 2), "noise"),
    ("threshold", (torch.zeros(2, 8), 9), "n_keep"),
    ("noise", (ids(2), None, 0, [4], "white", []), "grid"),
    ("noise", (ids(2).view(1, 2), None, 0, [1, 4, 4], "white", []), "sample_ids"),
    ("noise_masks", (ids(2), None, 0, [2, 4, 4], "white", [], 0, False), "n_keep"),
    ("noise_masks", (ids(2), None, 0, [2, 4, 4], "white", [], 3, True), "n_keep"),
    ("draw_masks", (ids(2), None, 0, torch.ones(2, 4), "weights", 5, False, 0), "n_keep"),
    ("draw_masks", (ids(2), None, 0, torch.ones(2, 4), "weights", 3, False, 2), "n_swapped"),
    ("draw_masks", (ids(2), None, 0, torch.ones(3, 4), "weights", 3, False, 0), "values"),
    ("draw_masks", (ids(2), None, 0, torch.ones(2, 4).half(), "weights", 3, False, 0), "values"),
    ("dispersion", (torch.ones(1, 1, 4, 4), [1, 2, 2], "mad"), "data"),
    ("dispersion", (torch.ones(1, 1, 1, 4, 4).half(), [1, 2, 2], "mad"), "data"),
    ("dispersion", (torch.ones(1, 1, 1, 4, 4), [1, 3, 2], "mad"), "patch"),
    ("dispersion", (torch.ones(1, 1, 1, 4, 4), [1, 2], "mad"), "patch"),
]


@pytest.mark.parametrize(("op", "call", "name"), MISUSED)
def test_an_op_called_past_the_checks_refuses(op, call, name):
    with pytest.raises(RuntimeError, match=name):
        getattr(torch.ops.smnm, op)(*call)


def test_a_table_that_cannot_be_is_refused():
    table = noise_table((1, 4, 6), "green", (0.5, 0.5, 2.0, 2.0))
    packed = pack(table, noise_quantiles())
    missing_row = pack(replace(table, taps=table.taps[:1]), noise_quantiles())
    for wrong, why in (
        (missing_row, "pairs must name rows of taps"),
        (packed[:-1], "packed noise table"),
        (packed[:4], "packed noise table"),
        (packed.float(), "packed noise table"),
        (packed * torch.tensor([-1, *[1] * (len(packed) - 1)]).int(), "packed noise table"),
        (packed_table((2, 4, 6), "green", (0.5, 0.5, 2.0, 2.0)), "dimensions of grid"),
    ):
        with pytest.raises(RuntimeError, match=why):
            torch.ops.smnm.noise_from_table(ids(3), None, 5, [1, 4, 6], wrong)


def test_the_default_device_changes_no_mask():
    """Tables are kept: one that was made on another device would serve later calls, too."""
    for cached in (packed_table, noise_table, noise_quantiles, packed_logarithms):
        cached.cache_clear()
    batch = ids(3)
    weights = torch.rand(3, 9)
    with torch.device("meta"):
        smnm.weighted_masks(batch, weights, 0.75)
    made, expected = (m.weighted_masks(batch, weights, 0.75) for m in (smnm, smnm.reference))
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))
    for color in ("white", "green"):
        with torch.device("meta"):
            smnm.noise_masks(batch, (1, 4, 6), color, 0.75)
        made = smnm.noise_masks(batch, (1, 4, 6), color, 0.75)
        expected = smnm.reference.noise_masks(batch, (1, 4, 6), color, 0.75)
        assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))

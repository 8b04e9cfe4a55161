"""Empty batches, single tokens, dirty memory, and a grid of a million tokens."""

import subprocess
import sys

import pytest
import torch
from testing import assert_same, devices

import smnm_kernels as smnm
from smnm_kernels.kinds import KINDS

on_every_device = pytest.mark.parametrize("device", devices())
COLORS = ["white", "red", "blue", "green"]


@pytest.mark.usefixtures("poisoned_memory")
def test_the_poison_works():
    """A block of zeros of this size was just given back; empty must not bring it back as it was."""
    for dtype, poison in ((torch.float32, None), (torch.int64, 2**63 - 1), (torch.bool, True)):
        zeros = torch.zeros(1234, dtype=dtype)
        del zeros
        for block in (torch.empty(1234, dtype=dtype), torch.zeros(1, dtype=dtype).new_empty(1234)):
            assert bool(block.isnan().all() if poison is None else (block == poison).all())


@on_every_device
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 4), (1, 64, 8)])
def test_empty_batches_give_empty_tensors(device, grid):
    ids = torch.empty(0, dtype=torch.int64, device=device)
    n_tokens = grid[0] * grid[1] * grid[2]
    results = []
    for color in COLORS:
        noise = smnm.noise(ids, grid, color)
        assert noise.shape == (0, *grid)
        assert noise.dtype == torch.float32
        results += [smnm.threshold(noise, n_keep=1), smnm.noise_masks(ids, grid, color, n_keep=1)]
        results.append(smnm.noise_masks(ids, grid, color, n_keep=grid[0], tube=True))
    if grid[0] == 1:
        results.append(smnm.rbn_masks(ids, grid, n_keep=1))
        order = torch.empty(0, n_tokens, dtype=torch.int64, device=device)
        bank = smnm.rbn_bank(order, 3, 1, grid)
        assert bank.shape == (0, 3, n_tokens)
        assert bank.dtype == torch.bool
    for masks in results:
        assert masks.visible.shape == masks.ids_restore.shape == (0, n_tokens)
        assert masks.ids_keep.shape[0] == 0
        assert masks.n_keep in (1, grid[0])
        assert masks.ids_masked.shape == (0, n_tokens - masks.n_keep)
        assert {form.device.type for form in masks} == {device}
    masks = smnm.noise_masks(ids, grid, "red", n_keep=1, freq_major=True)
    assert masks.visible.shape == (0, n_tokens)


@on_every_device
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("color", COLORS)
def test_a_grid_of_one_token(device, color):
    ids = torch.arange(2000, device=device)
    noise = smnm.noise(ids, (1, 1, 1), color)
    assert noise.isfinite().all()
    # Its values are those of the field: 5 standard errors of the variance of 2000 samples.
    assert abs(noise.double().square().mean() - 1) < 5 * (2 / 2000) ** 0.5 + 0.01
    for masks in (
        smnm.noise_masks(ids, (1, 1, 1), color, 0.0),
        smnm.noise_masks(ids, (1, 1, 1), color, n_keep=1, tube=True),
        smnm.rbn_masks(ids, (1, 1, 1), n_keep=1),
    ):
        assert bool(masks.visible.all())
        assert_same(masks.ids_keep, torch.zeros(2000, 1, dtype=torch.int64))
        assert_same(masks.ids_restore, torch.zeros(2000, 1, dtype=torch.int64))
        assert masks.ids_masked.shape == (2000, 0)


@on_every_device
def test_everything_visible_and_one_visible(device):
    ids, grid = torch.arange(3, device=device), (2, 3, 5)
    every = smnm.noise_masks(ids, grid, "green", 0)
    assert bool(every.visible.all())
    assert_same(every.ids_keep, torch.arange(30).expand(3, -1))
    noise = smnm.noise(ids, grid, "green")
    one = smnm.noise_masks(ids, grid, "green", n_keep=1)
    assert_same(one.ids_keep[:, 0], noise.flatten(1).argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_ratio_of_0_keeps_everything_in_order(kind):
    for ratio in (0, 0.0):
        sampler = smnm.MaskSampler(kind, (1, 6, 8), ratio)
        frames = 2 if kind == "motion" else 1
        data = [torch.zeros(3, 1, frames, 12, 16)] if sampler.needs_data else []
        masks = sampler(3, *data)
        everything = torch.arange(48).expand(3, -1)
        assert bool(masks.visible.all())
        assert_same(masks.ids_keep, everything)
        assert_same(masks.ids_restore, everything)
        assert masks.ids_masked.shape == (3, 0)


def test_outputs_do_not_overlap():
    """Each is memory of its own, written once: changing one changes no other."""
    masks = smnm.noise_masks(torch.arange(4), (2, 4, 4), "green", 0.5)
    copies = [form.clone() for form in masks]
    for i, form in enumerate(masks):
        form.fill_(1)
        for j in range(i + 1, 3):
            assert torch.equal(masks[j], copies[j])
    assert torch.equal(
        smnm.noise_masks(torch.arange(4), (2, 4, 4), "green", 0.5).visible, copies[0]
    )


MILLION = """
import resource
import torch
import smnm_kernels as smnm

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

ids, grid = torch.tensor([7]), (64, 128, 128)
n_tokens, n_keep = 2**20, 104857
smnm.noise_masks(ids, (2, 4, 4), {color!r}, 0.9)
before = peak()
masks = smnm.noise_masks(ids, grid, {color!r}, 0.9)
used = peak() - before
assert masks.n_keep == n_keep and int(masks.visible.sum()) == n_keep
outputs = n_tokens + 8 * n_keep + 8 * n_tokens
# A few arrays of floats the size of the torus (80 x 144 x 144 at most) beside the outputs.
assert used < outputs + 6 * 4 * 80 * 144 * 144, used
noise = smnm.noise(ids, grid, {color!r}).flatten(1)
largest = noise.sort(dim=1, descending=True, stable=True).indices[:, :n_keep]
assert torch.equal(masks.ids_keep, largest.sort(dim=1).values)
threshold = smnm.threshold(noise, 0.9)
assert all(torch.equal(a, b) for a, b in zip(masks, threshold))
"""


@pytest.mark.slow
@pytest.mark.parametrize("color", ["white", "green"])
def test_a_million_tokens_in_memory_proportional_to_the_grid(color):
    process = subprocess.run(
        [sys.executable, "-c", MILLION.format(color=color)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("grid", [(16, 33, 40), (1, 300, 70), (200, 3, 9)])
@pytest.mark.parametrize("color", COLORS)
def test_large_grids_are_the_reference(grid, color):
    ids = torch.tensor([-5])
    assert_same(smnm.noise(ids, grid, color), smnm.reference.noise(ids, grid, color))
    masks = smnm.noise_masks(ids, grid, color, 0.75)
    assert_same(masks, smnm.reference.noise_masks(ids, grid, color, 0.75))

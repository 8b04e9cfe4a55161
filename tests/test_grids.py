"""Two numbers (H, W) are the grid (1, H, W), wherever a grid is taken."""

import pytest
import torch
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels.adapters import MaskingGenerator
from smnm_kernels.analysis.quality import spectrum_error
from smnm_kernels.analysis.spectrum import expected_spectrum
from smnm_kernels.kinds import KINDS

IDS = torch.arange(3)
ORDER = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(0))] * 2)
TAKE_A_GRID = {
    "noise": lambda m, grid: m.noise(IDS, grid, "green"),
    "noise_masks": lambda m, grid: m.noise_masks(IDS, grid, "green", 0.5),
    "of a tube": lambda m, grid: m.noise_masks(IDS, grid, "green", 0.5, tube=True),
    "rbn_masks": lambda m, grid: m.rbn_masks(IDS, grid, 0.5, freq_major=True),
    "rbn_bank": lambda m, grid: m.rbn_bank(ORDER, 3, 4, grid),
    "baseline_masks": lambda m, grid: m.baseline_masks(IDS, grid, "block", 0.5),
}


@pytest.mark.parametrize("function", TAKE_A_GRID)
def test_functions_and_their_reference(function):
    for module in (smnm, smnm.reference):
        take = TAKE_A_GRID[function]
        three = take(module, (1, 3, 4))
        for two in ((3, 4), [3, 4], torch.Size([3, 4])):
            assert_same(take(module, two), three)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind):
    two, three = (smnm.MaskSampler(kind, grid, 0.5) for grid in ((6, 8), (1, 6, 8)))
    assert two.settings == three.settings
    assert two.grid == (1, 6, 8)
    data = [torch.rand(3, 1, 2 if kind == "motion" else 1, 12, 16)] if two.needs_data else []
    assert_same(two(3, *data), three(3, *data))


def test_other_samplers():
    scheduled = smnm.ScheduledSampler("random", (4, 6), 0.5)
    assert scheduled.grid == (1, 4, 6)
    audio = {"kind": "rbn", "grid": (8, 4), "mask_ratio": 0.75}
    video = {"kind": "green3d", "grid": (2, 4, 4), "mask_ratio": 0.75}
    both = smnm.AudioVideoSampler(video, audio)
    three = smnm.AudioVideoSampler(video, audio | {"grid": (1, 8, 4)})
    assert_same(both(2).audio, three(2).audio)


def test_banks_of_noise():
    flat, deep = (smnm.NoiseBank.precompute(2, shape) for shape in ((8, 9), (1, 8, 9)))
    assert_same(flat.volumes, deep.volumes)
    assert_same(flat.noise(IDS, (3, 4)), deep.noise(IDS, (1, 3, 4)))
    assert_same(flat.masks(IDS, (3, 4), 0.5), deep.masks(IDS, (1, 3, 4), 0.5))


def test_adapters_and_views():
    two, three = (MaskingGenerator(size, 0.75, per_frame=True) for size in ((4, 4), (1, 4, 4)))
    assert (two.frames, two.height, two.width) == (1, 4, 4)
    assert (two(5) == three(5)).all()
    masks = smnm.noise_masks(IDS, (3, 4), "red", 0.5)
    assert_same(masks.freq_major((3, 4)), masks.freq_major((1, 3, 4)))


def test_measures():
    fields = smnm.noise(torch.arange(50), (8, 9), "red")
    assert spectrum_error(fields, (8, 9), "red") == spectrum_error(fields, (1, 8, 9), "red")
    for two, three in zip(
        expected_spectrum((8, 9), "red"), expected_spectrum((1, 8, 9), "red"), strict=True
    ):
        assert (two == three).all()


@pytest.mark.slow
def test_compiled_and_fake():
    def draw(x):
        return smnm.noise_masks(torch.arange(2), (x.shape[0], x.shape[1]), "green", n_keep=2)

    torch._dynamo.reset()
    x = torch.zeros(3, 4)
    assert_same(torch.compile(draw, fullgraph=True, backend="eager")(x), draw(x))
    meta = torch.arange(2, device="meta")
    assert smnm.noise(meta, (3, 4), "blue").shape == (2, 1, 3, 4)

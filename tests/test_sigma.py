"""Sigma is drawn per sample, each level as often as any other, and can be given in every form."""

import numpy as np
import pytest
import torch
from testing import assert_same, devices

import smnm_kernels as smnm
from smnm_kernels.tables.colors import parse_sigma
from smnm_kernels.tables.noise import noise_table

pytestmark = pytest.mark.parametrize("device", devices())

PRESETS = {
    "variant-1": (0.5, 2),
    "variant-2": (1.5, 3),
    "variant-3": ((0.5, 1.5), (2, 3)),
    "variant-4": ((0.2, 1.7), (0.8, 2.3)),
    "variant-5": ((0.4, 1.5), (1.4, 3)),
    "main-text": ((0.5, 2), (0.5, 2)),
}


def pairs_drawn(noise, scale):
    """int64 [B]: which pair each field was made with. Fields are integers times the scale of their
    pair, so divided by any other scale they are no integers."""
    pairs = []
    for field in noise.flatten(1).double().cpu().numpy():
        integers = field / scale[:, None]
        off = np.abs(integers - np.round(integers)).max(1)
        pairs.append(off.argmin())
        assert off[pairs[-1]] < 0.1
    return np.array(pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("color", "sigma"),
    [("red", None), ("blue", (0.6, 1.9)), ("green", "main-text"), ("green", "variant-5")],
)
def test_every_level_is_drawn_as_often(device, color, sigma):
    grid = (1, 4, 6)
    table = noise_table(grid, color, tuple(parse_sigma(color, sigma)))
    n_pairs = len(table.pairs)
    n = 6 * n_pairs if n_pairs > 500 else 100 * n_pairs
    noise = smnm.noise(torch.arange(n, device=device), grid, color, sigma=sigma, seed=5)
    drawn = pairs_drawn(noise, table.scale.double().numpy())
    counts = np.bincount(drawn, minlength=n_pairs)
    chi2 = ((counts - n / n_pairs) ** 2 / (n / n_pairs)).sum()
    assert abs(chi2 - (n_pairs - 1)) < 5 * (2 * (n_pairs - 1)) ** 0.5
    # Neighbouring ids draw independently.
    same = (drawn[1:] == drawn[:-1]).mean()
    assert abs(same - 1 / n_pairs) < 5 * (1 / n_pairs / n) ** 0.5


def test_a_range_draws_many_sigmas_and_a_number_one(device):
    ids = torch.arange(400, device=device)
    table = noise_table((1, 4, 6), "red", (0.5, 2.0))
    scale = table.scale.double().numpy()
    assert len(table.pairs) == 32
    assert len(set(pairs_drawn(smnm.noise(ids, (1, 4, 6), "red"), scale))) == 32


@pytest.mark.parametrize("grid", [(1, 6, 5), (3, 4, 5)])
def test_forms_that_mean_the_same(device, grid):
    ids = torch.arange(40, device=device)

    def noise(color, sigma):
        return smnm.noise(ids, grid, color, sigma=sigma)

    for preset, sigma in PRESETS.items():
        assert_same(noise("green", preset), noise("green", sigma))
    assert_same(noise("green", None), noise("green", "variant-5"))
    assert_same(noise("green", (1, 2)), noise("green", [(1.0, 1), [2, np.float64(2)]]))
    assert_same(noise("green", (0.5, (2, 3))), noise("green", ((0.5, 0.5), (2, 3))))
    for color in ("red", "blue"):
        assert_same(noise(color, None), noise(color, (0.5, 2)))
        assert_same(noise(color, 1), noise(color, [1.0, 1.0]))
        assert_same(noise(color, np.float32(0.5)), noise(color, 0.5))


def test_colors_and_sigmas_give_different_fields(device):
    ids, grid = torch.arange(3, device=device), (1, 6, 6)
    fields = [smnm.noise(ids, grid, "white")]
    fields += [smnm.noise(ids, grid, c, sigma=s) for c in ("red", "blue") for s in (None, 1, 1.5)]
    fields += [smnm.noise(ids, grid, "green", sigma=preset) for preset in PRESETS]
    assert len(torch.cat(fields).flatten(1).unique(dim=0)) == 3 * len(fields)


@pytest.mark.parametrize("preset", ["variant-3", "variant-4", "variant-5", "main-text"])
def test_sigma1_is_below_sigma2_in_every_pair(device, preset):
    """By the taps, whatever the levels are: the second Gaussian is the wider one."""
    canonical = parse_sigma("green", preset)
    table = noise_table((8, 14, 14), "green", tuple(canonical))
    along_w = table.taps[:, -table.torus[2] :].double()
    distance = torch.arange(table.torus[2])
    distance = torch.minimum(distance, table.torus[2] - distance).double()
    width = ((along_w * distance**2).sum(1) / along_w.sum(1)).sqrt()
    level1, level2 = table.pairs[:, 0].long(), table.pairs[:, 1].long()
    assert bool((width[level1] < 0.97 * width[level2]).all())
    # Each end of each range is reached.
    low1, high1, low2, high2 = canonical
    assert width[level1].min() < low1 + 0.2
    assert width[level2].max() > high2 - 0.2
    assert width[level1].max() > min(high1, 0.9 * high2) - 0.3
    assert width[level2].min() < max(low2, low1 / 0.9) + 0.3

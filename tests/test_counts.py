"""Every row shows exactly as many tokens as asked, and the three forms of a mask agree."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import counts, grids
from testing import assert_same, devices

import smnm_kernels as smnm

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("device", devices()),
]

KINDS = [
    "random",
    "tube",
    "rbn",
    *(f"{c}{d}" for c in ("red", "blue", "green") for d in ("2d", "3d")),
]


def draw(kind, ids, grid, **count):
    if kind == "rbn":
        return smnm.rbn_masks(ids, (1, grid[0] * grid[1], grid[2]), **count)
    color = kind[:-2] if kind[-1] == "d" else "white"
    return smnm.noise_masks(ids, grid, color, tube=kind == "tube" or kind[-2:] == "2d", **count)


def check_forms(masks, n_tokens, n_keep):
    """What Masks promises of its three tensors and its views, written out row by row."""
    assert masks.n_keep == n_keep
    forms = (masks.visible, masks.ids_keep, masks.ids_restore)
    assert [form.dtype for form in forms] == [torch.bool, torch.int64, torch.int64]
    assert [form.shape[1] for form in forms] == [n_tokens, n_keep, n_tokens]
    assert torch.equal(masks.masked, ~masks.visible)
    assert masks.ids_masked.shape == (len(masks.visible), n_tokens - n_keep)
    rows = zip(*(form.tolist() for form in (*forms, masks.ids_masked)), strict=True)
    for visible, ids_keep, ids_restore, ids_masked in rows:
        assert ids_keep == [token for token in range(n_tokens) if visible[token]]
        assert ids_masked == [token for token in range(n_tokens) if not visible[token]]
        in_order = ids_keep + ids_masked
        assert [in_order[place] for place in ids_restore] == list(range(n_tokens))


@given(kind=st.sampled_from(KINDS), grid=grids(max_tokens=300), data=st.data())
def test_every_row_shows_exactly_n_keep(device, kind, grid, data):
    n_tokens = grid[0] * grid[1] * grid[2]
    frames = grid[0] if kind == "tube" or kind.endswith("2d") else 1
    count, n_keep = data.draw(counts(n_tokens, frames))
    ids = torch.tensor([0, 1, 5, -(2**40)], device=device)
    masks = draw(kind, ids, grid, **count)
    assert len(masks.visible) == len(ids)
    check_forms(masks, n_tokens, n_keep)
    per_frame = masks.visible.view(len(ids), frames, -1)
    assert bool((per_frame.sum(-1) == n_keep // frames).all())
    assert bool((per_frame == per_frame[:, :1]).all())


@pytest.mark.parametrize(
    ("n_tokens", "ratio", "n_keep"),
    [
        (1000, 0.9, 100),
        (1568, 0.9, 156),
        (512, 0.8, 102),
        (512, 0.75, 128),
        (196, 0.75, 49),
        (10, 0.7, 3),
        (10, 0.1, 9),
        (7, 0, 7),
        (7, 0.0, 7),
        (1000, 0.999, 1),
        (100, 0.29, 71),
        (1000, np.float32(0.9), 100),
        (1568, np.float64(0.9), 156),
        (1000, Decimal("0.9"), 100),
        (1000, Fraction(9, 10), 100),
        (3, Fraction(1, 3), 2),
        (3, Fraction(2, 3), 1),
        (3, 0.3333333333333333, 2),
        (3, 0.6666666666666666, 1),
        (3, 0.33333333333333337, 1),
        (1, 1e-30, None),
        (2, 1e-30, 1),
    ],
)
def test_n_keep_is_the_floor_on_the_decimal_as_written(device, n_tokens, ratio, n_keep):
    noise = torch.rand(2, n_tokens, device=device, dtype=torch.float64)
    if n_keep is None:
        with pytest.raises(ValueError, match="mask_ratio"):
            smnm.threshold(noise, ratio)
    else:
        assert smnm.threshold(noise, ratio).n_keep == n_keep
        assert smnm.reference.threshold(noise, ratio).n_keep == n_keep
        grid = (1, 1, n_tokens)
        assert smnm.rbn_masks(torch.arange(1, device=device), grid, ratio).n_keep == n_keep


@pytest.mark.parametrize(
    ("grid", "ratio", "n_keep"),
    [
        ((8, 14, 14), 0.9, 8 * 19),
        ((8, 14, 14), 0.75, 8 * 49),
        ((3, 1, 10), 0.9, 3),
        ((5, 7, 3), 0, 105),
    ],
)
def test_tube_rounds_down_in_each_frame(device, grid, ratio, n_keep):
    ids = torch.arange(2, device=device)
    assert smnm.noise_masks(ids, grid, "green", ratio, tube=True).n_keep == n_keep
    assert smnm.MaskSampler("tube", grid, ratio).n_keep == n_keep


@given(n_tokens=st.integers(1, 40), data=st.data())
def test_tokens_go_out_and_back(device, n_tokens, data):
    """The two gathers of every MAE: visible tokens to the encoder, everything back in place."""
    n_keep = data.draw(st.integers(1, n_tokens))
    noise = torch.rand(3, n_tokens, generator=torch.Generator().manual_seed(n_tokens))
    masks = smnm.threshold(noise.to(device), n_keep=n_keep)
    tokens = torch.arange(1.0, 3 * n_tokens * 2 + 1, device=device).view(3, n_tokens, 2)
    visible_tokens = tokens.gather(1, masks.ids_keep[..., None].expand(-1, -1, 2))
    assert_same(visible_tokens.flatten(0, 1), tokens[masks.visible])
    mask_token = torch.full((3, n_tokens - n_keep, 2), -1.0, device=device)
    back = torch.cat([visible_tokens, mask_token], 1)
    back = back.gather(1, masks.ids_restore[..., None].expand(-1, -1, 2))
    assert_same(
        back, torch.where(masks.visible[..., None], tokens, torch.tensor(-1.0, device=device))
    )


@pytest.mark.parametrize("grid", [(1, 64, 8), (1, 7, 1), (1, 1, 7), (3, 5, 4), (1, 1, 1)])
def test_freq_major_counts_tokens_along_w_first(device, grid):
    frames, height, width = grid
    ids = torch.arange(3, device=device)
    n_tokens = frames * height * width
    n_keep = max(1, n_tokens // 4)
    pairs = [
        [
            smnm.noise_masks(ids, grid, "green", n_keep=n_keep, freq_major=freq_major)
            for freq_major in (False, True)
        ]
    ]
    if frames == 1:
        pairs.append(
            [
                smnm.rbn_masks(ids, grid, n_keep=n_keep, freq_major=freq_major)
                for freq_major in (False, True)
            ]
        )
    for time_major, freq_major in pairs:
        check_forms(freq_major, n_tokens, n_keep)
        assert_same(freq_major, time_major.freq_major(grid))
        for row in range(len(ids)):
            token = 0
            for t in range(frames):
                for x in range(width):
                    for y in range(height):
                        source = (t * height + y) * width + x
                        assert freq_major.visible[row, token] == time_major.visible[row, source]
                        token += 1
    tube = smnm.noise_masks(ids, grid, "red", n_keep=frames, tube=True, freq_major=True)
    check_forms(tube, n_tokens, frames)


def test_masks_are_a_pytree(device):
    masks = smnm.noise_masks(torch.arange(2, device=device), (1, 4, 4), "red", 0.5)
    leaves, spec = torch.utils._pytree.tree_flatten(masks)
    assert [leaf is form for leaf, form in zip(leaves, masks, strict=True)] == [True] * 3
    rebuilt = torch.utils._pytree.tree_unflatten(leaves, spec)
    assert type(rebuilt) is smnm.Masks
    doubled = torch.utils._pytree.tree_map(lambda form: torch.cat([form, form]), masks)
    assert type(doubled) is smnm.Masks
    check_forms(doubled, 16, 8)
    assert smnm.Masks._fields == ("visible", "ids_keep", "ids_restore")


def test_from_visible_is_the_inverse_of_visible(device):
    masks = smnm.noise_masks(torch.arange(5, device=device), (2, 5, 5), "blue", 0.7)
    assert_same(smnm.Masks.from_visible(masks.visible, masks.n_keep), masks)

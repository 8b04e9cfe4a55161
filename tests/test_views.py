"""The forms of Masks that other codebases take."""

import pytest
import torch
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels import Masks

MASKS = smnm.noise_masks(torch.arange(4), (2, 4, 5), "green", 0.7, seed=3)


def test_mae_triple():
    ids_keep, removed, ids_restore = MASKS.mae
    assert removed.dtype == torch.float32
    assert torch.equal(removed == 0, MASKS.visible)
    # As MAE works it out: ones after the first n_keep of the shuffled order, put back in place.
    shuffled = torch.ones(4, 40)
    shuffled[:, : MASKS.n_keep] = 0
    assert torch.equal(shuffled.gather(1, ids_restore), removed)
    assert torch.equal(removed.gather(1, ids_keep), torch.zeros(4, MASKS.n_keep))


def test_vitmae_noise_sorts_into_the_same_ids():
    ids_shuffle = MASKS.vitmae_noise.argsort(dim=1)
    assert torch.equal(ids_shuffle[:, : MASKS.n_keep], MASKS.ids_keep)
    assert torch.equal(ids_shuffle.argsort(dim=1), MASKS.ids_restore)


def test_polarities_and_dtypes():
    assert MASKS.hiera_kept.dtype == torch.bool
    assert torch.equal(MASKS.hiera_kept, MASKS.visible)
    assert MASKS.data2vec_masked.dtype == torch.uint8
    assert torch.equal(MASKS.data2vec_masked == 1, ~MASKS.visible)


def test_jepa_lists_part_the_tokens():
    [context], [target] = MASKS.jepa
    both = torch.cat([context, target], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(40).expand(4, 40))
    assert torch.equal(MASKS.visible.gather(1, target), torch.zeros_like(target).bool())


def test_masks_made_elsewhere():
    for made in (
        Masks.from_visible(MASKS.visible),
        Masks.from_visible(MASKS.visible, 12),
        Masks.from_masked(MASKS.masked),
        Masks.from_masked(MASKS.masked, 12),
    ):
        assert_same(made, MASKS)
    none = torch.zeros(0, 9, dtype=torch.bool)
    assert Masks.from_masked(none, 4).ids_keep.shape == (0, 4)


UNEVEN = MASKS.visible.clone()
UNEVEN[2] = ~UNEVEN[2]


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: Masks.from_masked(MASKS.masked.long()), TypeError, ["bool", "int64", ".bool()"]),
        (lambda: Masks.from_visible([True]), TypeError, ["visible", "list"]),
        (lambda: Masks.from_visible(MASKS.visible[0]), ValueError, ["[B, N]", "[40]"]),
        (lambda: Masks.from_visible(UNEVEN), ValueError, ["12 in row 0", "28 in row 2"]),
        (lambda: Masks.from_masked(~UNEVEN), ValueError, ["12 in row 0", "28 in row 2"]),
        (lambda: Masks.from_visible(MASKS.masked, 12), ValueError, ["28 of 40", "from_masked"]),
        (lambda: Masks.from_masked(MASKS.visible, 12), ValueError, ["28 of 40", "from_visible"]),
        (lambda: Masks.from_masked(MASKS.masked, 13), ValueError, ["n_keep=13", "12 of 40"]),
        (lambda: Masks.from_visible(MASKS.visible[:0]), ValueError, ["n_keep", "no rows"]),
        (lambda: Masks.from_masked(torch.ones(2, 3).bool()), ValueError, ["at least one", "got 0"]),
    ],
)
def test_wrong_masks_are_named(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_prefix_is_always_visible_and_shifts_the_rest(n):
    x = torch.randn(4, n + 40, 3)
    masks = MASKS.with_prefix(n)
    assert_same(masks, Masks.from_visible(masks.visible, MASKS.n_keep + n))
    assert masks.visible[:, :n].all()
    assert_same(masks.visible[:, n:], MASKS.visible)
    assert_same(masks.ids_masked, MASKS.ids_masked + n)
    kept = x.gather(1, masks.ids_keep[..., None].expand(-1, -1, 3))
    assert_same(kept[:, :n], x[:, :n])
    for row in range(4):
        assert_same(kept[row, n:], x[row, n:][MASKS.visible[row]])


@pytest.mark.parametrize("n", [-1, 1.0, None])
def test_a_prefix_is_a_count(n):
    with pytest.raises(ValueError, match=f"n must be a non-negative int, got {n}"):
        MASKS.with_prefix(n)

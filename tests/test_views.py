"""The forms of Masks that other codebases take."""

import torch

import smnm_kernels as smnm

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

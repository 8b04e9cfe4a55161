"""I-JEPA's and V-JEPA's collator: (batch, contexts, targets) of index tensors."""

import pytest
import torch
from testing import assert_same
from torch.utils.data import DataLoader, TensorDataset

import smnm_kernels as smnm
from smnm_kernels.adapters import JepaCollator
from smnm_kernels.loading import WithSampleIds


def apply_masks(x, masks):
    """As there: the tokens of each mask, one after the other along the batch."""
    return torch.cat([x.gather(1, ids[..., None].expand(-1, -1, x.shape[2])) for ids in masks])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_loop_as_theirs(workers):
    samplers = [
        smnm.MaskSampler("green3d", (2, 4, 4), 0.75),
        smnm.MaskSampler("tube", (2, 4, 4), 0.5, seed=1),
    ]
    images = WithSampleIds(TensorDataset(torch.arange(6.0), torch.arange(6)))
    collator = JepaCollator(*samplers)
    loader = DataLoader(images, 3, collate_fn=collator, num_workers=workers)
    collator.step()
    for start, (udata, masks_enc, masks_pred) in zip((0, 3), loader, strict=True):
        ids = torch.arange(start, start + 3)
        assert_same(udata[0], ids.float())
        expected = [sampler.masks(ids) for sampler in samplers]
        assert_same(masks_enc, [masks.ids_keep for masks in expected])
        assert_same(masks_pred, [masks.ids_masked for masks in expected])
        x = torch.randn(3, 32, 2)
        assert apply_masks(x, masks_enc[:1]).shape == (3, 8, 2)
        assert apply_masks(x, masks_pred[:1]).shape == (3, 24, 2)


def test_no_token_is_lost():
    """Their collator cuts every row to the shortest of the batch, from the end."""
    _, [context], [target] = JepaCollator(smnm.MaskSampler("blue2d", (1, 5, 7), 0.6))(
        [WithSampleIds([torch.zeros(1)] * 4)[i] for i in range(4)]
    )
    both = torch.cat([context, target], dim=1).sort(dim=1).values
    assert_same(both, torch.arange(35).expand(4, 35))


def test_errors_name_what_came():
    with pytest.raises(ValueError, match="samplers must be at least one"):
        JepaCollator()
    with pytest.raises(TypeError, match="sampler must be a MaskSampler, got str"):
        JepaCollator("green3d")
    with pytest.raises(KeyError, match="wrap the dataset in WithSampleIds"):
        JepaCollator(smnm.MaskSampler("random", (1, 4, 4), 0.5))([torch.zeros(1)])

"""I-JEPA's and V-JEPA's collator: (batch, contexts, targets) of index tensors."""

import numpy as np
import pytest
import torch
from testing import assert_same
from torch.utils.data import DataLoader, Dataset, TensorDataset

import smnm_kernels as smnm
from smnm_kernels.adapters import JepaCollator, Vjepa2Collator
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


@pytest.mark.filterwarnings("error")
def test_samplers_of_one_seed_are_said():
    def made(kind="green3d", ratio=0.75, seed=0):
        return smnm.MaskSampler(kind, (2, 4, 4), ratio, seed=seed)

    JepaCollator(made(), made(seed=1), made("tube", seed=2))
    for second in (made(), made(ratio=0.5), made("tube")):
        with pytest.raises(UserWarning, match="several samplers have the seed 0: the masks"):
            JepaCollator(made(), second, made(seed=4))
    Vjepa2Collator({8: [made()], 16: [made()]})  # a clip has one length
    with pytest.raises(UserWarning, match="several samplers have the seed 3"):
        Vjepa2Collator({8: [made()], 16: [made(seed=3), made("random", seed=3)]})


class Clips(Dataset):
    """As vjepa2's: (clips, label, for each clip the indices of its frames)."""

    sample_weights = (0.5, 0.25, 0.25)

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        n = self.lengths[index]
        return [torch.full((n, 2), index)], index, [np.arange(n)]


@pytest.mark.slow
@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_clips_of_several_lengths(context):
    samplers = {
        4: [
            smnm.MaskSampler("green3d", (2, 4, 4), 0.75),
            smnm.MaskSampler("tube", (2, 4, 4), 0.5, seed=1),
        ],
        8: [smnm.MaskSampler("green3d", (4, 4, 4), 0.75)],
        16: [smnm.MaskSampler("green3d", (8, 4, 4), 0.75)],
    }
    collator = Vjepa2Collator(samplers)
    collator.step()
    # A process that is spawned imports torch.
    n_workers = 1 if context == "spawn" else 2
    workers = {"num_workers": n_workers, "multiprocessing_context": context} if context else {}
    clips = WithSampleIds(Clips([4, 8, 8, 4, 4, 8, 8, 8]))
    assert clips.sample_weights == Clips.sample_weights
    first, second = DataLoader(clips, 5, collate_fn=collator, **workers)
    for triples, of_length in ((first, {4: [0, 3, 4], 8: [1, 2]}), (second, {8: [5, 6, 7]})):
        assert len(triples) == len(of_length)
        for (udata, contexts, targets), (n, ids) in zip(triples, of_length.items(), strict=True):
            [frames], labels, [indices] = udata
            assert labels.tolist() == ids
            assert (frames.shape, indices.shape) == ((len(ids), n, 2), (len(ids), n))
            expected = [sampler.masks(torch.tensor(ids)) for sampler in samplers[n]]
            assert_same(contexts, [masks.ids_keep for masks in expected])
            assert_same(targets, [masks.ids_masked for masks in expected])


def test_errors_name_what_came():
    with pytest.raises(TypeError, match=r"samplers must be a dict.*16: \[sampler\].*got \[\]"):
        Vjepa2Collator([])
    collator = Vjepa2Collator({4: [smnm.MaskSampler("random", (2, 4, 4), 0.5)]})
    with pytest.raises(ValueError, match=r"for clips of 8 frames, too, got some for \[4\]"):
        collator([WithSampleIds(Clips([8]))[0]])
    with pytest.raises(ValueError, match="samplers must be at least one"):
        JepaCollator()
    with pytest.raises(TypeError, match="sampler must be a MaskSampler, got str"):
        JepaCollator("green3d")
    with pytest.raises(KeyError, match="wrap the dataset in WithSampleIds"):
        JepaCollator(smnm.MaskSampler("random", (1, 4, 4), 0.5))([torch.zeros(1)])

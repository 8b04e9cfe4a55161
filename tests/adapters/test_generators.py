"""Masks for a dataset's samples: VideoMAE's, VideoMAEv2's and data2vec's ways of asking."""

import pickle

import numpy as np
import pytest
import torch
from testing import assert_same
from torch.utils.data import DataLoader, Dataset, default_collate

import smnm_kernels as smnm
from smnm_kernels.adapters import ClonedMasks, MaskingGenerator
from smnm_kernels.schedules import stages

SIZE = (8, 14, 14)


def tube(frames, height, width, mask_ratio, per_frame):
    """What VideoMAE's generator (flat) and VideoMAEv2's (per frame) return."""
    masked = int(mask_ratio * height * width)
    frame = np.hstack([np.zeros(height * width - masked), np.ones(masked)])
    np.random.default_rng(0).shuffle(frame)
    mask = np.tile(frame, (frames, 1))
    return mask if per_frame else mask.flatten()


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("kind", ["green3d", "tube", "random"])
@pytest.mark.parametrize("mask_ratio", [0.9, 0.75, 0.5])
def test_masks_have_the_form_and_count_of_theirs(per_frame, kind, mask_ratio):
    ours = MaskingGenerator(SIZE, mask_ratio, kind, per_frame=per_frame)
    theirs = tube(*SIZE, mask_ratio, per_frame)
    mask = ours(3)
    assert (mask.shape, mask.dtype) == (theirs.shape, theirs.dtype)
    assert mask.sum() == theirs.sum() == ours.total_masks
    assert set(np.unique(mask)) == {0, 1}
    n_keep = ours.total_patches - ours.total_masks
    expected = smnm.MaskSampler(kind, SIZE, n_keep=n_keep).masks(torch.tensor([3])).masked[0]
    assert np.array_equal(mask.flatten() == 1, expected.numpy())


def test_160_tokens_stay_visible_and_its_attributes_are_theirs():
    generator = MaskingGenerator(SIZE, 0.9)
    assert (generator(0) == 0).sum() == 160
    assert (generator.frames, generator.height, generator.width) == SIZE
    assert (generator.total_patches, generator.total_masks) == (1568, 1408)
    assert (generator.num_patches_per_frame, generator.num_masks_per_frame) == (196, 176)
    assert "1408 of 1568" in str(generator)


def test_video_mae_v2_takes_both_masks():
    """Encoder: 1 = hidden. Decoder: 1 = not reconstructed. Where there is no decoder generator it
    is ``1 - mask``."""
    encoder = MaskingGenerator(SIZE, 0.9, per_frame=True)
    decoder = MaskingGenerator(SIZE, 0.5, "random", per_frame=True, seed=1)
    samples = [(torch.zeros(1), encoder(i), decoder(i)) for i in range(4)]
    _, hidden, skipped = default_collate(samples)
    hidden, skipped = hidden.flatten(1).to(torch.bool), skipped.flatten(1).to(torch.bool)
    assert (~hidden).sum(1).tolist() == [160] * 4
    x = torch.randn(4, 1568, 3)
    assert x[~skipped].reshape(4, -1, 3).shape == (4, 784, 3)
    assert hidden[~skipped].reshape(4, -1).shape == (4, 784)
    not_hidden = 1 - encoder(0)
    assert not_hidden.sum() == 160


class Videos(Dataset):
    """As VideoMAE's, which asks for a mask without saying of which sample."""

    def __init__(self, by_index):
        self.generator, self.by_index = MaskingGenerator((2, 4, 4), 0.75), by_index

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.zeros(1), self.generator(index) if self.by_index else self.generator()


def epoch(videos, workers):
    loader = DataLoader(videos, 4, num_workers=workers)
    return torch.cat([mask for _, mask in loader])


def test_by_index_masks_are_the_same_for_any_workers():
    alone, masks = epoch(Videos(True), 0), epoch(Videos(True), 2)
    assert_same(masks, alone)
    assert len(alone.unique(dim=0)) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_without_an_index_no_worker_and_no_epoch_repeats(workers):
    torch.manual_seed(0)
    videos = Videos(False)
    twice = torch.cat([epoch(videos, workers), epoch(videos, workers)])
    assert len(twice.unique(dim=0)) == 24
    torch.manual_seed(0)
    assert_same(epoch(videos, workers), twice[:12])


def test_ranks_with_one_seed_differ(monkeypatch):
    masks = []
    for rank in ("0", "1", "2"):
        monkeypatch.setenv("RANK", rank)
        generator = pickle.loads(pickle.dumps(MaskingGenerator(SIZE, 0.9)))
        torch.manual_seed(0)
        masks.append(generator())
    assert len(np.unique(masks, axis=0)) == 3


def test_data2vec_clones():
    """Per sample [clone_batch, N]; the collater concatenates; the model repeats its input, so rows
    are sample-major, and takes the count of row 0 for all."""
    sampler = smnm.MaskSampler("rbn", (1, 64, 8), 0.8, tie_break="random")
    masks = ClonedMasks(sampler, clone_batch=4)
    batch = torch.cat([masks(sample_id) for sample_id in (7, 8)], dim=0)
    assert (batch.shape, batch.dtype) == ((8, 512), torch.uint8)
    assert_same(batch, sampler.masks(torch.arange(28, 36)).masked.byte())
    x = torch.randn(2, 512, 3).repeat_interleave(4, 0)
    as_they_sort = batch.argsort(dim=1)
    len_keep = 512 - int(batch[0].sum())
    assert len_keep == 102
    kept = x.gather(1, as_they_sort[:, :len_keep, None].expand(-1, -1, 3))
    assert kept.shape == (8, 102, 3)
    assert (batch.gather(1, as_they_sort[:, :len_keep]) == 0).all()
    assert int(sampler.next_id) == 0


class FairseqImages(Dataset):
    """As data2vec's MaeImageDataset: the task tells it the epoch, workers get it once."""

    def __init__(self):
        self.masks = ClonedMasks(smnm.MaskSampler("green2d", (8, 8), 0.75), clone_batch=3)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {"id": index, "precomputed_mask": self.masks(index)}

    def set_epoch(self, epoch):
        self.masks.set_epoch(epoch)

    def collater(self, samples):
        return torch.cat([s["precomputed_mask"] for s in samples])


def fairseq_epochs(epochs, workers=2, persistent=True, context="fork"):
    """fairseq makes one loader of frozen batches and uses it again in every epoch."""
    images = FairseqImages()
    loader = DataLoader(
        images,
        collate_fn=images.collater,
        batch_sampler=[[0, 1], [2, 3], [4, 5]],
        num_workers=workers,
        multiprocessing_context=context if workers else None,
        persistent_workers=persistent and workers > 0,
    )
    found = []
    for epoch in epochs:
        images.set_epoch(epoch)
        found.append(torch.cat(list(loader)))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_workers_that_stay_see_the_epoch(context):
    epochs = fairseq_epochs([1, 2, 7], context=context)
    assert_same(epochs, fairseq_epochs([1, 2, 7], persistent=False))
    assert_same(epochs, fairseq_epochs([1, 2, 7], workers=0))
    assert len(torch.cat(epochs).unique(dim=0)) == 3 * 18


def test_a_clones_mask_has_the_id_of_epoch_index_and_clone():
    sampler = smnm.MaskSampler("green2d", (4, 4), 0.75)
    masks = ClonedMasks(sampler, 3)
    for epoch, index in ((0, 0), (0, 5), (1, 0), (2, 2**40 - 1), (2**21, 9)):
        masks.set_epoch(epoch)
        assert masks.epoch == epoch
        ids = torch.tensor([(epoch * 2**40 + index) * 3 + clone for clone in range(3)])
        assert_same(masks(index), sampler.masks(ids).data2vec_masked)
    again = pickle.loads(pickle.dumps(masks))
    again.set_epoch(0)
    assert (again.epoch, masks.epoch) == (0, 2**21)


def test_cloned_masks_follow_a_schedule_by_epoch():
    ratios = stages({0: 0.5, 3: 0.75})
    masks = ClonedMasks(smnm.ScheduledSampler("random", (4, 4), ratios, every="epoch"), 2)
    for epoch, masked in ((0, 8), (3, 12), (2, 8)):
        masks.set_epoch(epoch)
        assert masks(1).sum(1).tolist() == [masked, masked]


def cloned():
    return ClonedMasks(smnm.MaskSampler("random", SIZE, 0.9), 2)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: MaskingGenerator((14,), 0.9), ["grid", "(14,)", "(H, W)"]),
        (lambda: MaskingGenerator(SIZE, 1.0), ["mask_ratio", "1.0"]),
        (lambda: MaskingGenerator(SIZE, 0.9, "rbn"), ["grid", "(1, H, W)"]),
        (lambda: MaskingGenerator(SIZE, 0.9, seed=1.5), ["seed", "1.5"]),
        (lambda: MaskingGenerator(SIZE, 0.9, per_frame=1), ["per_frame", "1"]),
        (lambda: MaskingGenerator(SIZE, 0.9)("7"), ["sample_id", "'7'"]),
        (lambda: ClonedMasks("rbn", 4), ["sampler", "str"]),
        (lambda: ClonedMasks(smnm.MaskSampler("random", SIZE, 0.9), 0), ["clone_batch", "0"]),
        (lambda: cloned()(1.5), ["index", "1.5"]),
        (lambda: cloned()(-1), ["index", "-1", "2**40"]),
        (lambda: cloned()(2**40), ["index", "1099511627776"]),
        (lambda: cloned().set_epoch(-1), ["epoch", "-1", "4194303"]),
        (lambda: cloned().set_epoch(2**22), ["epoch", "4194304"]),
        (lambda: cloned().set_epoch("3"), ["epoch", "'3'"]),
        (lambda: ClonedMasks(smnm.ScheduledSampler("tube", SIZE, 0.9), 2), ['every="epoch"']),
    ],
)
def test_errors_name_what_came(call, parts):
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    for part in parts:
        assert part in str(raised.value)

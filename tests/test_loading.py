"""Masks by dataset index and epoch: the same for any number of workers, new in every epoch."""

import copy
import pickle

import pytest
import torch
from testing import assert_same
from torch.utils.data import DataLoader, Dataset

import smnm_kernels as smnm
from smnm_kernels.loading import MaskCollator, WithSampleIds
from smnm_kernels.schedules import linear, stages


class Clips(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"pixel_values": torch.full((2,), float(index))}


def sampler():
    return smnm.MaskSampler("green3d", (2, 4, 4), 0.75, seed=5)


def loaded(dataset, workers, context=None, batch_size=3, shuffle=False):
    loader = DataLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        num_workers=workers,
        collate_fn=MaskCollator(sampler()),
        multiprocessing_context=context if workers else None,
        persistent_workers=workers > 0,
    )
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        batches = list(loader)
        epochs.append({k: torch.cat([batch[k] for batch in batches]) for k in batches[0]})
    return epochs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (1, "fork"), (4, "fork"), (1, "spawn")]
)
def test_workers_do_not_change_the_masks(workers, context):
    epochs = loaded(WithSampleIds(Clips()), workers, context)
    for epoch, batch in enumerate(epochs):
        assert set(batch) == {"pixel_values", "bool_masked_pos"}
        ids = epoch * 10 + torch.arange(10)
        assert_same(batch["bool_masked_pos"], sampler().masks(ids).masked)
        assert batch["pixel_values"][:, 0].tolist() == list(range(10))


def test_order_and_batch_size_do_not_either():
    torch.manual_seed(0)
    shuffled = loaded(WithSampleIds(Clips()), 0, shuffle=True, batch_size=4)
    for epoch, batch in enumerate(shuffled):
        index = batch["pixel_values"][:, 0].long()
        assert index.tolist() != list(range(10))
        assert_same(batch["bool_masked_pos"], sampler().masks(epoch * 10 + index).masked)


def test_no_mask_comes_twice():
    both = torch.cat([batch["bool_masked_pos"] for batch in loaded(WithSampleIds(Clips()), 0)])
    assert len(both.unique(dim=0)) == 20


def test_views():
    example = [{"x": torch.zeros(1), "sample_id": 7}]
    for view in ("visible", "vitmae_noise", "ids_keep", lambda masks: masks.mae):
        collator = MaskCollator(sampler(), view=view, key="m")
        masks = sampler().masks(torch.tensor([7]))
        expected = view(masks) if callable(view) else getattr(masks, view)
        assert_same(collator(example)["m"], expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_examples_that_are_no_mappings_make_pairs(workers):
    """As in VideoMAE's loop: ``videos, bool_masked_pos = batch``."""
    videos = WithSampleIds(list(torch.arange(10.0)))
    loader = DataLoader(videos, 4, num_workers=workers, collate_fn=MaskCollator(sampler()))
    batches = list(loader)
    assert_same(torch.cat([video for video, _ in batches]), torch.arange(10.0))
    masked = torch.cat([bool_masked_pos for _, bool_masked_pos in batches])
    assert_same(masked, sampler().masks(torch.arange(10)).masked)
    pairs = WithSampleIds([(torch.zeros(2), i) for i in range(3)])
    (clips, labels), masked = next(iter(DataLoader(pairs, 3, collate_fn=MaskCollator(sampler()))))
    assert (clips.shape, labels.tolist(), masked.shape) == ((3, 2), [0, 1, 2], (3, 32))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_schedule_by_epoch_reaches_the_workers(workers):
    def scheduled():
        kinds = stages({0: "random", 1: "green3d"})
        ratios = linear(0.5, 0.75, steps=2)
        return smnm.ScheduledSampler(kinds, (2, 4, 4), ratios, every="epoch", seed=3)

    dataset, masks_of_epoch = WithSampleIds(Clips()), scheduled()
    loader = DataLoader(
        dataset,
        5,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=MaskCollator(masks_of_epoch),
    )
    for epoch in range(3):
        dataset.set_epoch(epoch)
        masks_of_epoch.set_epoch(epoch)
        masked = torch.cat([batch["bool_masked_pos"] for batch in loader])
        kind, ratio = ["random", "green3d", "green3d"][epoch], [0.5, 0.62, 0.75][epoch]
        expected = smnm.MaskSampler(kind, (2, 4, 4), ratio, seed=3)
        assert_same(masked, expected.masks(epoch * 10 + torch.arange(10)).masked)


@pytest.mark.filterwarnings("error:an example")
def test_an_example_read_twice_in_an_epoch_is_said():
    dataset = WithSampleIds(Clips())
    for epoch in (0, 1, 254, 255, 256, 510):
        dataset.set_epoch(epoch)
        dataset[3], dataset[4]
    with pytest.raises(UserWarning, match=r"was read twice in epoch 510.*fixed=True"):
        dataset[-7]
    dataset[3]  # once is enough


@pytest.mark.filterwarnings("error:an example")
def test_fixed_masks_for_evaluation():
    dataset = WithSampleIds(Clips(), fixed=True)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        assert [dataset[i]["sample_id"] for i in range(10)] == list(range(10))


def test_indices_count_from_the_end():
    assert WithSampleIds(Clips())[-1]["sample_id"] == 9
    assert [e["sample_id"] for e in WithSampleIds(Clips())] == list(range(10))


class Weighted(Clips):
    """As V-JEPA's, whose sampler reads its weights."""

    sample_weights = (1.0, 2.0)
    _private = 3

    def __init__(self):
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __getitems__(self, indices):
        raise AssertionError


def test_attributes_of_the_dataset_pass_through():
    dataset = WithSampleIds(Weighted())
    for one in (dataset, copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert one.sample_weights == (1.0, 2.0)
        with pytest.raises(AttributeError, match="'Weighted' object has no attribute 'weights'"):
            _ = one.weights
        for private in ("_private", "__getitems__"):
            assert not hasattr(one, private)
    dataset.set_epoch(4)
    assert dataset.epochs == [4]  # it was told, too
    assert len(next(iter(DataLoader(dataset, 3, collate_fn=MaskCollator(sampler()))))) == 2
    with pytest.raises(AttributeError, match="has no attribute 'dataset'"):
        _ = WithSampleIds.__new__(WithSampleIds).sample_weights  # as while it is unpickled


def test_the_masks_come_whole_where_no_view_is_asked_for():
    pictures = WithSampleIds([torch.zeros(3), torch.ones(3)])
    loader = DataLoader(pictures, 2, collate_fn=MaskCollator(sampler(), view=None))
    batch, masks = next(iter(loader))
    assert batch.shape == (2, 3)
    assert_same(masks, sampler().masks(torch.arange(2)))


def test_errors_name_what_came():
    dataset = WithSampleIds(Clips())
    with pytest.raises(TypeError, match=r"dataset must be map-style.*generator"):
        WithSampleIds(x for x in "ab")
    with pytest.raises(ValueError, match="epoch must be a non-negative int, got -1"):
        dataset.set_epoch(-1)
    with pytest.raises(IndexError, match=r"index must be in \[-10, 10\), got 10"):
        dataset[10]
    for numbered_twice in (WithSampleIds(dataset), WithSampleIds(WithSampleIds([1, 2]))):
        with pytest.raises(ValueError, match="'sample_id' already"):
            numbered_twice[0]
    with pytest.raises(TypeError, match="sampler must be a MaskSampler, got str"):
        MaskCollator("green3d")
    by_step = smnm.ScheduledSampler("random", (2, 4, 4), linear(0.5, 0.75, 10))
    with pytest.raises(ValueError, match="sampler must not change by step"):
        MaskCollator(by_step)
    with pytest.raises(ValueError, match=r"view must be .* hiera_kept, .*got 'nonsense'"):
        MaskCollator(sampler(), view="nonsense")
    with pytest.raises(KeyError, match=r"wrap the dataset in WithSampleIds.*fixed=True.*remove_un"):
        MaskCollator(sampler())([{"x": torch.zeros(1)}])

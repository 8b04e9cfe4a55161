"""Streams: ids from keys, the same for any number of shards, workers and ranks."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from testing import assert_same
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import smnm_kernels as smnm
from smnm_kernels.loading import MaskCollator, Numbered, WithSampleIds, sample_id_of_key

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


class Shards(IterableDataset):
    """Examples with keys, as WebDataset's: in shards, which ranks and workers share out."""

    def __init__(self, n_shards=4, rank=0, ranks=1):
        self.n_shards, self.rank, self.ranks = n_shards, rank, ranks
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        worker = get_worker_info()
        of, place = (1, 0) if worker is None else (worker.num_workers, worker.id)
        for shard in range(self.n_shards)[self.rank :: self.ranks][place::of]:
            for i in range(shard, 12, self.n_shards):
                yield {"__key__": f"clip{i}", "x": torch.tensor(i)}


def sampler():
    return smnm.MaskSampler("green3d", (2, 4, 4), 0.75, seed=5)


def expected(epoch):
    ids = torch.tensor([sample_id_of_key(f"clip{i}", epoch) for i in range(12)])
    return sampler().masks(ids).masked


def loaded(datasets, workers=0, context=None, batch_size=5, epochs=(0, 1)):
    """The masks of each epoch in the order of the clips; a dataset for each rank."""
    loaders = [
        DataLoader(
            dataset,
            batch_size,
            num_workers=workers,
            collate_fn=MaskCollator(sampler()),
            multiprocessing_context=context if workers else None,
            persistent_workers=workers > 0,
        )
        for dataset in datasets
    ]
    found = []
    for epoch in epochs:
        for dataset in datasets:
            dataset.set_epoch(epoch)
        batches = [batch for loader in loaders for batch in loader]
        order = torch.cat([batch["x"] for batch in batches]).argsort()
        found.append(torch.cat([batch["bool_masked_pos"] for batch in batches])[order])
    return found


def test_ids_are_pinned():
    """A change would change the masks of every run."""
    assert sample_id_of_key("clip0") == 4417577798410473624
    assert sample_id_of_key("clip0", 1) == 8702479456055454665
    assert sample_id_of_key(7) == 4533747142934045905
    assert sample_id_of_key((b"shard", "\udce4", -1), 300) == 7928653702101144361


def test_keys_that_differ_have_ids_that_differ():
    keys = ["1", 1, b"1", ("1",), ("1", "1"), ("11",), (("1",), "1"), ("1", ("1",)), -1, "", "s1:1"]
    ids = {sample_id_of_key(key, epoch) for key in keys for epoch in range(3)}
    assert len(ids) == 3 * len(keys)
    assert all(0 <= one < 2**63 for one in ids)
    many = [sample_id_of_key(f"{i}", epoch) for i in range(20_000) for epoch in range(2)]
    assert len(set(many)) == len(many)
    assert abs(np.mean([one / 2**63 for one in many]) - 0.5) < 0.01
    for same in (np.int64(1), torch.tensor(1), torch.tensor([1], dtype=torch.int32)):
        assert sample_id_of_key(same) == sample_id_of_key(1)
    assert sample_id_of_key(np.str_("a")) == sample_id_of_key("a")


@pytest.mark.parametrize("shards", [1, 3, 5])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (1, 2)])
def test_shards_workers_and_ranks_do_not_change_the_masks(shards, ranks, workers):
    datasets = [WithSampleIds(Shards(shards, rank, ranks)) for rank in range(ranks)]
    for epoch, masked in enumerate(loaded(datasets, workers)):
        assert_same(masked, expected(epoch))
    assert datasets[0].epochs == [0, 1]  # it was told, too


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_persistent_workers_see_the_epoch(context):
    found = loaded([WithSampleIds(Shards())], 2, context, epochs=(0, 1, 5))
    for epoch, masked in zip((0, 1, 5), found, strict=True):
        assert_same(masked, expected(epoch))


def test_what_it_is():
    stream, indexed = WithSampleIds(Shards()), WithSampleIds([1, 2])
    assert isinstance(stream, WithSampleIds)
    assert isinstance(stream, IterableDataset)
    assert not isinstance(indexed, IterableDataset)
    again = pickle.loads(pickle.dumps(stream))
    assert [e["sample_id"] for e in again] == [e["sample_id"] for e in stream]
    with pytest.raises(TypeError, match="has no len"):
        len(stream)
    with pytest.raises(TypeError, match="stream, whose examples have no index"):
        stream[0]


class Tuples(IterableDataset):
    def __iter__(self):
        for i in range(3):
            yield f"clip{i}", torch.tensor(i)


def test_keys_of_examples_that_are_no_mappings():
    for key in (0, lambda example: example[0]):
        for i, example in enumerate(WithSampleIds(Tuples(), key=key)):
            assert isinstance(example, Numbered)
            assert example.sample_id == sample_id_of_key(f"clip{i}")


def test_other_keys():
    for i, example in enumerate(WithSampleIds(Shards(1), key="x", id_key="n")):
        assert example["n"] == sample_id_of_key(i)
    by_both = WithSampleIds(Shards(1), key=lambda e: ("shard", e["__key__"]))
    assert next(iter(by_both))["sample_id"] == sample_id_of_key(("shard", "clip0"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.exhaustive)])
@pytest.mark.filterwarnings("error:the examples were read")
def test_a_stream_begun_twice_in_an_epoch_is_said(workers):
    """Where there are workers, they say it, once."""
    dataset = WithSampleIds(Shards())
    loader = DataLoader(dataset, 5, num_workers=workers, collate_fn=MaskCollator(sampler()))
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        list(loader)
    assert dataset._warned.get() == 0
    with pytest.raises((UserWarning, RuntimeError), match=r"twice in epoch 1, .*set_epoch.*fixed"):
        list(loader)
    list(loader)
    assert dataset._warned.get() == 1


@pytest.mark.filterwarnings("error:the examples were read")
def test_fixed_masks_for_evaluation():
    dataset = WithSampleIds(Shards(), fixed=True)
    for masked in loaded([dataset], epochs=(0, 1, 1)):
        assert_same(masked, expected(0))


def test_errors_name_what_came():
    with pytest.raises(ValueError, match=r"key='__key__' finds none in a tuple.*key='id'"):
        next(iter(WithSampleIds(Tuples())))
    with pytest.raises(ValueError, match=r"key='id' finds none in a mapping of '__key__', 'x'"):
        next(iter(WithSampleIds(Shards(), key="id")))
    with pytest.raises(ValueError, match=r"key=2 finds none in a tuple"):
        next(iter(WithSampleIds(Tuples(), key=2)))
    with pytest.raises(TypeError, match=r"key must be an item's name.*got None"):
        WithSampleIds(Shards(), key=None)
    for wrong in (None, 1.5, [], ["a"], (), ("a", None), True, torch.zeros(2)):
        with pytest.raises(TypeError, match="key must be a str, bytes, int, or a tuple"):
            sample_id_of_key(wrong)
    with pytest.raises(TypeError, match="of a batch: wrap the dataset before"):
        sample_id_of_key(["a", "b"])


@pytest.fixture
def tar_shards(tmp_path):
    """Three shards of four examples each."""
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(shard, 12, 3):
                content = str(i).encode()
                info = tarfile.TarInfo(f"clip{i}.txt")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return [str(tmp_path / f"{shard}.tar") for shard in range(3)]


def number(example):
    return {"x": torch.tensor(int(example["txt"])), "__key__": example["__key__"]}


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_webdataset(tar_shards, workers):
    wds = pytest.importorskip("webdataset")
    shards = wds.WebDataset(tar_shards, shardshuffle=False).decode().map(number)
    for epoch, masked in enumerate(loaded([WithSampleIds(shards)], workers)):
        assert_same(masked, expected(epoch))
    pairs = wds.WebDataset(tar_shards, shardshuffle=2).to_tuple("__key__", "txt")
    for key, text in (example.example for example in WithSampleIds(pairs, key=0)):
        assert key == f"clip{text.decode()}"
    with pytest.raises(ValueError, match="keep WebDataset's '__key__'"):
        next(iter(WithSampleIds(wds.WebDataset(tar_shards, shardshuffle=False).to_tuple("txt"))))


def rows(shards):
    for shard in shards:
        for i in range(shard, 12, 4):
            yield {"id": f"clip{i}", "x": i}


@pytest.mark.parametrize("workers", [0, 2])
def test_hugging_face_streaming(workers):
    datasets = pytest.importorskip("datasets")
    shards = {"shards": list(range(4))}
    stream = datasets.IterableDataset.from_generator(rows, gen_kwargs=shards)
    stream = stream.shuffle(seed=1, buffer_size=5)
    dataset = WithSampleIds(stream, key="id")
    for epoch, masked in enumerate(loaded([dataset], workers)):
        assert_same(masked, expected(epoch))
    assert dataset.num_shards == 4
    with pytest.raises(ValueError, match=r"a mapping of 'id', 'x'.*key='id'"):
        next(iter(WithSampleIds(stream)))

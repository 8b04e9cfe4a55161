"""Datasets whose examples carry the id of their mask."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, IterDataPipe, get_worker_info

from smnm_kernels.arguments import is_int, parse_flag
from smnm_kernels.samplers.shared_int import SharedInt

from .keys import sample_id_of_key

#: The key of an example in a stream: an item of it, or a function of it.
Key = str | int | Callable[[Any], Hashable]


class Numbered(NamedTuple):
    """An example that is not a mapping, with the id of its mask."""

    example: object
    sample_id: int


class WithSampleIds(Dataset):
    """A dataset whose examples also carry the id of their mask.

    Where examples have an index (map-style datasets), the id is ``epoch * len(dataset) + index``:
    every example gets another mask in every epoch, and the same one for any number of workers or
    processes, any batch size and any order. To use several datasets, join them first and wrap the
    joined one: wrapped one by one, they get the same ids.

    Where they come in a stream (an ``IterableDataset``, such as WebDataset's and those of Hugging
    Face with ``streaming=True``), the id is ``sample_id_of_key(key, epoch)``, a hash of the
    example's key: again the same for any number of shards, workers and processes, and any order.
    The object is an ``IterableDataset`` then. A stream that goes through its examples more than
    once before it ends repeats their masks, so let it end after each epoch.

    The epoch is in shared memory, so that ``set_epoch`` reaches persistent workers too. A warning
    says when an example is read twice in one epoch, or a stream is begun twice, which happens if
    nobody calls ``set_epoch``. Attributes that this class does not have are those of ``dataset``.

    Args:
        dataset: map-style with a length, or an iterable that can be iterated more than once. If an
            example is a mapping, the id, an int, is added to it as an item. Any other example, such
            as a tuple or a tensor, becomes ``Numbered(example, sample_id)``.
        id_key: the key of the id in a mapping.
        fixed: for evaluation: every example keeps the mask of epoch 0, whatever ``set_epoch`` says.
        key: for streams: the item that no two examples have in common, or a function of the
            example. By default WebDataset's ``"__key__"``. Where keys repeat from shard to shard,
            take the shard's name in: ``(name_of_shard, example["__key__"])``.
    """

    def __new__(cls, dataset: Any = None, *args: Any, **kwargs: Any) -> WithSampleIds:
        return super().__new__(_Stream if cls is WithSampleIds and _is_stream(dataset) else cls)

    def __init__(
        self,
        dataset: Any,
        id_key: str = "sample_id",
        *,
        fixed: bool = False,
        key: Key = "__key__",
    ) -> None:
        self.dataset = dataset
        self.id_key = id_key
        self.fixed = parse_flag("fixed", fixed)
        self._epoch = SharedInt()
        self._warned = SharedInt()
        self._prepare(key)

    def _prepare(self, key: Key) -> None:
        if not hasattr(self.dataset, "__getitem__") or not hasattr(self.dataset, "__len__"):
            raise TypeError(
                "dataset must be map-style, with a length, or an IterableDataset, got "
                f"{type(self.dataset).__name__}; for anything else, call sampler.masks(ids) with "
                "ids of your own"
            )
        # For each example, the epoch (mod 255) in which a worker read it last; 255 is never.
        self._read_in = torch.full((len(self.dataset),), 255, dtype=torch.uint8).share_memory_()

    def __getattr__(self, name: str) -> Any:
        # Not private names: those with which Python copies and pickles, and with which PyTorch
        # would ask the dataset for whole batches, past the ids.
        if name.startswith("_") or name == "dataset":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)

    def set_epoch(self, epoch: int) -> None:
        """Call it before each epoch. The dataset's own ``set_epoch`` is called, too, if it has one.
        Hugging Face's Trainer and accelerate do so by themselves, but not always: see
        ``adapters.epoch_callback``."""
        if not is_int(epoch) or epoch < 0:
            raise ValueError(f"epoch must be a non-negative int, got {epoch!r}")
        if not self.fixed:
            self._epoch.set(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict | Numbered:
        if not is_int(index):
            raise TypeError(f"index must be an int, got {index!r}")
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"index must be in [{-n}, {n}), got {index}")
        example = self.dataset[index]
        index, epoch = int(index) % n, self._epoch.get()
        if not self.fixed:
            self._warn_of_repeats(index, epoch)
        return self._with_id(example, epoch * n + index)

    def _with_id(self, example: object, sample_id: int) -> dict | Numbered:
        if isinstance(example, Numbered) or (
            isinstance(example, Mapping) and self.id_key in example
        ):
            raise ValueError(f"examples have a {self.id_key!r} already: give another id_key")
        if isinstance(example, Mapping):
            return {**example, self.id_key: sample_id}
        return Numbered(example, sample_id)

    def _warn_of_repeats(self, index: int, epoch: int) -> None:
        if self._read_in[index] == epoch % 255:
            self._warn_once(f"an example was read twice in epoch {epoch}, with the same mask.")
        self._read_in[index] = epoch % 255

    def _warn_once(self, what: str) -> None:
        if not self._warned.get():
            self._warned.set(1)
            remedy = "Call set_epoch(epoch) before each epoch; for evaluation give fixed=True"
            warnings.warn(f"{what} {remedy}", stacklevel=4)


class _Stream(WithSampleIds, IterableDataset):
    """``WithSampleIds`` of a stream."""

    #: How many workers are told apart when the same epoch begins again.
    _N_WORKERS = 1024

    def _prepare(self, key: Key) -> None:
        if isinstance(self.dataset, IterDataPipe):
            raise TypeError(
                "dataset must not be an IterDataPipe, whose shards DataLoader deals out to workers "
                "only where it sees the pipe itself; call sampler.masks(ids) with ids of your own"
            )
        if not callable(key) and not isinstance(key, str) and not is_int(key):
            raise TypeError(f"key must be an item's name, an index or a function, got {key!r}")
        self.key = key
        self._key_of = key if callable(key) else itemgetter(key)
        # For each worker, the epoch that it began last; -1 is none.
        self._begun = torch.full((self._N_WORKERS,), -1, dtype=torch.int64).share_memory_()

    def __getitem__(self, index: int) -> dict | Numbered:
        raise TypeError("the dataset is a stream, whose examples have no index: iterate over it")

    def __iter__(self) -> Iterator[dict | Numbered]:
        epoch = self._epoch.get()
        worker = get_worker_info()
        place = (0 if worker is None else worker.id) % self._N_WORKERS
        if not self.fixed and int(self._begun[place]) == epoch:
            self._warn_once(f"the examples were read twice in epoch {epoch}, with the same masks.")
        self._begun[place] = epoch
        for example in self.dataset:
            yield self._with_id(example, sample_id_of_key(self._key_in(example), epoch))

    def _key_in(self, example: Any) -> Hashable:
        try:
            return self._key_of(example)
        except (KeyError, IndexError, TypeError) as error:
            if isinstance(example, Mapping):
                has = f"a mapping of {', '.join(map(repr, example))}"
            else:
                has = f"a {type(example).__name__}"
            raise ValueError(
                f"examples must have a key, by which their masks are known, and key={self.key!r} "
                f"finds none in {has}: keep WebDataset's '__key__' to the end of the pipeline, or "
                "name another item that no two examples have in common, "
                "WithSampleIds(dataset, key='id'), or give a function of the example"
            ) from error


def _is_stream(dataset: object) -> bool:
    """Whether it has no indices, but can be iterated over again and again."""
    if isinstance(dataset, IterableDataset):
        return True
    return (
        hasattr(dataset, "__iter__")
        and not hasattr(dataset, "__getitem__")
        and not hasattr(dataset, "__next__")
    )


def split_ids(examples: Sequence, id_key: str) -> tuple[Tensor, list]:
    """(sample ids int64 [B], the examples without them) of a ``WithSampleIds`` dataset."""
    ids, rest = [], []
    for i, example in enumerate(examples):
        if isinstance(example, Numbered):
            ids.append(example.sample_id)
            rest.append(example.example)
        elif isinstance(example, Mapping) and id_key in example:
            ids.append(example[id_key])
            rest.append({k: v for k, v in example.items() if k != id_key})
        else:
            raise KeyError(
                f"example {i} has no {id_key!r}: wrap the dataset in WithSampleIds (one for "
                "evaluation, too: WithSampleIds(dataset, fixed=True)), and give transformers' "
                "Trainer remove_unused_columns=False"
            )
    return torch.tensor(ids, dtype=torch.int64), rest

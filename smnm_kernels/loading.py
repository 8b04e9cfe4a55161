"""Masks made in data loaders. They depend on dataset index and epoch, not on the workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from .arguments import is_int, parse_flag
from .samplers import MaskStream, ScheduledSampler, check_sampler
from .samplers.shared_int import SharedInt


class Numbered(NamedTuple):
    """An example that is not a mapping, with the id of its mask."""

    example: object
    sample_id: int


class WithSampleIds(Dataset):
    """A map-style dataset whose examples also carry the id of their mask.

    The id is ``epoch * len(dataset) + index``: every example gets another mask in every epoch, and
    the same one for any number of workers or processes, any batch size and any order. The epoch is
    in shared memory, so that ``set_epoch`` reaches persistent workers too. A warning says when an
    example is read twice in one epoch, which happens if nobody calls ``set_epoch``. To use several
    datasets, join them first and wrap the joined one: wrapped one by one, they get the same ids.

    Args:
        dataset: map-style. If an example is a mapping, the id, an int, is added to it as an item.
            Any other example, such as a tuple or a tensor, becomes
            ``Numbered(example, sample_id)``.
        id_key: the key of the id in a mapping.
        fixed: for evaluation: every example keeps the mask of epoch 0, whatever ``set_epoch`` says.
    """

    def __init__(self, dataset: Dataset, id_key: str = "sample_id", *, fixed: bool = False) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"dataset must be map-style, with a length, got {type(dataset).__name__}; where "
                "examples have no index, call sampler.masks(ids) with ids of your own"
            )
        self.dataset = dataset
        self.id_key = id_key
        self.fixed = parse_flag("fixed", fixed)
        self._epoch = SharedInt()
        # For each example, the epoch (mod 255) in which a worker read it last; 255 is never.
        self._read_in = torch.full((len(dataset),), 255, dtype=torch.uint8).share_memory_()
        self._warned = SharedInt()

    def set_epoch(self, epoch: int) -> None:
        """Call it before each epoch. Hugging Face's Trainer and accelerate do so by themselves, but
        not always: see ``adapters.epoch_callback``."""
        if not is_int(epoch) or epoch < 0:
            raise ValueError(f"epoch must be a non-negative int, got {epoch!r}")
        if not self.fixed:
            self._epoch.set(epoch)

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
        sample_id = epoch * n + index
        if isinstance(example, Numbered) or (
            isinstance(example, Mapping) and self.id_key in example
        ):
            raise ValueError(f"examples have a {self.id_key!r} already: give another id_key")
        if isinstance(example, Mapping):
            return {**example, self.id_key: sample_id}
        return Numbered(example, sample_id)

    def _warn_of_repeats(self, index: int, epoch: int) -> None:
        if self._read_in[index] == epoch % 255 and not self._warned.get():
            self._warned.set(1)
            warnings.warn(
                f"an example was read twice in epoch {epoch}, with the same mask. Call "
                "set_epoch(epoch) before each epoch; for evaluation give fixed=True",
                stacklevel=3,
            )
        self._read_in[index] = epoch % 255


class MaskCollator:
    """Collates examples of ``WithSampleIds`` and adds their masks.

    >>> sampler = smnm.MaskSampler("green3d", (8, 14, 14), 0.9)
    >>> loader = DataLoader(WithSampleIds(clips), 64, collate_fn=MaskCollator(sampler), ...)
    >>> model(**batch)                       # pixel_values, bool_masked_pos

    If examples are mappings, the masks are added to the batch; else a batch is the pair (collated
    examples, masks).

    Args:
        sampler: makes the masks, on the CPU; its stream does not advance. A ``ScheduledSampler``
            must have ``every="epoch"``, and its ``set_epoch`` must be called.
        view: the form of the masks, a field or property of ``Masks`` ("masked", "vitmae_noise",
            "hiera_kept", "data2vec_masked", "visible", "ids_keep", ...), or a function of them.
            None: the ``Masks`` themselves.
        key: their key in the batch: the name of the model's argument.
        collate: makes a batch from the examples without their ids.
        id_key: the key that ``WithSampleIds`` uses.
        data: for kinds of masks that look at the input: the input's key in the batch, or a function
            of the collated examples.
    """

    def __init__(
        self,
        sampler: MaskStream,
        *,
        view: str | Callable[..., object] | None = "masked",
        key: str = "bool_masked_pos",
        collate: Callable[[list], object] = default_collate,
        id_key: str = "sample_id",
        data: str | Callable[[object], object] | None = None,
    ) -> None:
        check_sampler(sampler, MaskStream)
        if isinstance(sampler, ScheduledSampler) and sampler.every == "step":
            raise ValueError(
                "sampler must not change by step: loaders make batches before the step that uses "
                'them. Schedule it with every="epoch"'
            )
        known = view is None or callable(view) or view in _views_of(sampler.result)
        if not known:
            views = ", ".join(_views_of(sampler.result))
            raise ValueError(f"view must be None, a function or one of {views}, got {view!r}")
        if sampler.needs_data != (data is not None):
            wanted = "be given" if sampler.needs_data else "not be given"
            raise ValueError(
                f"data must {wanted} for {type(sampler).__name__}({sampler.extra_repr()}), got "
                f"{data!r}"
            )
        self.sampler, self.key = sampler, key
        self.collate, self.id_key = collate, id_key
        self.view: Callable[[Any], object] | None = (
            view if view is None or callable(view) else attrgetter(view)
        )
        self.data: Callable[[Any], object] | None = (
            data if data is None or callable(data) else itemgetter(data)
        )

    def __call__(self, examples: Sequence) -> object:
        sample_ids, rest = split_ids(examples, self.id_key)
        batch = self.collate(rest)
        data = None if self.data is None else self.data(batch)
        masks: object = self.sampler.masks(sample_ids, data)
        if self.view is not None:
            masks = self.view(masks)
        return {**batch, self.key: masks} if isinstance(batch, Mapping) else (batch, masks)


def _views_of(result: type) -> list[str]:
    """Fields and properties of what a sampler returns."""
    properties = (name for name in dir(result) if isinstance(getattr(result, name), property))
    return sorted({*result._fields, *properties})  # type: ignore[attr-defined]


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
                f"example {i} has no {id_key!r}: wrap the dataset in WithSampleIds, and give "
                "transformers' Trainer remove_unused_columns=False"
            )
    return torch.tensor(ids, dtype=torch.int64), rest

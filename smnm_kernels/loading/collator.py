"""A collate function that adds the masks of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from torch.utils.data import default_collate

from smnm_kernels.samplers import MaskStream, ScheduledSampler, check_sampler

from .with_ids import split_ids

#: An entry of a batch: its key, or a function of the batch.
Entry = str | int | Callable[[Any], object]


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
        valid: for padded inputs: where tokens may be visible (see ``noise_masks``), as a key of the
            batch, or a function of the collated examples, such as
            ``lambda batch: batch["input_length"][:, None] > torch.arange(n_tokens)``.

    Where a batch is a tuple, as of examples that are none of a mapping, a key is an index.
    """

    def __init__(
        self,
        sampler: MaskStream,
        *,
        view: str | Callable[..., object] | None = "masked",
        key: str = "bool_masked_pos",
        collate: Callable[[list], object] = default_collate,
        id_key: str = "sample_id",
        data: Entry | None = None,
        valid: Entry | None = None,
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
        self.data, self.valid = entry("data", data), entry("valid", valid)

    def __call__(self, examples: Sequence) -> object:
        sample_ids, rest = split_ids(examples, self.id_key)
        batch = self.collate(rest)
        data = None if self.data is None else self.data(batch)
        valid = None if self.valid is None else self.valid(batch)
        masks: object = self.sampler.masks(sample_ids, data, valid)
        if self.view is not None:
            masks = self.view(masks)
        return {**batch, self.key: masks} if isinstance(batch, Mapping) else (batch, masks)


def entry(name: str, key: Entry | None) -> Callable[[Any], object] | None:
    """The function of a batch that finds the entry which the argument of this name says."""
    return key if key is None or callable(key) else partial(_entry_of_batch, name, key)


def _entry_of_batch(name: str, key: str | int, batch: Any) -> object:
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError) as error:
        if isinstance(batch, Mapping):
            has = f"has {', '.join(map(repr, batch))}"
        elif isinstance(batch, Sequence):
            has = f"is a {type(batch).__name__} of {len(batch)}"
        else:
            has = f"is a {type(batch).__name__}"
        raise KeyError(
            f"{name}={key!r} must be a key of the batch, or a function of it: the batch {has}"
        ) from error


def _views_of(result: type) -> list[str]:
    """Fields and properties of what a sampler returns."""
    properties = (name for name in dir(result) if isinstance(getattr(result, name), property))
    return sorted({*result._fields, *properties})  # type: ignore[attr-defined]

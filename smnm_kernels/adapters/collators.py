"""Replacements for collators that make the masks of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from smnm_kernels.loading import Numbered, split_ids
from smnm_kernels.loading.collator import Entry, entry
from smnm_kernels.samplers import MaskSampler, check_sampler

#: (batch, contexts, targets)
Triple = tuple[object, list[Tensor], list[Tensor]]


class JepaCollator:
    """In place of the ``MaskCollator`` of I-JEPA and V-JEPA, over a ``WithSampleIds`` dataset.

    >>> mask_collator = JepaCollator(smnm.MaskSampler("green3d", (8, 14, 14), 0.75))
    >>> for udata, masks_enc, masks_pred in loader: ...

    Every token is in the context or in the target. None are dropped to make the rows of a batch
    equally long.

    Args:
        samplers: one for each pair of masks (the entries of V-JEPA's ``cfgs_mask``), each of
            another seed: a warning says where two have the same.
        collate: makes a batch from the examples without their ids.
        id_key: the key that ``WithSampleIds`` uses.
        valid: as for ``MaskCollator``, where clips are padded: no token that is padding is in the
            context. It is in the target then, and the loss should leave it out.
    """

    def __init__(
        self,
        *samplers: MaskSampler,
        collate: Callable[[list], object] = default_collate,
        id_key: str = "sample_id",
        valid: Entry | None = None,
    ) -> None:
        if not samplers:
            raise ValueError("samplers must be at least one, got none")
        for sampler in samplers:
            check_sampler(sampler, MaskSampler)
        _warn_of_one_stream(samplers)
        self.samplers, self.collate, self.id_key = samplers, collate, id_key
        self.valid: Callable[[Any], Any] | None = entry("valid", valid)

    def __call__(self, examples: Sequence) -> Triple:
        """(batch, [context of each sampler], [target of each sampler]): int64 [B, K], ascending."""
        sample_ids, rest = split_ids(examples, self.id_key)
        batch = self.collate(rest)
        valid = None if self.valid is None else self.valid(batch)
        masks = [sampler.masks(sample_ids, valid=valid) for sampler in self.samplers]
        return batch, [m.ids_keep for m in masks], [m.ids_masked for m in masks]

    def step(self) -> None:
        """Does nothing. Training code calls it when it resumes, to advance a counter; masks that
        depend on sample ids have none."""


def _length_of_last_clip_indices(example: Sequence) -> int:
    return len(example[-1][-1])


class Vjepa2Collator:
    """In place of the ``MaskCollator`` of Meta's vjepa2, whose batches may hold clips of several
    lengths, over a ``WithSampleIds`` dataset.

    >>> mask_collator = Vjepa2Collator({16: [smnm.MaskSampler("green3d", (8, 16, 16), 0.75)]})
    >>> for [(udata, masks_enc, masks_pred), ...] in loader: ...

    Args:
        samplers: for each number of frames that a clip may have (``dataset_fpcs``), the samplers of
            a ``JepaCollator``.
        n_frames: tells an example's number of frames. By default by the length of the last of its
            clip indices, as in vjepa2.
        collate, id_key, valid: as for ``JepaCollator``.
    """

    def __init__(
        self,
        samplers: Mapping[int, Iterable[MaskSampler]],
        *,
        n_frames: Callable[[Any], int] = _length_of_last_clip_indices,
        collate: Callable[[list], object] = default_collate,
        id_key: str = "sample_id",
        valid: Entry | None = None,
    ) -> None:
        if not isinstance(samplers, Mapping) or not samplers:
            raise TypeError(
                "samplers must be a dict of samplers for each number of frames, such as "
                f"{{16: [sampler]}}, got {samplers!r}"
            )
        self.collators = {
            n: JepaCollator(*of_length, collate=collate, id_key=id_key, valid=valid)
            for n, of_length in samplers.items()
        }
        self.n_frames, self.id_key = n_frames, id_key

    def __call__(self, examples: Sequence) -> list[Triple]:
        """What ``JepaCollator`` returns, for the clips of each length, shorter than the batch where
        it has several; lengths that the batch does not have are left out."""
        of_length: dict[int, list] = {n: [] for n in self.collators}
        for example in examples:
            n = self.n_frames(example.example if isinstance(example, Numbered) else example)
            if n not in of_length:
                raise ValueError(
                    f"samplers must be given for clips of {n} frames, too, got some for "
                    f"{sorted(of_length)}"
                )
            of_length[n].append(example)
        return [self.collators[n](clips) for n, clips in of_length.items() if clips]

    def step(self) -> None:
        """Does nothing, as that of ``JepaCollator``."""


def _warn_of_one_stream(samplers: Sequence[MaskSampler]) -> None:
    """Of one seed, samplers of the same settings draw the same masks, and others masks that are
    alike, because their noise is the same."""
    seeds = [int(sampler.seed) for sampler in samplers]
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        warnings.warn(
            f"several samplers have the seed {', '.join(map(str, twice))}: the masks that a sample "
            "gets from them are the same, or alike where kind or ratio differ. Give each sampler a "
            "seed of its own",
            stacklevel=3,
        )

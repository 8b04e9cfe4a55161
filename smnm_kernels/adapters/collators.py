"""Replacements for collators that make the masks of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.utils.data import default_collate

from smnm_kernels.loading import split_ids
from smnm_kernels.samplers import MaskSampler, check_sampler


class JepaCollator:
    """In place of the ``MaskCollator`` of I-JEPA and V-JEPA, over a ``WithSampleIds`` dataset.

    >>> mask_collator = JepaCollator(smnm.MaskSampler("green3d", (8, 14, 14), 0.75))
    >>> for udata, masks_enc, masks_pred in loader: ...

    Every token is in the context or in the target. None are dropped to make the rows of a batch
    equally long.

    Args:
        samplers: one for each pair of masks (V-JEPA's ``cfgs_mask``).
        collate: makes a batch from the examples without their ids.
        id_key: the key that ``WithSampleIds`` uses.
    """

    def __init__(
        self,
        *samplers: MaskSampler,
        collate: Callable[[list], object] = default_collate,
        id_key: str = "sample_id",
    ) -> None:
        if not samplers:
            raise ValueError("samplers must be at least one, got none")
        for sampler in samplers:
            check_sampler(sampler, MaskSampler)
        self.samplers, self.collate, self.id_key = samplers, collate, id_key

    def __call__(self, examples: Sequence) -> tuple[object, list[Tensor], list[Tensor]]:
        """(batch, [context of each sampler], [target of each sampler]): int64 [B, K], ascending."""
        sample_ids, rest = split_ids(examples, self.id_key)
        masks = [sampler.masks(sample_ids) for sampler in self.samplers]
        return self.collate(rest), [m.ids_keep for m in masks], [m.ids_masked for m in masks]

    def step(self) -> None:
        """Does nothing. Training code calls it when it resumes, to advance a counter; masks that
        depend on sample ids have none."""

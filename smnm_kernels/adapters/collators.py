"""Stand-ins for collators that make the masks of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.utils.data import default_collate

from smnm_kernels.loading import MaskCollator
from smnm_kernels.sampler import MaskSampler


class JepaCollator:
    """In place of the ``MaskCollator`` of I-JEPA and V-JEPA, over a ``WithSampleIds`` dataset.

    >>> mask_collator = JepaCollator(smnm.MaskSampler("green3d", (8, 14, 14), 0.75))
    >>> for udata, masks_enc, masks_pred in loader: ...

    Context and target part the tokens: none are cut off to make the rows of a batch equally long.

    Args:
        samplers: one for each pair of masks (V-JEPA's ``cfgs_mask``).
        collate: of the examples without their ids.
    """

    def __init__(
        self, *samplers: MaskSampler, collate: Callable[[Sequence], object] = default_collate
    ) -> None:
        if not samplers:
            raise ValueError("samplers must be at least one, got none")
        self.collators = [MaskCollator(s, view="jepa", collate=collate) for s in samplers]

    def __call__(self, examples: Sequence) -> tuple[object, list[Tensor], list[Tensor]]:
        """(batch, [context of each sampler], [target of each sampler]): int64 [B, K], ascending."""
        sample_ids, rest = self.collators[0].parted(examples)
        pairs = [collator.viewed(sample_ids) for collator in self.collators]
        contexts = [context for [context], _ in pairs]
        targets = [target for _, [target] in pairs]
        return self.collators[0].collate(rest), contexts, targets

    def step(self) -> None:
        """Nothing: masks go by sample id, so there is no counter to bring up on resuming."""

"""Replacements for objects that a dataset calls to get the mask of one sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.arguments import is_int, parse_flag, parse_grid, visible_share
from smnm_kernels.samplers import (
    MaskSampler,
    ScheduledSampler,
    check_sampler,
    rank_and_world_size,
)
from smnm_kernels.samplers.shared_int import SharedInt

# Ids drawn for datasets that pass none: 46 random bits, below 16 bits for the rank.
_ID_BITS = 46
# Of the ids of ``ClonedMasks``, the bits below the epoch.
_INDEX_BITS = 40


class MaskingGenerator:
    """In place of ``TubeMaskingGenerator`` of VideoMAE, SIGMA and VideoMAEv2: masks for a dataset.

    >>> self.masked_position_generator = MaskingGenerator(args.window_size, args.mask_ratio)

    For VideoMAEv2, with ``per_frame=True``, it also replaces the generator of the decoder's mask,
    in which 1 means not reconstructed:

    >>> self.encoder_mask_map_generator = MaskingGenerator(size, 0.9, per_frame=True)
    >>> self.decoder_mask_map_generator = MaskingGenerator(size, 0.5, "random", per_frame=True)

    A call without a sample id draws one from torch's generator, which DataLoader seeds anew for
    every worker and epoch. The rank is part of the id, so ranks with the same seed differ. With a
    sample id, such as ``generator(epoch * len(self) + index)``, the mask is the same for any number
    of workers.

    Args:
        input_size: (T, H, W) patches; (H, W) is (1, H, W).
        mask_ratio: ``int(mask_ratio * H * W)`` patches are masked for each frame, as in these
            codebases: 160 stay visible at (8, 14, 14) and 0.9.
        kind, seed, parameters: as for ``MaskSampler``.
        per_frame: return [T, H*W], as VideoMAEv2 does, instead of [T*H*W].
    """

    def __init__(
        self,
        input_size: Sequence[int],
        mask_ratio: float,
        kind: str = "green3d",
        *,
        per_frame: bool = False,
        seed: int = 0,
        **parameters: Any,
    ) -> None:
        self.frames, self.height, self.width = parse_grid(input_size)
        visible_share(mask_ratio)  # so that the error of a bad ratio names mask_ratio, not n_keep
        self.num_patches_per_frame = self.height * self.width
        self.total_patches = self.frames * self.num_patches_per_frame
        self.num_masks_per_frame = int(mask_ratio * self.num_patches_per_frame)
        self.total_masks = self.frames * self.num_masks_per_frame
        n_keep = self.total_patches - self.total_masks
        self.sampler = MaskSampler(kind, input_size, n_keep=n_keep, seed=seed, **parameters)
        self.per_frame = parse_flag("per_frame", per_frame)
        rank, _ = rank_and_world_size()
        self.rank = rank or int(os.environ.get("RANK", "0"))

    def __call__(
        self, sample_id: int | None = None, valid: np.ndarray | Tensor | None = None
    ) -> np.ndarray:
        """float64 [T*H*W] or [T, H*W], 1 = masked.

        Args:
            sample_id: see the class.
            valid: where tokens may be visible, bool [T*H*W] or [T, H, W], for clips that are
                padded; see ``noise_masks``.
        """
        if sample_id is None:
            drawn = int(torch.randint(2**_ID_BITS, ()))
            sample_id = (self.rank << _ID_BITS) + drawn
        elif not is_int(sample_id):
            raise TypeError(f"sample_id must be an int, got {sample_id!r}")
        ids, within = torch.tensor([int(sample_id)]), _one_row(valid)
        masked = self.sampler.masks(ids, valid=within).masked[0]
        mask = masked.numpy().astype(np.float64)
        return mask.reshape(self.frames, -1) if self.per_frame else mask

    def __repr__(self) -> str:
        return (
            f"MaskingGenerator({self.sampler.kind}: {self.total_masks} of {self.total_patches} "
            "patches masked)"
        )


class ClonedMasks:
    """The ``precomputed_mask`` that data2vec 2.0's and EAT's datasets put into an example: a mask
    for each of the sample's clones.

    >>> self.masks = ClonedMasks(smnm.MaskSampler("rbn", (1, 64, 8), 0.8), clone_batch=16)
    >>> self.masks.set_epoch(epoch)                            # in the dataset's own set_epoch
    >>> example["precomputed_mask"] = self.masks(index)

    The epoch is in shared memory, where the workers of a loader that keeps them between epochs see
    it change: fairseq's does. They are started with this object, so make it in the dataset's
    ``__init__``. Clone c of the sample with this index has the mask with the id
    ``(epoch * 2**40 + index) * clone_batch + c``.

    Args:
        sampler: makes the masks; its stream does not advance. A ``ScheduledSampler`` must have
            ``every="epoch"``; its epoch is set here, too.
        clone_batch: the model's ``clone_batch``.
    """

    def __init__(self, sampler: MaskSampler, clone_batch: int) -> None:
        check_sampler(sampler, (MaskSampler, ScheduledSampler))
        if isinstance(sampler, ScheduledSampler) and sampler.every == "step":
            raise ValueError(
                "sampler must not change by step: loaders make examples before the step that uses "
                'them. Schedule it with every="epoch"'
            )
        if not is_int(clone_batch) or clone_batch < 1:
            raise ValueError(f"clone_batch must be a positive int, got {clone_batch!r}")
        self.sampler, self.clone_batch = sampler, clone_batch
        self._epoch = SharedInt()

    @property
    def epoch(self) -> int:
        """What ``set_epoch`` said last, 0 before that."""
        return self._epoch.get()

    def set_epoch(self, epoch: int) -> None:
        """Call it before each epoch, in the process that made the loader."""
        last = 2**63 // (self.clone_batch << _INDEX_BITS) - 1
        if not is_int(epoch) or not 0 <= epoch <= last:
            raise ValueError(f"epoch must be an int in [0, {last}], got {epoch!r}")
        self._epoch.set(epoch)
        if isinstance(self.sampler, ScheduledSampler):
            self.sampler.reset(int(self.sampler.next_id), step=epoch)

    def __call__(self, index: int, valid: np.ndarray | Tensor | None = None) -> Tensor:
        """uint8 [clone_batch, N], 1 = masked. The codebase's collater concatenates these, so the
        clones of a sample follow each other, as in the model's repeated input.

        Args:
            index: of the sample.
            valid: where its tokens may be visible, bool [N] or [T, H, W], if it is padded; see
                ``noise_masks``.
        """
        if not is_int(index):
            raise TypeError(f"index must be an int, got {index!r}")
        if not 0 <= index < 2**_INDEX_BITS:
            raise ValueError(f"index must be in [0, 2**{_INDEX_BITS}), got {index}")
        first = ((self.epoch << _INDEX_BITS) + int(index)) * self.clone_batch
        ids, within = first + torch.arange(self.clone_batch), _one_row(valid)
        if within is not None:
            within = within.expand(self.clone_batch, *within.shape[1:])
        return self.sampler.masks(ids, valid=within).data2vec_masked


def _one_row(valid: np.ndarray | Tensor | None) -> Tensor | None:
    return None if valid is None else torch.as_tensor(valid)[None]

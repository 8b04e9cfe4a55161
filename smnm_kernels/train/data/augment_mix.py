"""Mixing of neighbours in a batch: mixup, cutmix, soft targets; tensor operations on the device.

Samples 2k and 2k + 1 of a run's stream are mixed with each other, with numbers that depend on the
seed and k alone: neither the size of the batch nor its parts nor the number of processes change
what becomes of a sample, as long as no part ends between the two. timm calls this the mode "pair";
VideoMAE's and MAE's code draws one share for a whole batch and mixes it with its reverse: each
sample's own distribution is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .on_device import moved
from .padding import is_real
from .sample_randomness import MIX, SampleRandomness

_LOUDNESS_OF_NOTHING = -torch.inf  # of log-mel padding, while it is mixed


@dataclass(frozen=True)
class Drawn:
    """Of each sample of a batch: drawn on the host, and used where the batch is."""

    share: Tensor  # float32 [B], of its own in its target and, without a box, in its values
    boxes: Tensor  # int64 [B, 4]: top, bottom, left, right of what comes from the neighbour

    def to(self, device: torch.device) -> Drawn:
        return Drawn(moved(self.share, device), moved(self.boxes, device))


@dataclass(frozen=True)
class Mix:
    """Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019).

    With probability `prob` two neighbours are mixed; by cutmix with probability `switch` where both
    are on. The share is drawn from Beta(alpha, alpha), alpha being `mixup` or `cutmix`; 0 is off.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    prob: float = 1.0
    switch: float = 0.5
    #: Sounds: log-mel spectrograms, whose powers add up as those of two waveforms do that have
    #: nothing to do with each other. There is no cutmix of them.
    powers: bool = False

    def __post_init__(self) -> None:
        if self.powers and self.cutmix:
            raise ValueError(f"cutmix must be 0 where powers are mixed, got {self.cutmix}")

    def of_sounds(self) -> Mix:
        """The same draws for log-mel spectrograms: powers are mixed, also where a box is cut out of
        pictures, by its share (our choice)."""
        return self if self.powers else replace(self, powers=True, cutmix=0.0)

    @property
    def on(self) -> bool:
        return self.prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    def draw(self, seed: int, sample_ids: Sequence[int], height: int, width: int) -> Drawn:
        """Raises ValueError where the ids are not whole pairs."""
        ids = np.asarray(sample_ids).reshape(-1)
        if len(ids) % 2 or (ids[::2] % 2).any() or (ids[1::2] != ids[::2] + 1).any():
            raise ValueError(f"sample_ids must be pairs 2k, 2k + 1, got {ids.tolist()}")
        share, boxes = np.ones(len(ids)), np.zeros((len(ids), 4), dtype=np.int64)
        for place in range(0, len(ids), 2):
            u = SampleRandomness(seed, int(ids[place]) // 2, MIX).uniforms(5)
            own, box = self._of_pair(u, height, width)
            share[place : place + 2], boxes[place : place + 2] = own, box
        return Drawn(torch.from_numpy(share).float(), torch.from_numpy(boxes))

    def _of_pair(
        self, u: np.ndarray, height: int, width: int
    ) -> tuple[float, tuple[int, int, int, int]]:
        nothing = (0, 0, 0, 0)
        if u[0] >= self.prob:
            return 1.0, nothing
        cut = self.cutmix > 0 and (self.mixup == 0 or u[1] < self.switch)
        share = _beta(self.cutmix if cut else self.mixup, u[2])
        if not cut:
            return share, nothing
        # The box may reach beyond the picture; what is left of it decides the share (timm).
        side = (1 - share) ** 0.5
        h, w = int(height * side), int(width * side)
        y, x = int(u[3] * height), int(u[4] * width)
        top, bottom = max(0, y - h // 2), min(height, y + h // 2)
        left, right = max(0, x - w // 2), min(width, x + w // 2)
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return share, (top, bottom, left, right)

    def values(self, x: Tensor, drawn: Drawn, real: Tensor | None = None) -> Tensor:
        """Mixed [B, C, T, H, W] of float32 values; with `powers`, of raw log-mel values.

        real: int64 [B, 3], how many values along (T, H, W) are no padding. Where both are padded,
            the mixture is 0, as padding is.
        """
        share = drawn.share.view(-1, 1, 1, 1, 1)
        if self.powers:
            return _added_powers(x, share, real)
        in_box = _within(drawn.boxes, *x.shape[3:])[:, None, None]
        cut = (drawn.boxes[:, 1] > drawn.boxes[:, 0]).view(-1, 1, 1, 1, 1)
        own = torch.where(cut, (~in_box).float(), share)
        return torch.lerp(neighbours(x), x, own)

    def targets(self, y: Tensor, drawn: Drawn) -> Tensor:
        """[B, ...] of one's own and the neighbour's, by their shares."""
        share = drawn.share.view(-1, *[1] * (y.ndim - 1))
        return share * y + (1 - share) * neighbours(y)

    def files(self, numbers: Tensor, drawn: Drawn) -> Tensor:
        """int64 [B, 2], the numbers of the files that samples are made of; numbers, int64 [B], are
        their own. One's own twice where nothing is mixed."""
        return torch.stack([numbers, torch.where(drawn.share < 1, neighbours(numbers), numbers)], 1)

    def real(self, real: Tensor, drawn: Drawn) -> Tensor:
        """int64 [B, 3], how much of the mixtures is no padding."""
        mixed = (drawn.share < 1)[:, None]
        return torch.where(mixed, torch.maximum(real, neighbours(real)), real)

    def valid(self, valid: Tensor, drawn: Drawn) -> Tensor:
        """bool [B, N], the tokens of mixtures that masks may show: those of what is longer, of
        inputs that are padded along one axis."""
        mixed = (drawn.share < 1)[:, None]
        return torch.where(mixed, valid | neighbours(valid), valid)


def _added_powers(x: Tensor, share: Tensor, real: Tensor | None) -> Tensor:
    """Of log-mel values; see `Mix.values`."""
    if real is not None:
        x = x.masked_fill(~is_real(real, x.shape[2:])[:, None], _LOUDNESS_OF_NOTHING)
    mixed = torch.logaddexp(x + 2 * share.log(), neighbours(x) + 2 * (1 - share).log())
    return mixed.masked_fill(mixed == _LOUDNESS_OF_NOTHING, 0.0)


def neighbours(x: Tensor) -> Tensor:
    """Of each sample the one that it is mixed with: [B, ...] with samples 2k and 2k + 1
    exchanged."""
    return x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)


def _beta(alpha: float, u: float) -> float:
    """The u-quantile of Beta(alpha, alpha)."""
    if alpha == 1:
        return float(u)
    from scipy.special import betaincinv

    return float(betaincinv(alpha, alpha, u))


def _within(boxes: Tensor, height: int, width: int) -> Tensor:
    """bool [B, H, W]"""
    y = torch.arange(height, device=boxes.device).view(1, -1, 1)
    x = torch.arange(width, device=boxes.device).view(1, 1, -1)
    top, bottom, left, right = (boxes[:, i].view(-1, 1, 1) for i in range(4))
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def soft_targets(classes: Tensor, n_classes: int, smoothing: float) -> Tensor:
    """int64 [B] -> float32 [B, n_classes]: 1 - smoothing of the label's own, and smoothing shared
    out among all classes (Szegedy et al. 2016)."""
    targets = torch.full((len(classes), n_classes), smoothing / n_classes, device=classes.device)
    own = torch.full_like(targets[:, :1], 1 - smoothing + smoothing / n_classes)
    return targets.scatter(1, classes[:, None], own)

"""What masked patches are predicted as, and the error of predictions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .settings import Target
from .vit import select_tokens

if TYPE_CHECKING:
    from smnm_kernels import Masks

_TARGET_EPS = 1e-6


def note_of(target: Target) -> str:
    """What a picture has to say of the patches that `PatchTargets.restored` made."""
    if target == "pixels":
        return ""
    return (
        "restored: mean and contrast of each hidden patch are the input's own, for the model "
        "predicts normalised patches; it made the rest"
    )


class PatchTargets(nn.Module):
    """Patches as they are predicted: `ModelSettings` says what `target`, `pixel_mean` and
    `pixel_std` mean. Patches are [B, N, P], the channel running slowest, as `patchify` cuts them.
    """

    pixel_mean: Tensor  # [C, 1]
    pixel_std: Tensor

    def __init__(
        self,
        target: Target,
        channels: int,
        pixel_mean: tuple[float, ...] = (),
        pixel_std: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        if pixel_std and len(pixel_std) != channels:
            raise ValueError(
                f"pixel_std must have one value for each of {channels} channels, got {pixel_std}"
            )
        self.kind, self.channels = target, channels
        mean = torch.tensor(pixel_mean or [0.0] * channels)
        std = torch.tensor(pixel_std or [1.0] * channels)
        self.register_buffer("pixel_mean", mean.view(-1, 1), persistent=False)
        self.register_buffer("pixel_std", std.view(-1, 1), persistent=False)

    def loss(
        self, patches: Tensor, pred: Tensor, masks: Masks, valid: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of predictions [B, N - n_keep, P] for the masked patches, always in
        float32: a scalar.

        `valid`, bool [B, N] or None where all are: masked patches that are not valid, padding, are
        left out. Then it is the mean over the samples of each one's mean, so that a batch has the
        same loss however it is shared out, and every sample the same weight (our choice).
        """
        target = select_tokens(patches, masks.ids_masked).float()
        self._to_target(target)
        if valid is None:
            return _MeanSquaredError.apply(pred, target, None)
        counts = valid.gather(1, masks.ids_masked).float()
        # A sample that shows all of its valid patches has nothing to restore.
        weight = counts / counts.sum(1, keepdim=True).clamp(min=1) / len(counts)
        return _MeanSquaredError.apply(pred, target, weight)

    @torch.no_grad()
    def target(self, patches: Tensor) -> Tensor:
        """What patches [B, n, P] are predicted as: float32 [B, n, P]."""
        target = patches.float().clone()
        self._to_target(target)
        return target

    @torch.no_grad()
    def _to_target(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches [B, n, P], in place, to what they are predicted as.

        -> (mean, scale), patches = target * scale + mean, of a shape that broadcasts to
        [B, n, C, P / C].
        """
        by_channel = patches.unflatten(-1, (self.channels, -1))
        if self.kind == "pixels":
            scale = 1 / self.pixel_std
            mean = -self.pixel_mean * scale
            by_channel.sub_(mean).div_(scale)
            return mean, scale
        # Normalising the input gives what normalising its pixels gives, but for the eps.
        by_patch = self.kind == "patch"
        over = (-2, -1) if by_patch else (-1,)
        values = patches.shape[-1] if by_patch else by_channel.shape[-1]
        # Measured from its first value, a flat patch is exactly 0. Otherwise its target would be
        # the rounding error of its mean, divided by an eps that is no larger.
        first = by_channel[..., :1, :1] if by_patch else by_channel[..., :1]
        first = first.clone()
        by_channel.sub_(first)
        mean = by_channel.mean(over, keepdim=True)
        by_channel.sub_(mean)
        norm = torch.linalg.vector_norm(by_channel, dim=over, keepdim=True)
        std = norm / math.sqrt(values - 1)
        scale = (
            (std.square() + _TARGET_EPS).sqrt() if by_patch else std + _TARGET_EPS / self.pixel_std
        )
        by_channel.div_(scale)
        return first + mean, scale

    @torch.no_grad()
    def restored(self, patches: Tensor, pred: Tensor, masks: Masks) -> Tensor:
        """Patches whose masked ones are replaced by the predictions [B, N - n_keep, P]: float32.

        The normalisation is undone with each patch's own mean and standard deviation, which the
        model does not predict: they come from the patches themselves.
        """
        patches = patches.float()
        hidden = select_tokens(patches, masks.ids_masked)
        mean, scale = self._to_target(hidden)
        values = pred.float().unflatten(-1, (self.channels, -1)) * scale + mean
        ids = masks.ids_masked.unsqueeze(-1).expand_as(hidden)
        return patches.scatter(1, ids, values.flatten(-2))


class _MeanSquaredError(torch.autograd.Function):
    """mse_loss(pred, target) in float32, which puts the difference into target's memory.

    With `weight` [B, n] the sum of the patches' errors, each times its weight.

    Both are as large as a batch's masked patches, the largest tensors of a step, and mse_loss would
    make two more.
    """

    @staticmethod
    def forward(ctx: Any, pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        shortfall = target.sub_(pred)
        ctx.save_for_backward(shortfall, weight)
        ctx.dtype = pred.dtype
        # By patch first: one float32 sum over millions of values would lose digits.
        by_patch = torch.linalg.vector_norm(shortfall, dim=-1).square()
        mean = by_patch.mean() if weight is None else (by_patch * weight).sum()
        return mean / shortfall.shape[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        shortfall, weight = ctx.saved_tensors
        if weight is None:
            factor = -2 * grad / shortfall.numel()
        else:
            factor = (-2 * grad / shortfall.shape[-1]) * weight.unsqueeze(-1)
        return (shortfall * factor).to(ctx.dtype), None, None

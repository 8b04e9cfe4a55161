"""Weights and scores of tokens, for ``weighted_masks`` and ``guided_masks``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .kinds.motion import motion
from .kinds.self_guided import two_group_scores
from .kinds.weighted import check_input, parse_patch
from .ops import is_plain


def patch_motion(data: Tensor, patch: Sequence[int]) -> Tensor:
    """How much the frames of a clip differ within each patch: the weights of "motion" masks.

    A frame's motion is the sum of absolute differences from the frame before and from the frame
    after, in all channels; the first and the last frame count their only neighbour twice.

    Args:
        data: numbers, [B, C, T, H, W] with T >= 2. They are clamped to +-1024 and rounded down to
            multiples of 2**-12, so that sums are exact; NaN counts as -1024.
        patch: (t, h, w) values; they must divide (T, H, W).

    Returns:
        float32 [B, N], tokens row-major. The same bits on every device.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.

    Source: the idea is that of Fan et al., "Motion-Guided Masking for Spatiotemporal Representation
    Learning", 2023, which takes the motion vectors of the video file. Frame differences are our
    choice: they need no codec.
    """
    check_input(data)
    lengths, _ = parse_patch(data, patch)
    return motion(data, lengths)


def self_guided_scores(features: Tensor, valid: Tensor | None = None) -> Tensor:
    """How clearly each token belongs to one of two groups of tokens. Self-guided masking masks the
    tokens of the lowest scores.

    The tokens of a sample are split in two by the sign of their first principal component. A score
    is the larger of the cosines to the mean directions of the two groups.

    >>> scores = smnm.self_guided_scores(encoder(x))    # features of all tokens, [B, N, D]
    >>> masks = smnm.guided_masks(sample_ids, scores, 0.75, masked="lowest", hint_ratio=0.5)

    The kind "self_guided" of ``MaskSampler`` does both.

    **Outside the promise of equal bits.** A principal component is computed in floating point, as
    the features are, and may differ from device to device. What ``guided_masks`` makes of given
    scores does not.

    Args:
        features: floating point [B, N, D], of an encoder that saw every token.
        valid: bool [B, N], the tokens that have a part in it; None: all. The scores of the others
            mean nothing.

    Returns:
        float32 [B, N], in [-1, 1], multiples of 2**-16.

    Raises:
        TypeError, ValueError: The message names the argument. NaN and infinities are refused on the
            CPU, outside compiled graphs.

    Source: Shin et al., "Self-Guided Masked Autoencoder", 2024, in the form that the code of
    dispersion-weighted masking compares itself with. Steps of 2**-16, so that rounding breaks no
    ties, are our choice.
    """
    if not isinstance(features, Tensor) or not features.dtype.is_floating_point:
        came = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f"features must be a floating-point tensor [B, N, D], got {came}")
    if features.dim() != 3 or 0 in features.shape[1:]:
        raise ValueError(f"features must have shape [B, N, D], got {list(features.shape)}")
    if is_plain(features) and not features.isfinite().all():
        row = int((~features.isfinite()).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"features must be finite, got NaN or infinity in row {row}")
    if valid is not None:
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
            came = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
            raise TypeError(f"valid must be a bool tensor [B, N], got {came}")
        if valid.shape != features.shape[:2]:
            raise ValueError(
                f"valid must have shape {list(features.shape[:2])}, got {list(valid.shape)}"
            )
    return two_group_scores(features, valid)

"""Masks for joint-embedding prediction: a context, and the blocks that are predicted from it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .arguments import check_sample_ids, parse_seed
from .kinds.multi_block import MultiBlockKind, MultiBlockMasks, Range


def multi_block_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    preset: str = "i-jepa",
    n_blocks: int | None = None,
    scale: Range | None = None,
    aspect: Range | None = None,
    context_scale: Range | None = None,
    freq_major: bool = False,
    valid: Tensor | None = None,
    seed: int | Tensor = 0,
) -> MultiBlockMasks:
    """Multi-block masks (I-JEPA, V-JEPA): several target blocks, and as context the patches of a
    larger block that lie in no target. Blocks span all T.

    Every sample draws one size for all of its targets and a place for each. Counts are the same in
    every sample, whatever the batch; the originals draw one size a batch and cut all samples to the
    smallest count of the batch, which drops the last rows.

    Args:
        sample_ids, seed: as for ``noise_masks``.
        grid: (T, H, W) or (H, W).
        mask_ratio, n_keep: the visible tokens, as for ``noise_masks`` with ``tube=True``. Of the
            context, ``n_keep`` tokens drawn evenly are visible. If it has fewer, patches outside of
            it and in no target are visible, too, at random; and if these are too few, targets of
            the last block, then of the one before (a patch belongs to its first block).
        preset: "i-jepa", 4 blocks of 0.15 to 0.2 of the frame at aspects of 0.75 to 1.5, the
            context in a square of 0.85 to 1; "v-jepa-short", 8 blocks of 0.15, or "v-jepa-long",
            2 of 0.7, both at aspects of 0.75 to 1.5, the context anywhere outside of them.
        n_blocks: targets of a sample, at most 64, in place of the preset's; so are the next three.
        scale: share of H * W of a target: a number in (0, 1], or a (low, high) range.
        aspect: rows per column of a target, in [0.01, 100], in thousandths.
        context_scale: share of H * W of the block that the context lies in.
        freq_major: as for ``noise_masks``.
        valid: bool [B, N] or [B, T, H, W], False for tokens that must not be visible. Targets do
            not look at it.

    Returns:
        MultiBlockMasks: ``visible``, ``ids_keep``, ``ids_restore`` as of ``Masks``, and
        ``ids_target`` int64 [B, n_blocks, n_target], n_target = T * floor(low * H * W) for the
        lower end of ``scale``: of a larger block, as many of its patches drawn evenly.

    A block of a whole number of patches is about as large as drawn: its rows are the square root of
    area times aspect, rounded, and its columns as many as the area needs.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.

    Source: Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive
    Architecture", 2023; Bardes et al., "Revisiting Feature Prediction for Learning Visual
    Representations from Video", 2024. Exact counts, sizes drawn per sample (area and aspect apart)
    and what is visible where the context is too small are our choice.
    """
    check_sample_ids(sample_ids)
    kind = MultiBlockKind.parse(
        grid,
        mask_ratio,
        n_keep=n_keep,
        preset=preset,
        n_blocks=n_blocks,
        scale=scale,
        aspect=aspect,
        context_scale=context_scale,
        freq_major=freq_major,
    )
    return kind.draw_with_targets(sample_ids, parse_seed(seed, sample_ids.device), valid)

"""The public functions whose masks look at the input. Each checks its arguments and calls an op or
two."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import ops
from .arguments import check_sample_ids, parse_flag, parse_seed
from .kinds.kind import parse_valid
from .kinds.weighted import (
    DispersionKind,
    check_input,
    parse_guide,
    parse_hint,
    parse_metric,
    parse_patch,
    parse_scores,
    parse_weights,
    values_of_patches,
)
from .masks import Masks


def weighted_masks(
    sample_ids: Tensor,
    weights: Tensor,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    invert: bool = False,
    seed: int | Tensor = 0,
    valid: Tensor | None = None,
) -> Masks:
    """Tokens are masked one after the other, without replacement, each with a probability in
    proportion to its weight among those that are left.

    Each mask depends on ``(seed, sample id, n_keep, invert)`` and the weights of its row alone, bit
    for bit on every device. No gradients go through it.

    Args:
        sample_ids: int64 [B], any values; their device does the work.
        weights: numbers in [0, 3.4e38], [B, T, H, W] or [B, N], on the device of ``sample_ids``.
            Integers and float64 are rounded to float32. Only ratios of weights matter. Tokens of
            weight zero are masked last, in random order.
        mask_ratio, n_keep: as for ``threshold``; exactly one of them.
        invert: draw the visible tokens instead: n_keep tokens are drawn in the same way and kept,
            so that large weights are visible.
        seed: int, or int64 tensor of one element on the device of ``sample_ids``.
        valid: where tokens may be visible, bool [B, N] or of the shape of ``weights`` (see
            ``noise_masks``). The others are masked before all that are drawn; with ``invert`` they
            are never drawn.

    Raises:
        TypeError, ValueError: before any work. The message names the argument. Negative weights,
            infinities and NaN are refused where that needs no wait for a device: on the CPU,
            outside compiled graphs. Elsewhere negative ones count as zero, and the others are drawn
            first.

    Source: the order is that of Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", 2006, which masks in proportion to weights have in common (dispersion-weighted
    masking, attention-guided masking).
    """
    check_sample_ids(sample_ids)
    flat, count = parse_weights(weights, sample_ids, mask_ratio, n_keep)
    seeds = parse_seed(seed, sample_ids.device)
    parse_flag("invert", invert)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, weights.shape[1:], count)
    return Masks(*ops.draw_masks(sample_ids, *seeds, flat, "weights", count, invert, 0, valid))


def guided_masks(
    sample_ids: Tensor,
    scores: Tensor,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    masked: str = "highest",
    temperature: float = 0.0,
    hint_ratio: float = 0.0,
    seed: int | Tensor = 0,
    valid: Tensor | None = None,
) -> Masks:
    """Masks by any score of the tokens: attention, motion, the features of a teacher.

    Args:
        sample_ids: int64 [B], any values; their device does the work.
        scores: numbers, [B, T, H, W] or [B, N], on the device of ``sample_ids``; rounded to
            float32. NaN counts as the highest, and with ``masked="lowest"`` too: it is masked
            first.
        mask_ratio, n_keep: as for ``threshold``; exactly one of them.
        masked: which tokens are masked, those of the "highest" scores or of the "lowest".
        temperature: 0 masks just these, ties to the higher token index. At t > 0 tokens are drawn
            as in ``weighted_masks``, with weights exp(score / t), or exp(-score / t) for "lowest";
            score / t is clamped to [-88, 88].
        hint_ratio, seed: as for ``dispersion_masks``.
        valid: where tokens may be visible, bool [B, N] or of the shape of ``scores``; see there and
            ``noise_masks``.

    The masks are a pure function of the scores, bit for bit on every device. What computed the
    scores in floating point need not be.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.
    """
    check_sample_ids(sample_ids)
    flat, count = parse_scores("scores", scores, sample_ids, mask_ratio, n_keep)
    rule, factor = parse_guide(masked, temperature)
    n_swapped = parse_hint(hint_ratio, flat.shape[1] - count)
    seeds = parse_seed(seed, sample_ids.device)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, scores.shape[1:], count)
    made = ops.draw_masks(
        sample_ids, *seeds, flat * factor, rule, count, False, n_swapped, valid=valid
    )
    return Masks(*made)


def patch_dispersion(data: Tensor, patch: Sequence[int], metric: str = "mad") -> Tensor:
    """How much the values of each patch differ: the weights of ``dispersion_masks``.

    Args:
        data: numbers, [B, C, T, H, W]. They are clamped to +-1024 and rounded down to multiples of
            2**-16 ("mad") or 2**-12 ("variance"), so that sums are exact; NaN counts as -1024.
        patch: (t, h, w) values; they must divide (T, H, W). A patch has at most 2**17 values in
            all channels together.
        metric: "mad", the mean absolute deviation from the mean, or "variance".

    Returns:
        float32 [B, N], tokens row-major: the metric, times a number that is the same for all
        patches. The same bits on every device.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.
    """
    check_input(data)
    lengths, _ = parse_patch(data, patch)
    return ops.dispersion(values_of_patches(data, lengths), lengths, parse_metric(metric))


def dispersion_masks(
    sample_ids: Tensor,
    data: Tensor,
    patch: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    hint_ratio: float = 0.0,
    metric: str = "mad",
    deterministic: bool = False,
    freq_major: bool = False,
    seed: int | Tensor = 0,
    valid: Tensor | None = None,
) -> Masks:
    """Dispersion-weighted masking: patches are masked with a probability in proportion to how much
    their values differ, so that what is silent or plain stays visible.

    Args:
        sample_ids: int64 [B], any values; their device does the work.
        data: the input, [B, C, T, H, W], on the device of ``sample_ids``. For a spectrogram T = 1
            and H is time. See ``patch_dispersion``.
        patch: (t, h, w) values of a token.
        mask_ratio, n_keep: as for ``threshold``; exactly one of them.
        hint_ratio: the share of chance, h in [0, 1]: of m masked tokens, floor(m * h) drawn evenly
            become visible again, and as many are drawn evenly from all that are visible then and
            masked. At 1 masks are plainly random. ``schedules.hint`` lowers it as training goes on.
        metric: see ``patch_dispersion``.
        deterministic: mask the patches of largest dispersion instead of drawing (an ablation).
        freq_major: as for ``noise_masks``.
        seed: int, or int64 tensor of one element on the device of ``sample_ids``.
        valid: as for ``noise_masks``. The other tokens are masked first and never become visible
            again. Of the m masked tokens of a row v are valid, and floor(floor(m * h) * v / m) of
            these are swapped: at h = 1 the visible tokens are plainly random among the valid ones.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.

    Source: the weights and the hint are those of the code of dispersion-weighted masking for audio.
    Patches of no dispersion, which that code gives a weight of 1e-12, are masked last here.
    """
    check_sample_ids(sample_ids)
    check_input(data)
    _, grid = parse_patch(data, patch)
    kind = DispersionKind.parse(
        grid,
        mask_ratio,
        n_keep=n_keep,
        hint_ratio=hint_ratio,
        metric=metric,
        deterministic=deterministic,
        freq_major=freq_major,
    )
    return kind.draw(sample_ids, parse_seed(seed, sample_ids.device), data, valid)

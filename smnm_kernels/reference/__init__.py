"""The definition: every mask in plain NumPy, slow and obvious. All backends equal it bit for bit.

Random words
------------
All randomness is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011), a pure function of a 64-bit key and a 128-bit counter:

    key     = (seed low, seed high)
    counter = (block, purpose, sample id low, sample id high)

Each use of random words has a ``Purpose``, so no two uses share words. A block yields four 32-bit
words. Arrays of words are laid out in *segments*: with q blocks, word j of block b is element
j*q + b. Neighbours in memory then come from neighbouring blocks, as vectors and warps want it.

Integers
--------
Noise, filter taps and sums are integers so small that float32 holds them exactly. So any order of
summation, on any hardware, gives the same field (see ``tables.noise``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from smnm_kernels.arguments import check_rows, check_sample_ids, parse_flag, parse_noise, parse_seed
from smnm_kernels.kinds.baselines import parse_baseline
from smnm_kernels.kinds.kind import parse_valid
from smnm_kernels.kinds.multi_block import MultiBlockKind, MultiBlockMasks, Range
from smnm_kernels.kinds.noise import NoiseField, NoiseKind
from smnm_kernels.kinds.rbn import WEIGHTS, WINDOWS, RbnKind, check_order, parse_n_candidates
from smnm_kernels.kinds.structures import BLOCK_SIZE
from smnm_kernels.kinds.weighted import (
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
from smnm_kernels.masks import Masks
from smnm_kernels.tables.colors import Color, Sigma
from smnm_kernels.tables.constants import Purpose

from .activity import activity_masks, activity_segments
from .dispersion import dispersion_kernel
from .draws import draw_keys, draw_masks_kernel
from .fields import (
    field,
    noise_kernel,
    noise_masks_kernel,
    threshold_kernel,
    valid_noise_masks,
)
from .motion import patch_motion
from .random_words import philox, words
from .rbn import algorithm1, rbn_bank_kernel, rbn_masks_kernel, rbn_order, rbn_score
from .structures import multi_block_targets, structure_masks, structure_masks_kernel

#: The name of ``Purpose`` until version 0.2.
Stream = Purpose

__all__ = [
    "Purpose",
    "Stream",
    "activity_masks",
    "activity_segments",
    "algorithm1",
    "baseline_masks",
    "dispersion_kernel",
    "dispersion_masks",
    "draw_keys",
    "draw_masks_kernel",
    "field",
    "guided_masks",
    "multi_block_masks",
    "multi_block_targets",
    "noise",
    "noise_kernel",
    "noise_masks",
    "noise_masks_kernel",
    "patch_dispersion",
    "patch_motion",
    "philox",
    "rbn_bank",
    "rbn_bank_kernel",
    "rbn_masks",
    "rbn_masks_kernel",
    "rbn_order",
    "rbn_score",
    "structure_masks",
    "structure_masks_kernel",
    "threshold",
    "threshold_kernel",
    "valid_noise_masks",
    "weighted_masks",
    "words",
]


def noise(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    *,
    sigma: Sigma = None,
    time_scale: float = 1.0,
    seed: int | Tensor = 0,
) -> Tensor:
    """See ``smnm_kernels.noise``."""
    check_sample_ids(sample_ids)
    field = NoiseField.parse(grid, color, sigma, time_scale)
    return noise_kernel(sample_ids, *parse_seed(seed, sample_ids.device), *field.op_arguments)


def threshold(
    noise: Tensor, mask_ratio: float | None = None, *, n_keep: int | None = None
) -> Masks:
    """See ``smnm_kernels.threshold``."""
    return threshold_kernel(*parse_noise(noise, mask_ratio, n_keep))


def noise_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    sigma: Sigma = None,
    time_scale: float = 1.0,
    tube: bool = False,
    freq_major: bool = False,
    seed: int | Tensor = 0,
    valid: Tensor | None = None,
) -> Masks:
    """See ``smnm_kernels.noise_masks``."""
    check_sample_ids(sample_ids)
    kind = NoiseKind.parse(
        grid,
        mask_ratio,
        color=color,
        n_keep=n_keep,
        sigma=sigma,
        time_scale=time_scale,
        tube=tube,
        freq_major=freq_major,
    )
    seeds = parse_seed(seed, sample_ids.device)
    if valid is None:
        return kind.in_token_order(noise_masks_kernel(sample_ids, *seeds, *kind.op_arguments))
    within = parse_valid(valid, sample_ids, kind.grid, kind.n_keep, freq_major)
    masks = valid_noise_masks(sample_ids, *seeds, *(*kind.op_arguments, within))
    return kind.in_token_order(masks)


def rbn_bank(
    order: Tensor,
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    *,
    windows: Sequence[int] = WINDOWS,
    weights: Sequence[float] = WEIGHTS,
    tie_break: str = "first",
    seed: int | Tensor = 0,
) -> Tensor:
    """See ``smnm_kernels.rbn_bank``."""
    kind = RbnKind.parse(
        grid,
        n_keep=n_keep,
        n_candidates=parse_n_candidates(n_candidates),
        windows=windows,
        weights=weights,
        tie_break=tie_break,
    )
    check_order(order, math.prod(kind.grid))
    return rbn_bank_kernel(order.long(), *parse_seed(seed, order.device), *kind.op_arguments)


def rbn_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    n_candidates: int | None = None,
    windows: Sequence[int] = WINDOWS,
    weights: Sequence[float] = WEIGHTS,
    tie_break: str = "first",
    freq_major: bool = False,
    seed: int | Tensor = 0,
    valid: Tensor | None = None,
) -> Masks:
    """See ``smnm_kernels.rbn_masks``."""
    check_sample_ids(sample_ids)
    kind = RbnKind.parse(
        grid,
        mask_ratio,
        n_keep=n_keep,
        n_candidates=n_candidates,
        windows=windows,
        weights=weights,
        tie_break=tie_break,
        freq_major=freq_major,
    )
    seeds = parse_seed(seed, sample_ids.device)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, kind.grid, kind.n_keep, freq_major)
    masks = rbn_masks_kernel(sample_ids, *seeds, *(*kind.op_arguments, valid))
    return kind.in_token_order(masks)


def baseline_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    kind: str,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    block_size: int = BLOCK_SIZE,
    freq_major: bool = False,
    seed: int | Tensor = 0,
    valid: Tensor | None = None,
) -> Masks:
    """See ``smnm_kernels.baseline_masks``."""
    check_sample_ids(sample_ids)
    structure = parse_baseline(kind, grid, mask_ratio, n_keep, block_size, freq_major)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, structure.grid, structure.n_keep, freq_major)
    masks = structure_masks(sample_ids, *parse_seed(seed, sample_ids.device), structure, valid)
    return structure.in_token_order(masks)


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
    """See ``smnm_kernels.multi_block_masks``."""
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
    seeds = parse_seed(seed, sample_ids.device)
    row_major = None if valid is None else kind._parse_valid(sample_ids, valid)
    masks = structure_masks(sample_ids, *seeds, kind, row_major)
    targets = multi_block_targets(sample_ids, *seeds, kind)
    return MultiBlockMasks(*kind.in_token_order(masks), kind.in_order(targets))


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
    """See ``smnm_kernels.weighted_masks``."""
    check_sample_ids(sample_ids)
    flat, count = parse_weights(weights, sample_ids, mask_ratio, n_keep)
    seeds = parse_seed(seed, sample_ids.device)
    parse_flag("invert", invert)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, weights.shape[1:], count)
    return draw_masks_kernel(sample_ids, *seeds, flat, "weights", count, invert, 0, valid)


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
    """See ``smnm_kernels.guided_masks``."""
    check_sample_ids(sample_ids)
    flat, count = parse_scores("scores", scores, sample_ids, mask_ratio, n_keep)
    rule, factor = parse_guide(masked, temperature)
    n_swapped = parse_hint(hint_ratio, flat.shape[1] - count)
    seeds = parse_seed(seed, sample_ids.device)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, scores.shape[1:], count)
    return draw_masks_kernel(
        sample_ids, *seeds, flat * factor, rule, count, False, n_swapped, valid
    )


def patch_dispersion(data: Tensor, patch: Sequence[int], metric: str = "mad") -> Tensor:
    """See ``smnm_kernels.patch_dispersion``."""
    check_input(data)
    lengths, _ = parse_patch(data, patch)
    return dispersion_kernel(values_of_patches(data, lengths), lengths, parse_metric(metric))


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
    """See ``smnm_kernels.dispersion_masks``."""
    check_sample_ids(sample_ids)
    check_input(data)
    check_rows("data", data, sample_ids)
    lengths, grid = parse_patch(data, patch)
    kind = DispersionKind.parse(
        grid,
        mask_ratio,
        n_keep=n_keep,
        hint_ratio=hint_ratio,
        metric=metric,
        deterministic=deterministic,
        freq_major=freq_major,
    )
    weights = dispersion_kernel(values_of_patches(data, lengths), lengths, metric)
    seeds = parse_seed(seed, sample_ids.device)
    if valid is not None:
        valid = parse_valid(valid, sample_ids, kind.grid, kind.n_keep, freq_major)
    masks = draw_masks_kernel(
        sample_ids, *seeds, weights, kind.rule, kind.n_keep, False, kind.n_swapped, valid
    )
    return kind.in_token_order(masks)

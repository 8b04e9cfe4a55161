"""The definition: every mask in plain NumPy, slow and obvious. All backends equal it bit for bit.

Random words
------------
All randomness is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011), a pure function of a 64-bit key and a 128-bit counter:

    key     = (seed low, seed high)
    counter = (block, stream, sample id low, sample id high)

Each use has its own stream (``Stream``). A block yields four 32-bit words. Arrays of words are
laid out in *segments*: with q blocks, word j of block b is element j*q + b, so neighbours in
memory come from neighbouring blocks, which suits vectors and warps alike.

Integers
--------
Noise, filter taps and sums are integers small enough that float32 holds them exactly, so any
order of summation on any unit gives the same field (see ``noise_table``).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from smnm_kernels.calls import (
    noise_call,
    noise_masks_call,
    rbn_bank_call,
    rbn_masks_call,
    threshold_call,
)
from smnm_kernels.colors import Color, Sigma
from smnm_kernels.masks import Masks

from .baselines import baseline_masks
from .fields import (
    MAX_FIELD,
    WHITE_SCALE,
    field,
    noise_kernel,
    noise_masks_kernel,
    threshold_kernel,
)
from .random_words import Stream, philox, words
from .rbn import algorithm1, rbn_bank_kernel, rbn_masks_kernel, rbn_order, rbn_score

__all__ = [
    "MAX_FIELD",
    "WHITE_SCALE",
    "Stream",
    "algorithm1",
    "baseline_masks",
    "field",
    "noise",
    "noise_kernel",
    "noise_masks",
    "noise_masks_kernel",
    "philox",
    "rbn_bank",
    "rbn_bank_kernel",
    "rbn_masks",
    "rbn_masks_kernel",
    "rbn_order",
    "rbn_score",
    "threshold",
    "threshold_kernel",
    "words",
]


def noise(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    *,
    sigma: Sigma = None,
    seed: int | Tensor = 0,
) -> Tensor:
    """See ``smnm_kernels.noise``."""
    return noise_kernel(*noise_call(sample_ids, grid, color, sigma, seed))


def threshold(
    noise: Tensor, mask_ratio: float | None = None, *, n_keep: int | None = None
) -> Masks:
    """See ``smnm_kernels.threshold``."""
    return threshold_kernel(*threshold_call(noise, mask_ratio, n_keep))


def noise_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    sigma: Sigma = None,
    tube: bool = False,
    freq_major: bool = False,
    seed: int | Tensor = 0,
) -> Masks:
    """See ``smnm_kernels.noise_masks``."""
    call = noise_masks_call(
        sample_ids, grid, color, mask_ratio, n_keep, sigma, tube, freq_major, seed
    )
    masks = noise_masks_kernel(*call)
    return masks.freq_major(call[3]) if freq_major else masks


def rbn_bank(
    order: Tensor,
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    *,
    windows: Sequence[int] = (3, 5),
    weights: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    tie_break: str = "first",
    seed: int | Tensor = 0,
) -> Tensor:
    """See ``smnm_kernels.rbn_bank``."""
    call = rbn_bank_call(order, n_candidates, n_keep, grid, windows, weights, tie_break, seed)
    return rbn_bank_kernel(*call)


def rbn_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    n_candidates: int | None = None,
    windows: Sequence[int] = (3, 5),
    weights: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    tie_break: str = "first",
    freq_major: bool = False,
    seed: int | Tensor = 0,
) -> Masks:
    """See ``smnm_kernels.rbn_masks``."""
    call = rbn_masks_call(
        sample_ids,
        grid,
        mask_ratio,
        n_keep,
        n_candidates,
        windows,
        weights,
        tie_break,
        freq_major,
        seed,
    )
    masks = rbn_masks_kernel(*call)
    return masks.freq_major(call[3]) if freq_major else masks

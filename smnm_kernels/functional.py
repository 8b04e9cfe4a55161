"""The public functions whose masks do not look at the input. Each checks its arguments and calls
one op."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from . import ops
from .arguments import check_sample_ids, parse_noise, parse_seed
from .kinds.baselines import parse_baseline
from .kinds.noise import NoiseField, NoiseKind
from .kinds.rbn import WEIGHTS, WINDOWS, RbnKind, check_order, parse_n_candidates
from .kinds.structures import BLOCK_SIZE
from .masks import Masks
from .tables.colors import Color, Sigma


def noise(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    *,
    sigma: Sigma = None,
    time_scale: float = 1.0,
    seed: int | Tensor = 0,
) -> Tensor:
    """Colored noise: a window of an endless stationary field of unit variance for each sample.

    ``red = G(s)*w``, ``blue = w - G(s)*w``, ``green = G(s1)*w - G(s2)*w`` for white noise w and
    normalised Gaussians G (``*`` is convolution), in two dimensions (H, W) if T = 1 and in three
    otherwise. Each sample depends on ``(seed, sample id, grid, color, sigma, time_scale)`` alone.

    Args:
        sample_ids: int64 [B], any values; their device does the work.
        grid: (T, H, W) patches; (H, W) is (1, H, W).
        color: "white", "red", "blue" or "green".
        sigma: standard deviation of the Gaussian, in patches, in [0.2, 8]. For red and blue: a
            number, or a (low, high) range that each sample draws its own from, by default (0.5, 2).
            For green: a pair (sigma1, sigma2) of numbers or ranges, or a preset, "variant-1" to
            "variant-5" (the paper's Table A.1; 5 is the default) or "main-text". A drawn value is
            one of 32 equally spaced levels of the range. Blue's sigma and green's sigma2 are at
            least 0.35, and sigma1 is at most 0.95 sigma2, because otherwise little is left of the
            difference. Drawn pairs with sigma1 above 0.9 sigma2 are drawn again.
        time_scale: multiplies every sigma along T, in [0, 8 / the largest sigma]. Above 1 blobs
            last longer, below 1 they pass faster, and at 0 frames are independent. A token is often
            two frames deep and 16 pixels wide, so that an equal sigma is a choice. Only for red,
            blue and green on grids with T > 1.
        seed: int, or int64 tensor of one element on the device of ``sample_ids``.

    Returns:
        float32 [B, T, H, W]: exactly the field that ``noise_masks`` thresholds.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.

    Source: Bhowmik et al., "Structured-Noise Masked Modeling for Video, Audio and Beyond", 2025.
    """
    check_sample_ids(sample_ids)
    field = NoiseField.parse(grid, color, sigma, time_scale)
    return field.draw(sample_ids, parse_seed(seed, sample_ids.device))


def threshold(
    noise: Tensor, mask_ratio: float | None = None, *, n_keep: int | None = None
) -> Masks:
    """The largest values of each sample are visible (the paper's Algorithm 2).

    Args:
        noise: floating point [B, T, H, W] or [B, N]. Ties go to the lower token index; -0 equals
            0, and NaN counts as larger than any number, as in ``torch.sort``.
        mask_ratio: share masked, in [0, 1): ``floor(N * (1 - mask_ratio))`` of the decimal ratio
            as written are visible.
        n_keep: visible tokens, in [1, N], instead of ``mask_ratio``.
    """
    return Masks(*ops.threshold(*parse_noise(noise, mask_ratio, n_keep)))


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
    """``threshold(noise(...), mask_ratio)`` in one op, bit for bit.

    Args:
        sample_ids, grid, color, sigma, time_scale, seed: as for ``noise``.
        mask_ratio, n_keep: as for ``threshold``; exactly one of them.
        tube: draw one two-dimensional mask and repeat it over T. The count is then rounded down for
            each frame, T * floor(H*W*(1 - mask_ratio)), and ``n_keep`` must be a multiple of T.
        freq_major: count tokens along W first, (t*W + x)*H + y, for audio models that flatten
            their spectrogram frequency-major.
        valid: where tokens may be visible, for inputs that are padded: bool [B, N], in the token
            order of the masks, or bool [B, T, H, W] (where T = 1 also [B, H, W]), as the grid is
            laid out. Tokens where it is False are never visible, and every row still has exactly
            ``n_keep`` visible tokens: the largest values of the noise among its valid tokens. (With
            ``tube`` the places of the one mask come in the order of their values, and of a place
            the earlier frames first.) All True gives the masks of None. A row with fewer than
            ``n_keep`` valid tokens is a ValueError that names it, where the host can see that
            without waiting for a device: on the CPU, outside compiled graphs. Elsewhere the first
            of its other tokens count as valid, until there are ``n_keep``.
    """
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
    return kind.draw(sample_ids, parse_seed(seed, sample_ids.device), valid=valid)


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
    """Regularized blue noise (R-BN): masks whose visible patches are evenly spread.

    K masks, a bank, are made together by the paper's Algorithm 1. It visits the positions of the
    grid in a random order. Each position becomes visible in one mask of the bank: the one that has
    the fewest visible patches on the lines through it, counted in windows around it. Sample s is
    mask s mod K of bank s div K.

    Args:
        sample_ids, mask_ratio, n_keep, freq_major, seed: as for ``noise_masks``.
        grid: (1, H, W) or (H, W); a spectrogram is time-major, H = time and W = mel band.
        n_candidates: K, masks per bank. Default N // n_keep, at least 2: then no position is
            visible in two masks of a bank (5 at ratio 0.8, 4 at 0.75).
        windows: odd window sizes; a patch counts once for each window that reaches it.
        weights: of the horizontal, vertical, main and second diagonal line; decimals with at most
            three places.
        valid: as for ``noise_masks``. Each sample's bank visits the valid positions of its own row
            alone, in the bank's order, again and again until all K masks are full. So masks of one
            bank, whose rows differ, need not cover the grid.
        tie_break: which of several masks with equally few gets a position. "first": the lowest, as
            in the printed algorithm; the last mask of a bank is then more clustered than the
            others. "random": any of them; then all masks of a bank are alike.
    """
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
    return kind.draw(sample_ids, parse_seed(seed, sample_ids.device), valid=valid)


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
    """The K masks of each bank, for orders that the caller gives (Algorithm 1).

    Args:
        order: integer [G, N], each row a permutation of the positions.
        n_candidates: K. If K * n_keep > N, the order is visited again until all masks are full.
        n_keep: visible tokens of every mask.
        grid, windows, weights, tie_break: as for ``rbn_masks``.
        seed: used by ``tie_break="random"`` alone: row g takes the random words of bank g.

    Returns:
        bool [G, K, N], True = visible.
    """
    kind = RbnKind.parse(
        grid,
        n_keep=n_keep,
        n_candidates=parse_n_candidates(n_candidates),  # here None is an error, not a default
        windows=windows,
        weights=weights,
        tie_break=tie_break,
    )
    check_order(order, math.prod(kind.grid))
    return ops.rbn_bank(order.long(), *parse_seed(seed, order.device), *kind.op_arguments)


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
    """Masks of the usual structures. One (1, H, W) mask is repeated over T, but for "frames" and
    "running_cell".

    Args:
        sample_ids, mask_ratio, n_keep, freq_major, seed, valid: as for ``noise_masks``.
        grid: (T, H, W) or (H, W); "time_frequency" and "bands" need T = 1.
        kind: "grid": every s-th patch of every s-th row, s = floor(sqrt(H * W / visible in a
            frame)), at a random offset (MAE's grid-wise sampling). "block": 32 rectangles of a
            quarter to a half of each side, masked one after the other until enough is masked
            (BEiT's and MAE's block-wise masking, in integers). "inverse_block": square blocks
            round random centres are visible (data2vec 2.0; as there, blocks are drawn for a share
            that is 0.07 larger than needed).
            "time_frequency": whole columns of time and bands of mel are masked (AudioMAE's
            fine-tuning), the same share of each. "bands": up to 64 bands of time and of mel in
            turns are masked until enough is masked, with widths drawn evenly from 1 to 3/16 of T
            and to 3/8 of F (SpecAugment; ``MaskSampler`` takes other settings). "frames": whole
            frames are masked; the rows, if T = 1. "multi_block": see ``multi_block_masks``.
            "running_cell": the four patches of each 2x2 cell are visible in turn, frame by frame
            (VideoMAE V2's masks for its decoder).
        block_size: side of an inverse block, in patches.

    Source: Structured-Noise Masked Modeling, Table A.5, compares with the first two.
    """
    check_sample_ids(sample_ids)
    structure = parse_baseline(kind, grid, mask_ratio, n_keep, block_size, freq_major)
    return structure.draw(sample_ids, parse_seed(seed, sample_ids.device), valid=valid)

"""The quality of masks: whether visible tokens are spread evenly and without large holes, whether
all tokens are visible equally often, and whether masks repeat.

The functions take bool ``visible`` [B, T, H, W], True = visible. Their docstrings give the value
for random masks, if there is a formula. ``report`` puts all of them into one row of a table.
``largest_hole`` needs scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.analysis.spectrum import expected_spectrum, radial_spectrum
from smnm_kernels.arguments import Seed, parse_grid
from smnm_kernels.kinds import NoiseField, NoiseKind
from smnm_kernels.kinds.rbn import WEIGHTS, WINDOWS, RbnKind
from smnm_kernels.samplers import MaskSampler
from smnm_kernels.tables.colors import Color, Sigma

#: (dy, dx) of horizontal, vertical, main and second diagonal, in the order of R-BN's weights.
LINES = ((0, 1), (1, 0), (1, 1), (1, -1))
#: A batch of fields is split into this many groups, and the spread of their spectra gives the
#: sampling error.
N_GROUPS = 50
#: A report measures the holes of this many of its masks at most, and the spectrum of this many
#: noise fields.
FEW_MASKS, FEW_FIELDS = 1000, 2000


class SpectrumError(NamedTuple):
    #: Relative L2 distance between estimated and expected spectrum.
    error: float
    #: The root mean square that ``error`` has if the two differ by sampling error alone.
    sampling: float


class LargestHole(NamedTuple):
    #: Mean and maximum, over the masks of a batch, of each mask's largest hole in patches.
    mean: float
    worst: float


class Coverage(NamedTuple):
    #: Largest deviation of a token, in standard deviations of independent masks.
    deviation: float
    #: Expected ``deviation`` of independent masks with independent tokens.
    expected: float
    #: 1 is expected of independent masks that show all tokens equally often. Less: masks avoid the
    #: tokens of other masks. More: some tokens are visible more often than others.
    chi2_per_dof: float


class Distinct(NamedTuple):
    #: Different masks among the B.
    masks: int
    #: 1 - masks / B.
    repeat_rate: float


def spectrum_error(
    fields: Tensor,
    grid: Sequence[int],
    color: Color,
    sigma: Sigma = None,
    *,
    time_scale: float = 1.0,
) -> SpectrumError:
    """Distance between the fields' radial spectrum and the one that their formula gives.

    ``error`` is ||estimate - expected|| / ||expected||, L2 over the shells of ``radial_spectrum``.
    ``sampling`` is the same norm of the estimate's standard error, which is measured from the
    spread of up to 50 groups of the batch. If the formula is right, ``error`` is about
    ``sampling``, and both fall with sqrt(B).

    Args:
        fields: floating point [B, T, H, W], B >= 2, zero mean and unit variance.
        grid, color, sigma, time_scale: what they claim to be, as for ``smnm.noise``.
    """
    sides = parse_grid(grid)
    if fields.dim() != 4 or len(fields) < 2 or tuple(fields.shape[1:]) != sides:
        raise ValueError(f"fields must be [B >= 2, *{sides}], got {list(fields.shape)}")
    groups = fields.tensor_split(min(len(fields), N_GROUPS))
    size = np.array([len(group) for group in groups])
    powers = np.array([radial_spectrum(group)[1] for group in groups])
    power = size @ powers / len(fields)
    _, expected = expected_spectrum(sides, color, sigma, time_scale=time_scale)
    # The mean of n fields has 1/n of a field's variance, so this is unbiased for uneven groups.
    of_a_field = size @ (powers - power) ** 2 / (len(groups) - 1)
    norm = np.linalg.norm(expected)
    return SpectrumError(
        float(np.linalg.norm(power - expected) / norm),
        float(math.sqrt(of_a_field.sum() / len(fields)) / norm),
    )


def clustering(
    visible: Tensor,
    windows: Sequence[int] = WINDOWS,
    weights: Sequence[float] = WEIGHTS,
) -> Tensor:
    """Mean R-BN score of each mask's visible patches, float64 [B]; lower is more even.

    The score of a patch is the sum, over windows, of the weighted counts of other visible patches
    in the window on the horizontal, the vertical and the two diagonals through it, in its own
    frame (``reference.rbn_score`` / 1000). The mean is over all visible patches of a video, so a
    frame without visible patches does not count. Random masks that show n of N tokens have
    (n - 1) / (N - 1) times the value of a mask that shows everything.
    """
    _check(visible)
    *_, height, width = visible.shape
    rule = RbnKind.parse((1, height, width), n_keep=1, windows=windows, weights=weights)
    thousandths = torch.zeros(len(visible), dtype=torch.int64, device=visible.device)
    for step in range(1, max(rule.windows) // 2 + 1):
        n_windows = sum(step <= window // 2 for window in rule.windows)
        for (y, x), weight in zip(LINES, rule.weights, strict=True):
            dy, dx = step * y, step * x
            if dy >= height or abs(dx) >= width:
                continue
            here = visible[:, :, : height - dy, max(0, -dx) : width - max(0, dx)]
            there = visible[:, :, dy:, max(0, dx) : width - max(0, -dx)]
            # A pair of patches counts for both.
            thousandths += 2 * n_windows * weight * (here & there).sum((1, 2, 3))
    return thousandths.double() / (1000 * visible.sum((1, 2, 3)).clamp(min=1))


def largest_hole(visible: Tensor) -> LargestHole:
    """The largest Euclidean distance, in patches, from a masked patch to the nearest visible one.

    Distances are over (T, H, W), with one frame as far as one patch; over (H, W) if T = 1. A mask
    that shows everything has 0.

    Raises:
        ValueError: if a mask shows nothing.
    """
    from scipy.ndimage import distance_transform_edt

    _check(visible)
    if not visible.flatten(1).any(1).all():
        raise ValueError("visible must show a patch in every mask: a hole ends at a visible patch")
    # One transform for all masks. They lie so far apart that the nearest visible patch is always
    # one of the same mask.
    apart = 1.0 + math.hypot(*visible.shape[1:])
    distance = distance_transform_edt(~visible.cpu().numpy(), sampling=(apart, 1, 1, 1))
    largest = distance.max(axis=(1, 2, 3))
    return LargestHole(float(largest.mean()), float(largest.max()))


def coverage(visible: Tensor) -> Coverage:
    """How equally often each token is visible, over the masks of the batch.

    The unit of deviations is sqrt(p (1 - p) / B): the standard deviation of how often a token is
    visible in B independent masks that show the share p of the tokens. ``chi2_per_dof`` is the mean
    of the squared deviations. p is the mean over tokens, so for masks of exact counts this is
    chi-square over N - 1 degrees of freedom, its N / (N - 1) included. Tokens that are visible
    together (a tube's frames, neighbours in a blob) do not change the mean of ``chi2_per_dof``, but
    they raise its spread and lower the largest deviation.
    """
    _check(visible)
    share = visible.flatten(1).sum(0).double() / len(visible)
    p = float(share.mean())
    unit = math.sqrt(p * (1 - p) / len(visible))
    # If every token is visible, or none is, nothing can deviate.
    deviation = (share - p) / unit if 0 < p < 1 else torch.zeros_like(share)
    return Coverage(
        float(deviation.abs().max()), _largest_of(len(share)), float(deviation.square().mean())
    )


def _largest_of(n: int) -> float:
    """Expected largest magnitude of n independent standard normal numbers."""
    # The integral of P(largest > x), which is 0 in float64 beyond x = 12 for any n that fits in
    # memory.
    x = torch.linspace(0, 12, 12001, dtype=torch.float64)
    one_is_below = torch.special.erf(x / math.sqrt(2))
    return float(torch.trapezoid(1 - one_is_below**n, x))


def changes_in_time(visible: Tensor) -> float | None:
    """Share of tokens that differ from the frame before, relative to independent frames.

    Independent frames that show p of their tokens differ in 2 p (1 - p) of them. 0 is a tube,
    1 independent frames, more than 1 frames that avoid each other; None where T = 1.
    """
    _check(visible)
    if visible.shape[1] == 1:
        return None
    p = visible.sum((1, 2, 3)).double() / visible[0].numel()
    independent = float((2 * p * (1 - p)).mean())
    differ = float((visible[:, 1:] != visible[:, :-1]).sum() / visible[:, 1:].numel())
    return differ / independent if independent else 0.0


def distinct(visible: Tensor) -> Distinct:
    """How many masks of the batch are different, and the share of repeats."""
    _check(visible)
    rows = np.packbits(visible.flatten(1).cpu().numpy(), axis=1)
    n = len(np.unique(rows.view(f"V{rows.shape[1]}")))
    return Distinct(n, 1 - n / len(rows))


def report(kind_sampler: MaskSampler, n_masks: int, batch: int) -> dict[str, int | float | None]:
    """A row of a table: all measures of this module for the masks of ids 0 to n_masks - 1, on the
    CPU.

    Args:
        kind_sampler: a ``MaskSampler``, or another object with ``grid`` and ``masks(ids)``.
        n_masks: at least 2.
        batch: masks drawn at a time.

    Returns:
        Numbers, rounded to four digits. ``spectrum_*`` describe the noise before the threshold;
        they are None for kinds without a formula. ``changes_in_time`` is None if T = 1.
    """
    settings = getattr(kind_sampler, "settings", None)
    if settings is not None and settings.freq_major:
        raise ValueError("kind_sampler must count its tokens row-major, got freq_major=True")
    ids, grid = torch.arange(n_masks), kind_sampler.grid
    drawn = [kind_sampler.masks(part).visible.unflatten(1, grid) for part in ids.split(batch)]
    # Distances are slow to compute, and a few hundred masks give their mean well enough.
    few = drawn[: max(1, FEW_MASKS // batch)]
    size = np.array([len(part) for part in few])
    holes = [largest_hole(part) for part in few]
    visible = torch.cat(drawn)
    fair, new = coverage(visible), distinct(visible)
    spectrum = None
    if isinstance(settings, NoiseKind):
        spectrum = _spectrum_of(settings.noise, ids[:FEW_FIELDS], kind_sampler.seed)
    row = {
        "n_masks": n_masks,
        "clustering": float(torch.cat([clustering(part) for part in drawn]).mean()),
        "largest_hole_mean": float(size @ [hole.mean for hole in holes] / size.sum()),
        "largest_hole_worst": max(hole.worst for hole in holes),
        "coverage_deviation": fair.deviation,
        "coverage_expected": fair.expected,
        "coverage_chi2_per_dof": fair.chi2_per_dof,
        "changes_in_time": changes_in_time(visible),
        "distinct": new.masks,
        "repeat_rate": new.repeat_rate,
        "spectrum_error": spectrum.error if spectrum else None,
        "spectrum_sampling_error": spectrum.sampling if spectrum else None,
    }
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


def _spectrum_of(field: NoiseField, ids: Tensor, seed: Tensor) -> SpectrumError:
    fields = field.draw(ids, Seed.beside(ids, seed))
    return spectrum_error(
        fields, field.grid, field.color, field.given_sigma, time_scale=field.time_scale
    )


def _check(visible: Tensor) -> None:
    if visible.dim() != 4 or visible.dtype != torch.bool or 0 in visible.shape:
        raise ValueError(
            f"visible must be bool [B, T, H, W], got {visible.dtype} {list(visible.shape)}"
        )

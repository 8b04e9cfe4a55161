"""From the arguments of a public function to those of its op: checked, canonical, in op order.

The public functions (``functional``) and their twins in ``reference`` both start here, so a wrong
argument fails in the same way whichever runs, before any work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import (
    Grid,
    as_constant,
    check_noise,
    check_sample_ids,
    is_int,
    parse_flag,
    parse_grid,
    parse_n_keep,
    parse_seed,
    remembered,
)
from .colors import Color, Sigma, parse_color, parse_sigma
from .rbn_arguments import (
    check_order,
    default_n_candidates,
    parse_n_candidates,
    parse_rbn_rule,
)

#: The kinds of ``baseline_masks``.
BASELINES = ("grid", "block", "inverse_block", "time_frequency")

Floats, Ints = tuple[float, ...], tuple[int, ...]
NoiseCall = tuple[Tensor, Tensor | None, int, Grid, str, Floats]
RbnCall = tuple[Tensor, Tensor | None, int, Grid, int, int, Ints, Ints, bool]


def noise_call(
    sample_ids: Tensor, grid: Sequence[int], color: Color, sigma: Sigma, seed: int | Tensor
) -> NoiseCall:
    """(sample_ids, seed_tensor, seed, grid, color, sigma)."""
    check_sample_ids(sample_ids)
    field = _parse_field(grid, color, sigma)
    return (sample_ids, *parse_seed(seed, sample_ids.device), *field)


@remembered
def _parse_field(grid: Sequence[int], color: Color, sigma: Sigma) -> tuple[Grid, str, Floats]:
    color = parse_color(color)
    return parse_grid(as_constant(grid)), color, tuple(parse_sigma(color, as_constant(sigma)))


def noise_masks_call(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    mask_ratio: float | None,
    n_keep: int | None,
    sigma: Sigma,
    tube: bool,
    freq_major: bool,
    seed: int | Tensor,
) -> tuple[Tensor, Tensor | None, int, Grid, str, Floats, int, bool]:
    """(sample_ids, seed_tensor, seed, grid, color, sigma, n_keep, tube)."""
    call = noise_call(sample_ids, grid, color, sigma, seed)
    return (*call, *_parse_count(call[3], mask_ratio, n_keep, tube, freq_major))


@remembered
def _parse_count(
    sides: Grid, mask_ratio: float | None, n_keep: int | None, tube: bool, freq_major: bool
) -> tuple[int, bool]:
    parse_flag("freq_major", freq_major)
    frames = sides[0] if parse_flag("tube", tube) else 1
    return parse_n_keep(math.prod(sides), mask_ratio, n_keep, frames), tube


def threshold_call(
    noise: Tensor, mask_ratio: float | None, n_keep: int | None
) -> tuple[Tensor, int]:
    """(noise as float32 or float64 [B, N], n_keep)."""
    check_noise(noise)
    # 16-bit floats embed exactly in float32.
    flat = (noise if noise.dtype == torch.float64 else noise.float()).flatten(1)
    return flat, parse_n_keep(flat.shape[1], mask_ratio, n_keep)


def rbn_masks_call(
    sample_ids: Tensor,
    grid: Sequence[int],
    mask_ratio: float | None,
    n_keep: int | None,
    n_candidates: int | None,
    windows: Sequence[int],
    weights: Sequence[float],
    tie_break: str,
    freq_major: bool,
    seed: int | Tensor,
) -> RbnCall:
    """(sample_ids, seed_tensor, seed, grid, n_keep, n_candidates, windows, weights, ties)."""
    check_sample_ids(sample_ids)
    rule = _parse_rbn(
        grid, mask_ratio, n_keep, n_candidates, windows, weights, tie_break, freq_major
    )
    return (sample_ids, *parse_seed(seed, sample_ids.device), *rule)


@remembered
def _parse_rbn(
    grid: Sequence[int],
    mask_ratio: float | None,
    n_keep: int | None,
    n_candidates: int | None,
    windows: Sequence[int],
    weights: Sequence[float],
    tie_break: str,
    freq_major: bool,
) -> tuple[Grid, int, int, Ints, Ints, bool]:
    parse_flag("freq_major", freq_major)
    sides = parse_grid(as_constant(grid))
    rule = parse_rbn_rule(sides, as_constant(windows), as_constant(weights), tie_break)
    n_keep = parse_n_keep(math.prod(sides), mask_ratio, n_keep)
    if n_candidates is None:
        n_candidates = default_n_candidates(math.prod(sides), n_keep)
    n_candidates = parse_n_candidates(n_candidates)
    return sides, n_keep, n_candidates, rule.windows, rule.weights, rule.random_ties


def baseline_masks_call(
    sample_ids: Tensor,
    grid: Sequence[int],
    kind: str,
    mask_ratio: float | None,
    n_keep: int | None,
    block_size: int,
    freq_major: bool,
    seed: int | Tensor,
) -> tuple[Tensor, Tensor | None, int, Grid, str, int, int]:
    """(sample_ids, seed_tensor, seed, grid, kind, n_keep, block_size)."""
    check_sample_ids(sample_ids)
    sides = parse_grid(as_constant(grid))
    if kind not in BASELINES:
        raise ValueError(f"kind must be one of {', '.join(BASELINES)}, got {kind!r}")
    if kind == "time_frequency" and sides[0] != 1:
        raise ValueError(f"grid for time_frequency masks must be (1, T, F), got {sides}")
    if not is_int(block_size) or block_size < 1:
        raise ValueError(f"block_size must be a positive int, got {block_size!r}")
    parse_flag("freq_major", freq_major)
    n_keep = parse_n_keep(math.prod(sides), mask_ratio, n_keep, frames=sides[0])
    seeds = parse_seed(seed, sample_ids.device)
    return (sample_ids, *seeds, sides, kind, n_keep, int(block_size))


def rbn_bank_call(
    order: Tensor,
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    windows: Sequence[int],
    weights: Sequence[float],
    tie_break: str,
    seed: int | Tensor,
) -> RbnCall:
    """As ``rbn_masks_call``, with int64 orders [G, N] first."""
    n_candidates = parse_n_candidates(n_candidates)  # not None: the orders' owner knows
    rule = _parse_rbn(grid, None, n_keep, n_candidates, windows, weights, tie_break, False)
    check_order(order, math.prod(rule[0]))
    return (order.long(), *parse_seed(seed, order.device), *rule)

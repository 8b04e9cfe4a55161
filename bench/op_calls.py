"""The arguments of an op, from those of its public function, to call kernels directly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smnm_kernels.arguments import parse_seed
from smnm_kernels.kinds import NoiseField, NoiseKind, RbnKind
from smnm_kernels.tables.colors import Color, Sigma


def noise_call(
    sample_ids: Tensor, grid: Sequence[int], color: Color, sigma: Sigma, seed: int | Tensor
) -> tuple:
    """The arguments of ``ops.noise``."""
    field = NoiseField.parse(grid, color, sigma)
    return sample_ids, *parse_seed(seed, sample_ids.device), *field.op_arguments


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
) -> tuple:
    """The arguments of ``ops.noise_masks``."""
    kind = NoiseKind.parse(
        grid,
        mask_ratio,
        color=color,
        n_keep=n_keep,
        sigma=sigma,
        tube=tube,
        freq_major=freq_major,
    )
    return sample_ids, *parse_seed(seed, sample_ids.device), *kind.op_arguments


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
) -> tuple:
    """The arguments of ``ops.rbn_masks``."""
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
    return sample_ids, *parse_seed(seed, sample_ids.device), *kind.op_arguments


def rbn_bank_call(
    order: Tensor,
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    windows: Sequence[int],
    weights: Sequence[float],
    tie_break: str,
    seed: int | Tensor,
) -> tuple:
    """The arguments of ``ops.rbn_bank``."""
    kind = RbnKind.parse(
        grid,
        n_keep=n_keep,
        n_candidates=n_candidates,
        windows=windows,
        weights=weights,
        tie_break=tie_break,
    )
    return order.to(torch.int64), *parse_seed(seed, order.device), *kind.op_arguments

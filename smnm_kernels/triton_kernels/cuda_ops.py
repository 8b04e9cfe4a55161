"""The ops on CUDA tensors. Each launches the op's kernels and guards the first such call.

The first call loads kernels and copies tables to the device. A CUDA graph must not capture it:
Triton would then keep a kernel that was not loaded. Threads must not make it at the same time, so
one waits for the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from .. import devices, libraries
from ..arguments import Seed
from ..ops import MaskTensors
from ..tables.colors import Color
from .dispersion_ops import dispersion_kernel
from .draw_ops import draw_masks_kernel
from .noise_ops import noise_kernel, noise_masks_kernel
from .rbn_ops import rbn_bank_kernel, rbn_masks_kernel
from .structure_ops import structure_masks_kernel
from .threshold_ops import threshold_kernel

Made = TypeVar("Made")

#: Keys of calls whose kernels and tables are on the device: such a call succeeded, with at least
#: one row.
_loaded: set[Hashable] = set()
_first_calls = Lock()


def noise(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    time_scale: float = 1.0,
) -> Tensor:
    seeds = _seed_beside(sample_ids, seed_tensor, seed)
    key = ("noise", sample_ids.device, seeds.tensor is None, *grid, color, *sigma, time_scale)
    return _call(
        key,
        lambda: noise_kernel(sample_ids, *seeds, grid, color, sigma, time_scale),
        sample_ids,
        warn=_warn_of_no_tensor_cores if color != "white" else None,
    )


def noise_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    n_keep: int,
    tube: bool,
    time_scale: float = 1.0,
) -> MaskTensors:
    seeds = _seed_beside(sample_ids, seed_tensor, seed)
    settings = (*grid, color, tube, *sigma, time_scale)
    key = ("noise_masks", sample_ids.device, seeds.tensor is None, *settings)
    return _call(
        key,
        lambda: noise_masks_kernel(
            sample_ids, *seeds, grid, color, sigma, n_keep, tube, time_scale
        ),
        sample_ids,
        warn=_warn_of_no_tensor_cores if color != "white" else None,
    )


def threshold(noise: Tensor, n_keep: int) -> MaskTensors:
    key = ("threshold", noise.device, noise.dtype, noise.shape[1])
    return _call(key, lambda: threshold_kernel(noise, n_keep), noise)


def draw_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    values: Tensor,
    rule: str,
    n_keep: int,
    invert: bool,
    n_swapped: int,
    valid: Tensor | None = None,
) -> MaskTensors:
    seeds = _seed_beside(sample_ids, seed_tensor, seed)
    key = ("draw_masks", sample_ids.device, seeds.tensor is None, values.shape[1])
    return _call(
        (*key, rule, invert, n_swapped > 0, valid is None),
        lambda: draw_masks_kernel(
            sample_ids, *seeds, values, rule, n_keep, invert, n_swapped, valid
        ),
        sample_ids,
    )


def structure_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    valid: Tensor | None,
    grid: Sequence[int],
    structure: str,
    parameters: Sequence[int],
    n_keep: int,
) -> MaskTensors:
    seeds = _seed_beside(sample_ids, seed_tensor, seed)
    key = ("structure_masks", sample_ids.device, seeds.tensor is None, valid is None, *grid)
    return _call(
        (*key, structure),
        lambda: structure_masks_kernel(
            sample_ids, *seeds, valid, grid, structure, parameters, n_keep
        ),
        sample_ids,
    )


def dispersion(data: Tensor, patch: Sequence[int], metric: str) -> Tensor:
    key = ("dispersion", data.device, *data.shape[1:], *patch, metric)
    return _call(key, lambda: dispersion_kernel(data, patch, metric), data)


def rbn_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
    valid: Tensor | None = None,
) -> MaskTensors:
    seeds = _seed_beside(sample_ids, seed_tensor, seed)
    key = (
        "rbn_masks",
        sample_ids.device,
        seeds.tensor is None,
        valid is None,
        *grid,
        *_as_key(n_candidates, windows, weights, random_ties),
    )
    return _call(
        key,
        lambda: rbn_masks_kernel(
            sample_ids, *seeds, grid, n_keep, n_candidates, windows, weights, random_ties, valid
        ),
        sample_ids,
        warn=_warn_of_slow_rbn,
    )


def rbn_bank(
    order: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
) -> Tensor:
    seeds = _seed_beside(order, seed_tensor, seed)
    key = (
        "rbn_bank",
        order.device,
        seeds.tensor is None,
        *grid,
        *_as_key(n_candidates, windows, weights, random_ties),
    )
    return _call(
        key,
        lambda: rbn_bank_kernel(
            order, *seeds, grid, n_keep, n_candidates, windows, weights, random_ties
        ),
        order,
        warn=_warn_of_slow_rbn,
    )


def _as_key(
    n_candidates: int, windows: Sequence[int], weights: Sequence[int], random_ties: bool
) -> tuple[int, ...]:
    return n_candidates, random_ties, *weights, *windows


def _call(
    key: tuple,
    launch: Callable[[], Made],
    first: Tensor,
    warn: Callable[[torch.device], None] | None = None,
) -> Made:
    """Calls ``launch``, guarded if it is the first call with this key.

    Args:
        key: the op's name, then everything that selects its kernels and tables: all arguments but
            the rows of ``first``, the seed and ``n_keep``.
        launch: launches the kernels and returns what they make.
        first: the op's first tensor.
        warn: called with the device before the first launch.
    """
    if key in _loaded:
        return launch()
    # Triton cannot load a kernel in two threads at once.
    with _first_calls:
        if devices.is_capturing(first.device):
            raise RuntimeError(
                f"the first call of smnm::{key[0]} with this grid and these parameters on "
                f"{first.device} cannot be captured in a CUDA graph, because it loads kernels and "
                "copies tables. Make one call before the capture (a sampler makes its own when it "
                "is moved to the device)"
            )
        if warn is not None:
            warn(first.device)
        made = launch()
    if len(first) > 0:
        _loaded.add(key)
    return made


def _seed_beside(first: Tensor, seed_tensor: Tensor | None, seed: int) -> Seed:
    """The seed in a form that kernels on the device of ``first`` can read."""
    if seed_tensor is None or seed_tensor.device == first.device:
        return Seed(seed_tensor, seed)
    if seed_tensor.device.type != "cpu":
        raise ValueError(
            f"seed_tensor must be on the CPU or on the device of the masks, {first.device}, got "
            f"{seed_tensor.device}"
        )
    return Seed(None, int(seed_tensor))


@cache
def _warn_of_no_tensor_cores(device: torch.device) -> None:
    """Below compute capability 8.0, Triton computes products without tensor cores, in registers
    that spill."""
    if not devices.is_cuda(device) or torch.version.hip:
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        warnings.warn(
            f"colored noise on {torch.cuda.get_device_name(device)} (compute capability "
            f"{capability[0]}.{capability[1]}) is made without tensor cores, several times slower "
            "than from compute capability 8.0 on; the masks are the same. Masks made in data "
            "loader workers (smnm_kernels.loading) take no GPU time",
            stacklevel=2,
        )


@cache
def _warn_of_slow_rbn(device: torch.device) -> None:
    remedy = (
        "" if torch.version.hip else ". For the fast path, install nvcc and reinstall smnm_kernels"
    )
    warnings.warn(
        f"R-BN masks run on the Triton kernel, which visits one position at a time: "
        f"{libraries.cuda_problem()}{remedy}",
        stacklevel=2,
    )

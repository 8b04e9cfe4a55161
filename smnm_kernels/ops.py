"""torch.ops.smnm.*: one schema per op, its fake implementation, and which backend runs it.

The backend is chosen once, at import. ``SMNM_BACKEND`` forces one: ``reference`` (the NumPy
definition), ``cpu`` (the C++ extension) or ``triton``. Unset, CPU tensors run on the extension
where it was built, else on the reference with a warning.

The ops take arguments that are already checked and canonical (``calls``); users call the functions
of ``smnm_kernels``.
"""

from __future__ import annotations

import importlib
import math
import os
import warnings
from collections.abc import Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from . import reference
from .colors import Color
from .noise_table import noise_quantiles, noise_table

MaskTensors = tuple[Tensor, Tensor, Tensor]

_MASKS = "(Tensor visible, Tensor ids_keep, Tensor ids_restore)"
_NOISE = "Tensor sample_ids, Tensor? seed_tensor, int seed, SymInt[] grid, str color, float[] sigma"
_RBN = (
    "Tensor? seed_tensor, int seed, SymInt[] grid, SymInt n_keep, int n_candidates, "
    "int[] windows, int[] weights, bool random_ties"
)
_library = torch.library.Library("smnm", "DEF")
_library.define(f"noise({_NOISE}) -> Tensor")
_library.define(f"noise_masks({_NOISE}, SymInt n_keep, bool tube) -> {_MASKS}")
_library.define(f"threshold(Tensor noise, SymInt n_keep) -> {_MASKS}")
_library.define(f"rbn_masks(Tensor sample_ids, {_RBN}) -> {_MASKS}")
_library.define(f"rbn_bank(Tensor order, {_RBN}) -> Tensor")
_OPS = ("noise", "noise_masks", "threshold", "rbn_masks", "rbn_bank")


def _empty_masks(like: Tensor, n_tokens: int, n_keep: int) -> MaskTensors:
    batch = like.shape[0]
    return (
        like.new_empty((batch, n_tokens), dtype=torch.bool),
        like.new_empty((batch, n_keep), dtype=torch.int64),
        like.new_empty((batch, n_tokens), dtype=torch.int64),
    )


@torch.library.register_fake("smnm::noise", lib=_library)
def _fake_noise(sample_ids: Tensor, seed_tensor, seed, grid, *field) -> Tensor:  # noqa: ANN001, ANN002
    return sample_ids.new_empty((sample_ids.shape[0], *grid), dtype=torch.float32)


@torch.library.register_fake("smnm::noise_masks", lib=_library)
def _(sample_ids, seed_tensor, seed, grid, color, sigma, n_keep, tube) -> MaskTensors:  # noqa: ANN001
    return _empty_masks(sample_ids, math.prod(grid), n_keep)


@torch.library.register_fake("smnm::threshold", lib=_library)
def _(noise: Tensor, n_keep: int) -> MaskTensors:
    return _empty_masks(noise, noise.shape[1], n_keep)


@torch.library.register_fake("smnm::rbn_masks", lib=_library)
def _(sample_ids: Tensor, seed_tensor, seed, grid, n_keep: int, *rule) -> MaskTensors:  # noqa: ANN001, ANN002
    return _empty_masks(sample_ids, math.prod(grid), n_keep)


@torch.library.register_fake("smnm::rbn_bank", lib=_library)
def _(order: Tensor, seed_tensor, seed, grid, n_keep, n_candidates: int, *rule) -> Tensor:  # noqa: ANN001, ANN002
    return order.new_empty((order.shape[0], n_candidates, math.prod(grid)), dtype=torch.bool)


def _fake_masks_from_table(sample_ids: Tensor, seed_tensor, seed, grid, *rest) -> MaskTensors:  # noqa: ANN001, ANN002
    *_table, n_keep, frames = rest
    return _empty_masks(sample_ids, math.prod(grid) * frames, n_keep)


def _table_arguments(
    grid: Sequence[int], color: Color, sigma: Sequence[float]
) -> tuple[Sequence[int], Tensor, Tensor, Tensor, Tensor]:
    """(torus, taps, pairs, scale, quantiles) for the C++ kernels; white noise has no table."""
    if color == "white":
        integers = torch.empty(0, 3, dtype=torch.int16)
        return grid, integers, integers, torch.empty(0), integers
    table = noise_table(tuple(grid), color, tuple(sigma))
    return table.torus, table.taps, table.pairs, table.scale, noise_quantiles()


def _cpu_noise(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
) -> Tensor:
    table = _table_arguments(grid, color, sigma)
    return torch.ops.smnm.noise_from_table(sample_ids, seed_tensor, seed, grid, *table)


def _cpu_noise_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    n_keep: int,
    tube: bool,
) -> MaskTensors:
    frames, drawn_grid = (grid[0], (1, *grid[1:])) if tube else (1, grid)
    table = _table_arguments(drawn_grid, color, sigma)
    return torch.ops.smnm.noise_masks_from_table(
        sample_ids, seed_tensor, seed, drawn_grid, *table, n_keep, frames
    )


def _load_cpu() -> str | None:
    """Loads the extension, which registers the CPU kernels; returns why it could not."""
    try:
        importlib.import_module("smnm_kernels._cpu")
    except ModuleNotFoundError:
        return "the C++ extension was not built"
    except ImportError as error:
        return f"the C++ extension does not load ({error})"
    torch.library.register_fake("smnm::noise_from_table", _fake_noise, lib=_library)
    torch.library.register_fake(
        "smnm::noise_masks_from_table", _fake_masks_from_table, lib=_library
    )
    _library.impl("noise", _cpu_noise, "CPU")
    _library.impl("noise_masks", _cpu_noise_masks, "CPU")
    return None


def _register_reference() -> None:
    for name in _OPS:
        _library.impl(name, getattr(reference, f"{name}_kernel"), "CPU")


def _register_cuda() -> None:
    """CUDA tensors: made on the CPU and copied, until this package has kernels for the GPU."""
    for name in _OPS:
        _library.impl(name, partial(_on_cpu, getattr(torch.ops.smnm, name)), "CUDA")


def _on_cpu(op: torch._ops.OpOverloadPacket, first: Tensor, *arguments: object) -> object:
    _warn_of_detour(first.device.type)
    arguments = [a.cpu() if isinstance(a, Tensor) else a for a in arguments]
    return tree_map(lambda made: made.to(first.device), op(first.cpu(), *arguments))


@cache
def _warn_of_detour(device_type: str) -> None:
    warnings.warn(
        f"masks for {device_type} tensors are made on the CPU and copied, which makes the device "
        "wait: this version of smnm_kernels has no GPU kernels",
        stacklevel=2,
    )


#: Why each backend cannot be used, or None where it can.
_missing: dict[str, str | None] = {
    "reference": None,
    "cpu": "not loaded: SMNM_BACKEND forces another backend",
    "triton": "its kernels are not part of this version",
}


def _choose_backend() -> str:
    forced = os.environ.get("SMNM_BACKEND", "")
    if forced not in ("", *_missing):
        raise ValueError(
            f"SMNM_BACKEND must be one of {', '.join(_missing)} or unset, got {forced!r}"
        )
    if forced in ("", "cpu"):
        _missing["cpu"] = _load_cpu()
    if forced and _missing[forced] is not None:
        raise ImportError(f"SMNM_BACKEND={forced} cannot be used: {_missing[forced]}")
    if forced == "reference" or _missing["cpu"] is not None:
        _register_reference()
        if not forced:
            warnings.warn(
                "masks are made by the NumPy reference, hundreds of times slower: "
                f"{_missing['cpu']}. For the fast path, install a C++ compiler and torch, then "
                "reinstall smnm_kernels",
                stacklevel=3,
            )
        return "reference"
    return "cpu"


_active = _choose_backend()
_register_cuda()


def backends() -> dict[str, str]:
    """Each backend and its state: "active" (runs CPU tensors), "available", or why it is not."""
    return {
        name: "active" if name == _active else missing or "available"
        for name, missing in _missing.items()
    }


def build_info() -> dict[str, object] | None:
    """What the C++ extension was built with, or None where it is not loaded."""
    if _missing["cpu"] is not None:
        return None
    return importlib.import_module("smnm_kernels._cpu").build_info()

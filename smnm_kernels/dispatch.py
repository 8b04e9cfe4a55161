"""Which code runs the ops.

The backend of CPU tensors is chosen once, at import. The environment variable ``SMNM_BACKEND``
forces it: ``reference`` (the NumPy definition), ``cpu`` (the C++ library) or ``triton`` (the Triton
kernels in Triton's interpreter). Unset, it is the C++ library if it was built, else the reference.

CUDA tensors run on the Triton kernels (``triton_kernels``); R-BN runs on the CUDA library if it was
built. Where Triton cannot run, masks are made on the CPU and copied. Every slower path warns, once.

The C++ and CUDA libraries register their kernels themselves when they are loaded:

======================== ======================= =====================
op                       CPU                     CUDA
======================== ======================= =====================
noise_from_table         csrc/cpu/noise.cpp
noise_masks_from_table   csrc/cpu/noise.cpp
threshold                csrc/cpu/threshold.cpp
dispersion               csrc/cpu/dispersion.cpp
draw_masks_from_table    csrc/cpu/draw.cpp
structure_masks          csrc/cpu/structures.cpp
rbn_masks, rbn_bank      csrc/cpu/rbn.cpp        csrc/cuda/rbn.cu
======================== ======================= =====================
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from . import devices, libraries, ops, reference
from .ops import (
    MaskTensors,
    fake_draw_masks_from_table,
    fake_masks_from_table,
    fake_noise,
    library,
)
from .tables.colors import Color
from .tables.constants import DRAW_RULES
from .tables.logarithms import packed_logarithms
from .tables.noise import packed_table

_RBN_OPS = ("rbn_masks", "rbn_bank")
_OPS = (
    *("noise", "noise_masks", "threshold", "draw_masks", "structure_masks", "dispersion"),
    *_RBN_OPS,
)
#: Allowed values of SMNM_BACKEND.
_FORCEABLE = ("reference", "cpu", "triton")


def _cpu_noise(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    time_scale: float = 1.0,
) -> Tensor:
    table = packed_table(tuple(grid), color, tuple(sigma), time_scale)
    return torch.ops.smnm.noise_from_table.default(sample_ids, seed_tensor, seed, grid, table)


def _cpu_noise_masks(
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
    frames, drawn_grid = (grid[0], (1, *grid[1:])) if tube else (1, tuple(grid))
    table = packed_table(drawn_grid, color, tuple(sigma), time_scale)
    return torch.ops.smnm.noise_masks_from_table.default(
        sample_ids, seed_tensor, seed, drawn_grid, table, n_keep, frames
    )


def _cpu_draw_masks(
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
    return torch.ops.smnm.draw_masks_from_table.default(
        *(sample_ids, seed_tensor, seed, values, packed_logarithms(), DRAW_RULES.index(rule)),
        *(n_keep, invert, n_swapped, valid),
    )


def _load_cpu() -> str | None:
    """Loads the CPU library and registers its kernels. Returns None, or why it cannot be loaded."""
    problem = libraries.cpu_problem()
    if problem is not None:
        return problem
    torch.library.register_fake("smnm::noise_from_table", fake_noise, lib=library)
    torch.library.register_fake("smnm::noise_masks_from_table", fake_masks_from_table, lib=library)
    torch.library.register_fake(
        "smnm::draw_masks_from_table", fake_draw_masks_from_table, lib=library
    )
    library.impl("noise", _cpu_noise, "CPU")
    library.impl("noise_masks", _cpu_noise_masks, "CPU")
    library.impl("draw_masks", _cpu_draw_masks, "CPU")
    ops.noise_masks_on_cpu = _cpu_noise_masks
    return None


def _register_reference() -> None:
    library.impl("noise", reference.noise_kernel, "CPU")
    library.impl("noise_masks", reference.noise_masks_kernel, "CPU")
    library.impl("threshold", reference.threshold_kernel, "CPU")
    library.impl("draw_masks", reference.draw_masks_kernel, "CPU")
    library.impl("structure_masks", reference.structure_masks_kernel, "CPU")
    library.impl("dispersion", reference.dispersion_kernel, "CPU")
    library.impl("rbn_masks", reference.rbn_masks_kernel, "CPU")
    library.impl("rbn_bank", reference.rbn_bank_kernel, "CPU")


def _register_triton_interpreter() -> None:
    from . import triton_kernels

    library.impl("noise", triton_kernels.noise_kernel, "CPU")
    library.impl("noise_masks", triton_kernels.noise_masks_kernel, "CPU")
    library.impl("threshold", triton_kernels.threshold_kernel, "CPU")
    library.impl("draw_masks", triton_kernels.draw_masks_kernel, "CPU")
    library.impl("structure_masks", triton_kernels.structure_masks_kernel, "CPU")
    library.impl("dispersion", triton_kernels.dispersion_kernel, "CPU")
    library.impl("rbn_masks", triton_kernels.rbn_masks_kernel, "CPU")
    library.impl("rbn_bank", triton_kernels.rbn_bank_kernel, "CPU")


def _on_cuda(name: str, first: Tensor, *arguments: object) -> object:
    return _cuda_ops()[name](first, *arguments)


@cache
def _cuda_ops() -> dict[str, Callable]:
    """The function that runs each op on CUDA tensors. Found at the first call, because importing
    Triton is slow."""
    problem = _triton_problem()
    if problem:
        copy = partial(_copy_from_cpu, problem)
        return {
            "noise": partial(copy, torch.ops.smnm.noise.default),
            "noise_masks": partial(copy, torch.ops.smnm.noise_masks.default),
            "threshold": partial(copy, torch.ops.smnm.threshold.default),
            "draw_masks": partial(copy, torch.ops.smnm.draw_masks.default),
            "structure_masks": partial(copy, torch.ops.smnm.structure_masks.default),
            "dispersion": partial(copy, torch.ops.smnm.dispersion.default),
            "rbn_masks": partial(copy, torch.ops.smnm.rbn_masks.default),
            "rbn_bank": partial(copy, torch.ops.smnm.rbn_bank.default),
        }
    from .triton_kernels import cuda_ops

    return {
        "noise": cuda_ops.noise,
        "noise_masks": cuda_ops.noise_masks,
        "threshold": cuda_ops.threshold,
        "draw_masks": cuda_ops.draw_masks,
        "structure_masks": cuda_ops.structure_masks,
        "dispersion": cuda_ops.dispersion,
        "rbn_masks": cuda_ops.rbn_masks,
        "rbn_bank": cuda_ops.rbn_bank,
    }


def _copy_from_cpu(
    problem: str, op: Callable[..., object], first: Tensor, *arguments: object
) -> object:
    """Runs ``op`` on the CPU and copies its result to the device of ``first``."""
    if devices.is_capturing(first.device):
        raise RuntimeError(
            f"masks that are made on the CPU cannot be captured in a CUDA graph: {problem}"
        )
    _warn_of_detour(first.device.type, problem)
    on_cpu = [a.cpu() if isinstance(a, Tensor) else a for a in arguments]
    return tree_map(lambda tensor: tensor.to(first.device), op(first.cpu(), *on_cpu))


@cache
def _triton_problem() -> str | None:
    """Why Triton cannot launch kernels here, or None. Triton may be installed without a driver."""
    try:
        import triton

        triton.runtime.driver.active.get_current_target()
    except Exception as error:
        return f"Triton cannot launch kernels ({error})"
    return None


@cache
def _warn_of_detour(device_type: str, problem: str) -> None:
    warnings.warn(
        f"masks for {device_type} tensors are made on the CPU and copied, which makes the device "
        f"wait: {problem}",
        stacklevel=2,
    )


#: Why each backend cannot be used, or None where it can.
_missing: dict[str, str | None] = {
    "reference": None,
    "cpu": "not loaded: SMNM_BACKEND forces another backend",
    "triton": None if importlib.util.find_spec("triton") else "Triton is not installed",
    "cuda": libraries.cuda_problem(),
}


def _choose_backend() -> str:
    forced = os.environ.get("SMNM_BACKEND", "")
    if forced not in ("", *_FORCEABLE):
        raise ValueError(
            f"SMNM_BACKEND must be one of {', '.join(_FORCEABLE)} or unset, got {forced!r}"
        )
    if forced in ("", "cpu"):
        _missing["cpu"] = _load_cpu()
    problem = _missing.get(forced)
    if forced == "triton" and problem is None and os.environ.get("TRITON_INTERPRET") != "1":
        problem = (
            "it runs CPU tensors in Triton's interpreter, which TRITON_INTERPRET=1 turns on "
            "(CUDA tensors use Triton without being forced)"
        )
    if problem is not None:
        raise ImportError(f"SMNM_BACKEND={forced} cannot be used: {problem}")
    if forced == "triton":
        _register_triton_interpreter()
        return "triton"
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
for _name in _OPS:
    if _name not in _RBN_OPS or _missing["cuda"] is not None:
        library.impl(_name, partial(_on_cuda, _name), "CUDA")


def backends() -> dict[str, str]:
    """Each backend and its state: "active" (runs CPU tensors), "available", or why it is not.

    On CUDA tensors "triton" makes noise masks and "cuda" R-BN masks.
    """
    return {
        name: "active" if name == _active else missing or "available"
        for name, missing in _missing.items()
    }


def build_info() -> dict[str, object] | None:
    """What the C++ library was built with, or None if it is not loaded."""
    if _missing["cpu"] is not None:
        return None
    return libraries.cpu_build_info()

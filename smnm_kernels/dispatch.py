"""Which code runs the ops.

What runs CPU tensors is chosen once, at import. ``SMNM_BACKEND`` forces it: ``reference`` (the
NumPy definition), ``cpu`` (the C++ extension) or ``triton`` (the GPU's kernels in Triton's
interpreter). Unset, it is the extension where it was built, else the reference with a warning.

CUDA tensors run on the Triton kernels (``gpu``), R-BN on the CUDA library where it was built.
What then has no kernel is made on the CPU and copied. Every slower path warns, once.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock
from types import ModuleType

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from . import devices, reference
from .colors import Color
from .noise_table import noise_quantiles, noise_table
from .ops import MaskTensors, fake_masks_from_table, fake_noise, library

_RBN_OPS = ("rbn_masks", "rbn_bank")
_OPS = ("noise", "noise_masks", "threshold", *_RBN_OPS)
#: What SMNM_BACKEND may be.
_FORCEABLE = ("reference", "cpu", "triton")


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
    torch.library.register_fake("smnm::noise_from_table", fake_noise, lib=library)
    torch.library.register_fake("smnm::noise_masks_from_table", fake_masks_from_table, lib=library)
    library.impl("noise", _cpu_noise, "CPU")
    library.impl("noise_masks", _cpu_noise_masks, "CPU")
    return None


def _register_cpu(kernels: ModuleType) -> None:
    for name in _OPS:
        library.impl(name, getattr(kernels, f"{name}_kernel"), "CPU")


def _load_cuda() -> str | None:
    """Loads the CUDA library, which registers the R-BN ops; returns why it could not."""
    if torch.version.hip is not None:
        return "torch is built for ROCm, not for CUDA"
    if torch.version.cuda is None:
        return "torch is built without CUDA"
    libraries = sorted(Path(__file__).parent.glob("_cuda*.so"))
    if not libraries:
        return "the CUDA library was not built"
    try:
        torch.ops.load_library(libraries[0])
    except OSError as error:
        return f"the CUDA library does not load ({error})"
    return None


def _on_triton(name: str, first: Tensor, *arguments: object) -> object:
    problem = _triton_problem()
    if problem:
        return _copied_from_cpu(problem, name, first, arguments)
    if name != "threshold":
        arguments = (*_seed_beside(first, *arguments[:2]), *arguments[2:])
    kernels = _what_is_compiled(name, first, arguments)
    launch = getattr(importlib.import_module(".gpu", __package__), f"{name}_kernel")
    if kernels in _called:
        return launch(first, *arguments)
    # Triton's kernels are not ready for a second thread while the first one loads them.
    with _first_calls:
        _before_first_call(name, first.device, arguments)
        made = launch(first, *arguments)
    if len(first) > 0:
        _called.add(kernels)
    return made


def _copied_from_cpu(problem: str, name: str, first: Tensor, arguments: tuple) -> object:
    if devices.is_capturing(first.device):
        raise RuntimeError(
            f"masks that are made on the CPU cannot be captured in a CUDA graph: {problem}"
        )
    _warn_of_detour(first.device.type, problem)
    on_cpu = [a.cpu() if isinstance(a, Tensor) else a for a in arguments]
    made = getattr(torch.ops.smnm, name)(first.cpu(), *on_cpu)
    return tree_map(lambda tensor: tensor.to(first.device), made)


#: What has kernels and tables on its device: calls that went well, and had something to do.
_called: set[tuple] = set()
_first_calls = Lock()


def _what_is_compiled(name: str, first: Tensor, arguments: tuple) -> tuple:
    """Equal for calls that run the same kernels with the same tables: all but the batch, the seed
    and ``n_keep``."""
    if name == "threshold":
        return name, first.device, first.dtype, first.shape[1]
    if name in _RBN_OPS:
        seed_tensor, _, grid, _, n_candidates, windows, weights, ties = arguments
        rule = (n_candidates, ties, *weights, *windows)
        return name, first.device, seed_tensor is None, *grid, *rule
    seed_tensor, _, grid, color, sigma, *count_and_tube = arguments
    return name, first.device, seed_tensor is None, *grid, color, *count_and_tube[1:], *sigma


def _before_first_call(name: str, device: torch.device, arguments: tuple) -> None:
    """Kernels are loaded and tables copied, which a CUDA graph cannot capture (Triton would keep
    the kernel that did not load); and what will be slow warns."""
    if devices.is_capturing(device):
        raise RuntimeError(
            f"the first call of smnm::{name} with this grid and these parameters on {device} "
            "cannot be captured in a CUDA graph, because it loads kernels and copies tables. Make "
            "one call before the capture (a sampler makes its own when it is moved to the device)"
        )
    if name in _RBN_OPS:
        _warn_of_slow_rbn(_missing["cuda"])
    elif name != "threshold" and arguments[3] != "white":
        _warn_of_no_tensor_cores(device)


def _seed_beside(first: Tensor, seed_tensor: Tensor | None, seed: int) -> tuple[Tensor | None, int]:
    """(seed_tensor, seed) that kernels on the device of ``first`` can read."""
    if seed_tensor is None or seed_tensor.device == first.device:
        return seed_tensor, seed
    if seed_tensor.device.type != "cpu":
        raise ValueError(
            f"seed_tensor must be on the CPU or on the device of the masks, {first.device}, got "
            f"{seed_tensor.device}"
        )
    return None, int(seed_tensor)


@cache
def _triton_problem() -> str | None:
    """Why Triton cannot launch kernels here, or None. An importable Triton may lack a driver."""
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


@cache
def _warn_of_no_tensor_cores(device: torch.device) -> None:
    """Triton's products need compute capability 8.0, else they are sums in registers that spill."""
    if not devices.is_cuda(device) or torch.version.hip:
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        warnings.warn(
            f"colored noise on {torch.cuda.get_device_name(device)} (compute capability "
            f"{capability[0]}.{capability[1]}) is made without tensor cores, several times slower "
            "than from compute capability 8.0 on; the masks are the same. Masks made in data "
            "loader workers (smnm_kernels.loading) take no time of the GPU",
            stacklevel=2,
        )


@cache
def _warn_of_slow_rbn(problem: str | None) -> None:
    remedy = (
        "" if torch.version.hip else ". For the fast path, install nvcc and reinstall smnm_kernels"
    )
    warnings.warn(
        f"R-BN masks run on the Triton kernel, which visits one position at a time: {problem}"
        f"{remedy}",
        stacklevel=2,
    )


#: Why each backend cannot be used, or None where it can.
_missing: dict[str, str | None] = {
    "reference": None,
    "cpu": "not loaded: SMNM_BACKEND forces another backend",
    "triton": None if importlib.util.find_spec("triton") else "Triton is not installed",
    "cuda": _load_cuda(),
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
        _register_cpu(importlib.import_module(".gpu", __package__))
        return "triton"
    if forced == "reference" or _missing["cpu"] is not None:
        _register_cpu(reference)
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
        library.impl(_name, partial(_on_triton, _name), "CUDA")


def backends() -> dict[str, str]:
    """Each backend and its state: "active" (runs CPU tensors), "available", or why it is not.

    On CUDA tensors "triton" makes noise masks and "cuda" R-BN masks.
    """
    return {
        name: "active" if name == _active else missing or "available"
        for name, missing in _missing.items()
    }


def build_info() -> dict[str, object] | None:
    """What the C++ extension was built with, or None where it is not loaded."""
    if _missing["cpu"] is not None:
        return None
    return importlib.import_module("smnm_kernels._cpu").build_info()

"""The compiled libraries beside this file: they register ops when they are loaded.

They do not use Python's C API, so one build serves every version of Python. Beside its ops the CPU
library has C functions that describe how it was built and what runs.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent


#: The vector instructions that the CPU library has code for, from narrow to wide. On ARM the
#: baseline is NEON.
VECTOR_PATHS = ("baseline", "avx2", "avx_vnni", "avx512", "avx512_vnni")


@cache
def cpu_problem() -> str | None:
    """Loads the CPU library; returns why it could not, or None.

    Raises ValueError where SMNM_VECTORS is none of VECTOR_PATHS, ImportError where it is one that
    this processor does not have.
    """
    asked = os.environ.get("SMNM_VECTORS") or None
    if asked is not None and asked not in VECTOR_PATHS:
        raise ValueError(f"SMNM_VECTORS must be one of {', '.join(VECTOR_PATHS)}, got {asked!r}")
    problem = _load("cpu")
    if problem is None and asked is not None:
        there: list[str] = cpu_build_info()["vector_paths"]
        if asked not in there:
            raise ImportError(
                f"SMNM_VECTORS={asked} cannot be used: this processor has {', '.join(there)}"
            )
    return problem


@cache
def cuda_problem() -> str | None:
    """Loads the CUDA library; returns why it could not, or None."""
    if torch.version.hip is not None:
        return "torch is built for ROCm, not for CUDA"
    if torch.version.cuda is None:
        return "torch is built without CUDA"
    return _load("cuda")


def _load(name: str) -> str | None:
    path = _path(name)
    if not path.exists():
        return f"the {name.upper()} library was not built"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"the {name.upper()} library does not load ({error})"
    return None


def cpu_build_info() -> dict[str, Any]:
    """What the CPU library was built with, and which of its code runs. The library must be
    loaded."""
    describe = ctypes.CDLL(str(_path("cpu"))).smnm_build_info
    describe.restype = ctypes.c_char_p
    return json.loads(describe())


def rbn_path(
    height: int, width: int, n_candidates: int, windows: Sequence[int], weights: Sequence[int]
) -> str:
    """How the CPU library runs banks of these checked arguments. The library must be loaded."""
    describe = ctypes.CDLL(str(_path("cpu"))).smnm_rbn_path
    describe.restype = ctypes.c_char_p
    int64 = ctypes.c_int64
    return describe(
        *map(int64, (height, width, n_candidates)),
        (int64 * len(windows))(*windows),
        int64(len(windows)),
        (int64 * len(weights))(*weights),
    ).decode()


def _path(name: str) -> Path:
    return _FOLDER / f"_{name}.so"

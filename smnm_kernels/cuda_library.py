"""The library of CUDA ops, which registers them when it is loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch


@cache
def problem() -> str | None:
    """Loads the library; returns why it could not, or None."""
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

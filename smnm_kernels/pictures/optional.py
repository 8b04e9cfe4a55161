"""Packages that only pictures need."""

from __future__ import annotations

import importlib
from types import ModuleType


def import_for_pictures(module: str) -> ModuleType:
    """Import a module of the `train` extra; where it is missing, say in one line how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"pictures need {error.name}: pip install 'smnm_kernels[train]'", name=error.name
        ) from None

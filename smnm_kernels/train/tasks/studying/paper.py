"""The structured-noise paper's figures, from paper.toml."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@cache
def tables() -> dict[str, dict[str, dict[str, float]]]:
    """By table, column and run."""
    found: Any = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return found


def published(table: str, column: str, run: str) -> float | None:
    """None where the paper has no such figure."""
    return tables().get(table, {}).get(column, {}).get(run)

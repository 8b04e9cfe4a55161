"""The structured-noise paper's figures, from paper.toml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from .reading import parsed


@cache
def published_tables() -> dict[str, dict[str, dict[str, float]]]:
    """By table, column and run."""
    return parsed(Path(__file__).with_suffix(".toml").read_bytes())


def published(table: str, column: str, run: str) -> float | None:
    """None where the paper has no such figure."""
    return published_tables().get(table, {}).get(column, {}).get(run)

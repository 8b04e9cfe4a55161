"""Inputs of a run: how many patches of each are visible. A clip with sound has two, others one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smnm_kernels.train.tasks.masking import Grid
from smnm_kernels.train.tasks.pretrain_setup import Setup


@dataclass(frozen=True)
class Visible:
    """Patches of one input that masks show."""

    n_keep: int
    grid: Grid

    def __str__(self) -> str:
        return f"{self.n_keep} of {'x'.join(map(str, self.grid))}"


def visible_of(setup: Setup) -> dict[str, Visible]:
    """Of each input that is masked, by its name."""
    return {name: Visible(kind.n_keep, kind.grid) for name, kind in setup.kinds.items()}


def in_words(visible: Mapping[str, Visible]) -> str:
    """ "4 of 1x4x4"; of several inputs "video 24 of 8x6x6, audio 12 of 1x8x8"."""
    if len(visible) == 1:
        return str(next(iter(visible.values())))
    return ", ".join(f"{name} {of}" for name, of in visible.items())


def counts(visible: Mapping[str, Visible]) -> dict[str, Any]:
    """As results hold them: n_keep and grid, of several inputs each by their names."""
    n_keep = {name: of.n_keep for name, of in visible.items()}
    grid = {name: list(of.grid) for name, of in visible.items()}
    if len(visible) == 1:
        return {"n_keep": next(iter(n_keep.values())), "grid": next(iter(grid.values()))}
    return {"n_keep": n_keep, "grid": grid}


def counts_in_words(row: Mapping[str, Any]) -> str:
    """Of what `counts` made: "4 of 16"; of several inputs "video 24 of 288, audio 12 of 64"."""
    n_keep, grid = row["n_keep"], row["grid"]
    if not isinstance(n_keep, dict):
        return f"{n_keep} of {math.prod(grid)}"
    return ", ".join(f"{name} {n_keep[name]} of {math.prod(grid[name])}" for name in n_keep)

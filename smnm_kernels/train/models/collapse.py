"""A watch over whether what a model tells apart falls into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Our choices. Of 3000 prototypes an entropy of a twentieth of the largest is that of 9 tokens in
# 10 with one prototype and the rest with a few.
LOW = 0.05
PATIENCE = 100  # steps


class CollapseWatch:
    """Says so where an entropy, given by its share of the largest, stays low.

    It is low below `low`. It is reported by its name when it has been low for `patience` steps in a
    row, and again only after it was not. Steps of the warmup do not count, in which the rate rises:
    at first a model predicts the same everywhere. A run that goes on begins to count anew.
    """

    def __init__(self, names: Sequence[str], low: float = LOW, patience: int | None = None) -> None:
        self.low, self.patience = low, PATIENCE if patience is None else patience
        self._steps = dict.fromkeys(names, 0)  # that each has been low for
        self._rate = 0.0

    def __call__(self, row: dict[str, Any]) -> str | None:
        """Is told the row of every step, in order; a warning, or None."""
        rises, self._rate = row["lr"] > self._rate, row["lr"]
        found = []
        for name in self._steps:
            low = row[name] < self.low and not rises
            self._steps[name] = self._steps[name] + 1 if low else 0
            if self._steps[name] == self.patience:
                found.append(f"{name} {row[name]:.3f}")
        if not found:
            return None
        return (
            f"warning: collapse, at step {row['step']}: {' and '.join(found)} of the largest, "
            f"below {self.low:g} for {self.patience} steps: nearly all masked patches go to one "
            "prototype. A lower --lr, a longer --warmup-steps or a larger batch may help"
        )

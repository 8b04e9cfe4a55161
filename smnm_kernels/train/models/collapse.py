"""A watch over whether what a model tells apart falls into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Our choices. Before so many steps nothing is expected of a model.
_PATIENCE = 100
_LOW = 0.2


class CollapseWatch:
    """Says so where one of some scalars of the steps, shares in [0, 1], stays low.

    A scalar is low below `low`. It is reported by its name when it has been low for `patience`
    steps of this process in a row, and again only after it was not.
    """

    def __init__(self, names: Sequence[str], low: float = _LOW, patience: int = _PATIENCE) -> None:
        self.low, self.patience = low, patience
        self._steps = dict.fromkeys(names, 0)  # that each has been low for

    def __call__(self, row: dict[str, Any]) -> str | None:
        """Is told the row of every step, in order; a warning, or None."""
        found = []
        for name in self._steps:
            self._steps[name] = self._steps[name] + 1 if row[name] < self.low else 0
            if self._steps[name] == self.patience:
                found.append(f"{name} {row[name]:.3f}")
        if not found:
            return None
        return (
            f"warning: collapse, at step {row['step']}: {' and '.join(found)}, below {self.low:g} "
            f"for {self.patience} steps. Nearly all masked patches go to a few prototypes; a lower "
            "--lr, a longer --warmup-steps or a larger batch may help"
        )

"""What an evaluation writes and prints, whatever it measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smnm_kernels.errors import printable
from smnm_kernels.train.metrics.intervals import Interval

from .frozen import Frozen

_LONGEST = 40  # characters of an encoder's name in a table


def described(frozen: Frozen) -> dict[str, Any]:
    """An encoder, for a row of results."""
    return {
        "encoder": frozen.name,
        "origin": frozen.origin,
        "digest": frozen.digest,
        "input_size": list(frozen.encoder.input_size),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns below each other, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def signed(interval: Interval) -> str:
    """A difference, as `Interval` prints values."""
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def shortened(name: str) -> str:
    """For a table: the end of a long path."""
    shown = printable(name)
    return shown if len(shown) <= _LONGEST else f"…{shown[1 - _LONGEST :]}"


def unlike(names: Sequence[str]) -> list[str]:
    """Names that can be told apart: one that was given twice gets a number."""
    found: list[str] = []
    for name in names:
        count = 2
        shown = name
        while shown in found:
            shown, count = f"{name} ({count})", count + 1
        found.append(shown)
    return found

"""Bars of long work: on a terminal they move; in a log file a line comes now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_ON_TERMINAL_S, _IN_LOG_S = 0.5, 10.0  # between two lines


def bar(
    what: str,
    total: int | None = None,
    unit: str = " files",
    over: Iterable[Any] | None = None,
    delay: float = 0,
) -> tqdm:
    """A bar that is gone when the work is done.

    what: is done.
    over: what is gone through; None: who made the bar calls its `update`.
    delay: seconds before it is shown. In a log file ten at least.
    """
    is_terminal = sys.stderr.isatty()
    return tqdm(
        over,
        desc=what,
        total=total,
        unit=unit,
        leave=False,
        mininterval=_ON_TERMINAL_S if is_terminal else _IN_LOG_S,
        # Else so many steps are passed over as came within the first interval.
        miniters=None if is_terminal else 1,
        delay=delay if is_terminal else max(delay, _IN_LOG_S),
        file=sys.stderr if is_terminal else _Lines(),
    )


class _Lines:
    """What tqdm draws over itself, one line below the other."""

    def write(self, text: str) -> int:
        shown = text.strip()  # also of what it wipes a line with
        if shown:
            sys.stderr.write(f"{shown}\n")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()

"""Stopping a run from outside."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType, TracebackType
from typing import Any

# The same Ctrl-C reaches a process under torchrun twice: from the terminal, and from torchrun.
_ECHO_S = 1.0


class StoppedBySignal(Exception):
    """Work that was stopped before the first step; what was done of it is kept."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a note for the loop; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0  # time.monotonic() of the first
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever owns that decides about signals
                break
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is None:
            self.number, self.since = number, now
        elif "TORCHELASTIC_RUN_ID" not in os.environ or now > self.since + _ECHO_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

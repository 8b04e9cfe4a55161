"""What a run shows while it goes on."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

# Without a terminal, the next line comes after a tenth of the time that has passed, within these.
_SOONEST_S, _LATEST_S = 10.0, 600.0


class Progress:
    """A bar on a terminal. In a log file a line now and then, ever more seldom."""

    def __init__(self, step: int, steps: int, shown: bool) -> None:
        self._steps = steps
        self._bar = self._began = None
        if shown and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, unit=" steps", mininterval=0.5)
        elif shown:
            self._began = self._next = time.monotonic()

    def show(self, step: int, text: str) -> None:
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(text, refresh=False)
        elif self._began is not None:
            now = time.monotonic()
            if now >= self._next:
                print(f"step {step} of {self._steps}: {text}", file=sys.stderr, flush=True)
                self._next = now + min(max(0.1 * (now - self._began), _SOONEST_S), _LATEST_S)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """A line for the user, above the bar."""
    tqdm.write(text)
    sys.stdout.flush()  # also in a file, where it may tell why nothing moves

"""Writing has an end, too: a disk that does not answer ends the run with a name."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smnm_kernels.errors import printable
from smnm_kernels.train.data.waiting import TICK_S, work_done

_FIRST_REMARK_S = 15.0
# Where a system does not tell of a thread's CPU time and bytes, so many times the limit.
_UNTOLD_FACTOR = 10


@contextmanager
def bounded(path: Path, limit: float) -> Iterator[None]:
    """While `path` is written. Where the thread that writes shows no sign of life for `limit`
    seconds (no CPU time, no byte), the process says so and ends with exit code 1: who waits in the
    system for a disk is reached by no exception."""
    over = threading.Event()
    task = f"/proc/self/task/{threading.get_native_id()}"
    threading.Thread(target=_watch, args=(path, limit, task, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(path: Path, limit: float, task: str, over: threading.Event) -> None:
    quiet, waited, next_remark = 0.0, 0.0, _FIRST_REMARK_S
    seen, last = work_done(task), time.monotonic()
    while not over.wait(TICK_S):
        now = time.monotonic()
        passed, last = min(now - last, 5 * TICK_S), now  # the process itself may have stood still
        work = work_done(task)
        waited += passed
        quiet = quiet + passed if work == seen else 0.0
        seen = work
        if quiet > limit * (1 if work else _UNTOLD_FACTOR):
            _end(
                f"smnm: error: {printable(str(path))}: nothing could be written for {quiet:.0f} s, "
                "without a CPU second or a byte. Does the disk or the network mount answer? The "
                "last checkpoint is whole; where it is only slow, raise --stall-limit"
            )
        if waited > next_remark:
            next_remark *= 2
            print(
                f"waiting for {printable(str(path))} to be written since {waited:.0f} s",
                file=sys.stderr,
                flush=True,
            )


def _end(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    os._exit(1)

"""The section "load" of `smnm bench`: how long single calls take while other processes hold every
core, beside the same calls while nothing else runs.

In a training job they often do: data loader workers, other ranks, other users. A call that shares
its work out among threads ends when the last of them does, and a thread that the system has put
aside comes back after some milliseconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from .mask_making import AUDIO, RANDOM, VIDEO, Shape, contenders
from .paired_times import Contender, round_to_4_digits

#: Names of those of ``contenders`` that are measured.
WHAT = {
    VIDEO: (RANDOM, "rand + topk", "smnm green3d", "smnm NoiseBank.masks"),
    AUDIO: (RANDOM, "smnm rbn", "inverse block (data2vec 2.0)"),
}
#: Quiet and loaded spells, in turn.
SPELLS = 3
#: Processes that do nothing need some time until they do it.
SECONDS_TO_START = 0.5
LEAST_CALLS = 20


def under_load(
    batches: tuple[int, ...], seconds: float, device: torch.device, progress: Callable[[str], None]
) -> list[dict]:
    """Rows for each shape, batch size and contender: quantiles of the time of a call, quiet and
    under load. On the CPU only: no rows for another device."""
    if device.type != "cpu":
        progress("load: left out, because it is measured on the CPU only")
        return []
    groups = {
        (shape, batch): [c for c in contenders(shape, batch, device) if c.what in WHAT[shape]]
        for shape in WHAT
        for batch in batches
    }
    each = seconds / SPELLS / 2 / sum(map(len, groups.values()))
    quiet: dict[tuple, list[float]] = {}
    loaded: dict[tuple, list[float]] = {}
    for spell in range(SPELLS):
        progress(f"load: nothing else runs, {spell + 1} of {SPELLS}")
        _measure(groups, quiet, each)
        progress(f"load: every core is busy, {spell + 1} of {SPELLS}")
        with every_core_busy():
            _measure(groups, loaded, each)
    made = []
    for (shape, batch), group in groups.items():
        for contender in group:
            key = shape, batch, contender.what
            made.append(_row(shape, batch, contender, quiet[key], loaded[key]))
    return made


@contextmanager
def every_core_busy() -> Iterator[None]:
    """Keeps every core that this process may use busy with a process of its own."""
    # They end with this process, also if it is killed.
    script = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    command = (sys.executable, "-c", script)
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    hogs: list[subprocess.Popen] = []
    try:
        for _ in range(cores):
            hogs.append(subprocess.Popen(command, start_new_session=True))  # Ctrl-C is ours
        time.sleep(SECONDS_TO_START)
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def _measure(
    groups: dict[tuple[Shape, int], list[Contender]], times: dict[tuple, list[float]], each: float
) -> None:
    """Adds the microseconds of single calls, ``each`` seconds of every contender."""
    for (shape, batch), group in groups.items():
        for contender in group:
            own = times.setdefault((shape, batch, contender.what), [])
            contender.run()
            end, least = time.perf_counter() + each, len(own) + LEAST_CALLS
            while time.perf_counter() < end or len(own) < least:
                start = time.perf_counter()
                contender.run()
                own.append(1e6 * (time.perf_counter() - start))


def _row(
    shape: Shape, batch: int, contender: Contender, quiet: list[float], loaded: list[float]
) -> dict:
    median = statistics.median(quiet)
    return {
        "section": "load",
        "shape": str(shape),
        "batch": batch,
        "what": contender.what,
        "ours": contender.ours,
        "quiet_us": round_to_4_digits(median),
        "quiet_us_p95": round_to_4_digits(_p95(quiet)),
        "loaded_us": round_to_4_digits(statistics.median(loaded)),
        "loaded_us_p95": round_to_4_digits(_p95(loaded)),
        "times_quiet": round_to_4_digits(statistics.median(loaded) / median),
        "times_quiet_p95": round_to_4_digits(_p95(loaded) / median),
        "calls": len(loaded),
        "note": contender.note,
    }


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]

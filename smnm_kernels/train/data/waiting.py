"""Waiting for data, so that it has an end: it is said, it is stopped by a signal, and where nothing
moves any more the run is told so."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from smnm_kernels.errors import RunError

T = TypeVar("T")

TICK_S = 0.2  # so long no signal is seen, at most
DEFAULT_STALL_LIMIT_S = 45
# A file that is worked on without an end, as by a decoder that loops, has so many times the limit.
_BUSY_FACTOR = 10
_FIRST_REMARK_S = 30.0  # later ones each after twice the time
_END_S = 2.0  # so long Python waits at its exit for a thread


class Stopped(Exception):
    """A signal asked to stop while data was waited for."""


class Diary:
    """What a reader is at. It lies in memory of `SIZE` bytes, which processes may share."""

    SIZE = 16

    def __init__(self, memory: object) -> None:
        self._values = np.frombuffer(memory, np.int64)  # type: ignore[call-overload]

    def begin(self, file_number: int) -> None:
        self._values[1] = file_number
        self._values[0] += 1

    @property
    def files_begun(self) -> int:
        return int(self._values[0])

    @property
    def file_number(self) -> int | None:
        """The file that was begun last."""
        return int(self._values[1]) if self._values[0] else None


class Reader(Protocol):
    """A process or thread that reads."""

    @property
    def name(self) -> str: ...

    @property
    def diary(self) -> Diary | None:
        """None where it has only been started."""

    @property
    def task(self) -> str:
        """Its place in /proc."""


def work_done(task: str) -> list[str]:
    """CPU time and bytes of a task so far, in the system's words; empty where it does not say."""
    found = []
    for file in ("stat", "io"):
        try:
            text = Path(task, file).read_text()
        except OSError:
            continue
        # Of "stat" the times in user and system mode; a name before them may hold anything.
        found.append(" ".join(text.rpartition(")")[2].split()[11:13]) if file == "stat" else text)
    return found


class Watch:
    """Follows a wait for one reader.

    `limit` is in seconds: of no sign of life (no CPU time, no byte, no further file). Where a
    system does not tell of CPU time and bytes, and for a file that is worked on without an end, it
    is ten times that (`busy_factor`). Time in which this process itself was suspended does not
    count.
    """

    def __init__(
        self,
        limit: float,
        name_of: Callable[[int], str],
        say: Callable[[str], None],
        stop: Callable[[], bool],
        busy_factor: float | None = None,
    ) -> None:
        self._limit, self._name_of, self._say, self._stop = limit, name_of, say, stop
        self._busy_limit = limit * (_BUSY_FACTOR if busy_factor is None else busy_factor)
        self.begin()

    def begin(self) -> None:
        """A wait begins."""
        self._waited = self._quiet = self._on_file = 0.0
        self._next_remark = _FIRST_REMARK_S
        self._last_tick = time.monotonic()
        self._seen: tuple[int, list[str]] | None = None

    def tick(self, reader: Reader) -> None:
        """To be called every TICK_S seconds or so. Raises Stopped where the run is to stop, and
        RunError where the reader stands still."""
        if self._stop():
            raise Stopped
        now = time.monotonic()
        passed, self._last_tick = min(now - self._last_tick, 5 * TICK_S), now
        self._waited += passed
        begun = reader.diary.files_begun if reader.diary else 0
        work = work_done(reader.task)
        same_file = self._seen is not None and self._seen[0] == begun
        self._on_file = self._on_file + passed if same_file else 0.0
        self._quiet = self._quiet + passed if work and self._seen == (begun, work) else 0.0
        self._seen = begun, work
        if self._quiet > self._limit:
            raise RunError(
                f"{reader.name} has stood still for {self._quiet:.0f} s{self._place(reader)}: no "
                "CPU time, no byte. Does the disk or the network mount with the data answer? "
                "Where it is only slow, raise --stall-limit"
            )
        if self._on_file > self._busy_limit:
            raise RunError(
                f"{reader.name} has worked for {self._on_file:.0f} s without an end"
                f"{self._place(reader)}. Leave that file out of DATA; where it only takes long, "
                "raise --stall-limit"
            )
        if self._waited > self._next_remark:
            self._next_remark *= 2
            self._say(
                f"waiting for data since {self._waited:.0f} s: {reader.name}{self._place(reader)}"
            )

    def _place(self, reader: Reader) -> str:
        number = reader.diary.file_number if reader.diary else None
        return "" if number is None else f" at {self._name_of(number)}"


class Background(Generic[T]):
    """Work in a thread, so that the thread that waits for it sees signals."""

    def __init__(self, name: str, work: Callable[[Diary], T]) -> None:
        self.name = name
        self.diary: Diary | None = Diary(bytearray(Diary.SIZE))
        self._results: list[T] = []
        self._error: BaseException | None = None
        # A daemon, since Python would wait at its exit for any other, which may stand still.
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True, name=name)
        self._thread.start()

    def _run(self, work: Callable[[Diary], T]) -> None:
        assert self.diary
        try:
            self._results.append(work(self.diary))
        except BaseException as error:
            self._error = error

    @property
    def task(self) -> str:
        return f"/proc/self/task/{self._thread.native_id}"

    def finished(self, timeout: float) -> bool:
        """Whether it is finished within so many seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        # While Python takes itself apart, a thread that comes back from a library to it ends the
        # process. One that stands still does not come back.
        atexit.register(self._thread.join, _END_S)

    def result(self) -> T:
        """Of finished work: what it gave, or what it raised."""
        if self._error is not None:
            raise self._error
        return self._results[0]


def wait_for(work: Background[T], watch: Watch) -> T:
    watch.begin()
    try:
        while not work.finished(TICK_S):
            watch.tick(work)
    except BaseException:
        work.abandon()
        raise
    return work.result()

"""Running cells, each in a process of its own, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from tqdm import tqdm

from smnm_kernels.errors import printable
from smnm_kernels.train.run.machine import cores
from smnm_kernels.train.run.progress import say
from smnm_kernels.train.run.signals import StopSignal

from .folders import LOG, CellFolder

#: In the environment of a cell's process: it ends when its input does, as with who started it.
ENDS_WITH_INPUT = "SMNM_STUDY_ENDS_WITH_INPUT"
_LOOK_S, _PATIENCE_S = 0.5, 60.0
_WITH_STEPS = "{desc} |{bar}| {n_fmt}/{total_fmt} steps"


@dataclass(frozen=True)
class Share:
    """What one of several cells that run at once takes of the machine."""

    threads: int
    workers: int

    @classmethod
    def of(cls, jobs: int, threads: int | None = None, workers: int | None = None) -> Share:
        """Cores are shared out; of its own, a cell leaves one to the process that reads files.
        threads, workers: what was asked for in their place."""
        own = max(1, cores() // jobs)
        return cls(
            max(1, own - 1) if threads is None else threads,
            min(8, own - 1) if workers is None else workers,
        )


@dataclass
class Started:
    folder: CellFolder
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    told: bool = False  # to stop


def run_all(
    folders: Sequence[CellFolder],
    jobs: int,
    share: Share,
    command: Callable[[CellFolder], list[str]],
) -> int:
    """Runs the cells that are not done, `jobs` at a time, and returns 0; 1 where any failed, after
    all others ran; 130 or 143 when a signal stopped them: they keep what was done.

    command: of a cell's process.
    """
    waiting, running = list(folders), list[Started]()
    failed: list[CellFolder] = []
    elsewhere: list[CellFolder] = []
    with StopSignal() as stop, _Bars(len(folders), jobs) as bars:
        while (waiting and stop.number is None) or running:
            while waiting and len(running) < jobs and stop.number is None:
                running.append(_start(waiting.pop(0), command, share))
            time.sleep(_LOOK_S)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                one.log.close()
                if _ended(one, stop.number is not None) == "failed":
                    failed.append(one.folder)
                elif one.folder.is_locked():
                    elsewhere.append(one.folder)
                bars.ended()
            bars.show([one.folder for one in running])
            if stop.number is not None:
                _stop(running, stop.number, stop.since)
    for folder in elsewhere:
        print(f"{folder.cell.name}: another process works on it")
    for folder in failed:
        print(f"failed: {folder.cell.name}, see {printable(str(folder.path / LOG))}")
    if stop.number is not None:
        print(f"stopped by {signal.Signals(stop.number).name}; the same command goes on")
        return 128 + stop.number
    return 1 if failed else 0


def _start(folder: CellFolder, command: Callable[[CellFolder], list[str]], share: Share) -> Started:
    folder.path.mkdir(parents=True, exist_ok=True)
    log = (folder.path / LOG).open("ab")
    environment = os.environ | {ENDS_WITH_INPUT: "1", "OMP_NUM_THREADS": str(share.threads)}
    process = subprocess.Popen(
        command(folder),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # a terminal's Ctrl-C reaches it through us, and once
    )
    return Started(folder, process, log)


def _ended(one: Started, stopped: bool) -> str:
    """What became of it; where it failed, that is said and kept."""
    code, folder = one.process.returncode, one.folder
    if code == 0 or folder.result is not None:  # by another process, while this one waited
        return "done"
    if (stopped and (code in (130, 143) or code < 0)) or folder.is_locked():
        return "stopped"
    if folder.failure is None:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        folder.fail([*folder.last_lines(), how])
    say(f"{folder.cell.name} failed:")
    for line in (folder.failure or {}).get("last_lines", []):
        say(f"  {printable(line)}")
    return "failed"


def _stop(running: Sequence[Started], number: int, since: float) -> None:
    """Asks once; who does not end for long is ended."""
    late = time.monotonic() > since + _PATIENCE_S
    for one in running:
        if one.process.poll() is None:
            if late:
                one.process.kill()
            elif not one.told:
                one.process.send_signal(number)
                one.told = True


def end_with_input() -> None:
    """In a cell's process: SIGTERM to itself once its input ends, as when who started it is gone.
    What was begun is saved, as with any SIGTERM."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


class _Bars:
    """One for the whole, one for each cell that runs. Without a terminal a line a cell."""

    def __init__(self, total: int, jobs: int) -> None:
        self._shown = sys.stderr.isatty()
        self._done, self._total = 0, total
        self._whole: tqdm | None = None
        self._each: list[tqdm] = []
        if self._shown:
            self._whole = tqdm(total=total, unit=" cells", position=0, mininterval=0.5)
            self._each = [
                tqdm(total=1, position=1 + i, leave=False, bar_format="{desc}") for i in range(jobs)
            ]
        self._told: set[str] = set()

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error: object) -> None:
        for one in (*self._each, *([self._whole] if self._whole else [])):
            one.close()

    def ended(self) -> None:
        self._done += 1
        if self._whole is not None:
            self._whole.update()
        else:
            print(f"{self._done} of {self._total} cells", file=sys.stderr, flush=True)

    def show(self, folders: Sequence[CellFolder]) -> None:
        if not self._shown:
            for folder in folders:
                if folder.cell.name not in self._told:
                    print(f"{folder.cell.name} ({folder.cell.id})", file=sys.stderr, flush=True)
                    self._told.add(folder.cell.name)
            return
        for i, one in enumerate(self._each):
            text, step, steps = "", 0, None
            if i < len(folders):
                doing, step, steps = folders[i].doing()
                text = f"{folders[i].cell.name}: {doing}"
            one.bar_format = _WITH_STEPS if steps else "{desc}"
            one.total, one.n = steps, step
            one.set_description_str(text, refresh=True)
        if self._whole is not None:
            self._whole.refresh()

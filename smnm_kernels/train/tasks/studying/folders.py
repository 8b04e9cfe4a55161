"""What lies in the folder of a study.

plan.toml                the plan as it was run last
cells/ID/cell.json       what the cell is
cells/ID/state.json      what it is doing, since when
cells/ID/files           a link to the data set, which its lists of files name it by
cells/ID/pretrain/       its run, as `smnm pretrain` leaves it
cells/ID/NAME/           results of the measure NAME
cells/ID/restored.png    a held-out file, the same for all cells, under a mask of the run's
cells/ID/parts.json      what is finished of it: the encoder, and each measure
cells/ID/log.txt         what it printed
cells/ID/failed.json     why it ended; gone when it is begun again
cells/ID/result.json     its numbers, written last: a cell that has it is never run again
"""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from smnm_kernels.train.run.folder import CONFIG, METRICS, write_json

from .cells import Cell

CELLS, PLAN = "cells", "plan.toml"
RESULT, PARTS, _STATE, _FAILED, ABOUT, LOG = (
    "result.json", "parts.json", "state.json", "failed.json", "cell.json", "log.txt",
)  # fmt: skip
RUN, PICTURE, LINK, HELD_OUT = "pretrain", "restored.png", "files", "held_out.csv"
State = Literal["done", "running", "failed", "begun", "open", "no data"]


class CellFolder:
    """One cell's."""

    def __init__(self, study: Path, cell: Cell) -> None:
        self.cell = cell
        self.path = study / CELLS / cell.id

    @property
    def run(self) -> Path:
        return self.path / RUN

    @property
    def result(self) -> dict[str, Any] | None:
        return read_json(self.path / RESULT)

    @property
    def failure(self) -> dict[str, Any] | None:
        return read_json(self.path / _FAILED)

    def finish(self, result: dict[str, Any]) -> None:
        write_json(self.path / RESULT, result)
        (self.path / _STATE).unlink(missing_ok=True)

    def begin(self) -> None:
        (self.path / _FAILED).unlink(missing_ok=True)
        write_json(self.path / ABOUT, {"name": self.cell.name, "settings": self.cell.settings})

    def fail(self, lines: Sequence[str]) -> None:
        write_json(self.path / _FAILED, {"last_lines": list(lines)})

    def note(self, doing: str, run: str, environment: dict[str, Any]) -> list[dict[str, Any]]:
        """What the cell does now, for who looks from outside; `run` is the folder below its own
        where that leaves its results. Returns the other environments of processes that did the same
        and did not end it."""
        before = read_json(self.path / _STATE) or {}
        others = before.get("environments", []) if before.get("doing") == doing else []
        others = [one for one in others if one != environment]
        state = {"doing": doing, "run": run, "since": time.time()}
        write_json(self.path / _STATE, state | {"environments": [*others, environment]})
        return others

    def doing(self) -> tuple[str, int, int | None]:
        """(what the cell does or did last, how many steps of it are done, of how many); None where
        it has no steps."""
        state = read_json(self.path / _STATE) or {}
        run = self.path / state.get("run", RUN)
        runtime = (read_json(run / CONFIG) or {}).get("runtime", {})
        return state.get("doing", "starting"), last_step(run), runtime.get("steps")

    def is_locked(self) -> bool:
        return is_locked(self.path)

    def state(self) -> State:
        if not self.cell.has_data:
            return "no data"
        if not self.path.exists():
            return "open"
        if (self.path / RESULT).exists():
            return "done"
        if self.is_locked():
            return "running"
        if (self.path / _FAILED).exists():
            return "failed"
        return "begun" if (self.path / _STATE).exists() else "open"

    def last_lines(self, count: int = 5) -> list[str]:
        """Of what it printed."""
        try:
            text = (self.path / LOG).read_bytes()[-20_000:].decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]


@dataclass(frozen=True)
class StudyFolder:
    """DIR of a study."""

    path: Path
    #: Of cells that were finished elsewhere, and count as those that were finished here.
    elsewhere: tuple[dict[str, Any], ...] = ()

    def cell(self, cell: Cell) -> CellFolder:
        return CellFolder(self.path, cell)

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """Of all cells that were finished when this was first asked, of other plans, too."""
        found = [read_json(path) for path in sorted(self.path.glob(f"{CELLS}/*/{RESULT}"))]
        return [*(one for one in found if one is not None), *self.elsewhere]

    def result_of(self, cell: Cell, any_code: bool) -> dict[str, Any] | None:
        """The cell's numbers; with `any_code` also those that other code of this package made."""
        if not cell.has_data:
            return None
        for one in self.results:
            key, wanted = ("id_of_any_code", cell.id_of_any_code) if any_code else ("id", cell.id)
            if one[key] == wanted:
                return one
        return None

    def seconds(self, cells: Sequence[Cell], any_code: bool) -> float | None:
        """What those of the cells that are finished took, on average."""
        found = [self.result_of(cell, any_code) for cell in cells]
        taken = [sum(one["seconds"].values()) for one in found if one is not None]
        return sum(taken) / len(taken) if taken else None


def is_locked(cell: Path) -> bool:
    """Whether a process works in a cell's folder; not, where that cannot be asked."""
    try:
        file = (cell / ".lock").open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
        fcntl.lockf(file, fcntl.LOCK_UN)
    return False


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def last_step(run: Path) -> int:
    """Steps of a run that have their row."""
    try:
        with (run / METRICS).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 4096))
            rows = file.read().split(b"\n")[:-1]
        return int(json.loads(rows[-1])["step"]) if rows else 0
    except (OSError, ValueError, KeyError):
        return 0

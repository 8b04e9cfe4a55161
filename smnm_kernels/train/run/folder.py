"""The RUN folder: who may write it, what is in it, and how it survives a kill at any moment.

config.json          what the run is ("run": decides the losses; "runtime": may change on resume)
files.json           the data files with their probed lengths; samples refer to this list
scan.jsonl           while data files are looked at: what was found so far
labels.json          kind of labels and names of classes, of a run on labelled files
skipped.json         the data files that were left out, each with its reason
metrics.jsonl        one row a step
last.pt              step, model, optimiser, the task's own state: everything needed to go on
encoder.safetensors  the encoder, once the run is finished
encoders/            encoders of earlier steps, where --keep-every asks for them

A task adds pictures of the latest checkpoint.
"""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.files import reason, replacing, sync
from smnm_kernels.train.data import records
from smnm_kernels.train.data.records import Records
from smnm_kernels.train.data.scan import Listing

from .differing import differing

CONFIG, FILES, SKIPPED = "config.json", "files.json", "skipped.json"
SCAN, LABELS = "scan.jsonl", "labels.json"
METRICS, CHECKPOINT = "metrics.jsonl", "last.pt"
ENCODER = "encoder.safetensors"
ENCODERS = "encoders"  # the folder of those of earlier steps
# Of config.json and last.pt. Runs of smnm_kernels 0.1.0 carry none: their format was the first.
FORMAT = 3

_LOCK_WAIT_S = 10.0
_LOCKED = (errno.EACCES, errno.EAGAIN)  # POSIX allows either where another process has the lock


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


@contextmanager
def before_any_work(path: Path) -> Iterator[None]:
    """What cannot be written now is a reason not to begin."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"--out {path}: cannot be written ({reason(error)}); "
            "a folder is needed in which files can be made"
        ) from error


class RunFolder:
    """RUN, locked for this process until it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with before_any_work(path):
            self._is_new = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            # A record lock: it is the process's own (loader workers do not inherit it) and the
            # system lets go of it however the process ends.
            self._lock = (path / ".lock").open("a")
            self._take_lock()
            for folder in (path, path / ENCODERS):
                for left in folder.glob(".*.tmp"):  # of a run that was killed while it wrote
                    left.unlink(missing_ok=True)

    @classmethod
    def of_results(cls, path: Path) -> RunFolder:
        """For a command that trains no run: UsageError where it is one, whose files would be
        overwritten."""
        for name in (CONFIG, CHECKPOINT):
            if (path / name).exists():
                raise UsageError(
                    f"--out {path}: holds a run ({name}), whose files would be overwritten; give "
                    "another --out"
                )
        return cls(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """What was refused leaves nothing behind."""
        if isinstance(error, UsageError):
            self.remove_if_unused()

    def release(self) -> None:
        """Let go of the lock before the process ends."""
        self._lock.close()

    def remove_if_unused(self) -> None:
        """Where this process made RUN and wrote nothing into it, as when the data is refused."""
        if self._is_new and [f.name for f in self.path.iterdir()] == [".lock"]:
            (self.path / ".lock").unlink()
            self.path.rmdir()

    def _take_lock(self) -> None:
        until = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in _LOCKED:
                    print(
                        f"--out {self.path}: no locks there ({reason(error)}); see to it that no "
                        "other run writes to that folder",
                        flush=True,
                    )
                    return
                if time.monotonic() > until:
                    raise UsageError(f"--out {self.path}: another run is writing there") from None
                time.sleep(0.2)

    def kept_encoder(self, step: int) -> Path:
        """Where the encoder of this step goes; its folder is there."""
        path = encoder_of_step(self.path, step)
        path.parent.mkdir(exist_ok=True)
        return path

    def write_config(self, run: dict[str, Any], runtime: dict[str, Any]) -> None:
        with before_any_work(self.path):
            write_json(self.path / CONFIG, {"format": FORMAT, "run": run, "runtime": runtime})

    def read_files(self) -> tuple[Records, Records]:
        """(usable, skipped)"""
        path = self.path / FILES
        return records.read_files(path) if path.exists() else (Records(), Records())

    def write_files(self, listing: Listing) -> None:
        with before_any_work(self.path), replacing(self.path / FILES) as file:
            records.write_files(file, listing.usable, listing.skipped)

    def write_skipped(self, reasons: dict[str, str]) -> None:
        with before_any_work(self.path):
            self.note_skipped(reasons)

    def note_skipped(self, reasons: dict[str, str]) -> None:
        """As `write_skipped`, of a run that is going: OSError where it cannot be written."""
        write_json(self.path / SKIPPED, reasons)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        with replacing(self.path / CHECKPOINT) as file:
            torch.save({"format": FORMAT} | state, file)


def encoder_of_step(run: Path, step: int) -> Path:
    """Of those that RUN keeps."""
    return run / ENCODERS / f"step-{step:08}.safetensors"


def read_config(path: Path) -> dict[str, Any] | None:
    """config.json of RUN `path`, or None where RUN is new; UsageError where it is no run that this
    version can go on with."""
    file = path / CONFIG
    if file.exists():
        try:
            held = json.loads(file.read_text())
            config = {"run": dict(held["run"]), "runtime": dict(held["runtime"])}
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"--out {path}: its {CONFIG} is not of a training run; give another"
            ) from error
        _check_format(path, held.get("format", 1))
        return config
    if (path / CHECKPOINT).exists():
        raise UsageError(f"--out {path}: holds {CHECKPOINT} but no {CONFIG}; not ours to use")
    return None


def _check_format(path: Path, found: int) -> None:
    if found == FORMAT:
        return
    maker = "smnm_kernels 0.1.0" if found == 1 else "the version that began it"
    raise UsageError(
        f"--out {path}: holds a run of format {found}, this version goes on with format "
        f"{FORMAT}. Finish it with {maker}, or begin anew in another --out"
    )


def check_config(
    path: Path, run: dict[str, Any], before: dict[str, Any], words: Mapping[str, str]
) -> None:
    """Refuse to go on with other settings than RUN `path` was begun with; `words` as of
    `differing`."""
    found = differing(json.loads(json.dumps(run)), before, words)
    if found:
        raise UsageError(
            f"--out {path}: holds a run with other settings: {found}. "
            "Ask for the same, or give another --out"
        )


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The last whole checkpoint of RUN `path`, tensors on the CPU; None where there is none yet."""
    file = path / CHECKPOINT
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"{file}: is not a checkpoint that can be read ({error})") from error


def steps_done(path: Path) -> int:
    """Of the run in RUN `path`, up to its last checkpoint."""
    state = load_checkpoint(path)
    return state["step"] if state else 0


class MetricsLog:
    """metrics.jsonl, cut back to the rows of the steps that the checkpoint holds."""

    def __init__(self, path: Path, steps_done: int) -> None:
        rows = _whole_rows(path)[:steps_done]
        if [row["step"] for row in rows] != list(range(1, steps_done + 1)):
            raise UsageError(
                f"{path}: rows for steps 1 to {steps_done} are needed to go on from the "
                f"checkpoint, got {len(rows)} whole rows"
            )
        with before_any_work(path.parent):
            with replacing(path) as file:
                for row in rows:
                    file.write(_line(row))
            # Without a buffer: a killed process loses nothing that was handed to the system.
            self._file = path.open("ab", buffering=0)
        self.path, self.losses = path, [row["loss"] for row in rows]

    def add(self, row: dict[str, Any]) -> None:
        self.losses.append(row["loss"])
        line = _line(row)
        with self._named():
            while line:  # a disk that is getting full takes a part and refuses the next
                line = line[self._file.write(line) :]

    def sync(self) -> None:
        """Before a checkpoint: it must never be on disk ahead of its rows."""
        with self._named():
            sync(self._file.fileno())

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """Rows up to the first torn one."""
    rows = []
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows

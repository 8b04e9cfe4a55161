"""Disks that are full, file systems without locks or without a sync of folders."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from clips import losses, rows
from line import Line, run_line
from PIL import Image

from smnm_kernels.errors import RunError, UsageError
from smnm_kernels.files import replacing
from smnm_kernels.train.run import stalled
from smnm_kernels.train.run.folder import MetricsLog, RunFolder, load_checkpoint, write_json


@pytest.fixture
def small_disk(tmp_path):
    """RUN on a file system of its own."""
    run = tmp_path / "run"
    run.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(run)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to mount")
    yield run
    subprocess.run(["umount", "--lazy", str(run)], check=True)


def fill(folder):
    def write_all():
        with (folder / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    with pytest.raises(OSError, match="No space"):
        write_all()


class Fills(Line):
    """Fills the disk before something is written that needs more than there is."""

    when = ""
    full = False

    def _fill(self, folder, when):
        if self.when == when and not type(self).full:
            fill(folder)
            type(self).full = True

    def state(self):
        # More than a file's buffer, so that it is torch.save that finds the disk full.
        return super().state() | {"more": torch.zeros(1 << 12)}

    def step(self, forward, batch, clock):
        if len(self.seen) == 16:
            self._fill(self.dataset.folder.parent / "run", "checkpoint")
        return super().step(forward, batch, clock)

    def picture(self, samples):
        self._fill(self.dataset.folder.parent / "run", "picture")
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), np.uint8))

    def export(self, path, step):
        self._fill(path.parent, "encoder")
        with replacing(path) as file:
            file.write(bytes(1 << 14))


@pytest.mark.parametrize(
    ("when", "file", "saved"),
    [("checkpoint", "last.pt", 3), ("picture", "line.png", 3), ("encoder", "encoder", 10)],
)
def test_a_full_disk_is_named_and_the_last_checkpoint_whole(
    tmp_path, small_disk, monkeypatch, when, file, saved
):
    monkeypatch.setattr(Fills, "when", when)
    monkeypatch.setattr(Fills, "full", False)
    with pytest.raises(RunError) as error:
        run_line(tmp_path, Fills)
    assert f"{small_disk}/{file}" in str(error.value)
    kept = "saved" if when != "checkpoint" else "the last checkpoint is whole, from"
    full = "the disk is full, make room there"
    assert f": {full}; {kept} after step {saved} of 10" in str(error.value)
    assert load_checkpoint(small_disk)["step"] == saved
    assert not list(small_disk.glob(".*.tmp"))
    (small_disk / "filler").unlink()
    run_line(tmp_path, Fills)
    run_line(tmp_path / "whole")
    assert losses(small_disk) == losses(tmp_path / "whole" / "run")


def test_a_disk_that_is_full_from_the_start_is_refused(tmp_path, small_disk):
    fill(small_disk)
    with pytest.raises(UsageError, match="cannot be written"):
        run_line(tmp_path)


class Filling:
    """A file on a disk that gets full."""

    def __init__(self, room):
        self.held, self.room = b"", room

    def write(self, data):
        taken = data[: self.room - len(self.held)]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.held += taken
        return len(taken)


def test_a_row_that_does_not_fit_is_named_and_torn_rows_are_cut(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log._file = Filling(room=40)
    log.add({"step": 1, "loss": 1.0})
    with pytest.raises(OSError, match="metrics") as error:
        log.add({"step": 2, "loss": 1.0})
    assert error.value.filename == str(path)
    path.write_bytes(log._file.held)
    assert len(log._file.held) == 40
    assert MetricsLog(path, 1).losses == [1.0]


def failing_sync(monkeypatch, number, of_folders):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
@pytest.mark.parametrize("of_folders", [True, False])
def test_file_systems_that_know_no_sync_are_no_obstacle(tmp_path, monkeypatch, number, of_folders):
    failing_sync(monkeypatch, number, of_folders)
    run_line(tmp_path)
    assert len(rows(tmp_path / "run")) == 10


def test_a_folder_that_may_not_be_listed_is_no_obstacle(tmp_path, monkeypatch):
    real = os.open

    def refusing(path, flags, *rest, **named):
        if flags == os.O_RDONLY and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refusing)
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").read_text() == "1\n"


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EDQUOT, "quota"), (errno.ENOSPC, "full"), (errno.EIO, "error")]
)
def test_a_sync_that_lost_something_is_an_error(tmp_path, monkeypatch, number, said):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    failing_sync(monkeypatch, number, of_folders=False)
    with pytest.raises(UsageError, match=said):
        run_line(tmp_path)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        log.sync()
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_said_once(tmp_path, monkeypatch, capsys, number):
    def lockf(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    run_line(tmp_path)
    said = capsys.readouterr().out
    assert said.count("no locks there") == 1
    assert "another run" not in said


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_a_lock_that_another_has_is_waited_for_and_then_refused(tmp_path, monkeypatch, number):
    def lockf(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    monkeypatch.setattr("smnm_kernels.train.run.folder._LOCK_WAIT_S", 0.1)
    with pytest.raises(UsageError, match="another run is writing there"):
        RunFolder(tmp_path / "run")


def test_other_errors_of_what_writes_a_file_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="of torch"), replacing(tmp_path / "a"):
        raise RuntimeError("of torch")

    def hide():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904, as torch.save does

    with pytest.raises(OSError, match="No space") as error, replacing(tmp_path / "a"):
        hide()
    assert error.value.filename == str(tmp_path / "a")


def test_memory_that_runs_out_in_a_step_is_named(tmp_path):
    class Large(Line):
        def step(self, forward, batch, clock):
            if len(self.seen) == 16:
                torch.empty(1 << 60, dtype=torch.uint8)
            return super().step(forward, batch, clock)

    with pytest.raises(RunError, match=r"memory ran out .*--accumulate.*saved after step 4 of 10"):
        run_line(tmp_path, Large)


@pytest.fixture
def ended(monkeypatch):
    """With what a process would have ended."""
    said = []
    monkeypatch.setattr(stalled, "_end", said.append)
    monkeypatch.setattr(stalled, "TICK_S", 0.02)
    return said


def test_a_disk_that_does_not_answer_is_named(tmp_path, ended, monkeypatch, capsys):
    monkeypatch.setattr(stalled, "_FIRST_REMARK_S", 0.1)
    with stalled.bounded(tmp_path / "last.pt", 0.3):
        time.sleep(0.6)
    assert len(ended) >= 1
    assert ended[0].startswith(f"smnm: error: {tmp_path}/last.pt: nothing could be written for 0 s")
    assert "last.pt to be written since 0 s" in capsys.readouterr().err


def test_who_writes_slowly_may_go_on(tmp_path, ended):
    with stalled.bounded(tmp_path / "last.pt", 0.3), (tmp_path / "last.pt").open("wb", 0) as file:
        for _ in range(12):
            file.write(b"x")
            time.sleep(0.05)
    time.sleep(0.4)  # nobody watches any more
    assert ended == []


@pytest.mark.exhaustive
def test_a_disk_that_stops_to_answer_ends_the_run(tmp_path):
    """As a checkpoint is brought to disk."""
    here = os.path.dirname(__file__)
    code = f"""
import sys, time; sys.path.insert(0, {here!r})
from pathlib import Path
from line import Line, run_line
from smnm_kernels import files
def state(self):
    files.sync = lambda descriptor: time.sleep(300)
    return {{"seen": self.seen}}
Line.state = state
run_line(Path({str(tmp_path)!r}), stall_limit=2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"{tmp_path}/run/last.pt: nothing could be written for 2 s" in done.stderr
    assert "Traceback" not in done.stderr

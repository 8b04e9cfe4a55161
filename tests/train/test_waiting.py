"""Readers that die, stand still or never end, and signals while they are waited for."""

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partialmethod

import pytest
import torch
from clips import command, losses, pretrain, rows
from line import Line, Numbers, run_line
from testing import require

from smnm_kernels.errors import RunError
from smnm_kernels.train.data import waiting
from smnm_kernels.train.data import workers as workers_module
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.loader import Batch, BatchNumbers, SampleDataset
from smnm_kernels.train.run.folder import load_checkpoint
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.signals import StopSignal
from smnm_kernels.train.tasks.pretrain import Pretraining

NUMBERS = BatchNumbers(0, 6, 4)


@dataclass(frozen=True)
class Troubled(Numbers):
    """Something happens to who reads 3.txt: every time, or once where a file says so."""

    trouble = None  # no field: it decides no loss
    flag = None

    def read(self, source, record, randomness):
        if type(self).trouble and source.path.name == "3.txt" and self._is_first():
            type(self).trouble()
        return super().read(source, record, randomness)

    def _is_first(self):
        if type(self).flag is None:
            return True
        try:
            type(self).flag.touch(exist_ok=False)  # of two at the same time, one succeeds
        except FileExistsError:
            return False
        return True


@pytest.fixture
def trouble(monkeypatch):
    def make(action, once=None):
        monkeypatch.setattr(Troubled, "trouble", staticmethod(action))
        monkeypatch.setattr(Troubled, "flag", once)

    return make


def ended_by(number):
    def end():
        faulthandler.disable()  # pytest's would fill the screen
        os.kill(os.getpid(), number)

    return end


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.fixture
def dataset(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(f"{i} {i}")
    files = [{"name": f"{i}.txt", "pair": [i, i]} for i in range(5)]
    return SampleDataset(tmp_path, files, Troubled(noise=0.1), 0)


def values(batches):
    try:
        return [batch.inputs["x"].clone() for batch in batches]
    finally:
        batches.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_process_that_dies_is_replaced_and_no_batch_changes(dataset, tmp_path, trouble, number):
    whole = values(Batches(dataset, NUMBERS, 0))
    said = []
    trouble(ended_by(number), once=tmp_path / "once")
    again = values(Batches(dataset, NUMBERS, 2, say=said.append))
    assert all(map(torch.equal, again, whole))
    (line,) = said
    assert f"({signal.Signals(number).name}) at 3.txt" in line
    assert "Another takes its place" in line


@pytest.mark.slow
def test_batches_of_processes_that_are_spawned_are_the_same(dataset, monkeypatch):
    monkeypatch.setattr(workers_module, "multiprocessing", multiprocessing.get_context("spawn"))
    whole = values(Batches(dataset, NUMBERS, 0))
    assert all(map(torch.equal, values(Batches(dataset, NUMBERS, 1)), whole))


@pytest.mark.parametrize(
    ("number", "advice"), [(signal.SIGKILL, "fewer --workers"), (signal.SIGSEGV, "out of DATA")]
)
def test_the_second_that_dies_ends_the_run_which_is_saved(
    tmp_path, trouble, capsys, number, advice
):
    whole = run_line(tmp_path / "whole", modality=Troubled(noise=0.1))
    trouble(ended_by(number))
    with pytest.raises(RunError) as error:
        run_line(tmp_path / "run", modality=Troubled(noise=0.1), workers=1)
    for part in (signal.Signals(number).name, "at 3.txt", advice, "second", "same command again"):
        assert part in str(error.value)
    saved = load_checkpoint(tmp_path / "run/run")["step"]
    assert saved == len(rows(tmp_path / "run/run"))
    assert f"saved after step {saved} of 10" in str(error.value)
    assert capsys.readouterr().out.count("Another takes its place") == 1
    trouble(None)
    again = run_line(tmp_path / "run", modality=Troubled(noise=0.1))
    assert losses(tmp_path / "run/run") == losses(tmp_path / "whole/run")
    assert again.seen == whole.seen


def test_a_process_that_ends_by_itself_is_named(dataset, trouble):
    trouble(lambda: os._exit(7))
    with pytest.raises(RunError, match=r"ended at 3\.txt with exit code 7"):
        values(Batches(dataset, NUMBERS, 1, say=lambda text: None))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_for_a_gpu_are_pinned_in_order(dataset, monkeypatch, workers):
    """In a thread beside the steps; there need not be a GPU for it here."""
    whole = values(Batches(dataset, NUMBERS, 0))
    devices = []

    def pin(batch):
        return replace(batch, inputs={"x": batch.inputs["x"] + 100})

    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(Batch, "pin_memory", pin)
    pinned = values(Batches(dataset, NUMBERS, workers, "cuda:3"))
    assert devices == [torch.device("cuda:3")]
    assert all(torch.equal(mine, theirs + 100) for mine, theirs in zip(pinned, whole, strict=True))


def test_memory_that_runs_out_is_named(dataset, trouble):
    def fail():
        raise MemoryError

    trouble(fail)
    for workers in (0, 1):
        with pytest.raises(RunError, match=r"no more memory at 3\.txt"):
            values(Batches(dataset, NUMBERS, workers))


def test_a_fault_of_the_reader_names_the_file(dataset, trouble):
    def fail():
        raise ZeroDivisionError("a fault")

    trouble(fail)
    with pytest.raises(RuntimeError, match=r"(?s)failed at 3\.txt:.*ZeroDivisionError: a fault"):
        values(Batches(dataset, NUMBERS, 2))
    with pytest.raises(ZeroDivisionError):
        values(Batches(dataset, NUMBERS, 0))


def watch(dataset, limit, said):
    return waiting.Watch(limit, lambda i: dataset.files[i]["name"], said.append, lambda: False)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.exhaustive), 1])
def test_who_stands_still_ends_the_run_and_who_works_does_not(
    dataset, trouble, monkeypatch, workers
):
    require(os.path.exists("/proc/self/io"), "a system that tells of CPU time")
    monkeypatch.setattr(waiting, "_FIRST_REMARK_S", 0.3)
    said = []
    trouble(lambda: spin(1.5))
    assert len(values(Batches(dataset, NUMBERS, workers, watch=watch(dataset, 0.6, said)))) == 6
    assert any("waiting for data since 0 s" in line and "at 3.txt" in line for line in said)

    began = time.monotonic()
    trouble(lambda: time.sleep(20))
    with pytest.raises(RunError, match=r"stood still for 1 s at 3\.txt.*--stall-limit"):
        values(Batches(dataset, NUMBERS, workers, watch=watch(dataset, 0.6, said)))
    trouble(lambda: spin(20))
    monkeypatch.setattr(waiting, "_BUSY_FACTOR", 2)
    with pytest.raises(RunError, match=r"without an end at 3\.txt.*out of DATA"):
        values(Batches(dataset, NUMBERS, workers, watch=watch(dataset, 0.6, said)))
    assert time.monotonic() - began < 15


def test_time_in_which_the_trainer_is_suspended_does_not_count(dataset, monkeypatch):
    class Still:
        name, diary, task = "a reader", None, f"/proc/{os.getpid()}"

    monkeypatch.setattr(waiting, "work_done", lambda task: ["nothing"])
    watched = watch(dataset, 1.5, [])
    watched.tick(Still())
    watched._last_tick -= 3600
    watched.tick(Still())  # counts for a second at most
    watched._last_tick -= 3600
    with pytest.raises(RunError):
        watched.tick(Still())


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_seen_while_data_is_waited_for(tmp_path, trouble, capsys, number, workers):
    run_line(tmp_path / "whole", modality=Troubled(noise=0.1))
    trouble(lambda: time.sleep(3))
    timer = threading.Timer(0.7, os.kill, (os.getpid(), number))
    timer.start()
    began = time.monotonic()
    run_line(tmp_path / "run", modality=Troubled(noise=0.1), workers=workers, code=128 + number)
    assert time.monotonic() - began < 2.5
    said = capsys.readouterr().out
    assert f"stopped by {signal.Signals(number).name}, saved after step" in said
    trouble(None)
    run_line(tmp_path / "run", modality=Troubled(noise=0.1), workers=workers)
    assert losses(tmp_path / "run/run") == losses(tmp_path / "whole/run")


def test_the_second_signal_acts_at_once(tmp_path, trouble):
    trouble(lambda: time.sleep(3))

    class Slow(Line):
        def step(self, forward, batch, clock):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        run_line(tmp_path, Slow)


def test_under_torchrun_an_echo_of_the_first_signal_is_no_second(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        stop.since -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class FailsInItsSecondPart(Line):
    """After it has moved its own state on."""

    def step(self, forward, batch, clock):
        scalars = super().step(forward, batch, clock)
        if len(self.seen) == 20:
            raise RunError("no data")
        return scalars


def test_a_step_that_fails_half_way_is_undone(tmp_path):
    run_line(tmp_path / "whole", accumulate=2)
    with pytest.raises(RunError, match=r"no data; saved after step 4 of 10"):
        run_line(tmp_path / "run", FailsInItsSecondPart, accumulate=2)
    assert load_checkpoint(tmp_path / "run/run")["task"]["seen"] == list(range(16))
    run_line(tmp_path / "run")
    assert losses(tmp_path / "run/run") == losses(tmp_path / "whole/run")


def test_a_picture_that_takes_too_long_is_given_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("smnm_kernels.train.run.loop._GRACE_S", 0.5)

    class NoPicture(Line):
        def step(self, forward, batch, clock):
            if len(self.seen) == 12:
                signal.raise_signal(signal.SIGTERM)
            return super().step(forward, batch, clock)

        def read_for_picture(self, report):
            time.sleep(3 if len(self.seen) > 12 else 0)

    began = time.monotonic()
    run_line(tmp_path, NoPicture, code=143)
    assert time.monotonic() - began < 2.5
    assert "stopped by SIGTERM, saved after step 4 of 10" in capsys.readouterr().out


def test_nothing_is_saved_without_the_rows_of_all_steps(tmp_path, monkeypatch, capsys):
    """As on a GPU, where they are read now and then, when another process has gone."""

    class Stops(Line):
        def step(self, forward, batch, clock):
            if len(self.seen) == 20:
                signal.raise_signal(signal.SIGTERM)
                raise waiting.Stopped
            return super().step(forward, batch, clock)

    monkeypatch.setattr(Loop, "_read_meter", partialmethod(read_every_third, Loop._read_meter))
    run_line(tmp_path, Stops, code=143)
    said = capsys.readouterr().out
    assert "stopped by SIGTERM, the last checkpoint is whole, from after step 3 of 10" in said
    assert load_checkpoint(tmp_path / "run")["step"] == 3


def read_every_third(loop, read):
    return read(loop) if loop.step % 3 == 0 else (False, {"loss": 0, "bias": 0, "clips_per_s": 0})


def test_a_lost_collective_is_no_traceback(tmp_path, monkeypatch):
    def lose(self):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer")

    monkeypatch.setattr(Loop, "_train", lose)
    with pytest.raises(RuntimeError, match="gloo"):  # a process alone has no other to lose
        run_line(tmp_path)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr("smnm_kernels.train.run.ranks.is_loss_of_another", lambda error: True)
    with pytest.raises(RunError, match="another process of this run has gone"):
        run_line(tmp_path)


@pytest.mark.slow
def test_masks_of_a_step_that_failed_are_drawn_again(videos, tmp_path, monkeypatch, capsys):
    words = (videos, "--steps", 6, "--batch-size", 4, "--accumulate", 2, "--out")
    assert pretrain(*words, tmp_path / "whole") == 0
    step, calls = Pretraining.step, []

    def failing(self, *arguments):
        scalars = step(self, *arguments)
        calls.append(1)
        if len(calls) == 8:  # the second part of the fourth step
            raise RunError("no data")
        return scalars

    monkeypatch.setattr(Pretraining, "step", failing)
    assert pretrain(*words, tmp_path / "run") == 1
    assert "no data; saved after step 3 of 6" in capsys.readouterr().err
    assert pretrain(*words, tmp_path / "run") == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_process_that_no_signal_reaches_does_not_hold_the_trainer(dataset, trouble, monkeypatch):
    """As one that waits for a network mount that is gone."""
    trouble(lambda: time.sleep(60))
    monkeypatch.setattr(workers_module, "_END_S", 0.3)
    batches = Batches(dataset, NUMBERS, 2, watch=watch(dataset, 0.5, []))
    processes = [worker.process for worker in batches._reading._workers]
    with monkeypatch.context() as m:
        m.setattr(multiprocessing.process.BaseProcess, "kill", lambda self: None)
        began = time.monotonic()
        with pytest.raises(RunError):
            values(batches)
        assert time.monotonic() - began < 5
    # Python waits for its children at its exit, but no more for those.
    assert not multiprocessing.process._children & {p for p in processes if p.is_alive()}
    for process in processes:
        process.kill()
        process.join()


@pytest.mark.exhaustive
def test_the_smallest_shared_memory_is_enough(videos, straight, tmp_path):
    """Containers often have /dev/shm with 64 MB. Here it has 4 kB."""
    mounted = ["unshare", "--mount", "sh", "-c"]
    small = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    able = subprocess.run([*mounted, small], capture_output=True, check=False).returncode == 0
    if not able:
        pytest.skip("needs to be allowed to mount")
    words = command(videos, "--out", tmp_path / "run", "--steps", 12, "--workers", 2)
    program = ("-m", "smnm_kernels.cli", "pretrain", "video")
    done = subprocess.run(
        [*mounted, f'{small} && exec "$@"', "sh", sys.executable, *program, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == losses(straight)

"""Processes that read batches.

Each has a connection of its own to the trainer, so that one that dies takes nothing with it: what
it owed is asked of another process, and comes out the same, because a sample is a function of its
number. Tensors come in memory that both processes map (`shared_memory`), not through /dev/shm,
which containers often keep small.
"""

from __future__ import annotations

import errno
import mmap
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle, send_handle

import torch
from torch import Tensor

from smnm_kernels.errors import RunError, printable

from .loader import Batch, Failure, SampleDataset, collate
from .waiting import Diary

PREFETCH = 2  # batches that each process is asked for ahead
_ORPHAN_CHECK_S = 2.0
_END_S = 5.0  # so long a process may take to end that was killed
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def shared_memory(n_bytes: int) -> int:
    """A file descriptor of new memory that other processes can map, too; it is gone with the last
    process that has it."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("smnm_kernels")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, n_bytes)
    return number


@dataclass(frozen=True)
class _Parcel:
    """A batch on its way, without its inputs: a file descriptor of each follows it."""

    number: int
    sample_ids: list[int]
    file_numbers: list[int]
    failures: list[Failure]
    inputs: list[tuple[str, torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class _Fault:
    """Reading raised what it should not raise."""

    file_number: int | None
    trace: str
    out_of_memory: bool


def _work(dataset: SampleDataset, asked: Connection, connection: Connection, trainer: int) -> None:
    """What a worker does, until the trainer is gone."""
    # Ctrl-C and batch systems signal the whole process group, but the trainer alone decides when to
    # stop.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    torch.set_num_threads(1)
    try:
        diary = shared_memory(Diary.SIZE)
        send_handle(connection, diary, trainer)
        begin = Diary(mmap.mmap(diary, Diary.SIZE)).begin
        parent = os.getppid()
        while True:
            # With the trainer's other end in the hands of a process that was forked later, its end
            # does not close when the trainer is gone.
            while not asked.poll(_ORPHAN_CHECK_S):
                if os.getppid() != parent:
                    return
            number, indices = asked.recv()
            _read(dataset, number, indices, begin, connection, trainer)
    except (EOFError, ConnectionError):
        return


def _read(
    dataset: SampleDataset,
    number: int,
    indices: list[int],
    begin: Callable[[int], None],
    connection: Connection,
    trainer: int,
) -> None:
    handles: list[int] = []
    at: int | None = None

    def note(file_number: int) -> None:
        nonlocal at
        at = file_number
        begin(file_number)

    def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        n_bytes = prod(shape) * dtype.itemsize
        handles.append(shared_memory(n_bytes))
        return _mapped(handles[-1], shape, dtype)

    try:
        batch = collate([dataset.sample(index, note) for index in indices], empty)
    except Exception as error:
        connection.send(_Fault(at, traceback.format_exc(), _is_want_of_memory(error)))
        return
    connection.send(
        _Parcel(
            number,
            batch.sample_ids.tolist(),
            batch.file_numbers.tolist(),
            batch.failures,
            [(name, x.dtype, tuple(x.shape)) for name, x in batch.inputs.items()],
        )
    )
    for handle in handles:
        send_handle(connection, handle, trainer)
        os.close(handle)


def _is_want_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE)
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _mapped(handle: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    n_bytes = prod(shape) * dtype.itemsize
    return torch.frombuffer(mmap.mmap(handle, n_bytes), dtype=dtype).view(shape)


class Worker:
    """One process, from the trainer's side."""

    def __init__(self, place: int, dataset: SampleDataset) -> None:
        self.place, self._dataset = place, dataset
        self.owed: dict[int, list[int]] = {}  # sample numbers of the batches it was asked for
        self.diary: Diary | None = None
        # Each way its own: on macOS, who sends a file descriptor reads that it has arrived.
        asked, self._asking = multiprocessing.Pipe(duplex=False)
        self.connection, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=_work, args=(dataset, asked, theirs, os.getpid()), daemon=True
        )
        with _held_back():
            self.process.start()
        asked.close()
        theirs.close()

    @property
    def name(self) -> str:
        return f"reading process {self.place} (pid {self.process.pid})"

    @property
    def task(self) -> str:
        return f"/proc/{self.process.pid}"

    def ask(self, number: int, indices: list[int]) -> None:
        self.owed[number] = indices
        with suppress(ConnectionError):  # where it has ended, `receive` will tell
            self._asking.send((number, indices))

    def receive(self) -> tuple[int, Batch] | None:
        """What it has sent, if that was a batch. Raises EOFError or OSError where it has ended."""
        if self.diary is None:
            handle = recv_handle(self.connection)
            self.diary = Diary(mmap.mmap(handle, Diary.SIZE))
            os.close(handle)
            return None
        parcel = self.connection.recv()
        if isinstance(parcel, _Fault):
            raise self._fault(parcel)
        inputs = {}
        for name, dtype, shape in parcel.inputs:
            handle = recv_handle(self.connection)
            inputs[name] = _mapped(handle, shape, dtype)
            os.close(handle)
        del self.owed[parcel.number]
        ids, numbers = (
            torch.tensor(values, dtype=torch.int64)
            for values in (parcel.sample_ids, parcel.file_numbers)
        )
        return parcel.number, Batch(inputs, ids, numbers, parcel.failures)

    def _fault(self, fault: _Fault) -> Exception:
        at = "" if fault.file_number is None else f" at {self.file_name(fault.file_number)}"
        if fault.out_of_memory:
            return RunError(
                f"{self.name} got no more memory{at}; fewer --workers or a smaller --batch-size "
                "need less"
            )
        return RuntimeError(f"{self.name} failed{at}:\n{fault.trace}")

    def file_name(self, file_number: int) -> str:
        return printable(self._dataset.name(file_number))

    def fate(self) -> str:
        """How the process has ended, and why it may have."""
        number = self.diary.file_number if self.diary else None
        at = "before its first file" if number is None else f"at {self.file_name(number)}"
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"{self.name} ended {at} with exit code {code}"
        try:
            by = signal.Signals(-code).name
        except ValueError:
            by = f"signal {-code}"
        if by == "SIGKILL":
            return (
                f"{self.name} was killed ({by}) {at}: systems do so where memory runs out; fewer "
                "--workers or a smaller --batch-size need less"
            )
        if -code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE):
            return (
                f"{self.name} crashed ({by}) {at}: a decoder may not bear that file; where it is "
                "the same file again, leave it out of DATA"
            )
        return f"{self.name} was ended from outside ({by}) {at}"

    def end(self) -> None:
        """At once: it holds nothing that is worth saving."""
        self._asking.close()
        self.connection.close()
        if self.process.exitcode is None:
            self.process.kill()


class Workers:
    """`count` processes. One that dies is replaced, once; RunError when it happens again."""

    def __init__(self, count: int, dataset: SampleDataset, say: Callable[[str], None]) -> None:
        self._dataset, self._say = dataset, say
        self.depth = PREFETCH * count
        self._replaced = False
        self._workers: list[Worker] = []
        try:
            for place in range(count):
                self._workers.append(self._start(place))
        except BaseException:
            self.close()
            raise

    def _start(self, place: int) -> Worker:
        try:
            return Worker(place, self._dataset)
        except OSError as error:
            raise RunError(
                f"reading process {place} could not be started ({error.strerror}); fewer --workers "
                "need fewer processes and less memory"
            ) from error

    def reader_of(self, number: int) -> Worker:
        """Who was asked for this batch."""
        return self._workers[number % len(self._workers)]

    def ask(self, number: int, indices: list[int]) -> None:
        self.reader_of(number).ask(number, indices)

    def arrived(self, timeout: float) -> Iterator[tuple[int, Batch]]:
        """Batches that came within so many seconds, with their numbers."""
        ready = wait([worker.connection for worker in self._workers], timeout)
        for place, worker in enumerate(self._workers):
            if worker.connection not in ready:
                continue
            try:
                received = worker.receive()
            except (EOFError, OSError) as error:
                self._workers[place] = self._replacement(worker, error)
            else:
                if received:
                    yield received

    def _replacement(self, worker: Worker, error: Exception) -> Worker:
        worker.process.join(_END_S)
        if worker.process.exitcode is None:
            raise RunError(f"{worker.name} cannot be understood any more ({error})") from error
        fate = worker.fate()
        if self._replaced:
            raise RunError(f"{fate}. It is the second that did not end well")
        self._replaced = True
        self._say(f"{fate}. Another takes its place; no loss changes")
        worker.end()
        new = self._start(worker.place)
        for number, indices in worker.owed.items():
            new.ask(number, indices)
        return new

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        until = time.monotonic() + _END_S
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.exitcode is None:
                # It waits for a file system, out of reach of any signal. Python would wait for it.
                multiprocessing.process._children.discard(worker.process)  # type: ignore[attr-defined]


@contextmanager
def _held_back() -> Iterator[None]:
    """No stop signal reaches a process that is started here before it has chosen to ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

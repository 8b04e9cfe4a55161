"""Tasks in several processes, each of which may die: by a signal, or because a kernel broke its
CUDA context, after which every later call of the process would fail, too."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

import torch


def answers(
    work: Callable[[object], object], tasks: Sequence[object], processes: int
) -> Iterator[tuple[int, object]]:
    """(index of a task, its answer), in the order in which tasks end. If a task kills its process,
    its answer is a ``ProcessDied``, and a new process takes over the remaining tasks."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(range(len(tasks))))
    at_work: dict[Connection, tuple[multiprocessing.Process, int]] = {}

    def start() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        give(ours, process)

    def give(connection: Connection, process: multiprocessing.Process) -> None:
        index = waiting.pop()
        at_work[connection] = process, index
        connection.send(tasks[index])

    try:
        while waiting or at_work:
            while waiting and len(at_work) < processes:
                start()
            for connection in wait(list(at_work)):
                process, index = at_work.pop(connection)
                try:
                    answer, goes_on = connection.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    answer, goes_on = ProcessDied(process.exitcode), False
                if goes_on and waiting:
                    give(connection, process)
                yield index, answer
    finally:
        for process, _ in at_work.values():
            process.kill()


class ProcessDied(RuntimeError):
    def __init__(self, code: int) -> None:
        super().__init__(f"the process died with exit code {code}")


def _serve(connection: Connection, work: Callable[[object], object]) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            task = connection.recv()
        except EOFError:  # nothing is left to do
            return
        answer = work(task)
        lost = device_is_lost()
        connection.send((answer, not lost))
        if lost:
            # An orderly exit would call CUDA, and hang or abort.
            os._exit(1)


def device_is_lost() -> bool:
    """Whether an earlier kernel has broken the CUDA context of this process."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False

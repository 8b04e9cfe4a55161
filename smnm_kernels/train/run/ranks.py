"""What a run does differently under torchrun: WORLD_SIZE processes share each batch."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from smnm_kernels.errors import RunError, UsageError

from .signals import StoppedBySignal

T = TypeVar("T")

_BEAT_S = 2.0  # the first process says so often that it is at work
_SILENCE_S = 40.0  # after which it counts as gone
_FAREWELL_S = 5.0  # it waits so long for the others to hear why it ends

_store: dist.Store | None = None  # what all processes can read while none waits in a collective
_main_is_silent = False
_numbers = count()  # of what is put there: a store may outlive a process group


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def start(device: torch.device) -> None:
    global _store
    if world_size() > 1 and not dist.is_initialized():
        _store, number, size = next(dist.rendezvous("env://"))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"group-{next(_numbers)}", _store),
            rank=number,
            world_size=size,
        )


def stop() -> None:
    global _store
    if dist.is_available() and dist.is_initialized() and not _main_is_silent:
        dist.destroy_process_group()
        _store = None


def on_main(work: Callable[[], T]) -> T:
    """work()'s result, done by the first process and handed to all, its errors likewise.

    The others wait at the store and not in a collective, so that work may take longer than the
    process group's timeout. They raise RunError when the first process is gone.
    """
    if world_size() == 1:
        return work()
    assert _store is not None, "start() comes first"
    store = dist.PrefixStore(f"main-{next(_numbers)}", _store)
    parcel: list[T | None] = [None]
    if rank() == 0:
        with _heard_by_others(store):
            parcel = [work()]
    else:
        _wait_for_main(store)
    dist.broadcast_object_list(parcel)
    (result,) = parcel
    return result  # type: ignore[return-value]


@contextmanager
def _heard_by_others(store: dist.Store) -> Iterator[None]:
    """The first process's part: says that it is at work, and how that ended."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT_S):
            store.add(_BEATS, 1)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    except BaseException as error:
        over.set()
        heart.join()
        _say_end(store, _verdict(error))
        raise
    over.set()
    heart.join()
    store.set(_END, json.dumps({}))


_BEATS, _END, _HEARD = "beats", "end", "heard"


def _verdict(error: BaseException) -> dict[str, str | int]:
    if isinstance(error, UsageError):
        return {"refused": str(error)}
    if isinstance(error, StoppedBySignal):
        return {"stopped": error.number}
    if isinstance(error, KeyboardInterrupt):
        return {"failed": "was interrupted"}
    return {"failed": f"failed ({type(error).__name__}: {error})"}


def _say_end(store: dist.Store, verdict: dict[str, str | int]) -> None:
    """Where this process keeps the store, it must not end before the others have read it."""
    store.set(_END, json.dumps(verdict))
    until = time.monotonic() + _FAREWELL_S
    while store.add(_HEARD, 0) < world_size() - 1 and time.monotonic() < until:
        time.sleep(0.05)


def _wait_for_main(store: dist.Store) -> None:
    listener = _Listener(store)
    while listener.verdict is None:
        if listener.error is not None:  # the store's, which went with the first process
            reason = str(listener.error).splitlines()[0]
            raise RunError(f"{_MAIN_IS_GONE} ({reason})") from listener.error
        if time.monotonic() - listener.heard > _SILENCE_S:
            _leave_without_main()
            raise RunError(f"{_MAIN_IS_GONE}: it has been silent for {_SILENCE_S:.0f} s")
        time.sleep(0.1)
    verdict = listener.verdict
    if "refused" in verdict:
        raise UsageError(verdict["refused"])
    if "stopped" in verdict:
        raise StoppedBySignal(verdict["stopped"])
    if "failed" in verdict:
        raise RunError(f"the first process, which looks at the files, {verdict['failed']}")


def _leave_without_main() -> None:
    """Taking NCCL's process group down asks the store, too, and would wait for ever: what is said
    at the end is said, and then this process is gone."""
    global _main_is_silent
    _main_is_silent = True
    atexit.register(_end_at_once)


def _end_at_once() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class _Listener:
    """Asks for the first process's beats and end in a thread: where that process keeps the store
    and is stopped, or its machine is gone, a question to the store has no end."""

    def __init__(self, store: dist.Store) -> None:
        self.heard = time.monotonic()
        self.verdict: dict[str, Any] | None = None
        self.error: RuntimeError | None = None
        self._store = store
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        beats = -1
        try:
            while not self._store.check([_END]):
                now = self._store.add(_BEATS, 0)
                if now != beats:
                    beats, self.heard = now, time.monotonic()
                time.sleep(0.2)
            verdict = json.loads(self._store.get(_END))
            self._store.add(_HEARD, 1)
            self.verdict = verdict
        except RuntimeError as error:
            self.error = error


_MAIN_IS_GONE = (
    "the first process (rank 0), which looks at the files, is gone; see what it said last"
)


def average(values: torch.Tensor) -> torch.Tensor:
    """Mean over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
        values /= world_size()
    return values


def share(model: torch.nn.Module) -> None:
    """Give all processes the first one's weights and buffers."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def everyones(value: T) -> list[T]:
    """The value of each process, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gathered(value: T) -> list[T]:
    """Likewise, in the first process; the others get their own alone, so that large values take
    memory once."""
    if world_size() == 1 or rank() > 0:
        if world_size() > 1:
            dist.gather_object(value)
        return [value]
    values: list[Any] = [None] * world_size()
    dist.gather_object(value, values)
    return values


def is_loss_of_another(error: BaseException) -> bool:
    """Whether this is what a collective raises when another process has gone."""
    return world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())

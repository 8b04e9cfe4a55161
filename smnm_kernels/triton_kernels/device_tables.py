"""Tables that the kernels read on the device: made at the first use and never dropped."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from threading import Lock
from typing import TypeVar, cast

import torch

from .. import devices

Make = TypeVar("Make", bound=Callable[..., object])


def keep_on_device(make: Make) -> Make:
    """Makes ``make(*key, device)`` run once for each key and device; later calls get its result.

    A result is never dropped, because CUDA graphs go on reading the tables they were captured with.
    It is never in a CUDA graph's memory pool, because graphs write over the memory of their pool.
    """
    kept: dict[tuple, object] = {}
    lock = Lock()

    @wraps(make)
    def table(*key: object) -> object:
        if key not in kept:
            # If two threads made a table each, one table would be dropped, and a graph that reads
            # it may have been captured.
            with lock:
                if key not in kept:
                    kept[key] = _make_outside_pools(make, key)
        return kept[key]

    return cast(Make, table)


def _make_outside_pools(make: Callable[..., object], key: tuple) -> object:
    """``make(*key)`` in a thread and on a stream of its own.

    torch.compile's CUDA graphs and ``torch.cuda.use_mem_pool`` take the allocations of their thread
    into a memory pool, and a capture takes those of its stream.
    """
    device = key[-1]
    if not devices.is_cuda(device):
        return make(*key)

    def make_on_new_stream() -> object:
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
            table = make(*key)
            torch.cuda.current_stream(device).synchronize()
        return table

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make_on_new_stream).result()

"""Tables that the kernels read on the device: made at the first use, and kept for good."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch

from .. import devices

P, Table = ParamSpec("P"), TypeVar("Table")


def kept_on_device(make: Callable[P, Table]) -> Callable[P, Table]:
    """``make(*key, device)``, called once for each key and device.

    A table is never dropped and never part of a CUDA graph's memory pool: graphs go on reading the
    tables they were captured with, and write over what their pools hold.
    """
    kept: dict[tuple, Table] = {}
    lock = Lock()

    @wraps(make)
    def table(*key: P.args) -> Table:
        if key not in kept:
            # One of two tables made at once would be dropped, perhaps after a graph was captured.
            with lock:
                if key not in kept:
                    kept[key] = _made_outside_pools(make, key)
        return kept[key]

    return table


def _made_outside_pools(make: Callable[P, Table], key: tuple) -> Table:
    """torch.compile's CUDA graphs, and ``torch.cuda.use_mem_pool``, send what their thread
    allocates to a pool, a capture what its stream does; so neither of them is the caller's."""
    device = key[-1]
    if not devices.is_cuda(device):
        return make(*key)

    def made() -> Table:
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
            table = make(*key)
            torch.cuda.current_stream(device).synchronize()
        return table

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(made).result()

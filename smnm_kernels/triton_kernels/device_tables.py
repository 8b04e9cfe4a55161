"""Tables that the kernels read on the device: made at the first use, and kept for good."""

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
    """``make(*key, device)``, called once for each key and device.

    A table is never dropped and never part of a CUDA graph's memory pool: graphs go on reading the
    tables they were captured with, and write over what their pools hold.
    """
    kept: dict[tuple, object] = {}
    lock = Lock()

    @wraps(make)
    def table(*key: object) -> object:
        if key not in kept:
            # One of two tables made at once would be dropped, perhaps after a graph was captured.
            with lock:
                if key not in kept:
                    kept[key] = _make_outside_pools(make, key)
        return kept[key]

    return cast(Make, table)


def _make_outside_pools(make: Callable[..., object], key: tuple) -> object:
    """torch.compile's CUDA graphs, and ``torch.cuda.use_mem_pool``, send what their thread
    allocates to a pool, a capture what its stream does; so neither of them is the caller's."""
    device = key[-1]
    if not devices.is_cuda(device):
        return make(*key)

    def made() -> object:
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
            table = make(*key)
            torch.cuda.current_stream(device).synchronize()
        return table

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(made).result()

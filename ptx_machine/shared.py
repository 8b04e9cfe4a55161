"""Shared memory, with what is on its way: copies that have not landed, and tensor cores that still
read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .memory import Memory
from .report import Kind
from .threads import Threads

if TYPE_CHECKING:
    from .block import Block


class SharedMemory(Memory):
    """``asynchronous``: whether the program has instructions that read or write here on their own
    time, so that this is worth looking at."""

    def __init__(self, n_bytes: int, cell_bytes: int, *, asynchronous: bool) -> None:
        super().__init__(n_bytes, cell_bytes, "shared")
        self.asynchronous = asynchronous
        n_cells = len(self.initialised)
        #: How many copies that were issued will still write a cell.
        self.landing = np.zeros(n_cells, np.int16)
        #: How many tensor core products that were issued may still read a cell.
        self.being_read = np.zeros(n_cells, np.int16)
        #: Written by threads, and not yet made visible to the tensor cores by a proxy fence.
        self.unfenced = np.zeros(n_cells, bool)
        #: Called with the threads, addresses and bytes a thread of every load and store.
        self.observer: Callable[[Threads, np.ndarray, int], None] | None = None

    def load(
        self, block: Block, threads: Threads, addresses: np.ndarray, element: int, count: int = 1
    ) -> np.ndarray:
        if self.observer is not None:
            self.observer(threads, addresses, element * count)
        return super().load(block, threads, addresses, element, count)

    def store(
        self, block: Block, threads: Threads, addresses: np.ndarray, values: np.ndarray
    ) -> None:
        if self.observer is not None:
            self.observer(threads, addresses, values[0].nbytes)
        super().store(block, threads, addresses, values)

    # Copies from global memory

    def announce(
        self, block: Block, threads: Threads, addresses: np.ndarray, size: int
    ) -> np.ndarray:
        """A copy of ``size`` bytes per thread is issued: it may land from now on.

        Returns which threads' copies can land at all, bool [threads].
        """
        offsets, fine = self.offsets(block, addresses, size)
        if fine is not None:
            threads, offsets = threads.where(fine), offsets[fine]
        cells = self.cells(offsets, size)
        if block.checking:
            detail = "{} before an asynchronous copy"
            self._check_order(block, threads, cells, detail.format("read"), self.reads)
            self._check_order(block, threads, cells, detail.format("write"), self.writes)
            self.writes.record(block, threads, cells)
        np.add.at(self.landing, cells, 1)
        return np.ones(len(addresses), bool) if fine is None else fine

    def land(
        self, block: Block, threads: Threads, addresses: np.ndarray, values: np.ndarray
    ) -> None:
        """The copies of these threads, announced before, are there: bytes [threads, size]."""
        cells = self.cells(addresses - self.base, values.shape[1])
        np.subtract.at(self.landing, cells, 1)
        self.store(block, threads, addresses, values)

    # Products of tensor cores, which read by another way ("proxy") than threads

    def read_by_tensor_cores(
        self, block: Block, threads: Threads, addresses: np.ndarray, element: int
    ) -> np.ndarray:
        """Elements [threads, n] at ``addresses`` [threads, n]: one thread per warpgroup."""
        offsets = addresses - self.base
        wrong = (offsets < 0) | (offsets > self.n_bytes - element)
        if wrong.any():
            block.found(Kind.OUT_OF_BOUNDS, np.count_nonzero(wrong), "shared memory")
            offsets = np.where(wrong, 0, offsets)
        if block.checking:
            cells = offsets // self.cell_bytes
            self._check_read(block, threads, cells)
            if self.unfenced[cells].any():
                n = np.count_nonzero(self.unfenced[cells])
                block.found(Kind.MISSING_FENCE, n, "fence.proxy.async before a product")
        return self.data.view(f"u{element}")[offsets // element]

    def start_reading(self, cells: np.ndarray) -> None:
        np.add.at(self.being_read, cells, 1)

    def stop_reading(self, cells: np.ndarray) -> None:
        np.subtract.at(self.being_read, cells, 1)

    def fence(self, block: Block, threads: Threads) -> None:
        """``fence.proxy.async``: what these threads wrote, and what was written before the last
        barrier, is visible to the tensor cores."""
        by_them = np.zeros(block.n_threads, bool)
        by_them[threads.index] = True
        last = self.writes.thread
        earlier = self.writes.epoch < block.epoch
        self.unfenced &= ~(earlier | ((last >= 0) & by_them[np.maximum(last, 0)]))

    def _check_read(self, block: Block, threads: Threads, cells: np.ndarray) -> None:
        if self.asynchronous and self.landing[cells].any():
            n = np.count_nonzero(self.landing[cells])
            block.found(Kind.IN_FLIGHT, n, "read of an asynchronous copy")
        super()._check_read(block, threads, cells)

    def _check_write(
        self, block: Block, threads: Threads, cells: np.ndarray, values: np.ndarray
    ) -> None:
        if self.asynchronous:
            if self.being_read[cells].any():
                n = np.count_nonzero(self.being_read[cells])
                block.found(Kind.IN_FLIGHT, n, "write of what a product still reads")
            if self.landing[cells].any():
                n = np.count_nonzero(self.landing[cells])
                block.found(Kind.IN_FLIGHT, n, "write where a copy will land")
            self.unfenced[cells] = True
        super()._check_write(block, threads, cells, values)

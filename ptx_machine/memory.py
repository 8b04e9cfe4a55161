"""Memory that knows what was written and by whom: what shared and global memory have in common,
and global memory with its buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .report import Kind
from .shadow import Shadow
from .threads import Threads
from .types import UNSIGNED

if TYPE_CHECKING:
    from .block import Block

#: What a read gets where there is nothing to read.
POISON = 0xA5
#: Of an access in bytes; those of 16 are copied as pairs of 64 bits.
_CARRIER = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


class Memory:
    """``n_bytes`` at addresses from ``base`` on.

    Addresses of accesses are int64 [threads]; values unsigned [threads, elements]. What cannot be
    accessed is reported; reads then give poison, and writes are dropped.
    """

    def __init__(
        self, n_bytes: int, cell_bytes: int, name: str, *, base: int = 0, initialised: bool = False
    ) -> None:
        self.name, self.base, self.n_bytes = name, base, n_bytes
        self.cell_bytes = cell_bytes
        n_cells = -(-n_bytes // 16) * 16 // cell_bytes
        self.data = np.full(n_cells * cell_bytes, POISON, np.uint8)
        self.initialised = np.full(n_cells, initialised)
        self.reads, self.writes, self.atomics = Shadow(n_cells), Shadow(n_cells), Shadow(n_cells)

    # What a thread does

    def load(
        self, block: Block, threads: Threads, addresses: np.ndarray, element: int, count: int = 1
    ) -> np.ndarray:
        """``count`` elements of ``element`` bytes for every thread."""
        size = element * count
        offsets, fine = self.offsets(block, addresses, size)
        if fine is not None:
            values = np.full((threads.count, size), POISON, np.uint8).view(UNSIGNED[8 * element])
            if fine.any():
                part = threads.where(fine)
                values[fine] = self.load(block, part, addresses[fine], element, count)
            return values
        if block.checking:
            self._check_read(block, threads, self.cells(offsets, size))
        raw = self.data.view(_CARRIER[size])[offsets // size]
        return raw.view(UNSIGNED[8 * element]).reshape(threads.count, count)

    def store(
        self, block: Block, threads: Threads, addresses: np.ndarray, values: np.ndarray
    ) -> None:
        size = values.dtype.itemsize * values.shape[1]
        offsets, fine = self.offsets(block, addresses, size)
        if fine is not None:
            if fine.any():
                self.store(block, threads.where(fine), addresses[fine], values[fine])
            return
        raw = np.ascontiguousarray(values).view(_CARRIER[size]).reshape(-1)
        cells = self.cells(offsets, size)
        if block.checking:
            self._check_write(block, threads, cells, values)
        self.initialised[cells] = True
        self.data.view(_CARRIER[size])[offsets // size] = raw
        if block.checking:
            # Where two threads of one instruction meet, the last one's value stays.
            lost = self.as_cells[cells] != self._values_as_cells(values, cells)
            if lost.any():
                block.found(Kind.RACE, np.count_nonzero(lost), "two threads of one instruction")
            self.writes.record(block, threads, cells)
        self.wrote(block, offsets, size)

    def update(
        self,
        block: Block,
        threads: Threads,
        addresses: np.ndarray,
        values: np.ndarray,
        change: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
    ) -> np.ndarray:
        """An atomic of one element per thread: ``change(cells, places, values)`` alters the array
        ``cells`` at ``places`` and returns what was there before."""
        size = values.dtype.itemsize
        offsets, fine = self.offsets(block, addresses, size)
        if fine is not None:
            before = np.full((threads.count, size), POISON, np.uint8).view(values.dtype)[:, 0]
            if fine.any():
                part = threads.where(fine)
                before[fine] = self.update(block, part, addresses[fine], values[fine], change)
            return before
        cells = self.cells(offsets, size)
        if block.checking:
            self._check_initialised(block, cells)
            self._check_order(block, threads, cells, "plain write before an atomic", self.writes)
            self._check_order(block, threads, cells, "plain read before an atomic", self.reads)
            self.atomics.record(block, threads, cells)
        before = change(self.data.view(values.dtype), offsets // size, values)
        self.wrote(block, offsets, size)
        return before

    def wrote(self, block: Block, offsets: np.ndarray, size: int) -> None:
        """Called after every write."""

    # What is looked at

    @property
    def as_cells(self) -> np.ndarray:
        return self.data.view(UNSIGNED[8 * self.cell_bytes])

    def offsets(
        self, block: Block, addresses: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """From the start of the memory, and who may access it (None: all)."""
        offsets = addresses - self.base
        misaligned = (addresses & (size - 1)) != 0
        outside = (offsets < 0) | (offsets > self.n_bytes - size)
        if not misaligned.any() and not outside.any():
            return offsets, None
        for wrong, kind in ((misaligned, Kind.MISALIGNED), (outside, Kind.OUT_OF_BOUNDS)):
            if wrong.any():
                block.found(kind, np.count_nonzero(wrong), f"{self.name} memory")
        return offsets, ~(misaligned | outside)

    def cells(self, offsets: np.ndarray, size: int) -> np.ndarray:
        """int64 [threads, cells of an access]."""
        first = (offsets // self.cell_bytes)[:, None]
        if size <= self.cell_bytes:
            return first
        return first + np.arange(size // self.cell_bytes)

    def _values_as_cells(self, values: np.ndarray, cells: np.ndarray) -> np.ndarray:
        if values.dtype.itemsize * values.shape[1] < self.cell_bytes:
            return self.as_cells[cells]
        carrier = UNSIGNED[8 * self.cell_bytes]
        return np.ascontiguousarray(values).view(carrier).reshape(cells.shape)

    def _check_initialised(self, block: Block, cells: np.ndarray) -> None:
        if not self.initialised[cells].all():
            missing = np.count_nonzero(~self.initialised[cells])
            block.found(Kind.UNINITIALISED, missing, f"{self.name} memory")

    def _check_order(
        self,
        block: Block,
        threads: Threads,
        cells: np.ndarray,
        detail: str,
        earlier: Shadow,
        exempt: np.ndarray | None = None,
    ) -> None:
        unordered = earlier.unordered(block, threads, cells)
        if unordered is None:
            return
        if exempt is not None:
            unordered &= ~exempt
        for at in np.unique(earlier.statement[cells[unordered]]):
            n = np.count_nonzero(unordered & (earlier.statement[cells] == at))
            block.found(Kind.RACE, n, f"{self.name} memory, {detail}", int(at))

    def _check_read(self, block: Block, threads: Threads, cells: np.ndarray) -> None:
        self._check_initialised(block, cells)
        self._check_order(block, threads, cells, "read after write", self.writes)
        self._check_order(block, threads, cells, "plain read after an atomic", self.atomics)
        self.reads.record(block, threads, cells)

    def _check_write(
        self, block: Block, threads: Threads, cells: np.ndarray, values: np.ndarray
    ) -> None:
        self._check_order(block, threads, cells, "write after read", self.reads)
        self._check_order(block, threads, cells, "plain write after an atomic", self.atomics)
        # The same value from several threads leaves that value, whatever their order.
        same = self.as_cells[cells] == self._values_as_cells(values, cells)
        self._check_order(block, threads, cells, "write after write", self.writes, exempt=same)


class Buffer(Memory):
    """One allocation of global memory, which outlives the blocks of a launch."""

    def __init__(self, content: np.ndarray, cell_bytes: int, name: str, *, base: int) -> None:
        super().__init__(content.nbytes, cell_bytes, name, base=base, initialised=True)
        self.data[: content.nbytes] = content.reshape(-1).view(np.uint8)
        #: Of every byte: how often it was written, and by which block last.
        self.write_counts = np.zeros(len(self.data), np.int32)
        self.writer = np.full(len(self.data), -1, np.int32)

    def forget(self) -> None:
        """The content, as memory is after it was allocated."""
        self.data[:] = POISON
        self.initialised[:] = False

    def content(self, dtype: type[np.generic]) -> np.ndarray:
        """A copy [elements]."""
        return self.data[: self.n_bytes].view(dtype).copy()

    def wrote(self, block: Block, offsets: np.ndarray, size: int) -> None:
        for i in range(size):
            np.add.at(self.write_counts, offsets + i, 1)
            self.writer[offsets + i] = block.number

    def _check_read(self, block: Block, threads: Threads, cells: np.ndarray) -> None:
        super()._check_read(block, threads, cells)
        writer = self.writer[cells * self.cell_bytes]
        foreign = (writer >= 0) & (writer != block.number)
        if foreign.any():
            block.found(Kind.RACE, np.count_nonzero(foreign), "read of what another block wrote")


class GlobalMemory:
    """The buffers of a launch, with room between them that nothing may touch."""

    FIRST_ADDRESS = 0x7F0000000000
    GUARD_BYTES = 4096

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def add(
        self,
        content: np.ndarray,
        name: str,
        *,
        misalignment: int = 0,
        cell_bytes: int | None = None,
    ) -> Buffer:
        """A buffer with a copy of ``content``, at an address that is ``misalignment`` bytes past a
        multiple of 256. Accesses narrower than ``cell_bytes`` (the item's size unless given) count
        as those of a whole cell where order is checked."""
        last = self.buffers[-1] if self.buffers else None
        end = last.base + last.n_bytes + self.GUARD_BYTES if last else self.FIRST_ADDRESS
        base = -(-end // 256) * 256 + misalignment
        # An empty tensor has an address too.
        content = np.ascontiguousarray(content)
        cells = cell_bytes or content.itemsize
        self.buffers.append(Buffer(content, cells, name, base=base))
        return self.buffers[-1]

    def load(
        self, block: Block, threads: Threads, addresses: np.ndarray, element: int, count: int = 1
    ) -> np.ndarray:
        values = np.empty((threads.count, count), UNSIGNED[8 * element])
        for buffer, chosen in self._by_buffer(addresses):
            if chosen is None:
                return buffer.load(block, threads, addresses, element, count)
            part = threads.where(chosen)
            values[chosen] = buffer.load(block, part, addresses[chosen], element, count)
        return values

    def store(
        self, block: Block, threads: Threads, addresses: np.ndarray, values: np.ndarray
    ) -> None:
        for buffer, chosen in self._by_buffer(addresses):
            if chosen is None:
                buffer.store(block, threads, addresses, values)
            else:
                part = threads.where(chosen)
                buffer.store(block, part, addresses[chosen], values[chosen])

    def update(
        self,
        block: Block,
        threads: Threads,
        addresses: np.ndarray,
        values: np.ndarray,
        change: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    ) -> np.ndarray:
        before = np.empty_like(values)
        for buffer, chosen in self._by_buffer(addresses):
            if chosen is None:
                return buffer.update(block, threads, addresses, values, change)
            part = threads.where(chosen)
            before[chosen] = buffer.update(block, part, addresses[chosen], values[chosen], change)
        return before

    def _by_buffer(self, addresses: np.ndarray) -> list[tuple[Memory, np.ndarray | None]]:
        """The buffers that are meant, each with the threads that mean it (None: all of them)."""
        bases = np.array([buffer.base for buffer in self.buffers], np.int64)
        meant = np.searchsorted(bases, addresses, side="right") - 1
        if not self.buffers or (meant < 0).any():
            nearest = self.buffers[0] if self.buffers else Memory(0, 1, "global")
            return [(nearest, None)] if (meant < 0).all() else self._split(np.maximum(meant, 0))
        if (meant == meant[0]).all():
            return [(self.buffers[meant[0]], None)]
        return self._split(meant)

    def _split(self, meant: np.ndarray) -> list[tuple[Memory, np.ndarray | None]]:
        return [(self.buffers[i], meant == i) for i in np.unique(meant)]

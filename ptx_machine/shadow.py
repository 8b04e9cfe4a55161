"""Who touched which cell of a memory since the last barrier, in one kind of access."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .threads import Threads

if TYPE_CHECKING:
    from .block import Block

#: In place of a warp or thread where there were several.
MANY = -2


class Shadow:
    """Of one kind of access: reads, writes or atomics; a cell is a few bytes that go together.

    Between two barriers of the block (an epoch), a cell remembers one warp, or that there were
    several; and of that warp's part since its last ``bar.warp.sync`` one thread, or that there
    were several. That is all that is needed to say whether a further thread is ordered after
    every earlier access.
    """

    def __init__(self, n_cells: int) -> None:
        # Epochs start at 1, and memory of zeros costs nothing until it is used.
        self.epoch = np.zeros(n_cells, np.int32)
        self.warp_epoch = np.zeros(n_cells, np.int32)
        self.warp = np.zeros(n_cells, np.int32)
        self.thread = np.zeros(n_cells, np.int32)
        self.statement = np.zeros(n_cells, np.int32)

    def unordered(self, block: Block, threads: Threads, cells: np.ndarray) -> np.ndarray | None:
        """Which of ``cells`` [threads, n] some other thread touched that no barrier orders before
        these; None if it is none."""
        recent = self.epoch[cells] == block.epoch
        if not recent.any():
            return None
        warp, thread = threads.warp[:, None], threads.index[:, None]
        same_warp = self.warp[cells] == warp
        same_time = self.warp_epoch[cells] == block.warp_epochs[warp]
        recent &= ~same_warp | (same_time & (self.thread[cells] != thread))
        return recent if recent.any() else None

    def record(self, block: Block, threads: Threads, cells: np.ndarray) -> None:
        warp, thread = threads.warp[:, None], threads.index[:, None]
        warp_epoch = block.warp_epochs[warp]
        recent = self.epoch[cells] == block.epoch
        if recent.any():
            several_warps = recent & (self.warp[cells] != warp)
            several_threads = (
                recent & (self.warp_epoch[cells] == warp_epoch) & (self.thread[cells] != thread)
            )
            warp = np.where(several_warps, MANY, warp)
            thread = np.where(several_threads, MANY, thread)
        self.epoch[cells] = block.epoch
        self.warp_epoch[cells] = warp_epoch
        self.warp[cells] = warp
        self.thread[cells] = thread
        self.statement[cells] = block.at
        # Of several threads in this very instruction the last one stays; the others see it there.
        self.warp[cells[self.warp[cells] != warp]] = MANY
        self.thread[cells[self.thread[cells] != thread]] = MANY

"""A number that data loader workers see change."""

from __future__ import annotations

import torch
from torch import Tensor


class SharedInt:
    """An int in shared memory, also after it was copied or pickled: a copy is shared anew."""

    def __init__(self, value: int = 0) -> None:
        self._memory = torch.tensor(value, dtype=torch.int64, device="cpu").share_memory_()

    def get(self) -> int:
        return int(self._memory)

    def set(self, value: int) -> None:
        self._memory.fill_(value)

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        # A worker's own copy arrives in the memory of its parent, which this leaves as it is.
        self._memory = state["_memory"].share_memory_()

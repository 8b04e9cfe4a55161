"""An int that data loader workers share with the process that started them."""

from __future__ import annotations

import torch
from torch import Tensor


class SharedInt:
    """An int in shared memory. A copy, also by pickle, gets shared memory of its own."""

    def __init__(self, value: int = 0) -> None:
        self._memory = torch.tensor(value, dtype=torch.int64, device="cpu").share_memory_()

    def get(self) -> int:
        return int(self._memory)

    def set(self, value: int) -> None:
        self._memory.fill_(value)

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        # In a spawned worker the tensor is in its parent's shared memory already, and stays there.
        self._memory = state["_memory"].share_memory_()

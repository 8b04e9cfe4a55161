"""What there was before a step."""

from __future__ import annotations

import copy

import torch

from .task import Task


class Before:
    """All that a step changes ahead of the optimiser: the task's own state, and buffers."""

    def __init__(self, task: Task) -> None:
        self._state = copy.deepcopy(task.state())
        self._buffers = [buffer.clone() for buffer in task.model.buffers()]

    @torch.no_grad()
    def restore(self, task: Task) -> None:
        """Undo a step that did not come to its end, or go back to do it again."""
        task.load_state(copy.deepcopy(self._state))
        for buffer, value in zip(task.model.buffers(), self._buffers, strict=True):
            buffer.copy_(value)
        task.optimizer.zero_grad(set_to_none=True)

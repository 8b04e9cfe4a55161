"""A task's model as the loop calls it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from . import ranks
from .memory import NEEDS_VALUES, step_memory
from .plan import Plan


class Forward:
    """A task's model as the loop runs it: over all ranks, compiled or not, at the run's precision.

    Only calls of the model are at lower precision: what a task does around them is not touched.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        device: torch.device,
        say_memory: Callable[[str], None],
    ) -> None:
        if plan.compile:
            # What a model draws, such as dropped paths, is then what it would draw uncompiled.
            model.compile(options={"fallback_random": True})
        self.model = model
        self.over_ranks = DistributedDataParallel(model) if ranks.world_size() > 1 else None
        self.device_type, self.dtype = device.type, plan.autocast
        self._say_memory: Callable[[str], None] | None = say_memory

    def __call__(self, *arguments: Any) -> Any:
        if self._say_memory:
            self._say_memory(self._memory(arguments))
            self._say_memory = None
        with self._precision():
            return (self.over_ranks or self.model)(*arguments)

    def judged(self, *arguments: Any) -> Any:
        """In this process alone, without dropout and gradients."""
        self.model.eval()
        try:
            with torch.no_grad(), self._precision():
                return self.model(*arguments)
        finally:
            self.model.train()

    def plainly(self, *arguments: Any) -> Any:
        """In this process alone and not compiled, nor will the model be from then on."""
        self.model._compiled_call_impl = None
        with self._precision():
            return self.model(*arguments)

    def _memory(self, arguments: tuple[Any, ...]) -> str:
        try:
            return f"computed {step_memory(self.model, arguments, self._precision())}"
        except NEEDS_VALUES as error:
            return f"not computed, because the model's work depends on values ({error})"

    def _precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device_type, self.dtype, enabled=self.dtype is not None)

    def synchronised(self, last_part: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients once a step: with its last part."""
        return nullcontext() if last_part or not self.over_ranks else self.over_ranks.no_sync()

"""What benches of a training step share."""

from __future__ import annotations

import time

import torch
from torch import nn

from smnm_kernels.train.run.machine import autocast_dtype


class TimedStep:
    """A model on its device, in the precision of a run, and the clock that its steps go by."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model.to(device), device
        self.dtype = autocast_dtype("auto", device)

    def forward(self, *arguments: object) -> object:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return self.model(*arguments)

    def now(self) -> float:
        """Seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()  # a CPU is shared with others

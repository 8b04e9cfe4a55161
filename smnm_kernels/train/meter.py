"""Losses and times of the steps, collected without stalling the GPU."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from . import distributed


class Meter:
    """Rows for metrics.jsonl.

    On the CPU a step is read as soon as it is done. On CUDA, reading a loss would wait for the
    device, so steps are read ten at a time; clips_per_s is then the mean over the ten.
    """

    def __init__(self, device: torch.device, batch_size: int) -> None:
        self.cuda = device.type == "cuda"
        self.device, self.batch_size = device, batch_size
        self.every = 10 if self.cuda else 1
        self._pending: list[tuple[dict[str, Any], Tensor, Any]] = []
        self._since = time.perf_counter()

    def mask_timer(self) -> Any:
        """Started now; give it to `mask_done`, then to `add`."""
        if not self.cuda:
            return [time.perf_counter()]
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        return events

    def mask_done(self, timer: Any) -> None:
        if self.cuda:
            timer[1].record()
        else:
            timer.append(time.perf_counter())

    def add(self, row: dict[str, Any], loss: Tensor, timer: Any) -> None:
        self._pending.append((row, loss.detach(), timer))

    @property
    def full(self) -> bool:
        return len(self._pending) >= self.every

    def read(self, stop: bool) -> tuple[list[dict[str, Any]], bool]:
        """The rows so far, and whether any process was asked to stop; waits for the device."""
        if not self._pending:
            return [], stop
        losses = torch.stack([loss.float() for _, loss, _ in self._pending])
        flag = torch.tensor([float(stop)], device=self.device)
        *losses, flag = distributed.average(torch.cat([losses, flag])).tolist()
        now = time.perf_counter()
        clips_per_s = len(losses) * self.batch_size / (now - self._since)
        rows = []
        for (row, _, timer), loss in zip(self._pending, losses, strict=True):
            mask_ms = timer[0].elapsed_time(timer[1]) if self.cuda else 1e3 * (timer[1] - timer[0])
            row |= {
                "loss": loss,
                "clips_per_s": round(clips_per_s, 2),
                "mask_ms": round(mask_ms, 4),
            }
            rows.append(row)
        self._pending.clear()
        self._since = now
        return rows, flag > 0

    def restart_clock(self) -> None:
        """After a checkpoint: its time is not the next step's."""
        self._since = time.perf_counter()

"""Losses and times of the steps, collected without stalling the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import ranks


class StepClock:
    """Times of named pieces of work within one step."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time what is done in the block; metrics.jsonl gets it as `name`, in milliseconds."""
        start = self._now()
        yield
        self._spans.append((name, start, self._now()))

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self) -> dict[str, float]:
        """Milliseconds by name, of several pieces of one name together; waits for the device."""
        total: dict[str, float] = {}
        for name, start, end in self._spans:
            ms = start.elapsed_time(end) if self._cuda else 1e3 * (end - start)
            total[name] = total.get(name, 0.0) + ms
        return {name: round(ms, 4) for name, ms in total.items()}


@dataclass(frozen=True)
class _Step:
    """One step that was not read yet."""

    row: dict[str, Any]  # what the host knows
    scalars: dict[str, Tensor]
    clock: StepClock


class Meter:
    """Rows for metrics.jsonl.

    On the CPU a step is read as soon as it is done. On CUDA, reading a loss would wait for the
    device, so steps are read ten at a time; clips_per_s is then the mean over the ten.
    """

    def __init__(self, device: torch.device, batch_size: int) -> None:
        self.device, self.batch_size = device, batch_size
        self.every = 10 if device.type == "cuda" else 1
        self._pending: list[_Step] = []
        self._since = time.perf_counter()

    def add(self, row: dict[str, Any], scalars: dict[str, Tensor], clock: StepClock) -> None:
        """Of one step: what the host knows, what the device will know, and its times."""
        self._pending.append(_Step(row, scalars, clock))

    @property
    def full(self) -> bool:
        return len(self._pending) >= self.every

    def read(self, stop: bool) -> tuple[list[dict[str, Any]], bool]:
        """The rows so far, and whether any process was asked to stop; waits for the device."""
        if not self._pending:
            return [], stop
        names = list(self._pending[0].scalars)
        values = [step.scalars[name].float() for step in self._pending for name in names]
        flag = torch.tensor(float(stop), device=self.device)
        *numbers, stopping = ranks.average(torch.stack([*values, flag])).tolist()
        now = time.perf_counter()
        clips_per_s = round(len(self._pending) * self.batch_size / (now - self._since), 2)
        rows = []
        for i, step in enumerate(self._pending):
            of_step = numbers[i * len(names) : (i + 1) * len(names)]
            scalars = dict(zip(names, of_step, strict=True))
            rows.append(step.row | scalars | {"clips_per_s": clips_per_s} | step.clock.read())
        self._pending.clear()
        self._since = now
        return rows, stopping > 0

    def restart_clock(self) -> None:
        """After a checkpoint: its time is not the next step's."""
        self._since = time.perf_counter()

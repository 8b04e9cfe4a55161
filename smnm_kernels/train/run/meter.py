"""Losses and times of the steps, collected without stalling the GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import ranks

if TYPE_CHECKING:
    from .before import Before

_ENDS = 20  # first and last steps whose losses say how a run went


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
    before: Before


@dataclass(frozen=True)
class Row:
    """One step, for metrics.jsonl."""

    values: dict[str, Any]  # means over the processes
    own_loss: Tensor  # this process's
    before: Before


@dataclass(frozen=True)
class Reading:
    """What all processes agree on."""

    rows: list[Row]
    stop: bool  # a process was asked to
    failures: bool  # a process has some to tell of


class Meter:
    """Rows for metrics.jsonl.

    On the CPU a step is read as soon as it is done. On CUDA, reading a loss would wait for the
    device, so steps are read ten at a time; clips_per_s is then the mean over the ten.
    """

    def __init__(self, device: torch.device, batch_size: int) -> None:
        self.device, self.batch_size = device, batch_size
        self.every = 10 if device.type == "cuda" else 1
        self._pending: list[_Step] = []
        self._scalars: list[str] = []  # names
        self._since = time.perf_counter()

    def add(
        self, row: dict[str, Any], scalars: dict[str, Tensor], clock: StepClock, before: Before
    ) -> None:
        """Of one step: what the host knows, what the device will know, its times, and what was
        before it."""
        self._pending.append(_Step(row, scalars, clock, before))

    @property
    def empty(self) -> bool:
        return not self._pending

    @property
    def full(self) -> bool:
        return len(self._pending) >= self.every

    def read(self, stop: bool = False, failures: bool = False) -> Reading:
        """The rows so far, and what any process was asked or has to tell; waits for the device and
        for all processes."""
        if not self._pending:
            return Reading([], stop, failures)
        names = self._scalars = list(self._pending[0].scalars)
        values = [step.scalars[name].float() for step in self._pending for name in names]
        flags = torch.tensor([float(stop), float(failures)], device=self.device)
        found = ranks.average(torch.cat([torch.stack(values), flags])).tolist()
        *numbers, any_stop, any_failures = found
        now = time.perf_counter()
        clips_per_s = round(len(self._pending) * self.batch_size / (now - self._since), 2)
        rows = []
        for i, step in enumerate(self._pending):
            of_step = numbers[i * len(names) : (i + 1) * len(names)]
            scalars = dict(zip(names, of_step, strict=True))
            row = step.row | scalars | {"clips_per_s": clips_per_s} | step.clock.read()
            rows.append(Row(row, step.scalars["loss"], step.before))
        self._pending.clear()
        self._since = now
        return Reading(rows, any_stop > 0, any_failures > 0)

    def shown(self, row: dict[str, Any]) -> str:
        """Of the last row that was read, for the bar: the task's scalars and the speed."""
        scalars = [f"{name} {row[name]:.4f}" for name in self._scalars]
        return ", ".join([*scalars, f"{row['clips_per_s']:.1f} clips/s"])

    def restart_clock(self) -> None:
        """After a checkpoint: its time is not the next step's."""
        self._since = time.perf_counter()


def ends_of(losses: Sequence[float]) -> dict[str, float]:
    """What a run's losses were at its two ends, by what they are of; nothing without losses.

    Of a short run its halves: no step is in both.
    """
    n = min(_ENDS, len(losses) // 2)
    if n > 1:
        first, last = sum(losses[:n]) / n, sum(losses[-n:]) / n
        return {f"mean of the first {n}": first, f"mean of the last {n}": last}
    if n == 1:
        return {"first step": losses[0], "last step": losses[-1]}
    return {"only step": losses[0]} if losses else {}

"""The resumable loop over the steps of a run. It knows no model: a task says what a step is."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from smnm_kernels.errors import RunError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.loader import Batch, BatchNumbers, Failure, make_loader, stop_workers

from . import ranks
from .folder import ENCODER, METRICS, MetricsLog, RunFolder, load_checkpoint
from .memory import NEEDS_VALUES, step_memory
from .meter import Meter, StepClock
from .plan import Plan
from .signals import StopSignal
from .task import Task

_SUMMARY_STEPS = 20  # first and last losses that the closing line averages


class Loop:
    """One run of a task, from the step that RUN holds to the last.

    `folder` is None in all processes but the first: only that one writes.
    """

    def __init__(
        self, task: Task, plan: Plan, device: torch.device, out: Path, folder: RunFolder | None
    ) -> None:
        self.task, self.plan, self.device, self.out, self.folder = task, plan, device, out, folder
        self.failed: set[str] = set()
        self.step = 0  # steps done
        state = load_checkpoint(out)
        if state is not None:
            self.step = state["step"]
            task.model.load_state_dict(state["model"])
            task.optimizer.load_state_dict(state["optimizer"])
            task.load_state(state["task"])
        self.saved_at = self.step if state is not None else None
        self.log = MetricsLog(folder.path / METRICS, self.step) if folder else None

    def run(self) -> int:
        """Train what is left to train. Returns 0, or 130 / 143 when SIGINT / SIGTERM made it save
        and stop; raises RunError where it cannot go on."""
        devices = [self.device] if self.device.type == "cuda" else []
        threads = torch.get_num_threads()
        torch.set_num_threads(self.plan.threads)
        try:
            with torch.random.fork_rng(devices):
                return self._run()
        except OSError as error:
            raise RunError(
                f"{error.filename or self.out}: {error.strerror or error}; the last "
                "checkpoint is whole, give the same command again to go on from it"
            ) from error
        finally:
            torch.set_num_threads(threads)

    def _run(self) -> int:
        plan = self.plan
        if self.step >= plan.steps:
            self._finish()
            self._say(
                f"already finished: {self.step} steps are done, and this run's --steps is "
                f"{plan.steps}; raise it to go on"
            )
            return 0
        if plan.resumed:
            self._say(f"going on after step {self.step} of {plan.steps}")
        with StopSignal() as stop:
            self._train(stop)
            self._save()
            if stop.number is not None and self.step < plan.steps:
                self._say(
                    f"stopped by {signal.Signals(stop.number).name}, saved after step {self.step} "
                    f"of {plan.steps}; give the same command again to go on"
                )
                return 128 + stop.number
            self._finish()
        self._say(self._summary())
        return 0

    def _train(self, stop: StopSignal) -> None:
        plan = self.plan
        numbers = BatchNumbers(
            self.step,
            plan.steps,
            plan.batch_size,
            plan.accumulate,
            ranks.rank(),
            ranks.world_size(),
        )
        loader = make_loader(
            self.task.dataset, numbers, plan.workers, pin_memory=self.device.type == "cuda"
        )
        forward = Forward(self.task.model, plan, self.device, self._say_memory)
        meter = Meter(self.device, plan.batch_size)
        bar = tqdm(
            total=plan.steps,
            initial=self.step,
            unit=" steps",
            disable=not self.folder,
            mininterval=0.5 if sys.stderr.isatty() else 10,  # seconds; a log file needs fewer
        )
        batches = iter(loader)
        try:
            while self.step < plan.steps:
                try:
                    self._step(forward, batches, meter)
                except Exception:
                    # Ctrl-C also ends the compilers of a first step. The weights are those of the
                    # step before: only what comes ahead of the optimiser can fail so.
                    if stop.number is None or not plan.compile or ranks.world_size() > 1:
                        raise
                    self._log(meter.read(stop=True)[0])
                    break
                save = self.step % plan.checkpoint_every == 0
                keep = plan.keep_every is not None and self.step % plan.keep_every == 0
                if meter.full or save or keep or self.step == plan.steps:
                    rows, stopping = meter.read(stop.number is not None)
                    self._log(rows)
                    bar.update(self.step - bar.n)
                    last = rows[-1]
                    bar.set_postfix_str(
                        f"loss {last['loss']:.4f}, {last['clips_per_s']:.1f} clips/s", refresh=False
                    )
                    if keep:
                        self._keep()
                    if stopping:
                        break
                    if save:
                        self._save()
                    if keep or save:
                        meter.restart_clock()
        finally:
            stop_workers(batches)
            bar.close()

    def _step(self, forward: Forward, batches: Iterator[Batch], meter: Meter) -> None:
        """One update of the weights, from the gradients of all parts of the batch."""
        optimizer, parts = self.task.optimizer, self.plan.accumulate
        lr = self.plan.schedule.rate(self.step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        clock, waited = StepClock(self.device), 0.0
        sums: dict[str, Tensor] = {}
        for part in range(parts):
            waiting_since = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - waiting_since
            self._report_failures(batch)
            torch.manual_seed(_seed_of(self.task.dataset.seed, batch))
            with forward.synchronised(part == parts - 1):
                scalars = self.task.step(forward, batch.to(self.device), clock)
                (scalars["loss"] / parts).backward()
            for name, value in scalars.items():
                value = value.detach() / parts
                sums[name] = sums[name] + value if part else value
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.step += 1
        meter.add({"step": self.step, "lr": lr, "data_ms": round(1e3 * waited, 2)}, sums, clock)

    def _log(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if not math.isfinite(row["loss"]):
                raise RunError(
                    f"the loss of step {row['step']} is {row['loss']}; the last checkpoint is from "
                    f"before it. Begin again in another --out, with a lower --lr than "
                    f"{self.plan.schedule.peak:g}"
                )
            if self.log:
                self.log.add(row)

    def _save(self) -> None:
        """last.pt, and a picture of what the model does by now."""
        if not self.folder or not self.log or self.saved_at == self.step:
            return
        self.log.sync()
        self.folder.save_checkpoint(
            {
                "step": self.step,
                "model": self.task.model.state_dict(),
                "optimizer": self.task.optimizer.state_dict(),
                "task": self.task.state(),
            }
        )
        self.saved_at = self.step
        if self.step < self.plan.steps:
            self._save_picture(self.folder)

    def _keep(self) -> None:
        if self.folder:
            self.task.export(self.folder.kept_encoder(self.step), self.step)

    def _save_picture(self, folder: RunFolder) -> None:
        picture = self.task.picture(self._report_failure)
        if picture is not None:
            with replacing(folder.path / self.task.picture_name) as file:
                picture.save(file, format="PNG")

    def _finish(self) -> None:
        """Picture and encoder of the last step; nothing where they are there already."""
        if not self.folder:
            return
        path = self.folder.path / ENCODER
        if self.task.exported_step(path) != self.step:
            self._save_picture(self.folder)
            self.task.export(path, self.step)

    def _report_failures(self, batch: Batch) -> None:
        for failure in batch.failures:
            self._report_failure(failure)
        if not batch.inputs:
            last = batch.failures[-1]
            raise RunError(
                f"{self.task.dataset.folder}: files that passed the scan cannot be read any more, "
                f"at last {printable(last.name)}: {last.reason}"
            )

    def _report_failure(self, failure: Failure) -> None:
        if failure.name in self.failed:
            return
        self.failed.add(failure.name)
        tqdm.write(f"  failed {printable(failure.name)}: {failure.reason}; another file steps in")
        if self.folder:
            self.plan.skipped[failure.name] = failure.reason
            self.folder.write_skipped(self.plan.skipped)

    def _summary(self) -> str:
        if not self.folder or not self.log:
            return ""
        losses, n = self.log.losses, min(_SUMMARY_STEPS, len(self.log.losses))
        first, last = sum(losses[:n]) / n, sum(losses[-n:]) / n
        run = self.folder.path
        return (
            f"done: {self.step} steps; loss {first:.4f} (mean of the first {n}) -> {last:.4f} "
            f"(mean of the last {n})\nencoder: {run / ENCODER}\n"
            f"pictures: {run / self.task.picture_name}"
        )

    def _say_memory(self, found: str) -> None:
        if self.folder:
            part = self.plan.batch_size // self.plan.accumulate // ranks.world_size()
            tqdm.write(f"memory of a step, {part} samples at a time: {found}")

    def _say(self, text: str) -> None:
        if self.folder:
            print(text, flush=True)


def _seed_of(seed: int, batch: Batch) -> int:
    """The seed of the random numbers that the model itself draws, such as dropout's: the same after
    a resume, and another for each part of a batch and each rank."""
    first = int(batch.sample_ids[0])
    return int(np.random.SeedSequence([seed, first]).generate_state(1, np.uint64)[0])


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
            model.compile()
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

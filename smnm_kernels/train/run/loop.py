"""The resumable loop over the steps of a run. It knows no model: a task says what a step is."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.errors import RunError, printable
from smnm_kernels.files import reason
from smnm_kernels.train.data.batches import Batches, watch_over
from smnm_kernels.train.data.loader import Batch, BatchNumbers
from smnm_kernels.train.data.waiting import Stopped, Watch

from . import bad_loss, ranks
from .before import Before
from .evaluating import Evaluator
from .failures import Failures
from .folder import (
    ENCODER,
    METRICS,
    MetricsLog,
    RunFolder,
    load_checkpoint,
)
from .forward import Forward
from .memory import is_out_of_memory
from .meter import Meter, Row, StepClock, ends_of
from .optimisation import set_rate
from .plan import Plan
from .progress import Progress, say
from .saving import Saving
from .signals import StopSignal
from .task import Task

# So long other processes and pictures are waited for after a signal.
_GRACE_S = 5.0


class Loop:
    """One run of a task, from the step that RUN holds to the last.

    `folder` is None in all processes but the first: only that one writes.
    """

    def __init__(
        self, task: Task, plan: Plan, device: torch.device, out: Path, folder: RunFolder | None
    ) -> None:
        self.task, self.plan, self.device, self.out, self.folder = task, plan, device, out, folder
        self._failures = Failures(folder, plan.skipped, plan.stall_limit)
        self.step = 0  # steps done
        state = load_checkpoint(out)
        if state is not None:
            self.step = state["step"]
            task.model.load_state_dict(state["model"])
            task.optimizer.load_state_dict(state["optimizer"])
            task.load_state(state["task"])
        self.log = MetricsLog(folder.path / METRICS, self.step) if folder else None
        self._stop = StopSignal()
        self._forward = Forward(task.model, plan, device, self._say_memory)
        self._meter = Meter(device, plan.batch_size)
        self._watch = self._watch_that_stops(_GRACE_S if ranks.world_size() > 1 else 0)
        self._saving = Saving(
            task,
            plan,
            folder,
            self.log,
            self._failures,
            self.step if state is not None else None,
            self._watch_that_stops(_GRACE_S),
        )
        self._bad = torch.zeros((), device=device)  # 1 from the first loss on that is not finite
        self._evaluator: Evaluator | None = None
        if task.evaluations is not None:
            self._evaluator = Evaluator(
                task.evaluations,
                plan,
                device,
                self._forward,
                folder.path if folder else None,
                self.step,
                self._watch,
                lambda: self._stop.number is not None,
                self._saving.writing,
            )

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
                f"{error.filename or self.out}: {reason(error)}; {self._saving.to_go_on(self.step)}"
            ) from error
        except RuntimeError as error:
            what = _in_words(error)
            if what is None:
                raise
            raise RunError(f"{what}; {self._saving.to_go_on(self.step)}") from error
        finally:
            torch.set_num_threads(threads)

    def _run(self) -> int:
        plan = self.plan
        with self._stop as stop:
            if self.step >= plan.steps:
                said = self._finish() if self._judge() else None
                if said is None:
                    return self._say_stopped(stop)
                self._say(
                    f"{said}already finished: {self.step} steps are done, and this run's --steps "
                    f"is {plan.steps}; raise it to go on"
                )
                return 0
            if plan.resumed:
                self._say(f"going on after step {self.step} of {plan.steps}")
            if not self._train():
                self._save()
                return self._say_stopped(stop)
            self._save()
            said = self._finish()
            if said is None:
                return self._say_stopped(stop)
        self._say(self._summary() + (f"\n{said.rstrip()}" if said else ""))
        return 0

    def _say_stopped(self, stop: StopSignal) -> int:
        # Under torchrun the signal may have come to another process alone.
        number = signal.SIGTERM if stop.number is None else signal.Signals(stop.number)
        self._say(f"stopped by {number.name}, {self._saving.to_go_on(self.step)}")
        return 128 + number

    def _train(self) -> bool:
        """The steps that are left. False where a signal came."""
        plan, meter = self.plan, self._meter
        if not self._judge():  # as of a run that was killed between a checkpoint and this
            return False
        batches = Batches(
            self.task.dataset,
            self._numbers(self.step, plan.steps),
            plan.workers,
            self.device,
            self._watch,
            self._say_waiting,
        )
        progress = Progress(self.step, plan.steps, shown=self.folder is not None)
        meter.restart_clock()
        try:
            while self.step < plan.steps:
                if not self._whole_step(batches):
                    return False
                save = self.step % plan.checkpoint_every == 0
                keep = plan.keep_every is not None and self.step % plan.keep_every == 0
                judge = self._evaluator is not None and self._evaluator.due(self.step)
                if meter.full or save or keep or judge or self.step == plan.steps:
                    stopping, last = self._read_meter()
                    progress.show(self.step, self._meter.shown(last))
                    if keep:
                        self._saving.keep(self.step)
                    if stopping and self.step < plan.steps:
                        return False
                    if save or judge:
                        self._save()
                    if not self._judge():
                        return False
                    if keep or save or judge:
                        meter.restart_clock()
            return True
        finally:
            batches.close()
            progress.close()

    def _judge(self) -> bool:
        """The evaluation that is due after this step, if any, behind its checkpoint. False where a
        signal ended it."""
        if self._evaluator is None or not self._evaluator.due(self.step):
            return True
        try:
            return self._evaluator.regular(self.step)
        except RunError as error:
            raise RunError(f"{error}; {self._saving.to_go_on(self.step)}") from error

    def _numbers(self, start: int, stop: int) -> BatchNumbers:
        plan = self.plan
        return BatchNumbers(
            start, stop, plan.batch_size, plan.accumulate, ranks.rank(), ranks.world_size()
        )

    def _whole_step(self, batches: Iterator[Batch]) -> bool:
        """One step. Where a signal ends it, or its data do not come, it is undone, and what was
        done before is saved; False or RunError then."""
        before = Before(self.task)
        try:
            row, sums, clock = self._gradients(batches)
        except Exception as error:
            # Ctrl-C also ends the compilers of a first step, and the other processes.
            others = self.plan.compile or ranks.is_loss_of_another(error)
            ended = isinstance(error, Stopped) or (self._stop.number is not None and others)
            what = _in_words(error)
            if not ended and what is None:
                raise
            before.restore(self.task)
            if ranks.world_size() == 1:
                self._read_meter()
            self._save(picture=False)  # a file might not be read now
            if ended:
                return False
            raise RunError(f"{what}; {self._saving.to_go_on(self.step)}") from error
        self._update(sums["loss"])
        self.step += 1
        self._meter.add({"step": self.step} | row, sums, clock, before)
        return True

    def _gradients(
        self, batches: Iterator[Batch]
    ) -> tuple[dict[str, float], dict[str, Tensor], StepClock]:
        """Those of one step, from all parts of its batch; what the host knows of it, what the
        device will know, and its times."""
        forward, parts = self._forward, self.plan.accumulate
        lr = self.plan.schedule.rate(self.step)
        set_rate(self.task.optimizer, lr)
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
        return {"lr": lr, "data_ms": round(1e3 * waited, 2)}, sums, clock

    def _update(self, loss: Tensor) -> None:
        """New weights; from the first loss on that is not finite, they stay what they are, for
        `bad_loss` to look at. Nothing waits for the device."""
        optimizer = self.task.optimizer
        self._bad = torch.maximum(self._bad, (~loss.isfinite()).float())
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # Fused optimisers read it on the device: it was made for scaled gradients.
            optimizer.found_inf = self._bad  # type: ignore[attr-defined]
            optimizer.step()
        elif self.device.type != "cpu" or not self._bad:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _read_meter(self) -> tuple[bool, dict[str, float]]:
        """(whether to stop, the last row), after the rows went to the log."""
        reading = self._meter.read(self._stop.number is not None, self._failures.some_to_tell)
        if reading.failures:
            self._failures.tell()
        for row in reading.rows:
            if not math.isfinite(row.values["loss"]):
                raise RunError(self._why_bad(row))
            if self.log:
                with self._saving.writing(self.log.path):
                    self.log.add(row.values)
            remark = self.task.watch(row.values) if self.task.watch else None
            if remark:
                self._say_remark(remark)
        return reading.stop, reading.rows[-1].values if reading.rows else {}

    def _why_bad(self, row: Row) -> str:
        plan, step = self.plan, row.values["step"]
        found = None
        if not row.own_loss.isfinite():
            numbers = self._numbers(step - 1, step)
            batches = Batches(self.task.dataset, numbers, 0, watch=self._watch)
            seeded = ((_seed_of(self.task.dataset.seed, batch), batch) for batch in batches)
            try:
                found = bad_loss.find(
                    self.task, self._forward, seeded, row.before, self.device, plan.schedule.peak
                )
            except (Stopped, RunError) as error:
                found = bad_loss.not_found(error)
        findings = [f for f in ranks.everyones(found) if f is not None]
        first = min(findings, key=lambda f: f.depth, default=bad_loss.not_found())
        return f"the loss of step {step} is {row.values['loss']}: {first}. {self._saving.before()}"

    def _save(self, picture: bool = True) -> None:
        if self._meter.empty:  # without the rows of all steps, nobody could go on from it
            self._saving.checkpoint(self.step, picture)

    def _finish(self) -> str | None:
        """Picture, encoder and final evaluation of the last step; nothing where they are there
        already. What it is to say, or None where a signal ended it."""
        if self._evaluator is not None:
            try:
                return self._evaluator.finish(self.step, lambda: self._saving.export(self.step))
            except RunError as error:
                raise RunError(f"{error}; {self._saving.to_go_on(self.step)}") from error
        if self.folder and self.task.exported_step(self.folder.path / ENCODER) != self.step:
            self._saving.picture(self.step)
            self._saving.export(self.step)
        return ""

    def _report_failures(self, batch: Batch) -> None:
        for failure in batch.failures:
            self._failures.add(failure)
        plan = self.plan
        if len(batch) < plan.batch_size // plan.accumulate // ranks.world_size():
            last = batch.failures[-1]
            raise RunError(
                f"{self.task.dataset.folder}: files that passed the scan cannot be read any more, "
                f"at last {printable(last.name)}: {last.reason}"
            )

    def _summary(self) -> str:
        if not self.folder or not self.log:
            return ""
        loss = " -> ".join(f"{loss:.4f} ({of})" for of, loss in ends_of(self.log.losses).items())
        run, pictures = self.folder.path, self.task.pictures
        return f"done: {self.step} steps; loss {loss}\nencoder: {run / ENCODER}" + (
            f"\npictures: {run / pictures.picture_name}" if pictures else ""
        )

    def _say_memory(self, found: str) -> None:
        if self.folder:
            part = self.plan.batch_size // self.plan.accumulate // ranks.world_size()
            say(f"memory of a step, {part} samples at a time: {found}")

    def _say_remark(self, text: str) -> None:
        if self.folder:
            say(text)

    def _say_waiting(self, text: str) -> None:
        say(text if ranks.world_size() == 1 else f"process {ranks.rank()}: {text}")

    def _watch_that_stops(self, grace: float) -> Watch:
        """For waits that end so many seconds after a signal."""

        def stop() -> bool:
            return self._stop.number is not None and time.monotonic() > self._stop.since + grace

        return watch_over(self.task.dataset, self._say_waiting, self.plan.stall_limit, stop)

    def _say(self, text: str) -> None:
        if self.folder:
            print(text, flush=True)


def _in_words(error: Exception) -> str | None:
    """What has ended a step, where that is no fault of the program."""
    if isinstance(error, RunError):
        return str(error)
    if ranks.is_loss_of_another(error):
        return "another process of this run has gone"
    if is_out_of_memory(error):
        return (
            f"memory ran out ({str(error).splitlines()[0]}): --accumulate, "
            "--checkpoint-activations and --precision bfloat16 need less"
        )
    return None


def _seed_of(seed: int, batch: Batch) -> int:
    """The seed of the random numbers that the model itself draws, such as dropout's: the same after
    a resume, and another for each part of a batch and each rank."""
    first = int(batch.sample_ids[0])
    return int(np.random.SeedSequence([seed, first]).generate_state(1, np.uint64)[0])

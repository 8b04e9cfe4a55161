"""Evaluations of a run: when they come, what of them is kept, and how they go on after a kill.

A model is evaluated on files by fixed views, so that an evaluation is a pure function of the
weights. A checkpoint is always written before: RUN/evaluations.jsonl never holds a row of a step
that last.pt does not reach, and one that a kill ended is done again from the same weights.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from smnm_kernels.errors import RunError, UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.loader import Batch
from smnm_kernels.train.data.views import OnePass, Views
from smnm_kernels.train.data.waiting import Stopped, Watch

from . import ranks
from .folder import before_any_work
from .forward import Forward
from .plan import Plan
from .progress import say

EVALUATIONS = "evaluations.jsonl"


@dataclass(frozen=True)
class Outputs:
    """What a model said of all samples that could be read: in the first process over all processes,
    which it alone judges; in another one of its own."""

    sample_ids: list[int]  # rising
    values: Tensor  # float32 [samples, k] on the CPU
    failed: dict[str, str]  # names of the files that could not be read, each with its reason


class Evaluations(Protocol):
    """How a task's model is judged, while it is trained and in the end."""

    def due(self, step: int) -> bool:
        """Whether it is judged after so many steps. After the last one it always is."""

    @property
    def regular(self) -> Views | None:
        """What a regular evaluation reads; None where there is nothing for it."""

    @property
    def final(self) -> Views | None:
        """What the one in the end reads."""

    def outputs(self, forward: Callable[..., Any], batch: Batch) -> Tensor:
        """[B, k] of a batch on the device. `forward` stands for the model, without dropout and
        without gradients."""

    def row(self, views: Views, outputs: Outputs) -> dict[str, Any]:
        """What evaluations.jsonl gets of it, beside the step and the failures."""

    def value(self, row: dict[str, Any]) -> float:
        """By which rows are compared; a larger one is better."""

    def keep(self, folder: Path, step: int, best: bool) -> None:
        """Write the model: the best so far, or that of the last step."""

    def take_best(self, folder: Path) -> None:
        """Give the model the weights that were kept as the best."""

    def finished(self, folder: Path) -> int | None:
        """The step of the final evaluation that the folder holds, if any."""

    def found(self, views: Views, outputs: Outputs) -> Any:
        """What the final evaluation says. It may take a while; nothing is written."""

    def finish(self, folder: Path, found: Any | None, step: int) -> str:
        """Write all that is left of the run when it is over; a text to print. What `finished` reads
        is written last.

        found: of the final evaluation; None where there was nothing for it.
        """


class Evaluator:
    """Does a task's evaluations. All processes call its methods together."""

    def __init__(
        self,
        evaluations: Evaluations,
        plan: Plan,
        device: torch.device,
        forward: Forward,
        out: Path | None,
        done: int,
        watch: Watch,
        stopping: Callable[[], bool],
        writing: Callable[[Path], AbstractContextManager[None]],
    ) -> None:
        """out: RUN, in the first process; None in the others. done: steps of the checkpoint.
        stopping: whether a signal came, which ends an evaluation."""
        self.evaluations, self.plan, self.device = evaluations, plan, device
        self._forward, self._out, self._watch, self._writing = forward, out, watch, writing
        self._stopping = stopping
        rows = _cut_back(out / EVALUATIONS, done) if out else []
        #: In all processes the first one's.
        self.rows: list[dict[str, Any]] = ranks.everyones(rows)[0]

    def due(self, step: int) -> bool:
        """Whether a regular evaluation is to be done after this step, and is not done yet."""
        if self.evaluations.regular is None or any(row["step"] == step for row in self.rows):
            return False
        return step == self.plan.steps or (step > 0 and self.evaluations.due(step))

    def regular(self, step: int) -> bool:
        """Judge the model by the weights of this step. False where a signal ended it."""
        views = self.evaluations.regular
        assert views is not None
        outputs = self._outputs(views)
        if outputs is None:
            return False
        found: list[dict[str, Any] | None] = [None]
        if self._out:
            row = {"step": step} | self.evaluations.row(views, outputs) | {"failed": outputs.failed}
            best = self._is_best(row)
            row["best"] = best
            if best:
                with self._writing(self._out):
                    self.evaluations.keep(self._out, step, best=True)
            self._add(row)
            found = [row]
            say(_line(row, self.plan.steps))
        row_of_all = ranks.everyones(found[0])[0]
        assert row_of_all is not None
        self.rows.append(row_of_all)
        return True

    def finish(self, step: int, export: Callable[[], None]) -> str | None:
        """The final evaluation, of the best weights; what it is to say, "" where it was done
        before, None where a signal ended it. `export` is called in the first process while the
        model has the best weights."""
        finished = self.evaluations.finished(self._out) if self._out else None
        if ranks.everyones(finished)[0] == step:
            return ""
        if self._out:
            with self._writing(self._out):
                self.evaluations.keep(self._out, step, best=False)
                if self.evaluations.regular is None:
                    self.evaluations.keep(self._out, step, best=True)
                self.evaluations.take_best(self._out)
                export()
        ranks.share(self._forward.model)
        views = self.evaluations.final
        outputs = None
        if views is not None:
            outputs = self._outputs(views)
            if outputs is None:
                return None
        if not self._out:
            return ""
        found = None
        if views is not None and outputs is not None:
            found = self.evaluations.found(views, outputs)
        with self._writing(self._out):
            return self.evaluations.finish(self._out, found, step)

    def _is_best(self, row: dict[str, Any]) -> bool:
        """Better than all before; of equal ones the earlier stays. Of undefined ones the later, as
        of a val split without positives: it has been trained the longest."""
        value = self.evaluations.value(row)
        before = [self.evaluations.value(row) for row in self.rows]
        if math.isnan(value):
            return all(math.isnan(b) for b in before)
        return all(math.isnan(b) or value > b for b in before)

    def _outputs(self, views: Views) -> Outputs | None:
        ids: list[int] = []
        values: list[Tensor] = []
        failed: dict[str, str] = {}
        trouble = ""
        try:
            for batch in self._batches(views):
                if self._stopping():
                    raise Stopped
                failed |= {f.name: f.reason for f in batch.failures}
                if len(batch):
                    found = self._predict(batch.to(self.device))
                    values.append(found.float().cpu())
                    ids += batch.sample_ids.tolist()
        except Stopped:
            trouble = "stopped"
        except RunError as error:
            trouble = str(error)
        # A process that ends early says so, instead of leaving the others waiting.
        everyone = ranks.everyones((len(ids), failed, trouble))
        troubles = [trouble for *_, trouble in everyone if trouble]
        if any(t != "stopped" for t in troubles):
            raise RunError(next(t for t in troubles if t != "stopped"))
        if troubles:
            return None
        for name in (failed := {n: r for _, of, _ in everyone for n, r in of.items()}):
            if self._out:
                say(f"  failed {printable(name)}: {failed[name]}; it is not in the evaluation")
        if not any(count for count, *_ in everyone):
            raise RunError(
                f"{views.folder}: none of the {len(views.numbers)} files of an evaluation can be "
                "read any more"
            )
        parts = ranks.gathered((ids, torch.cat(values) if values else None))
        ids = [i for some, _ in parts for i in some]
        there = [some for _, some in parts if some is not None]
        order = sorted(range(len(ids)), key=ids.__getitem__)
        return Outputs(
            [ids[i] for i in order], torch.cat(there)[order] if there else torch.empty(0), failed
        )

    def _predict(self, batch: Batch) -> Tensor:
        return self.evaluations.outputs(self._forward.judged, batch)

    def _batches(self, views: Views) -> Any:
        size = max(1, self.plan.batch_size // self.plan.accumulate // ranks.world_size())
        numbers = OnePass(len(views), size, ranks.rank(), ranks.world_size())
        batches = Batches(views, numbers, self.plan.workers, self.device, self._watch, say)
        shown = bool(self._out) and sys.stderr.isatty()
        bar = tqdm(
            desc="evaluating", total=len(views), unit=" views", leave=False, disable=not shown
        )
        try:
            with bar:
                for batch in batches:
                    yield batch
                    bar.update(len(batch) * ranks.world_size())
        finally:
            batches.close()

    def _add(self, row: dict[str, Any]) -> None:
        assert self._out
        path = self._out / EVALUATIONS
        with self._writing(path), replacing(path) as file:
            for each in [*self.rows, row]:
                file.write(json.dumps(each).encode() + b"\n")


def _cut_back(path: Path, done: int) -> list[dict[str, Any]]:
    """The rows of the steps that the checkpoint reaches."""
    if not path.exists():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [row for row in rows if row["step"] <= done]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: is no list of evaluations ({error})") from error
    if len(kept) < len(rows):
        with before_any_work(path.parent), replacing(path) as file:
            for row in kept:
                file.write(json.dumps(row).encode() + b"\n")
    return kept


def _line(row: dict[str, Any], steps: int) -> str:
    shown = (f"{name} {v:.4g}" for name, v in row.items() if isinstance(v, float))
    return f"step {row['step']} of {steps}, {row['split']}: {', '.join(shown)}" + (
        "; the best so far" if row["best"] else ""
    )

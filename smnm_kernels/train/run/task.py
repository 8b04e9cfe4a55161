"""What the loop asks of a task: a model, its optimiser, what a step is, what to show and export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch import Tensor, nn

from smnm_kernels.train.data.loader import Batch, Failure, SampleDataset

from .evaluating import Evaluations
from .meter import StepClock


class Task(Protocol):
    """One kind of training. From the loop it gets data, ranks, precision, compilation,
    accumulation, metrics, checkpoints and signals."""

    @property
    def dataset(self) -> SampleDataset: ...

    @property
    def model(self) -> nn.Module:
        """On the run's device."""

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def evaluations(self) -> Evaluations | None:
        """How the model is judged; None where it is not."""

    @property
    def pictures(self) -> Pictures | None:
        """How what the model does is shown; None where it is not."""

    @property
    def watch(self) -> Callable[[dict[str, Any]], str | None] | None:
        """Is told the row of every step, in order, and gives a line for the user where something is
        wrong, or None. None where nobody watches."""

    def step(
        self, forward: Callable[..., Any], batch: Batch, clock: StepClock
    ) -> dict[str, Tensor]:
        """Scalars of one batch for metrics.jsonl. "loss" is minimised: a mean over the batch.

        `forward` is called in place of `model`: it brings ranks and precision with it.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside model and optimiser; loads with weights_only."""

    def load_state(self, state: dict[str, Any]) -> None: ...

    def export(self, path: Path, step: int) -> None:
        """Write the trained encoder, whole or not at all."""

    def exported_step(self, path: Path) -> int | None:
        """The step whose encoder `path` holds; None where there is no such file."""


class Pictures(Protocol):
    """A picture of what a model does, made anew with each checkpoint."""

    @property
    def picture_name(self) -> str:
        """Of the file in RUN."""

    def read_for_picture(self, report: Callable[[Failure], None]) -> Any:
        """What `picture` needs from files, or None where none can be read; files that fail go to
        `report`. It is called in a thread, which nobody may wait for in the end: it must not touch
        the model."""

    def picture(self, samples: Any) -> Image:
        """Of what the model does by now with these samples."""

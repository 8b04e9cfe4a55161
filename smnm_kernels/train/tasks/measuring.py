"""Mean and standard deviation of sounds, measured in the data before a run's first step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.batches import Batches, watch_over
from smnm_kernels.train.data.left_out import by_reason
from smnm_kernels.train.data.loader import Batch, SampleDataset
from smnm_kernels.train.data.modality import Modality, Record
from smnm_kernels.train.data.orders import Passes
from smnm_kernels.train.data.padding import Padding, is_real
from smnm_kernels.train.data.spectrogram import Spectrogram
from smnm_kernels.train.data.views import OnePass
from smnm_kernels.train.data.waiting import Stopped
from smnm_kernels.train.models.formats.weights import Weights
from smnm_kernels.train.run.progress import say
from smnm_kernels.train.run.signals import StoppedBySignal, StopSignal

# MaskSpec and MSM-MAE draw as many; fewer files are read once each, very few more often.
_MOST, _LEAST = 10_000, 100
_AT_ONCE = 32
# Starting processes takes as long as reading so many excerpts.
_WORTH_WORKERS = 500


@dataclass(frozen=True)
class Measuring:
    """What is measured: the first samples that training reads, augmented as there (MaskSpec
    measures with its jitter, too). Padding counts where a model sees it as sound."""

    clip: Audio
    data: Path
    seed: int
    stall_limit: float

    def __call__(
        self,
        files: Sequence[Record],
        trained_on: Sequence[int],
        padding: Padding | None,
        workers: int,
    ) -> dict[str, Any]:
        """{"mean": [...], "std": [...]}, of each band or one of all: a function of the seed and the
        files. Sums are float64, in the samples' order, and six digits are kept, so that it is the
        same everywhere.

        Raises StoppedBySignal after Ctrl-C or SIGTERM; UsageError where nothing can be read.
        """
        order = Passes(trained_on)
        dataset = SampleDataset(self.data, files, self.clip, self.seed, padding, order)
        count = min(_MOST, max(_LEAST, len(trained_on)))
        workers = workers if count > _WORTH_WORKERS else 0
        sums = torch.zeros(3, self.clip.bands, dtype=torch.float64)  # of 1, x, x * x
        failed: list[str] = []
        with StopSignal() as stop, bar("measuring log-mel values", count, " excerpts") as shown:

            def stopping() -> bool:
                return stop.number is not None

            watch = watch_over(dataset, say, self.stall_limit, stopping)
            batches = Batches(dataset, OnePass(count, _AT_ONCE), workers, watch=watch, say=say)
            try:
                for batch in batches:
                    failed += [failure.reason for failure in batch.failures]
                    if len(batch):
                        sums += _sums(batch)
                    shown.update(len(batch))
            except Stopped:
                assert stopping()
            finally:
                batches.close()
        if stop.number is not None:
            name = signal.Signals(stop.number).name
            print(f"stopped by {name} before the first step", flush=True)
            raise StoppedBySignal(stop.number)
        if not sums[0].any():
            raise UsageError(f"DATA {self.data}: nothing can be read: {by_reason(failed)}")
        if self.clip.front is None or not self.clip.front.by_band:
            sums = sums.sum(1, keepdim=True)
        n, total, squares = sums
        mean = total / n
        std = (squares / n - mean.square()).clamp(min=0).sqrt()
        # A band that is always the same, as one narrower than the distance of two frequencies.
        std = torch.where(std > 1e-3, std, 1.0)
        print(
            f"  log-mel values of {count} excerpts: mean {_range(mean)}, standard deviation "
            f"{_range(std)}",
            flush=True,
        )
        return {"mean": _digits(mean), "std": _digits(std)}


def measures(clip: Modality) -> bool:
    """Whether something is to be measured before inputs of this kind can be normalised."""
    return isinstance(clip, Audio) and clip.measures


def with_measured(clip: Modality, measured: dict[str, Any] | None) -> Modality:
    """The modality with what was measured."""
    if measured is None:
        return clip
    assert isinstance(clip, Audio)
    return replace(clip, mean=tuple(measured["mean"]), std=tuple(measured["std"]))


def as_trained(clip: Modality, weights: Weights, say: Callable[[str], None]) -> Modality:
    """The modality with the mean and deviation of an encoder's input, where they are to be measured
    and its spectrogram is the same; `say` gets a line where it is another."""
    if not isinstance(clip, Audio) or not weights.clip:
        return clip
    theirs = weights.clip.get("front")
    if (theirs and Spectrogram(**theirs)) != clip.front:
        say("it was trained on another spectrogram than the preset's")
        return clip
    if not clip.measures:
        return clip
    return replace(clip, mean=tuple(weights.mean), std=tuple(weights.scale))


def _sums(batch: Batch) -> Tensor:
    """float64 [3, bands]: how many real values there are, their sum, that of their squares."""
    x, real = batch.inputs["audio"], batch.real.get("audio")
    values = x[:, 0, 0].double()
    counted = torch.ones_like(values)
    if real is not None:
        counted *= is_real(real, x.shape[2:])[:, 0]
    parts = (counted, counted * values, counted * values.square())
    return torch.stack([part.sum((0, 1)) for part in parts])


def _digits(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _range(values: Tensor) -> str:
    low, high = values.min().item(), values.max().item()
    return f"{low:.2f}" if len(values) == 1 else f"{low:.2f} to {high:.2f}"

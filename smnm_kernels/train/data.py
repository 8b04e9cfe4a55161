"""From a sample's number to its tensor, and the loader that streams batches from any step on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smnm_kernels.errors import Unusable

from . import audio, video
from .draws import file_of
from .presets import AUDIO_MEAN, AUDIO_STD, VIDEO_MEAN, VIDEO_STD, Preset
from .scan import Listing, Record, scan

# So many files in a row may pass the scan and fail afterwards; more means the data is gone.
MOST_FAILURES = 32

Failure = tuple[str, str]  # file name, reason


@dataclass
class Batch:
    # video uint8 [B, 3, T, H, W]; audio float32 [B, 1, 1, frames, bands]; None if a sample gave up
    clips: Tensor | None
    failures: list[Failure]

    def pin_memory(self) -> Batch:
        return Batch(None if self.clips is None else self.clips.pin_memory(), self.failures)


class ClipDataset(Dataset):
    """Sample `index` of an endless stream, a pure function of (seed, index) and the files.

    It does not depend on the number of workers or processes, nor on which samples were read before.
    """

    def __init__(
        self,
        folder: Path,
        files: list[Record],
        modality: str,
        preset: Preset,
        seed: int,
        flip: bool,
    ) -> None:
        self.folder, self.files = folder, files
        self.modality, self.preset, self.seed, self.flip = modality, preset, seed, flip

    def read(self, file: Record, index: int) -> Tensor:
        """The clip of one file with the random crop of sample `index`."""
        path = self.folder / file["name"]
        if self.modality == "video":
            return video.read_clip(path, file, self.preset, self.seed, index, self.flip)
        return audio.read_excerpt(path, file, self.preset, self.seed, index)

    def __getitem__(self, index: int) -> tuple[Tensor | None, list[Failure]]:
        failures: list[Failure] = []
        for attempt in range(min(MOST_FAILURES, len(self.files))):
            file = self.files[file_of(self.seed, index, len(self.files), attempt)]
            try:
                return self.read(file, index), failures
            except Unusable as error:
                failures.append((file["name"], str(error)))
        return None, failures


class BatchNumbers:
    """Sample numbers of this process for each step: the global batch is cut into equal pieces."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int, world: int) -> None:
        self.start, self.stop, self.batch_size = start, stop, batch_size
        self.share = batch_size // world
        self.offset = rank * self.share

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            first = step * self.batch_size + self.offset
            yield list(range(first, first + self.share))


def _collate(samples: list[tuple[Tensor | None, list[Failure]]]) -> Batch:
    clips = [clip for clip, _ in samples if clip is not None]
    failures = [failure for _, of_sample in samples for failure in of_sample]
    return Batch(torch.stack(clips) if len(clips) == len(samples) else None, failures)


def _start_worker(_: int) -> None:
    # Ctrl-C and batch systems signal the whole process group, but the trainer alone decides when to
    # stop. A worker that ended first would raise an error in the middle of the trainer's step.
    # Workers end when the trainer says so, or is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def make_loader(
    dataset: ClipDataset, numbers: BatchNumbers, workers: int, pin_memory: bool
) -> DataLoader:
    return DataLoader(
        dataset,
        batch_sampler=numbers,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
    )


def stop_workers(iterator: Iterator) -> None:
    """End a loader's workers now, however its loop ended.

    After an error the traceback keeps the iterator alive, and Python would wait at its exit for
    workers that are told to end by a signal they ignore.
    """
    shut_down = getattr(iterator, "_shutdown_workers", None)  # absent where there are no workers
    if shut_down is not None:
        shut_down()


def scan_folder(
    folder: Path, modality: str, preset: Preset, known: dict[str, Any], threads: int
) -> Listing:
    if modality == "video":
        probe = partial(video.probe, frames=preset.frames)
        return scan(folder, video.SUFFIXES, probe, known, threads)
    return scan(folder, audio.SUFFIXES, audio.probe, known, threads)


def normalisation(modality: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """(mean, scale) of the model's input (raw - mean) / scale, float32 [C, 1, 1, 1]."""
    if modality == "video":
        mean, scale = VIDEO_MEAN, VIDEO_STD
    else:
        mean, scale = (AUDIO_MEAN,), (2 * AUDIO_STD,)
    return tuple(torch.tensor(v, device=device).view(-1, 1, 1, 1) for v in (mean, scale))


def model_input(clips: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """A batch as the loader gives it -> the model's float32 input, on mean's device."""
    clips = clips.to(mean.device, non_blocking=True)
    if clips.dtype == torch.uint8:
        clips = clips.float() / 255
    return (clips - mean) / scale

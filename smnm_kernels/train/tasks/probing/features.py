"""Frozen features of files: read once, computed once, kept on disk."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from smnm_kernels.errors import RunError, printable
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.entries import Entry, base_of
from smnm_kernels.train.data.left_out import unreadable
from smnm_kernels.train.data.modality import Normalisation, Record
from smnm_kernels.train.data.padding import TokenGrid
from smnm_kernels.train.data.scan import shown_name
from smnm_kernels.train.data.views import OnePass, Views, views_of
from smnm_kernels.train.run.machine import autocast_dtype, cores, versions
from smnm_kernels.train.run.signals import StoppedBySignal, StopSignal

from .cache import FeatureCache, Row, averaged, bytes_of, content_key
from .frozen import Frozen
from .layers import Pool, features_of

# A shard is written when it holds so much, or when so much work would be lost to a kill.
_SHARD_BYTES = 256 << 20
_SHARD_SECONDS = 20.0
_FILES_AT_ONCE = 1024  # whose contents threads are asked for


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features of a file beside the encoder and the file."""

    layers: tuple[int, ...]  # 0 the embedding, ..., depth the last block after the final norm
    clips: int = 1
    crops: int = 1
    pool: Pool = "mean"
    tokens: bool = False  # those of all patches are kept, too
    precision: str = "float32"


@dataclass(frozen=True)
class Machine:
    """How the work is done; none of it changes a feature by more than rounding."""

    device: torch.device
    batch_size: int = 16  # samples that go through the encoder together
    workers: int = 0


@dataclass(frozen=True)
class Contents:
    """What files hold, by which their features are found."""

    keys: list[str | None]  # None: cannot be read
    failed: dict[int, str]  # place -> reason

    @classmethod
    def of(cls, data: Path, files: Sequence[Record]) -> Contents:
        """Reads every byte of every file once, which takes the time of the disk; nothing is
        decoded."""
        base = base_of(data)

        def key(record: Record) -> tuple[str | None, str]:
            try:
                return content_key(Entry.of(record).source(base)), ""
            except OSError as error:
                return None, unreadable(error)

        keys: list[str | None] = []
        failed: dict[int, str] = {}
        with ThreadPoolExecutor(min(8, cores())) as pool, bar("reading", len(files)) as shown:
            for begin in range(0, len(files), _FILES_AT_ONCE):
                for found, why in pool.map(key, files[begin : begin + _FILES_AT_ONCE]):
                    if found is None:
                        failed[len(keys)] = why
                    keys.append(found)
                    shown.update()
        return cls(keys, failed)


@dataclass(frozen=True)
class Features:
    """Of the files that could be read."""

    rows: dict[int, Row]  # by the file's place in the list that was given
    failed: dict[str, str]  # name -> reason

    def matrix(self, layer: int, places: Sequence[int]) -> Tensor:
        """float32 [files, dim] of these places."""
        return torch.stack([self.rows[place][f"pooled.{layer}"] for place in places])

    def tokens(self, layer: int, places: Sequence[int]) -> list[Tensor]:
        """float16 [n, dim] of each of these places; padding is left out, views stand one behind the
        other."""
        return [self.rows[place][f"tokens.{layer}"] for place in places]


def features(
    frozen: Frozen,
    data: Path,
    files: Sequence[Record],
    settings: FeatureSettings,
    machine: Machine,
    cache_folder: Path,
    contents: Contents | None = None,
) -> Features:
    """Of every file the encoder's features, averaged over its views.

    contents: of these files, where they are known already, as for a second encoder.

    A recording that is shorter than the window is encoded without its padding where the clip hides
    padding (`Modality.padded`), as in pretraining: the encoder never sees it, and means are over
    what is real. Where the clip sees padding, it is like sound.

    What is computed goes to the cache as the work goes on; what is there already is read from it,
    bit by bit the same, and its files are not decoded. A file that cannot be read has no features.
    Raises StoppedBySignal once what is done is written; RunError where memory runs out.
    """
    cache = FeatureCache(cache_folder, _way(frozen, settings, machine.device))
    contents = contents or Contents.of(data, files)
    keys = contents.keys
    there = cache.keys()
    first = {
        key: place
        for place, key in reversed(list(enumerate(keys)))
        if key is not None and key not in there
    }
    # Samples with as many real tokens come together: they go through the encoder in one piece.
    missing = sorted(first.values(), key=lambda place: (_real_size(frozen, files[place]), place))
    failed: dict[str, str] = {}
    if missing:
        work = _Computing(frozen, data, files, settings, machine)
        of_place = {place: key for key, place in first.items()}
        failed = {
            of_place[place]: why for place, why in work.into(cache, missing, of_place).items()
        }
    rows = cache.rows(key for key in keys if key is not None)
    return Features(
        {place: rows[key] for place, key in enumerate(keys) if key is not None and key in rows},
        {
            shown_name(record): (
                contents.failed[place] if key is None else failed.get(key, "cannot be read")
            )
            for place, (record, key) in enumerate(zip(files, keys, strict=True))
            if key not in rows
        },
    )


def _way(frozen: Frozen, settings: FeatureSettings, device: torch.device) -> dict[str, Any]:
    """All that decides what is computed of a file."""
    return {
        "smnm_kernels": versions()["smnm_kernels"],  # how files are read may change with it
        "weights": frozen.digest,
        "input_size": frozen.encoder.input_size,
        "encoder": asdict(frozen.encoder.settings),
        "modality": frozen.clip.name,
        "clip": asdict(frozen.clip),
        **frozen.normalisation(),
        **asdict(settings),
        "device": device.type,
    }


def _real_size(frozen: Frozen, record: Record) -> int:
    """How many values of a sample are no padding."""
    real = frozen.clip.padded(record).get(frozen.input_name)
    return math.prod(real if real is not None else frozen.input.size[1:])


class _Computing:
    """Files through the encoder."""

    def __init__(
        self,
        frozen: Frozen,
        data: Path,
        files: Sequence[Record],
        settings: FeatureSettings,
        machine: Machine,
    ) -> None:
        self.frozen, self.settings, self.machine = frozen, settings, machine
        self.data, self.files = data, files
        self.views = views_of(settings.clips, settings.crops)
        self.encoder = copy.deepcopy(frozen.encoder).to(machine.device)
        self.normalise = Normalisation(frozen.input, machine.device)
        self.tokens = TokenGrid(frozen.input.size[1:], self.encoder.grid, n_keep=1)

    def into(self, cache: FeatureCache, places: list[int], keys: dict[int, str]) -> dict[int, str]:
        """Compute the rows of these places, which have these keys; of those that failed: place ->
        reason."""
        failed: dict[int, str] = {}
        waiting: dict[str, Row] = {}
        size, since = 0, time.monotonic()
        name = f"features of {printable(self.frozen.name)}"
        with StopSignal() as stop, bar(name, len(places)) as shown:
            for of_batch, failures in self._batches(places):
                for place, views in of_batch.items():
                    waiting[keys[place]] = row = averaged(views)
                    size += bytes_of(row)
                for place, why in failures.items():
                    failed[place] = why
                    tqdm.write(f"  left out {shown_name(self.files[place])}: {printable(why)}")
                shown.update(len(of_batch) + len(failures))
                late = time.monotonic() > since + _SHARD_SECONDS
                if size > _SHARD_BYTES or late or stop.number is not None:
                    cache.add(waiting)
                    waiting, size, since = {}, 0, time.monotonic()
                if stop.number is not None:
                    print(
                        f"stopped by {signal.Signals(stop.number).name}: features of {shown.n} of "
                        f"{len(places)} files are kept; give the same command again to go on",
                        flush=True,
                    )
                    raise StoppedBySignal(stop.number)
            cache.add(waiting)
        return failed

    def _batches(self, places: list[int]) -> Iterator[tuple[dict[int, list[Row]], dict[int, str]]]:
        """Of the files of each batch: the rows of their views, and of those that failed why."""
        n_views = len(self.views)
        dataset = Views(self.data, self.files, self.frozen.clip, places, self.views)
        # Whole files, so that what a batch gives can be written.
        at_once = max(1, self.machine.batch_size // n_views)
        numbers = OnePass(len(dataset), at_once * n_views)
        batches = Batches(dataset, numbers, self.machine.workers, self.machine.device, say=_say)
        try:
            for number, batch in enumerate(batches):
                asked = places[number * at_once : (number + 1) * at_once]
                rows: dict[int, list[Row]] = {place: [] for place in asked}
                if len(batch):
                    found = self._rows(batch.inputs[self.frozen.input_name], batch.file_numbers)
                    for place, row in zip(batch.file_numbers.tolist(), found, strict=True):
                        rows[place].append(row)
                why = {failure.name: failure.reason for failure in batch.failures}
                failed = {p: why[dataset.name(p)] for p in asked if len(rows[p]) < n_views}
                yield {p: rows[p] for p in asked if p not in failed}, failed
        finally:
            batches.close()

    def _rows(self, raw: Tensor, file_numbers: Tensor) -> list[Row]:
        rows = []
        device, step = self.machine.device, self.machine.batch_size
        dtype = autocast_dtype(self.settings.precision, device)
        for begin in range(0, len(raw), step):
            places = file_numbers[begin : begin + step].tolist()
            x = self.normalise(raw[begin : begin + step].to(device))
            try:
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    rows += features_of(
                        self.encoder,
                        x,
                        self._valid(places),
                        self.settings.layers,
                        self.settings.pool,
                        self.settings.tokens,
                    )
            except torch.OutOfMemoryError as error:
                raise RunError(
                    f"no more memory on {device} at --batch-size {step}; a smaller one needs less"
                ) from error
        return rows

    def _valid(self, places: list[int]) -> Tensor | None:
        """bool [B, N] of the tokens that hold anything real; None where no file has padding."""
        name = self.frozen.input_name
        real = [self.frozen.clip.padded(self.files[place]).get(name) for place in places]
        if not any(real):
            return None
        return torch.stack([self.tokens.real(r or self.tokens.size).flatten() for r in real])


def _say(text: str) -> None:
    tqdm.write(text)

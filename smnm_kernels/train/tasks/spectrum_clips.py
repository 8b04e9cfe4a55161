"""The clips, spectrograms or pictures that `smnm spectrum` looks at: which, and their power."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from smnm_kernels.analysis.energy import periodogram
from smnm_kernels.arguments import Grid
from smnm_kernels.errors import Unusable, UsageError, printable
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.find import Entry, Found, find
from smnm_kernels.train.data.modality import FixedView, Modality, Normalisation, Record
from smnm_kernels.train.data.scan import scan, shown_name
from smnm_kernels.train.run.machine import cores

#: Clips that masks look at which follow the data.
_LOOKED_AT = 32


@dataclass(frozen=True)
class ChosenFiles:
    """Files that can be read, and the modality with a window that they fill."""

    base: Path
    records: Sequence[Record]
    modality: Modality


@dataclass(frozen=True)
class Clips:
    """What was read, and how."""

    power: np.ndarray  # float64 [T, H, W], the mean periodogram of the values
    of_patches: np.ndarray  # float64 [n, T, H, W], the periodogram of each clip's patches
    patch: Grid  # values of a patch
    grid: Grid
    shown: Tensor  # normalised, as masks look at them: float32 [m, C, T, H, W]


@dataclass(frozen=True)
class _Some:
    """A Finder of at most `most` files, evenly taken from those that DATA holds."""

    data: Path
    most: int

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> Found:
        found = find(self.data, suffixes, besides, tick)
        n = len(found.entries)
        if n <= self.most:
            return found
        return replace(found, entries=[found.entries[i * n // self.most] for i in range(self.most)])


def files_of(data: Path, modality: Modality, most: int) -> ChosenFiles:
    """At most `most` files of DATA, evenly taken. Raises UsageError where none can be used."""
    listing = scan(_Some(data, most), modality, None, cores())
    left_out = [f"left out {name}: {why}" for name, why in listing.reasons().items()]
    for line in (*listing.remarks, *left_out):
        _say(f"  {line}")
    if not listing.usable:
        raise UsageError(f"DATA {printable(str(data))}: none of its files is usable")
    fitting, records = _fitting(modality, listing.usable)
    return ChosenFiles(listing.found.base, records, fitting)


def _fitting(modality: Modality, files: Sequence[Record]) -> tuple[Modality, list[Record]]:
    """A window that three of four recordings fill, and those that fill it: padding is no sound.

    Windows are multiples of 64 frames, or of 16 where recordings are shorter than 64.
    """
    if modality.name != "audio":
        return modality, list(files)
    ((channels, t, frames, bands),) = (given.size for given in modality.inputs.values())
    hiding = replace(modality, padding="hide")
    real = [hiding.padded(record).get("audio", (1, frames, bands))[1] for record in files]
    common = int(np.percentile(real, 25, method="lower"))
    step = 64 if common >= 64 else 16
    window = min(frames, common // step * step)
    if window < 16:
        raise UsageError("DATA: its recordings are too short, a patch of 16 frames is needed")
    fill = [record for record, n in zip(files, real, strict=True) if n >= window]
    if window < frames:
        _say(
            f"  windows of {window} frames, not {frames}, which {len(fill)} of {len(files)} "
            "recordings fill" + ("; the others are left out" if len(fill) < len(files) else "")
        )
    return modality.sized((channels, t, window, bands)), fill


def read(files: ChosenFiles, grid: Grid, count: int) -> Clips:
    """`count` clips, of each file as many as it takes, evenly along it.

    The channels' mean, brought to mean 0 and variance 1, so that loud and quiet clips count alike.
    """
    each = -(-count // len(files.records))
    views = [FixedView(clip, each) for clip in range(each)]
    # File by file in each round, so that a cut takes no file's only clip.
    wanted = [(record, view) for view in views for record in files.records][:count]
    ((name, given),) = files.modality.inputs.items()
    _, *sides = given.size
    t, h, w = patch = (sides[0] // grid[0], sides[1] // grid[1], sides[2] // grid[2])
    normalise = Normalisation(given)
    power: Any = 0.0
    of_patches: list[np.ndarray] = []
    shown: list[Tensor] = []

    def clip_of(job: tuple[Record, FixedView]) -> Tensor | str:
        record, view = job
        try:
            source = Entry.of(record).source(files.base)
            return files.modality.read_fixed(source, record, view)[name]
        except (Unusable, OSError) as error:
            return f"left out {shown_name(record)}: {error}"

    for clip in _in_order(clip_of, wanted):
        if isinstance(clip, str):
            _say(f"  {clip}")
            continue
        values = clip.float().mean(0).double().numpy()
        values -= values.mean()
        if values.std() < 1e-9:  # nothing to see, and nothing to scale by
            continue
        values /= values.std()
        power = power + periodogram(values)
        tokens = values.reshape(grid[0], t, grid[1], h, grid[2], w).mean((1, 3, 5))
        of_patches.append(periodogram(tokens))
        if len(shown) < _LOOKED_AT:
            shown.append(normalise(clip[None])[0])
    if not any(one.any() for one in of_patches):
        raise UsageError("DATA: the patches of every clip have one mean, or fail to be read")
    mean = power / len(of_patches)
    return Clips(mean, np.stack(of_patches), patch, grid, torch.stack(shown))


def _say(line: str) -> None:
    """Beside the bar; what the command prints may be JSON."""
    tqdm.write(line, file=sys.stderr)


def _in_order(read: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
    """Results in the order of the jobs, a few ahead at a time, with a bar."""
    with ThreadPoolExecutor(cores()) as pool, bar("reading", len(jobs), " clips") as shown:
        ahead = 4 * cores()
        for begin in range(0, len(jobs), ahead):
            for result in pool.map(read, jobs[begin : begin + ahead]):
                shown.update()
                yield result

"""A cell whose encoder another cell of the study has trained: what is measured besides, or
otherwise than before, trains nothing twice."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError
from smnm_kernels.files import reason, replacing, sync, sync_folder
from smnm_kernels.train.run.folder import CHECKPOINT, ENCODER, RunFolder, encoder_of_step

from .folders import ABOUT, PARTS, PICTURE, RUN, CellFolder, is_locked, read_json
from .plan import Measure

Settings = Mapping[str, Any]
Parts = dict[str, Any]


def take_over(folder: CellFolder, measures: Sequence[Measure]) -> Parts:
    """The parts of another cell with this one's encoder that this one would make again, with what
    they left in its folder; none where there is no such cell, or where its run does not suffice for
    the rest. Of several the one with the most parts.

    A run that stands in this cell's folder without a checkpoint, as one whose copy was cut short,
    is replaced.
    """
    if (folder.run / CHECKPOINT).exists():
        return {}
    _remove_results(folder, measures)  # of a copy that was cut short
    found = []
    for other in sorted(folder.path.parent.iterdir()):
        theirs = (read_json(other / ABOUT) or {}).get("settings")
        if other == folder.path or theirs is None:
            continue
        if _encoder_of(theirs) == _encoder_of(folder.cell.settings):
            parts = _kept(read_json(other / PARTS) or {}, theirs, folder.cell.settings)
            if "train" in parts and _suffices(other / RUN, parts, folder, measures):
                found.append((other, parts))
    for other, parts in sorted(found, key=lambda one: -len(one[1])):
        if not is_locked(other) and _copied(other, folder, parts):
            print(f"--- {folder.cell.name}: has the encoder of cell {other.name}", flush=True)
            return parts | {"train": parts["train"] | {"cell": other.name}}
        _remove_results(folder, measures)
    return {}


def _encoder_of(settings: Settings) -> dict[str, Any]:
    """What decides the encoder."""
    names = ("modality", "trained_on", "untrained", "pretrain", "code")
    return {n: settings[n] for n in names} | {"data": settings["data"][settings["trained_on"]]}


def _kept(parts: Parts, theirs: Settings, ours: Settings) -> Parts:
    """Of another cell's parts those that this one would make again."""
    found = {}
    for part, values in parts.items():
        name, _, step = part.partition("@")
        wanted = _measure_of(ours, name)
        same = wanted is not None and wanted == _measure_of(theirs, name)
        if name == "train" or (same and (not step or int(step) in ours["measures"][name]["at"])):
            found[part] = values
    return found


def _measure_of(settings: Settings, name: str) -> Any:
    """What decides a measure's values, beside the encoder; None where there is no such measure."""
    measure = settings["measures"].get(name)
    if measure is None:
        return None
    data = settings["data"][measure["of"] or settings["trained_on"]]
    return {k: v for k, v in measure.items() if k != "at"}, data


def _suffices(run: Path, parts: Parts, folder: CellFolder, measures: Sequence[Measure]) -> bool:
    """Whether what a run has left is enough for what is not measured yet: a loss needs the decoder,
    which goes with the checkpoint when a cell is finished."""
    if not (run / ENCODER).exists():
        return False
    if folder.cell.run.untrained:
        return True
    for measure in measures:
        decoder = measure.command != "loss" or (run / CHECKPOINT).exists()
        if measure.name not in parts and not decoder:
            return False
        steps = [step for step in measure.at if f"{measure.name}@{step}" not in parts]
        if not all(encoder_of_step(run, step).exists() for step in steps):
            return False
    return True


def _remove_results(folder: CellFolder, measures: Sequence[Measure]) -> None:
    """A command would take what another cell's left for its own, and go on from it."""
    for measure in measures:
        for name in (measure.name, *(f"{measure.name}@{step}" for step in measure.at)):
            shutil.rmtree(folder.path / name, ignore_errors=True)


def _copied(other: Path, folder: CellFolder, parts: Parts) -> bool:
    """Whether all of it could be copied: the other cell may go meanwhile."""
    made = folder.path / f".{RUN}"
    try:
        lock = RunFolder(other)  # nobody works in it until it is copied
    except UsageError:
        return False
    try:
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(other / RUN, made)
        for name in parts:
            if (other / name).is_dir():
                shutil.copytree(other / name, folder.path / name)
        if (other / PICTURE).exists():
            with replacing(folder.path / PICTURE) as file:
                file.write((other / PICTURE).read_bytes())
        for path in made.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    sync(file.fileno())
        shutil.rmtree(folder.run, ignore_errors=True)
        made.rename(folder.run)
        sync_folder(folder.path)
        return True
    except OSError as error:
        print(f"cell {other.name} has this encoder, but cannot be copied ({reason(error)})")
        return False
    finally:
        lock.release()

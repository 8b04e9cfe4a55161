"""A cell whose encoder another cell of the study has trained: measures that are added to a plan
train nothing twice."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smnm_kernels.train.run.folder import CHECKPOINT, ENCODER, encoder_of_step

from .folders import PARTS, PICTURE, RESULT, RUN, CellFolder, read_json
from .plan import Measure

Settings = Mapping[str, Any]
Parts = dict[str, Any]


def take_over(folder: CellFolder, measures: Sequence[Measure]) -> Parts:
    """The parts of a finished cell with this one's encoder, whose run and picture are copied; none
    where there is no such cell, or where what its run has left does not suffice for the rest.

    A run that stands in the folder without a checkpoint, as one of a copy that was cut short, is
    replaced.
    """
    if (folder.run / CHECKPOINT).exists():
        return {}
    for other in sorted(folder.path.parent.iterdir()):
        result = read_json(other / RESULT)
        if result is None or result["id"] == folder.cell.id:
            continue
        if _encoder_of(result["settings"]) != _encoder_of(folder.cell.settings):
            continue
        parts = _kept(read_json(other / PARTS) or {}, result["settings"], folder.cell.settings)
        if "train" in parts and _suffices(other / RUN, parts, folder, measures):
            _copy(other, folder)
            return parts
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
    """Whether what a finished run has left, encoders without their decoders, is enough for what is
    not measured yet."""
    if not (run / ENCODER).exists():
        return False
    if folder.cell.run.untrained:
        return True
    for measure in measures:
        if measure.command == "loss" and measure.name not in parts:
            return False
        steps = [step for step in measure.at if f"{measure.name}@{step}" not in parts]
        if not all(encoder_of_step(run, step).exists() for step in steps):
            return False
    return True


def _copy(other: Path, folder: CellFolder) -> None:
    made = folder.path / f".{RUN}"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(other / RUN, made)
    if (other / PICTURE).exists():
        shutil.copy2(other / PICTURE, folder.path / PICTURE)
    shutil.rmtree(folder.run, ignore_errors=True)
    made.rename(folder.run)

"""Which files of a data set are trained on, and which are held out: lists of both, for a cell."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.entries import Entry
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.left_out import no_file
from smnm_kernels.train.data.splits import split_off
from smnm_kernels.train.tasks.label_options import LabelOptions, finder_of

from .cells import Cell
from .folders import LINK
from .plan import DataSet, Measure, StudyPlan
from .plan_file import options_of


@dataclass(frozen=True)
class Split:
    """Names of files, in their order: from the absolute path `base`, or absolute. In a cell's
    folder a link stands for the base, so that a cell goes on where the data lies elsewhere."""

    base: Path
    train: list[str]
    held_out: list[str]

    def name(self, path: str) -> str:
        """A file that a list of the cell names, by its name from the base."""
        return path.removeprefix(f"{LINK}/")

    def link(self, cell: Path) -> None:
        """In the folder of a cell, in place of an earlier link."""
        made = cell / f".{LINK}.{os.getpid()}"
        made.unlink(missing_ok=True)
        made.symlink_to(self.base, target_is_directory=True)
        os.replace(made, cell / LINK)

    def write(self, path: Path, names: Sequence[str]) -> None:
        """As a list that `smnm pretrain` reads, beside the link."""
        text = io.StringIO(newline="")
        rows = [["path"], *([os.path.join(LINK, name)] for name in names)]
        csv.writer(text, lineterminator="\n").writerows(rows)
        with replacing(path) as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def split(data: DataSet, path: Path, suffixes: frozenset[str]) -> Split:
    """By the splits of the labels, or, with `held_out_share`, a share by the hashes of names (of
    groups, by `group_pattern`): always the same, and an added file moves at most one other.

    Raises UsageError where a side is empty, where a file or a group is on both, and where files lie
    in tars.
    """
    listed = path / data.list
    options = LabelOptions(**label_options(data, path))
    groups: list[str | None]
    if data.held_out_share is not None:
        found = find(listed, suffixes, files_from=options.files_from)
        names = [entry.name for entry in found.entries]
        groups = _groups(names, options, listed)
        whole = None if options.group_pattern is None else [group or "" for group in groups]
        held = split_off(names, [None] * len(names), whole, data.held_out_share)
        splits = ["held out" if place in held else "train" for place in range(len(names))]
        wanted = "held out"
    else:
        labelled = finder_of(options, listed).find(suffixes, None, lambda: None)
        found, wanted = labelled, data.held_out
        of = [labelled.labels.of[entry.shown] for entry in found.entries]
        splits, groups = [one.split for one in of], [one.group for one in of]
    if not found.entries:
        raise UsageError(no_file(listed, suffixes, found.left_out))
    shown = printable(str(listed))
    sides = []
    for side in ("train", wanted):
        places = [place for place, of_file in enumerate(splits) if of_file == side]
        if not places:
            raise UsageError(f"{shown}: no file is of the split {side}")
        sides.append(places)
    base = found.base.absolute()
    train, held_out = ([_name(found.entries[i], shown) for i in side] for side in sides)
    of_groups = [{str(groups[i]) for i in side if groups[i] is not None} for side in sides]
    _refuse_both("group", *of_groups, shown=shown)
    real = [{os.path.realpath(base / name) for name in names} for names in (train, held_out)]
    _refuse_both("file", *real, shown=shown)
    return Split(base, train, held_out)


def _groups(names: Sequence[str], options: LabelOptions, listed: Path) -> list[str | None]:
    if options.group_column is not None:
        raise UsageError(
            f"{printable(str(listed))}: group_column is read with labels alone; give "
            "group_pattern with held_out_share"
        )
    if options.group_pattern is None:
        return [None] * len(names)
    found: list[str | None] = []
    for name in names:
        match = re.search(options.group_pattern, name)
        if match is None:
            raise UsageError(
                f"{printable(str(listed))}: group_pattern {options.group_pattern!r} is not in the "
                f"name {printable(name)}"
            )
        found.append(match[1] if match.re.groups else match[0])
    return found


def _refuse_both(what: str, train: set[str], held_out: set[str], *, shown: str) -> None:
    both = sorted(train & held_out)
    if both:
        raise UsageError(f"{shown}: the {what} {printable(both[0])} is trained on and held out")


def _name(entry: Entry, shown: str) -> str:
    if entry.shard:
        raise UsageError(f"{shown}: files in tars are not split; a study needs them unpacked")
    return entry.name


def label_options(data: DataSet, path: Path) -> dict[str, Any]:
    """Those of a data set, as the commands take them."""
    return _labelled_at(path, options_of(LabelOptions, data.labels, "labels"))


def _labelled_at(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of labelled data, those that are paths taken below the data set's."""
    return {k: path / v if isinstance(v, Path) else v for k, v in options.items()}


def labelled(plan: StudyPlan, cell: Cell, measure: Measure) -> tuple[Path, dict[str, Any]]:
    """(DATA, options) of a command on labelled files. On its own list the data set's labels hold,
    too."""
    name = measure.of or cell.data
    path, data = cell.paths[name], plan.data[name]
    own = {} if measure.list else label_options(data, path)
    return path / (measure.list or data.list), own | _labelled_at(path, measure.options)

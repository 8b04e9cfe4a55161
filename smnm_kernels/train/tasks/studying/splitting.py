"""Which files of a data set are trained on, and which are held out: lists of both, for a cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.entries import Entry
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.splits import split_off
from smnm_kernels.train.tasks.label_options import LabelOptions, finder_of

from .plan import DataSet, options_of


def labelled_at(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of labelled data, those that are paths taken below the data set's."""
    return {k: path / v if isinstance(v, Path) else v for k, v in options.items()}


def label_options(data: DataSet, path: Path) -> dict[str, Any]:
    """Those of a data set, as the commands take them."""
    return labelled_at(path, options_of(LabelOptions, data.labels, "labels"))


def split(data: DataSet, path: Path, suffixes: frozenset[str]) -> tuple[list[Path], list[Path]]:
    """(files to train on, files that are held out), in the order of their names.

    By the splits of the labels, or, with `held_out_share`, a share by the hashes of names: always
    the same, and an added file moves at most one other. Raises UsageError where a side is empty,
    and where files lie in tars.
    """
    listed, shown = path / data.list, printable(str(path / data.list))
    if data.held_out_share is not None:
        files_from = label_options(data, path).get("files_from")
        found = find(listed, suffixes, None, lambda: None, files_from)
        names = [entry.name for entry in found.entries]
        held = set(split_off(names, [None] * len(names), None, data.held_out_share))
        splits = ["held out" if place in held else "train" for place in range(len(names))]
        wanted = "held out"
    else:
        options = LabelOptions(**label_options(data, path))
        labelled = finder_of(options, listed).find(suffixes, None, lambda: None)
        assert labelled.labels is not None
        found, wanted = labelled, data.held_out
        splits = [labelled.labels.of[entry.shown].split for entry in found.entries]
    sides = []
    for side in ("train", wanted):
        entries = [e for e, split in zip(found.entries, splits, strict=True) if split == side]
        if not entries:
            raise UsageError(f"DATA {shown}: no file is of the split {side!r}")
        sides.append([_path(found.base, entry, shown) for entry in entries])
    return sides[0], sides[1]


def _path(base: Path, entry: Entry, shown: str) -> Path:
    if entry.shard:
        raise UsageError(f"DATA {shown}: files in tars are not split; a study needs them unpacked")
    return (base / entry.name).resolve()


def write_list(path: Path, files: list[Path]) -> None:
    """As `smnm pretrain` reads it."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["path"], *([str(file)] for file in files)])
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))

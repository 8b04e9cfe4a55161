"""Options of commands that take labelled files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.label_columns import ALL_FOLDS, LabelSettings
from smnm_kernels.train.data.labelled import LabelledFiles
from smnm_kernels.train.data.labels import LabelKind

File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")]
Column = Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]


@dataclass(kw_only=True)
class LabelOptions:
    """Where labels and splits of DATA's files are written. DATA is a folder with a folder for each
    class, perhaps below train/, val/ and test/; a folder with lists (train.csv, val.csv, ...); one
    list; or tars. Columns of lists are asked for by name, or by number from 1."""

    labels: Literal["class", "classes", "number"] = "class"
    """class: one class a file. classes: any number of classes a file. number: a number a file,
    which is predicted itself."""
    val: File = None
    """List of the files to validate on, where DATA is a list. Default: what DATA says, else a share
    is split off."""
    test: File = None
    """List of the files to test on, where DATA is a list."""
    val_share: float = 0.2
    """Share of the files that is split off for validation where there is no split val: of each
    class, by hashes of names, always the same ones. 0: none."""
    files_from: Folder = None
    """The folder that paths in lists are relative to. Default: the list's own, or the only one
    beside it that has the files."""
    path_column: Column = None
    """Column of a list with the path, or the id in its place. Default: found by what is there."""
    label_column: Column = None
    """Column with the label. Default: the only one, or one that is called label, class, category,
    target or the like."""
    split_column: Column = None
    """Column with the split. Default: the one that is called split, where there is one."""
    fold_column: Column = None
    """Column with the number of the fold. Default: fold."""
    fold: Text = None
    """The fold to validate on; the others are trained on. all, for smnm probe: each in turn."""
    group_column: Column = None
    """Column with what must not be torn apart where a share is split off: episode, voice, ..."""
    group_pattern: Text = None
    """The same as a regular expression in names of files; its first group where it has one."""
    class_names: File = None
    """File that names the classes: a name a line, "id name", CSV (AudioSet's
    class_labels_indices.csv) or JSON. Default: ids and names as they are written."""


def finder_of(options: LabelOptions, data: Path, all_folds: bool = False) -> LabelledFiles:
    """What finds DATA's files with their labels. Raises UsageError, before any work, where options
    are wrong, and where `--fold all` is given to a command that does not take it (all_folds)."""
    if options.fold == ALL_FOLDS and not all_folds:
        raise UsageError(f"--fold {ALL_FOLDS}: is for smnm probe; give one of the folds")
    if options.labels not in get_args(LabelKind):
        allowed = ", ".join(get_args(LabelKind))
        raise UsageError(f"--labels must be one of {allowed}, got {options.labels!r}")
    if not 0 <= options.val_share < 1:
        raise UsageError(f"--val-share must be in [0, 1), got {options.val_share}")
    for name, path in (
        ("--val", options.val),
        ("--test", options.test),
        ("--class-names", options.class_names),
    ):
        if path is not None and not os.path.isfile(path):
            there = "is no file" if os.path.exists(path) else "is not there"
            raise UsageError(f"{name} {printable(str(path))}: {there}")
    if options.files_from is not None and not os.path.isdir(options.files_from):
        raise UsageError(f"--files-from {printable(str(options.files_from))}: is no folder")
    if options.fold_column is not None and options.fold is None:
        raise UsageError("--fold-column: --fold says which of the folds is validated on")
    if options.fold is not None and (options.val or options.split_column):
        other = "--val" if options.val else "--split-column"
        raise UsageError(f"--fold and {other}: each of them makes the splits; give one")
    if options.group_column and options.group_pattern:
        raise UsageError("--group-column and --group-pattern: give one of them")
    if options.class_names is not None and options.labels == "number":
        raise UsageError("--class-names: numbers (--labels number) are no classes")
    if options.group_pattern is not None:
        try:
            re.compile(options.group_pattern)
        except re.error as error:
            raise UsageError(f"--group-pattern {options.group_pattern!r}: {error}") from error
    given = {f.name: getattr(options, f.name) for f in fields(LabelSettings)}
    return LabelledFiles(data, LabelSettings(**given))

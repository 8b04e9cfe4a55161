"""Which columns of a list hold labels, splits and groups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from smnm_kernels.errors import UsageError, printable

from . import classes
from .labels import LabelKind, Split
from .lists import Listed
from .splits import SPELLINGS, split_of


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How the labels of DATA are to be read. Columns are asked for by name, or by number from 1."""

    labels: LabelKind = "class"
    val: Path | None = None  # lists
    test: Path | None = None
    files_from: Path | None = None  # the folder that paths in lists are relative to
    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    group_pattern: str | None = None  # a regular expression that is searched for in names
    fold_column: str | None = None
    fold: str | None = None  # which is val, the others are train; ALL_FOLDS: each in turn
    class_names: Path | None = None
    val_share: float = 0.2  # that is split off where there is no val

    @property
    def all_folds(self) -> bool:
        return self.fold == ALL_FOLDS

    @property
    def usual_columns(self) -> tuple[str, ...]:
        """Names of columns of labels, the likeliest first. Names of classes say more than ids."""
        return {
            "class": (
                *("label", "class", "class_name", "label_name", "category", "cls", "target"),
                *("class_id", "label_id", "labels", "positive_labels"),
            ),
            "classes": ("labels", "positive_labels", "label", "classes", "class", "category"),
            "number": ("label", "count", "value", "number", "target", "score", "y"),
        }[self.labels]


def fold_of(settings: LabelSettings) -> str | None:
    """The fold that is val, as lists' folds are written."""
    return None if settings.fold is None else classes.canonical(settings.fold.strip())


class NoLabels(UsageError):
    """A list has none at all."""


class Fields(NamedTuple):
    """What a line says of its file."""

    label: tuple[str, ...]
    split: Split | None
    fold: str | None  # where folds are asked for
    group: str | None


class _Places(NamedTuple):
    """Columns by their numbers, beside the path."""

    labels: tuple[int, ...]
    split: int | None
    fold: int | None
    group: int | None
    said: str


_INTEGER = re.compile(r"[0-9]{1,9}\Z")
FOLD = "fold"
#: In place of a fold: each is val in turn.
ALL_FOLDS = "all"


class Columns:
    """Those of one list. Errors name the line."""

    def __init__(self, path: Path, settings: LabelSettings, role: Split | None) -> None:
        self._list, self._settings, self._role = printable(str(path)), settings, role
        self._name = printable(path.name)
        self._places: dict[tuple[int, int, tuple[str, ...] | None], _Places] = {}
        self._said: dict[str, None] = {}
        self._folds: dict[str, None] = {}
        self._odd_splits: dict[str, None] = {}
        self._known_splits = 0

    @property
    def asked(self) -> tuple[str, ...]:
        """Names that make a first line a header."""
        s = self._settings
        names = (s.label_column, s.split_column, s.group_column, s.fold_column)
        return (*(name.lower() for name in names if name), *s.usual_columns)

    def of(self, line: Listed) -> Fields:
        if line.is_torn:
            raise UsageError(
                f"{self._at(line)}: a quoted field goes on in the next line, or its quote is not "
                "closed; fields of several lines are not read"
            )
        key = (line.place, len(line.columns), line.names)
        places = self._places.get(key)
        if places is None:
            places = self._places[key] = self._find(line)
            if places.said:
                self._said[places.said] = None
        split = self._split(line, places)
        fold = self._fold(line, places, split)
        if places.fold is not None and split != "test":
            split = None  # the fold says it
        return Fields(self._label(line, places), split, fold, self._group(line, places))

    @property
    def folds(self) -> list[str]:
        """Those of the lines so far, where folds are asked for."""
        return sorted(self._folds, key=lambda fold: (not _INTEGER.match(fold), len(fold), fold))

    def remarks(self) -> list[str]:
        """Of the whole list, once it is read; raises UsageError where its folds or splits, taken
        together, are none."""
        s = self._settings
        there = ", ".join(map(printable, self.folds[:20]))
        if self._folds and s.all_folds and len(self._folds) < 2:
            raise UsageError(
                f"{self._list}: --fold {s.fold}: needs at least two folds; there are: {there}"
            )
        if self._folds and not s.all_folds and fold_of(s) not in self._folds:
            raise UsageError(f"{self._list}: --fold {s.fold} is none of its folds: {there}")
        found = list(self._said)
        if self._odd_splits:
            some = ", ".join(repr(printable(name)) for name in list(self._odd_splits)[:3])
            if self._known_splits or s.split_column:
                raise UsageError(
                    f"{self._list}: {some} in the column of splits is no split; "
                    f"there are {', '.join(SPELLINGS)}"
                )
            found.append(f"the column split of {self._name} holds no splits ({some}): left aside")
        return found

    def _find(self, line: Listed) -> _Places:
        s, said = self._settings, []
        named = lambda column, option: self._place(line, column, option)  # noqa: E731
        fold = split = None
        if self._role is None:
            if s.fold is not None:
                fold = named(s.fold_column or FOLD, "--fold-column")
                if not s.all_folds:
                    said.append(f"fold {s.fold} is val, the others are train")
            if s.split_column is not None:
                split = named(s.split_column, "--split-column")
            elif line.names and "split" in line.names:
                split = line.names.index("split")
            if fold is None and line.names and FOLD in line.names:
                said.append("its column fold is not used; --fold N makes fold N val")
        group = None if s.group_column is None else named(s.group_column, "--group-column")
        taken = {place for place in (split, fold, group) if place is not None}
        labels = self._label_places(line, taken)
        if line.names:
            name = ", ".join(line.names[i] for i in labels)
            said.insert(0, f"labels are in its column {printable(name)}")
            if split is not None and fold is not None:
                shown = printable(line.names[split])
                said.append(f"what its column {shown} calls test stays test")
            elif split is not None:
                said.append(f"splits in {printable(line.names[split])}")
        lines = f"{self._name}: {'; '.join(said)}" if said else ""
        return _Places(labels, split, fold, group, lines)

    def _label_places(self, line: Listed, taken: set[int]) -> tuple[int, ...]:
        s = self._settings
        if s.label_column is not None:
            return (self._place(line, s.label_column, "--label-column"),)
        if line.names is None:
            free = [i for i in range(len(line.columns)) if i not in taken]
            if not free:
                raise NoLabels(f"{self._at(line)}: has no label beside the path")
            if len(free) > 1 and s.labels != "classes":
                raise UsageError(
                    f"{self._at(line)}: has {len(free)} columns beside the path and one label is "
                    "wanted; --label-column N (counted from 1) says which, --labels classes takes "
                    "all of them"
                )
            return tuple(free)
        found = next((name for name in s.usual_columns if name in line.names), None)
        if found is not None:
            return (line.names.index(found),)
        free = [i for i in range(len(line.names)) if i not in taken]
        if len(free) == 1:
            return (free[0],)
        self._need_names(line, "--label-column")
        raise NoLabels(
            f"{self._at(line)}: which column has the labels? --label-column says it; there are "
            f"{self._columns(line)}"
        )

    def _place(self, line: Listed, column: str, option: str) -> int:
        """Of a column by its name, or its number from 1, the path's included."""
        wanted = column.strip().lower()
        if line.names and wanted in line.names:
            return line.names.index(wanted)
        if _INTEGER.match(wanted):
            number = int(wanted) - 1
            if number == line.place:
                raise UsageError(f"{self._at(line)}: {option} {column} is the column of the path")
            number -= number > line.place
            if not 0 <= number < len(line.columns):
                raise UsageError(
                    f"{self._at(line)}: {option} {column}: the line has "
                    f"{len(line.columns) + 1} columns"
                )
            return number
        self._need_names(line, option)
        raise UsageError(
            f"{self._at(line)}: {option} {column}: there is no such column; there are "
            f"{self._columns(line)}"
        )

    def _need_names(self, line: Listed, option: str) -> None:
        if line.names is None:
            raise UsageError(
                f"{self._at(line)}: no header names the columns; {option} takes a number from 1, "
                "too"
            )
        if not line.names and line.columns:
            raise UsageError(
                f"{self._at(line)}: has {len(line.columns) + 1} fields, not as many as the header"
            )

    def _columns(self, line: Listed) -> str:
        return ", ".join(map(printable, line.names or ())) or "none beside the path"

    def _at(self, line: Listed) -> str:
        return f"{self._list}: line {line.line}"

    def _label(self, line: Listed, places: _Places) -> tuple[str, ...]:
        values = [line.columns[i].strip() for i in places.labels]
        if self._settings.labels == "classes":
            return tuple(values)
        (value,) = values
        if not value:
            raise UsageError(f"{self._at(line)}: has no label")
        held = classes.json_list(value)
        if held is not None and len(held) == 1:
            return (held[0],)
        column = line.names[places.labels[0]] if line.names else None
        is_plural = column in ("labels", "positive_labels")
        if held is not None or (is_plural and len(classes.several(value)) > 1):
            raise UsageError(
                f"{self._at(line)}: has several labels, {printable(value[:80])}; "
                "--labels classes takes any number of them"
            )
        return (value,)

    def _fold(self, line: Listed, places: _Places, split: Split | None) -> str | None:
        if places.fold is None or split == "test":
            return None
        fold = classes.canonical(line.columns[places.fold].strip())
        if not fold:
            raise UsageError(f"{self._at(line)}: has no fold")
        self._folds[fold] = None
        return fold

    def _split(self, line: Listed, places: _Places) -> Split | None:
        if places.split is None:
            return None
        value = line.columns[places.split]
        split = split_of(value)
        if places.fold is not None:
            return split  # what it is beside test is not asked
        if split is None:
            self._odd_splits[value] = None
        else:
            self._known_splits += 1
        return split

    def _group(self, line: Listed, places: _Places) -> str | None:
        if places.group is None:
            return None
        group = line.columns[places.group].strip()
        if not group:
            raise UsageError(f"{self._at(line)}: has no group")
        return group

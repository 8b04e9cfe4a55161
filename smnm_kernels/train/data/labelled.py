"""Finding files with their labels.

finder = LabelledFiles(Path("DATA"), LabelSettings(fold="1"))
listing = scan(finder, modality, None, threads=2)
targets = listing.labels.targets(listing.usable)
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from smnm_kernels.errors import UsageError, printable

from . import braces, shards
from .classes import Classes, canonical, classes_of, is_integer, number, read_classes, several
from .entries import base_of
from .find import find
from .label_checks import LabelledFound, counted, some
from .label_columns import LabelSettings, NoLabels, fold_of
from .label_rows import Row, Written, lists_in, read_list, read_tree
from .labels import Label, Labelled, Labels, Split
from .left_out import LeftOut, no_file
from .splits import ORDER, split_off

#: Decimals of which so many differ are refused as classes.
_NEARLY_ALL = 0.8
_OF_ONE_LIST = ("fold", "fold_column", "split_column")
_OF_LISTS = (*_OF_ONE_LIST, "path_column", "group_column", "files_from")


@dataclass
class LabelledFiles:
    """The Finder of files with labels."""

    data: Path
    settings: LabelSettings = field(default_factory=LabelSettings)
    _known: Classes | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises UsageError where the file that names the classes is none."""
        if self.settings.class_names is not None:
            self._known = read_classes(self.settings.class_names)

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> LabelledFound:
        """As `find.find`. Raises UsageError where labels or splits are wrong."""
        written = Written()
        left_out = self._read(suffixes, besides, tick, written)
        rows = _once(written, base_of(self.data), self._shown)
        labels, of_row = self._numbers(rows, written.remarks)
        splits, groups = self._splits(rows, of_row, written)
        of = {
            row.entry.shown: Labelled(label, split, group, row.fold)
            for row, label, split, group in zip(rows, of_row, splits, groups, strict=True)
        }
        folds = tuple(written.folds) if self.settings.all_folds else ()
        return LabelledFound(
            base=base_of(self.data),
            entries=sorted(row.entry for row in rows),
            left_out=left_out,
            labels=Labels(self.settings.labels, labels.names, of, folds),
            shown=self._shown,
            said=written.remarks,
            made=written.splits,
        )

    @property
    def _shown(self) -> str:
        return printable(str(self.data))

    def _read(
        self,
        suffixes: frozenset[str],
        besides: Path | None,
        tick: Callable[[], None],
        written: Written,
    ) -> LeftOut:
        data, settings = self.data, self.settings
        is_folder = os.path.isdir(data)
        given = lists_in(data) if is_folder else {}
        is_list = not (
            is_folder
            or braces.is_pattern(data)
            or os.path.splitext(data)[1].lower() in suffixes | {shards.SUFFIX}
        )
        others: dict[Split, Path | None] = {"val": settings.val, "test": settings.test}
        if is_list:
            more = {split: path for split, path in others.items() if path is not None}
            given = {"train": data, **more}
        elif any(others.values()) and not given:
            raise UsageError(
                f"{self._shown}: --val and --test take lists, and go with DATA that is a list; "
                "beside folders, train/, val/ and test/ say what is what"
            )
        else:
            given |= {split: path for split, path in others.items() if path is not None}
        if not given:
            # A label column may be the key in JSON files beside members of tars.
            self._refuse("needs DATA that is a list", *_OF_LISTS)
            found = find(data, suffixes, besides, tick)
            if not found.entries:
                raise UsageError(no_file(data, suffixes, found.left_out))
            read_tree(found, data, besides, settings, written)
            return found.left_out
        if is_folder:
            names = ", ".join(printable(path.name) for path in given.values())
            written.remarks.append(f"splits are those of the lists {names}")
        if len(given) > 1:
            self._refuse("needs one list; here a list for each makes the splits", *_OF_ONE_LIST)
        left_out = LeftOut()
        for split, path in given.items():
            # One list alone may hold several splits.
            role = split if len(given) > 1 else None
            try:
                read_list(path, role, base_of(data), suffixes, settings, tick, left_out, written)
            except NoLabels:
                # As Kinetics' test.csv; whoever asks for a list is told.
                if split != "test" or settings.test is not None:
                    raise
                written.remarks.append(f"{printable(path.name)} has no labels: it is left out")
        return left_out

    def _refuse(self, why: str, *settings: str) -> None:
        """Those that would do nothing."""
        for name in settings:
            value = getattr(self.settings, name)
            if value is not None:
                flag = f"--{name.replace('_', '-')} {printable(str(value))}"
                raise UsageError(f"{self._shown}: {flag}: {why}")

    def _numbers(self, rows: Sequence[Row], remarks: list[str]) -> tuple[Classes, list[Label]]:
        """The classes, and each row's label."""
        if self.settings.labels == "number":
            found: list[Label] = []
            for row in rows:
                value = number(row.label[0])
                if value is None:
                    raise UsageError(
                        f"{self._shown}: {printable(row.at)}: label "
                        f"{printable(row.label[0][:80])!r} is no number"
                    )
                found.append(value)
            return Classes((), {}), found
        written = [self._written(row) for row in rows]
        classes = self._known or classes_of(label for labels in written for label in labels)
        if self._known is None and self.settings.labels == "class":
            self._look_at_decimals(classes.names, len(rows), remarks)
        self._remark_on_spellings(chain.from_iterable(written), remarks)
        numbers: list[list[int]] = []
        for row, labels in zip(rows, written, strict=True):
            numbers.append([])
            for label in labels:
                place = classes.number(label)
                if place is None:
                    raise UsageError(
                        f"{self._shown}: {printable(row.at)}: label {printable(label[:80])!r} is "
                        f"none of the {len(classes.names)} classes of --class-names "
                        f"{printable(str(self.settings.class_names))}"
                    )
                numbers[-1].append(place)
        if self.settings.labels == "class":
            return classes, [places[0] for places in numbers]
        return classes, [sorted(set(places)) for places in numbers]

    def _look_at_decimals(self, names: Sequence[str], files: int, remarks: list[str]) -> None:
        """Classes that are likely values. Raises UsageError where hardly any comes again."""
        numbers = {name: value for name in names if (value := number(name)) is not None}
        decimals = [name for name in numbers if not is_integer(name)]
        shown = some(sorted(decimals, key=lambda name: numbers[name]))
        if 2 * len(decimals) > len(names) and len(names) >= _NEARLY_ALL * files:
            raise UsageError(
                f"{self._shown}: the labels {shown} are decimals, and {len(names)} classes in "
                f"{files} files; --labels number is for values"
            )
        if decimals and len(numbers) == len(names):
            remarks.append(
                f"all labels are numbers and some are decimals ({shown}): each is a class of its "
                "own; --labels number is for values"
            )

    def _remark_on_spellings(self, labels: Iterable[str], remarks: list[str]) -> None:
        spellings = defaultdict(set)
        for label in labels:
            spellings[canonical(label)].add(label)
        several = [sorted(found) for found in spellings.values() if len(found) > 1]
        if several:
            shown = (" and ".join(found) for found in several)
            remarks.append(
                f"{counted(several, 'class is', 'classes are')} written in several ways: "
                f"{some(shown)}"
            )

    def _written(self, row: Row) -> list[str]:
        if self.settings.labels == "class":
            if len(row.label) != 1:
                raise UsageError(
                    f"{self._shown}: {printable(row.at)}: has {len(row.label)} labels; "
                    "--labels classes takes any number of them"
                )
            return list(row.label)
        names = self._known.numbers if self._known else ()
        if not row.source:  # of a folder, or a list already
            return list(row.label)
        return [label for value in row.label for label in several(value, names)]

    # --- splits

    def _splits(
        self, rows: Sequence[Row], labels: Sequence[Label], written: Written
    ) -> tuple[list[Split], list[str | None]]:
        """Each row's split and group."""
        groups = self._groups(rows)
        asked = fold_of(self.settings)
        of_fold: dict[bool, Split] = {True: "val", False: "train"}
        given = [row.split if row.fold is None else of_fold[row.fold == asked] for row in rows]
        if self.settings.all_folds:
            written.remarks += _torn("several folds", groups, [row.fold for row in rows], None)
            return [split or "train" for split in given], groups
        if any(given) and None in given:
            row = rows[given.index(None)]
            raise UsageError(f"{self._shown}: {printable(row.at)}: is in no split, others are")
        splits: list[Split] = [split or "train" for split in given]
        if any(given) and "train" not in splits:
            there = " and ".join(split for split in ORDER if split in splits)
            why = f"all files are of the split {there}"
            if self.settings.fold is not None:
                why = f"--fold {self.settings.fold} takes all files"
            raise UsageError(f"{self._shown}: {why}, and none is left to train on")
        written.splits |= set(filter(None, given))
        if "val" not in splits and "val" not in written.splits:
            self._split_off(rows, labels, groups, splits, written)
        else:
            where = "train and in another split"
            written.remarks += _torn(where, groups, splits, "train")
        return splits, groups

    def _groups(self, rows: Sequence[Row]) -> list[str | None]:
        pattern = self.settings.group_pattern
        if pattern is None:
            return [row.group for row in rows]
        found: list[str | None] = []
        for row in rows:
            match = re.search(pattern, row.entry.name)
            group = match and (match[1] if match.re.groups else match[0])
            if not group:
                raise UsageError(
                    f"{self._shown}: --group-pattern {pattern!r} is not in the name "
                    f"{printable(row.entry.name)}"
                )
            found.append(group)
        return found

    def _split_off(
        self,
        rows: Sequence[Row],
        labels: Sequence[Label],
        groups: Sequence[str | None],
        splits: list[Split],
        written: Written,
    ) -> None:
        share = self.settings.val_share
        if share == 0:
            written.remarks.append("there is no split val, and --val-share 0 splits none off")
            return
        places = [place for place, split in enumerate(splits) if split == "train"]
        is_class = self.settings.labels == "class"
        chosen = split_off(
            [_plain(base_of(self.data), rows[place].entry.name) for place in places],
            [labels[place] if is_class else None for place in places],  # type: ignore[misc]
            [groups[place] or "" for place in places] if any(groups) else None,
            share,
        )
        if not chosen:
            what = "group" if any(groups) else "file"
            raise UsageError(
                f"{self._shown}: no split val is there, and none can be split off: each class has "
                f"one {what} only. Give a split val, or --val-share 0"
            )
        for place in chosen:
            splits[places[place]] = "val"
        by = "whole groups, " if any(groups) else ""
        written.remarks.append(
            f"no split val: {len(chosen)} of {len(places)} files are split off from train "
            f"(--val-share {share:g}; {by}by the hashes of names, always the same)"
        )


def _torn(
    where: str,
    groups: Sequence[str | None],
    parts: Sequence[str | None],
    trained: str | None,
) -> list[str]:
    """A remark on groups with files in several parts, one of them `trained` where that is given."""
    of = defaultdict(set)
    for group, part in zip(groups, parts, strict=True):
        if group is not None and part is not None:
            of[group].add(part)
    torn = [g for g, found in of.items() if len(found) > 1 and trained in (None, *found)]
    if not torn:
        return []
    return [f"{counted(torn, 'group has', 'groups have')} files in {where}: {some(torn)}"]


def _once(written: Written, base: Path, shown: str) -> list[Row]:
    """Each file's one row. Raises UsageError where a file has two labels or is in two splits."""
    first: dict[Hashable, Row] = {}
    repeated = 0
    for row in written.rows:
        entry = row.entry
        name = (entry.shard, entry.start) if entry.shard else _plain(base, entry.name)
        before = first.setdefault(name, row)
        if before is row:
            continue
        repeated += 1
        for what, one, other in (
            ("labels", before.label, row.label),
            ("splits", (before.split or "",), (row.split or "",)),
            ("folds", (before.fold or "",), (row.fold or "",)),
        ):
            if one != other:
                both = " and ".join(repr(printable(", ".join(found))) for found in (one, other))
                raise UsageError(
                    f"{shown}: {printable(entry.shown)} is listed with two {what}, {both} "
                    f"({printable(before.at)}, {printable(row.at)})"
                )
    if repeated:
        written.remarks.append(f"{repeated} lines list a file again, with the same label")
    return list(first.values())


def _plain(base: Path, name: str) -> str:
    """A name as it is from the base, however it is written."""
    top = os.path.abspath(base)
    path = os.path.normpath(f"{top}/{name}" if not name.startswith("/") else name)
    if path.startswith(f"{top}/"):
        return path[len(top) + 1 :]
    return os.path.relpath(path, top)

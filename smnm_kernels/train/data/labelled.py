"""Finding files with their labels.

finder = LabelledFiles(Path("DATA"), LabelSettings(fold="1"))
listing = scan(finder, modality, None, threads=2)
targets = finder.labels.targets(listing.usable)
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable

from . import braces, shards
from .classes import Classes, canonical, classes_of, number, read_classes, remarks_on, several
from .find import Entry, Found, base_of, find
from .label_columns import ALL_FOLDS, LabelSettings, NoLabels
from .label_rows import Row, Written, lists_in, read_list, read_tree
from .labels import Label, Labelled, Labels, Split
from .left_out import LeftOut
from .modality import Record
from .splits import ORDER, split_off

_MOST_NAMED = 3
_OF_ONE_LIST = ("fold", "fold_column", "split_column")
_OF_LISTS = (*_OF_ONE_LIST, "path_column", "group_column", "files_from")


@dataclass
class LabelledFiles:
    """The Finder of files with labels. They are known once `find` has been called."""

    data: Path
    settings: LabelSettings = field(default_factory=LabelSettings)
    labels: Labels | None = field(default=None, init=False)
    #: Names of the folds, where `settings.fold` asks for any.
    folds: list[str] = field(default_factory=list, init=False)
    _remarks: list[str] = field(default_factory=list, init=False, repr=False)
    _made: set[Split] = field(default_factory=set, init=False, repr=False)  # those of DATA's maker
    _known: Classes | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises UsageError where the file that names the classes is none."""
        if self.settings.class_names is not None:
            self._known = read_classes(self.settings.class_names)

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> Found:
        """As `find.find`. Raises UsageError where labels or splits are wrong."""
        written = Written()
        left_out = self._read(suffixes, besides, tick, written)
        rows = _once(written, base_of(self.data), self._shown)
        labels, of_row = self._numbers(rows, written.remarks)
        splits, groups = self._splits(rows, of_row, written)
        of = {
            row.entry.shown: Labelled(label, split, group)
            for row, label, split, group in zip(rows, of_row, splits, groups, strict=True)
        }
        self.labels = Labels(self.settings.labels, labels.names, of)
        self.folds = written.folds
        self._made = written.splits
        self._remarks = written.remarks
        return Found(base_of(self.data), sorted(row.entry for row in rows), left_out)

    def attached(self, record: Record) -> Record:
        assert self.labels is not None, "find() comes first"
        return self.labels.attached(record)

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

    def _remark_on_spellings(self, labels: Iterable[str], remarks: list[str]) -> None:
        spellings = defaultdict(set)
        for label in labels:
            spellings[canonical(label)].add(label)
        several = [sorted(found) for found in spellings.values() if len(found) > 1]
        if several:
            shown = (" and ".join(found) for found in several)
            remarks.append(
                f"{_count(several, 'class is', 'classes are')} written in several ways: "
                f"{_some(shown)}"
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
        given = [row.split for row in rows]
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
        is_cut_later = self.settings.fold == ALL_FOLDS
        if "val" not in splits and "val" not in written.splits and not is_cut_later:
            self._split_off(rows, labels, groups, splits, written)
        elif any(groups):
            self._remark_on_torn(groups, splits, written)
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

    def _remark_on_torn(
        self, groups: Sequence[str | None], splits: Sequence[Split], written: Written
    ) -> None:
        of = defaultdict(set)
        for group, split in zip(groups, splits, strict=True):
            of[group].add(split)
        torn = [group for group, found in of.items() if "train" in found and len(found) > 1]
        if torn:
            written.remarks.append(
                f"{_count(torn, 'group has', 'groups have')} files in train and in another split: "
                f"{_some(group or '' for group in torn)}"
            )

    # --- what is usable

    def look_at(self, usable: Sequence[Record]) -> list[str]:
        """Refuses classes and splits without a usable file; tells what there is."""
        assert self.labels is not None, "find() comes first"
        if self.labels.kind == "class":
            self._need_files_of_classes(usable)
        elif self.labels.kind == "classes":
            self._need_something_to_tell_apart(usable)
        splits = Counter(record["split"] for record in usable)
        for split in ORDER:
            if split not in splits and (split == "train" or split in self._made):
                raise UsageError(f"DATA {self._shown}: the split {split} has no usable file")
        shown = ", ".join(f"{split} {splits[split]}" for split in ORDER if splits[split])
        if self.labels.kind == "number":
            values = [record["label"] for record in usable]
            what = f"numbers from {min(values):.15g} to {max(values):.15g}"
        else:
            what = f"{len(self.labels.names)} classes"
        found = [f"labels: {what}; files: {shown}", *self._remarks, *_alike(usable)]
        return found + (self._remarks_on_classes(usable) if self.labels.names else [])

    def _need_files_of_classes(self, usable: Sequence[Record]) -> None:
        assert self.labels is not None
        names = self.labels.names
        listed = Counter(labelled.label for labelled in self.labels.of.values())
        by_class: dict[int, Counter[str]] = defaultdict(Counter)
        for record in usable:
            by_class[record["label"]][record["split"]] += 1
        unusable = [label for label in listed if label not in by_class]
        if unusable:
            first = unusable[0]
            assert isinstance(first, int)
            raise UsageError(
                f"DATA {self._shown}: {_count(unusable, 'class has', 'classes have')} no usable "
                f"file: {self._classes(unusable)}. What was wrong with the {listed[first]} of "
                f"{printable(names[first])!r} is said above; mend them, or leave the class out"
            )
        if len(by_class) < 2:
            (only,) = by_class
            raise UsageError(
                f"DATA {self._shown}: has one class altogether, {printable(names[only])!r}; "
                "there is nothing to tell apart"
            )
        untrained = [label for label, splits in by_class.items() if not splits["train"]]
        if untrained:
            there = "/".join(split for split in ORDER if by_class[untrained[0]][split])
            raise UsageError(
                f"DATA {self._shown}: {_count(untrained, 'class has', 'classes have')} usable "
                f"files in {there} and none in train: {self._classes(untrained)}"
            )

    def _need_something_to_tell_apart(self, usable: Sequence[Record]) -> None:
        total = Counter(label for record in usable for label in record["label"])
        if not total:
            raise UsageError(f"DATA {self._shown}: no file has a label")
        if all(count == len(usable) for count in total.values()):
            raise UsageError(
                f"DATA {self._shown}: there is no class that some files have and others have not; "
                "there is nothing to tell apart"
            )

    def _remarks_on_classes(self, usable: Sequence[Record]) -> list[str]:
        assert self.labels is not None
        names = self.labels.names
        found = remarks_on(Classes(names, {}))
        by_split: dict[str, Counter[int]] = defaultdict(Counter)
        without = 0
        for record in usable:
            label = record["label"]
            labels = [label] if isinstance(label, int) else label
            by_split[record["split"]].update(labels)
            without += not labels
        total = sum(by_split.values(), Counter[int]())
        if without:
            found.append(f"{without} files have no label: in them is none of the classes")
        numbers = range(len(names))
        for what, chosen in (
            ("no usable file", [i for i in numbers if not total[i]]),
            ("one usable file only", [i for i in numbers if total[i] == 1]),
        ):
            if chosen:
                found.append(
                    f"{_count(chosen, 'class has', 'classes have')} {what}: {self._classes(chosen)}"
                )
        for split, counts in sorted(by_split.items()):
            missing = [i for i in numbers if total[i] and not counts[i]]
            if missing:
                found.append(
                    f"{_count(missing, 'class has', 'classes have')} no file in {split}: "
                    f"{self._classes(missing)}"
                )
        return found

    def _classes(self, numbers: Sequence[Label]) -> str:
        assert self.labels is not None
        names = self.labels.names
        return _some(names[i] for i in numbers if isinstance(i, int))


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


def _alike(usable: Sequence[Record]) -> Iterator[str]:
    """Files outside train that train seems to have, too."""
    trained: dict[tuple[Any, int], Record] = {}
    for record in usable:
        if record["split"] == "train" and "digest" in record:
            trained.setdefault((record["digest"], record["size"]), record)
    for split in ORDER[1:]:
        same = [
            f"{Entry.of(record).shown} and {Entry.of(other).shown}"
            for record in usable
            if record["split"] == split
            and (other := trained.get((record.get("digest"), record["size"])))
        ]
        if same:
            yield (
                f"{_count(same, 'file', 'files')} in {split} {'is' if len(same) == 1 else 'are'} "
                f"like files in train (size, beginning and end): {_some(same)}"
            )


def _plain(base: Path, name: str) -> str:
    """A name as it is from the base, however it is written."""
    top = os.path.abspath(base)
    path = os.path.normpath(f"{top}/{name}" if not name.startswith("/") else name)
    if path.startswith(f"{top}/"):
        return path[len(top) + 1 :]
    return os.path.relpath(path, top)


def _count(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else many}"


def _some(names: Iterable[str]) -> str:
    shown = [printable(name) for name in names]
    return ", ".join(shown[:_MOST_NAMED]) + ", …" * (len(shown) > _MOST_NAMED)

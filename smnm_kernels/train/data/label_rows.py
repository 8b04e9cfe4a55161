"""What is written about each file: its label and split, in folders' names, lists and tars."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from smnm_kernels.errors import UsageError, printable

from . import shards
from .classes import several
from .entries import Entry, Found
from .find import ListForm, find_listed
from .label_columns import Columns, LabelSettings
from .labels import Split
from .left_out import LeftOut
from .list_folder import folder_of_paths
from .search import is_data_name, is_of_a_command
from .splits import meant, split_of, split_of_shard


class Row(NamedTuple):
    """What is written about one file."""

    entry: Entry
    label: tuple[str, ...]  # as it is written: one, or any number where there may be several
    split: Split | None
    fold: str | None
    group: str | None
    source: str  # of the list; empty where folders say it
    line: int  # of the list

    @property
    def at(self) -> str:
        """Where it is written, for messages."""
        return f"line {self.line} of {self.source}" if self.source else self.entry.shown


@dataclass
class Written:
    """What was found, in any order."""

    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    #: Splits that somebody has made, and that must not be empty.
    splits: set[Split] = field(default_factory=set)
    #: Those of the list, where folds are asked for.
    folds: list[str] = field(default_factory=list)


LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".json", ".jsonl", ".lst", ".list")


def lists_in(folder: Path) -> dict[Split, Path]:
    """train.csv and its like in a folder."""
    found: dict[Split, Path] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            split = split_of(stem)
            if split is None or suffix.lower() not in LIST_SUFFIXES or not entry.is_file():
                continue
            if split in found:
                raise UsageError(
                    f"{printable(str(folder))}: {found[split].name} and {entry.name} both list "
                    f"the split {split}; leave one of them there"
                )
            found[split] = folder / entry.name
    return found if "train" in found else {}


# --- lists


def read_list(
    path: Path,
    role: Split | None,
    base: Path,
    suffixes: frozenset[str],
    settings: LabelSettings,
    tick: Callable[[], None],
    left_out: LeftOut,
    written: Written,
) -> None:
    """Add the rows of one list.

    role: the split that the list is of; None: its columns may say so, line by line.
    """
    columns = Columns(path, settings, role)
    form = ListForm(
        settings.files_from or _folder_of_paths(path, suffixes, settings, written.remarks),
        columns.asked,
        settings.path_column and settings.path_column.lower(),
        "--files-from FOLDER says where the files are",
    )
    source = printable(path.name)
    rows = []
    for line, entries in find_listed(path, base, suffixes, form, tick, left_out):
        fields = columns.of(line)
        split = role or fields.split
        for entry in entries:
            rows.append(
                Row(entry, fields.label, split, fields.fold, fields.group, source, line.line)
            )
    written.rows += rows
    written.remarks += columns.remarks()
    written.folds += columns.folds
    if role is not None:
        written.splits.add(role)


def _folder_of_paths(
    path: Path, suffixes: frozenset[str], settings: LabelSettings, remarks: list[str]
) -> Path:
    folder, said = folder_of_paths(
        path,
        lambda name: is_data_name(name, suffixes),
        settings.path_column and settings.path_column.lower(),
        "--files-from says from which folder its paths are",
    )
    remarks += said
    return folder


# --- folders and tars


def read_tree(
    found: Found, data: Path, besides: Path | None, settings: LabelSettings, written: Written
) -> None:
    """Add the rows of files in a folder per class, perhaps below train/ and val/, and of members
    of tars."""
    shown = printable(str(data))
    entries, left_out = found.entries, found.left_out
    are_splits = _are_splits(shown, entries, written.remarks)
    beside = _labels_beside(found, settings) if any(entry.shard for entry in entries) else {}
    for entry in entries:
        folders = entry.name.split("/")[:-1]
        split: Split | None = None
        if are_splits:
            split = _split_by_place(entry)
            if folders and split_of(folders[0]):
                folders = folders[1:]
        label = beside.get((entry.shard, _key(entry.name)))
        if label is None:
            label = (folders[0],) if folders else None
        if label is None:
            left_out.add(entry.shown, "lies in no folder of a class")
            continue
        written.rows.append(Row(entry, label, split, None, None, "", 0))
        if split is not None:
            written.splits.add(split)
    if not written.rows:
        raise UsageError(
            f"{shown}: no file lies in a folder of its class, as in "
            f"{shown}/CLASS/FILE; a list with a label on each line would do, too"
        )
    if os.path.isdir(data):
        _look_at_folders(data, besides, are_splits, written)


def _split_by_place(entry: Entry) -> Split | None:
    places = entry.shard.split("/") if entry.shard else []
    for folder in places[:-1]:
        if split_of(folder):
            return split_of(folder)
    of_shard = split_of_shard(places[-1]) if places else None
    return of_shard or split_of(entry.name.split("/")[0])


def _are_splits(shown: str, entries: list[Entry], remarks: list[str]) -> bool:
    """Whether what lies at the top are splits and not classes."""
    found: dict[Split, dict[str, None]] = defaultdict(dict)  # the folders of each
    others: set[str] = set()
    with_folders: set[str] = set()  # which hold folders
    for entry in entries:
        if not entry.shard and "/" not in entry.name:
            continue  # in no folder at all
        top = (entry.shard or entry.name).split("/")[0]
        split = _split_by_place(entry)
        if split is None:
            others.add(top)
        else:
            found[split][top] = None
        if entry.shown.count("/") > 1:
            with_folders.add(top)
    if not others and found and "train" not in found:
        raise UsageError(
            f"{shown}: has files of the split {' and '.join(sorted(found))} and none of train"
        )
    if others and len(found) > 1 and "train" in found:
        some = ", ".join(map(printable, sorted(others)[:3]))
        raise UsageError(
            f"{shown}: has folders of splits ({', '.join(sorted(found))}) beside others ({some}); "
            "leave only splits there, or only classes"
        )
    tops = {top for of_split in found.values() for top in of_split}
    _refuse_misspelled(shown, tops, others, (tops | others) <= with_folders)
    if not others:
        for split, folders in found.items():
            if len(folders) > 1 and not any(entry.shard for entry in entries):
                both = " and ".join(map(printable, sorted(folders)))
                remarks.append(
                    f"folders {both} are {'both' if len(folders) == 2 else 'all'} the split {split}"
                )
    return bool(found) and not others


def _refuse_misspelled(shown: str, splits: set[str], others: set[str], are_deep: bool) -> None:
    """Folders at the top that look as if they were to be splits, and would be classes.

    splits: those with the name of a split; others: those without.
    are_deep: whether all of them hold folders, as splits do and classes seldom.
    """
    guesses = {name: meant(name) for name in sorted(others)}
    there = {split_of(name) for name in splits}
    wanted = [split_of(guess) for guess in guesses.values() if guess]
    # "rain" beside "train" is another class.
    are_slips = len(wanted) == len(others) and there.isdisjoint(wanted)
    if not others or not (are_deep or are_slips) or not (splits or (are_deep and are_slips)):
        return
    if not splits and not ("train" in wanted and len(set(wanted)) > 1):
        return
    named = " and ".join(map(printable, list(guesses)[:3])) + ", …" * (len(guesses) > 3)
    meaning = " and ".join(guess for guess in guesses.values() if guess)
    hint = f"did you mean {meaning}? " if meaning else ""
    of_splits = ", ".join(map(printable, sorted(splits)))
    what = f"the folder {of_splits}, which is the name of a split, beside {named}"
    if not splits:
        what = f"the folders {named}"
    raise UsageError(
        f"{shown}: has {what}; {hint}Leave only folders of splits there, or only of classes; a "
        "list may have classes of any name"
    )


def _look_at_folders(data: Path, besides: Path | None, are_splits: bool, written: Written) -> None:
    """Folders of which no file is there."""
    with_files = set()
    for row in written.rows:
        parts = row.entry.name.split("/")
        with_files |= {parts[0], "/".join(parts[:2])}
        if row.entry.shard:
            parts = row.entry.shard.split("/")
            with_files |= {parts[0], "/".join(parts[:2])}
    labels = {row.label[0] for row in written.rows if row.label}
    tops = _folders(data, besides)
    of_classes = tops
    if are_splits:
        of_classes = [f"{top}/{name}" for top in tops for name in _folders(data / top, besides)]
    for name in of_classes:
        label = name.split("/")[-1]
        if name in with_files or (are_splits and label in labels):
            continue
        if _holds_files(data / name):
            written.remarks.append(f"{printable(name)}/ holds no such file: it is no class")
        else:
            raise UsageError(
                f"{printable(str(data / name))}: is empty, so that the class {printable(label)!r} "
                "has no file; fill the folder or remove it"
            )
    if are_splits:
        for top in tops:
            split = split_of(top)
            if split is not None and split not in written.splits:
                raise UsageError(
                    f"{printable(str(data / top))}: holds no file, so that the split {split} is "
                    "empty; fill the folder or remove it"
                )


def _folders(path: Path, besides: Path | None) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir()
                and not entry.name.startswith(".")
                and not _is_of_a_command(entry.path)
                and not (besides and os.path.realpath(entry.path) == os.path.realpath(besides))
            )
    except OSError:
        return []


def _is_of_a_command(path: str) -> bool:
    if not os.path.exists(f"{path}/files.json"):  # spares listing the folders of all classes
        return False
    try:
        return is_of_a_command(os.listdir(path))
    except OSError:
        return False


def _holds_files(path: Path) -> bool:
    return any(files for _, _, files in os.walk(path))


def _key(name: str) -> str:
    """WebDataset's: a name up to the first dot behind the last slash."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.split('.')[0]}"


def _labels_beside(found: Found, settings: LabelSettings) -> dict[tuple[str, str], tuple[str, ...]]:
    """Of members of tars that have a member NAME.cls or NAME.json beside them: by the tar and the
    name without its suffix."""
    labels: dict[tuple[str, str], tuple[str, ...]] = {}
    if not {".cls", ".json"} & set(found.left_out.suffixes):
        return labels
    for shard in dict.fromkeys(entry.shard for entry in found.entries if entry.shard):
        with open(found.base / shard, "rb") as file:
            for member in shards.members(found.base / shard):
                suffix = member.name.rpartition(".")[2].lower()
                if member.fault or suffix not in ("cls", "json") or member.size > 1 << 20:
                    continue
                file.seek(member.start)
                text = file.read(member.size).decode("utf-8", "replace").strip()
                label: str | list[str] | None = text
                if suffix == "json":
                    label = _label_in_object(text, settings)
                if label is not None:
                    key = (shard, _key(member.name))
                    if isinstance(label, str):
                        label = several(label) if settings.labels == "classes" else [label]
                    labels[key] = tuple(label)
    return labels


def _label_in_object(text: str, settings: LabelSettings) -> str | list[str] | None:
    try:
        held = json.loads(text)
    except ValueError:
        return None
    if not isinstance(held, dict):
        return None
    names = [settings.label_column] if settings.label_column else settings.usual_columns
    value = next((held[name] for name in names if name in held), None)
    if isinstance(value, list):
        return [str(item) for item in value]
    return None if value is None else str(value)

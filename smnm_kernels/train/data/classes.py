"""From labels as they are written to numbers of classes, and files that name classes."""

from __future__ import annotations

import csv
import json
import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from smnm_kernels.errors import UsageError, printable

_INTEGER = re.compile(r"([+-]?)0*([0-9]+?)(?:\.0*)?\Z")


@dataclass(frozen=True)
class Classes:
    """Names by their numbers, and the number of each way in which a class is written."""

    names: tuple[str, ...]
    numbers: dict[str, int]

    def number(self, written: str) -> int | None:
        return self.numbers.get(canonical(written))


def canonical(written: str) -> str:
    """Ids that programs write as 3, 03 or 3.0 are one."""
    match = _INTEGER.match(written)
    if match is None:
        return written
    # int() refuses more than some thousand digits.
    return f"-{match[2]}" if match[1] == "-" and match[2] != "0" else match[2]


def is_integer(written: str) -> bool:
    return _INTEGER.match(written) is not None


def classes_of(written: Iterable[str]) -> Classes:
    """Those that occur: in the order of their ids where all are integers, else of their names."""
    found = {canonical(name) for name in written}
    names = sorted(found, key=Decimal) if all(map(_INTEGER.match, found)) else sorted(found)
    return Classes(tuple(names), {name: i for i, name in enumerate(names)})


def remarks_on(classes: Classes) -> list[str]:
    """Names that look like mistakes."""
    found = []
    composed = defaultdict(list)
    for name in classes.names:
        composed[unicodedata.normalize("NFC", name)].append(name)
    for names in composed.values():
        if len(names) > 1:
            found.append(
                "names of classes that look the same and are not (composed and decomposed "
                f"characters): {' and '.join(map(ascii, names))}"
            )
    alike = defaultdict(list)
    for name in composed:
        alike[re.sub(r"[\s_-]+", " ", name).strip().casefold()].append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = " and ".join(repr(printable(name)) for name in names)
            found.append(f"names of classes that differ only in case or blanks: {shown}")
    integers = [name for name in classes.names if _INTEGER.match(name)]
    if integers and len(integers) < len(classes.names):
        other = next(name for name in classes.names if not _INTEGER.match(name))
        found.append(
            f"labels are numbers ({integers[0]}, …) and names ({printable(other)}, …) in one: "
            "each is a class of its own"
        )
    return found


def read_classes(path: Path) -> Classes:
    """A file of names: one a line, from 0; "id name" a line; a CSV file with a header that has a
    name and ids (AudioSet's class_labels_indices.csv: index,mid,display_name); or JSON, a list of
    names or an object of ids and names.

    The numbers of the classes follow the ids' order; a file's labels may be ids or names.
    """
    shown = printable(str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--class-names {shown}: cannot be read ({error})") from error
    try:
        rows = _of_json(text) if path.suffix.lower() == ".json" else _of_text(text)
    except (ValueError, csv.Error) as error:
        raise UsageError(f"--class-names {shown}: {error}") from error
    if not rows:
        raise UsageError(f"--class-names {shown}: names no class")
    if all(_INTEGER.match(ids[0]) for ids, _ in rows if ids) and all(ids for ids, _ in rows):
        rows.sort(key=lambda row: Decimal(canonical(row[0][0])))
    numbers: dict[str, int] = {}
    for number, (ids, name) in enumerate(rows):
        for key in dict.fromkeys([*map(canonical, ids), canonical(name)]):
            if numbers.setdefault(key, number) != number:
                raise UsageError(f"--class-names {shown}: has {printable(key)!r} twice")
    return Classes(tuple(name for _, name in rows), numbers)


_Row = tuple[list[str], str]  # ids, name


def _of_json(text: str) -> list[_Row]:
    held = json.loads(text)
    if isinstance(held, list):
        return _numbered([str(name) for name in held])
    if not isinstance(held, dict):
        raise ValueError("a list of names, or an object of ids and names is needed")
    pairs = [(str(key), str(value)) for key, value in held.items()]
    if all(_INTEGER.match(key) for key, _ in pairs):
        return [([key], value) for key, value in pairs]
    if all(_INTEGER.match(value) for _, value in pairs):
        return [([value], key) for key, value in pairs]
    raise ValueError("neither its keys nor its values are ids")


def _of_text(text: str) -> list[_Row]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = next((d for d in "\t,;" if d in lines[0]), None)
    if delimiter is not None:
        rows = [[f.strip() for f in row] for row in csv.reader(lines, delimiter=delimiter)]
        header = [field.lower() for field in rows[0]]
        name = next((header.index(n) for n in _NAME_COLUMNS if n in header), None)
        if name is not None:
            for number, row in enumerate(rows, 1):
                if len(row) != len(header):
                    raise ValueError(
                        f"row {number} has {len(row)} fields, and the header {len(header)}"
                    )
            return [([*row[:name], *row[name + 1 :]], row[name]) for row in rows[1:]]
        if all(len(row) == 2 and _INTEGER.match(row[0]) for row in rows):
            return [([row[0]], row[1]) for row in rows]
    words = [line.split(None, 1) for line in lines]
    if all(len(word) == 2 and _INTEGER.match(word[0]) for word in words):
        return [([word[0]], word[1].strip()) for word in words]
    return _numbered([line.strip() for line in lines])


def _numbered(names: Sequence[str]) -> list[_Row]:
    """Ids are the places from 0; where all names are numbers, they are the ids themselves."""
    are_ids = all(map(_INTEGER.match, names))
    return [([] if are_ids else [str(i)], name) for i, name in enumerate(names)]


_NAME_COLUMNS = ("display_name", "name", "class_name", "label", "class", "category")


def several(written: str, names: Collection[str] = ()) -> list[str]:
    """The labels in one field: a JSON list, or between commas, semicolons or bars, or ids between
    blanks. A field that is one of the known names is one label, commas or not."""
    written = written.strip()
    held = json_list(written)
    if held is not None:
        return held
    if canonical(written) in names:
        return [written]
    separator = next((s for s in ";|," if s in written), None)
    parts: Sequence[str] = written.split(separator) if separator else [written]
    words = written.split()
    if separator is None and len(words) > 1 and all(map(_INTEGER.match, words)):
        parts = words
    return [part.strip() for part in parts if part.strip()]


def json_list(written: str) -> list[str] | None:
    """What stands in a list in JSON, nulls left out; None where it is none."""
    try:
        held = json.loads(written) if written.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(held, list):
        return None
    return [str(item).strip() for item in held if item is not None]


def number(written: str) -> float | None:
    """A finite number, or None."""
    try:
        found = float(written)
    except ValueError:
        return None
    return found if math.isfinite(found) else None

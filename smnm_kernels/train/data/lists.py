"""List files: text, CSV or JSON that names one file a line, with or without labels beside it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from smnm_kernels.errors import UsageError, printable

_DELIMITERS = "\t,;"
_MOST_LABELS = 8  # separated by blanks behind a path that may hold blanks itself


class Listed(NamedTuple):
    """What one line names."""

    line: int  # from 1
    text: str
    name: str | None  # of the file, as the line has it; None: no file that is there
    #: The first thing on the line that has the suffix of such a file, where `name` is None.
    missing: str | None
    columns: tuple[str, ...]  # what else the line holds: labels, times, lengths
    place: int = 0  # of the path: so many columns stand before it
    #: What the columns are called, lower case; None where nothing says it, empty where the line
    #: has not as many fields as the header.
    names: tuple[str, ...] | None = None
    is_torn: bool = False  # a quote is open at its end


def listed(
    path: Path,
    is_wanted: Callable[[str], bool],
    is_file: Callable[[str], bool],
    by_stem: Callable[[str], str | None],
    known_columns: Collection[str] = (),
    path_column: str | None = None,
) -> Iterator[Listed]:
    """What each line of a list names; blank lines, comments and a header are passed over.

    A line is a path alone; or fields between tabs, commas or semicolons, quoted or not, of which
    one is a path; or a path with labels behind it, after blanks, or with a name before it; or an
    object of JSON. Which it is, is seen line by line: the first reading counts in which something
    `is_wanted` (has a suffix that is looked at) and `is_file`. A JSON file may be one list of
    objects, also inside an object ("data").

    Where no line names a file so, the ids of a video site, as in the lists of Kinetics, AudioSet
    and VGGSound, stand for the files that have them in their names: `by_stem` finds a file by what
    comes before its suffix.

    known_columns: names, lower case, that make the first line a header beside the usual ones.
    path_column: the column with the path or the id: its name, lower case, or its number from 1.

    Raises UsageError where there is no such column.
    """
    ids = _Ids(printable(str(path)), known_columns, path_column)
    root = ""
    is_first, names_files = True, False
    without_path: list[tuple[int, str]] = []
    for number, (text, readings) in enumerate(_lines(path), 1):
        text = text.strip().lstrip("\ufeff")  # Windows puts it before what it writes
        if not text:
            continue
        is_comment = text.startswith("#")
        absent: list[Reading] = []
        for reading in readings(text):
            if not is_wanted(reading.path) or is_comment > reading.path.startswith("#"):
                continue
            if ids.place(number, text) not in (None, reading.place):
                continue
            found = next((n for n in _spellings(f"{root}{reading.path}") if is_file(n)), None)
            if found is not None:
                names_files = True
                yield ids.listed(number, text, found, None, reading)
                break
            absent.append(reading)
        else:
            if is_comment:
                ids.note_comment(text)
                continue
            if absent:  # which of them is meant is a guess
                first = next((r for r in absent if not r.is_joined), absent[0])
                absent_name = f"{root}{first.path}"
                yield ids.listed(number, text, None, absent_name, first)
            elif is_first and os.path.isdir(path.parent / text):
                root = f"{text.rstrip('/')}/"  # fairseq's manifests begin with the folder
            elif not is_first or not ids.is_header(text):
                without_path.append((number, text))
        is_first = False
    for number, text in without_path:
        stems, reading = ([], Reading(text)) if names_files else ids.stems(number, text)
        found = next(filter(None, map(by_stem, stems)), None)
        yield ids.listed(number, text, found, None, reading)


class Reading(NamedTuple):
    """What may be the path on a line, and what the rest then is."""

    path: str
    columns: tuple[str, ...] = ()
    place: int = 0  # of the path: so many columns stand before it
    is_joined: bool = False  # of several fields
    is_torn: bool = False  # a quote is open at the end of the line


def _spellings(name: str) -> Iterator[str]:
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")


Readings = Callable[[str], Iterator[Reading]]


#: A list, or an object over several lines, or one whose first value is not a plain one.
_JSON_DOCUMENT = re.compile(r"\s*(?:\[|\{\s*\n|\{\s*\"[^\"]*\"\s*:\s*[\[{])")


def _lines(path: Path) -> Iterator[tuple[str, Readings]]:
    with path.open("rb") as file:
        start = file.read(1 << 12)
    utf_16 = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\0" in start and not utf_16:
        raise UsageError(
            f"{printable(str(path))}: holds binary data; a folder, a tar, or a list of files as "
            "text, CSV or JSON is needed"
        )
    # In UTF-8, bytes that are none come out as the system's own names have them.
    encoding, errors = ("utf-16", "replace") if utf_16 else ("utf-8-sig", "surrogateescape")
    with path.open(encoding=encoding, errors=errors) as file:
        if not utf_16 and _JSON_DOCUMENT.match(start.decode("utf-8-sig", "replace")):
            try:
                items = _items(json.load(file))
            except (ValueError, RecursionError):  # lines with an object each
                file.seek(0)
            else:
                yield from ((json.dumps(_as_object(item)), _readings_of_json) for item in items)
                return
        for line in file:
            yield line, _readings_of_json if line.lstrip()[:1] == "{" else _readings


def _items(held: Any) -> list[Any]:
    """The list in a JSON file, which may stand in an object with other things."""
    if not isinstance(held, dict):
        return held if isinstance(held, list) else [held]
    lists = [value for value in held.values() if isinstance(value, list)]
    if lists:
        return max(lists, key=len)
    if len(held) == 1:
        return _items(next(iter(held.values())))
    return [{"": key, **(v if isinstance(v, dict) else {"value": v})} for key, v in held.items()]


def _as_object(item: Any) -> dict[str, Any]:
    if isinstance(item, dict):
        return item
    return {str(i): v for i, v in enumerate(item if isinstance(item, list) else [item])}


def _readings_of_json(text: str) -> Iterator[Reading]:
    held = _object(text)
    if held is None:
        yield from _readings(text)
    else:
        yield from _one_of(_values(held))


def _values(held: dict[str, Any]) -> list[str]:
    """As a line of text would have them: nothing for null."""
    return [
        value if isinstance(value, str) else "" if value is None else json.dumps(value)
        for value in held.values()
    ]


def _object(text: str) -> dict[str, Any] | None:
    """The object of JSON that a line is; None where it is none."""
    try:
        held = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


def _one_of(fields: list[str], is_torn: bool = False) -> Iterator[Reading]:
    for number, field in enumerate(fields):
        others = (*fields[:number], *fields[number + 1 :])
        yield Reading(field, others, number, is_torn=is_torn)


def _readings(text: str) -> Iterator[Reading]:
    """Of a line of text, the likeliest first: the more of the line is a path, the surer it is."""
    yield Reading(text)
    yield Reading(_unquoted(text))
    for delimiter in _DELIMITERS:
        if delimiter in text:
            parts = text.split(delimiter)
            for count in range(len(parts) - 1, 1, -1):  # a comma in a path that is not quoted
                path = delimiter.join(parts[:count]).strip()
                yield Reading(path, tuple(parts[count:]), is_joined=True)
            yield from _one_of(_fields(text, delimiter), _is_torn(text, delimiter))
    words = text.split()
    for count in range(1, min(_MOST_LABELS, len(words) - 1) + 1):
        path = text.rsplit(None, count)[0]
        yield Reading(path, tuple(words[-count:]))
        yield Reading(_unquoted(path), tuple(words[-count:]))
    if len(words) > 1:
        yield Reading(text.split(None, 1)[1], (words[0],), 1)
        yield from _one_of(words)


def _unquoted(text: str) -> str:
    is_quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text


def _is_torn(text: str, delimiter: str) -> bool:
    """Whether a quoted field goes on in the next line."""
    if '"' not in text:
        return False
    try:
        next(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _delimiter_of(text: str) -> str:
    return next((d for d in _DELIMITERS if d in text), " ")


def _fields(text: str, delimiter: str | None = None) -> list[str]:
    delimiter = delimiter or _delimiter_of(text)
    try:
        fields = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:  # such as a field of more than 100,000 characters
        fields = text.split(delimiter)
    return [field.strip() for field in fields]


class _Ids:
    """What the columns are called, and lines that hold an id and perhaps the times of an excerpt in
    place of a path."""

    def __init__(self, shown: str, known: Collection[str], path_column: str | None) -> None:
        self._shown = shown  # the list
        self._id, self._times = 0, (1, 2)  # columns
        self._delimiter: str | None = None  # of the header
        asked = [column for column in (*known, path_column) if column is not None]
        self._known = _HEADERS.union(c for c in asked if not _NUMBER_OF_COLUMN.fullmatch(c))
        self._path_column = path_column
        self._header: list[str] | None = None

    def is_header(self, text: str) -> bool:
        """Whether the line says what the columns are, which is then noted."""
        # A name may hold what stands between the names of others.
        delimiters = [d for d in _DELIMITERS if d in text] or [" "]
        splits = [[field.lower() for field in _fields(text, d)] for d in delimiters]
        names = max(splits, key=lambda names: len(self._known.intersection(names)))
        self._note(names)
        if self._known.isdisjoint(names):
            return False
        self._header, self._delimiter = names, delimiters[splits.index(names)]
        return True

    def note_comment(self, text: str) -> None:
        """AudioSet's header is a comment."""
        names = [field.lower() for field in _fields(text.lstrip("# "))]
        if not _ID_COLUMNS.isdisjoint(names):
            self._note(names)
            self._header = names

    def names(self, text: str, reading: Reading) -> tuple[str, ...] | None:
        """Of the columns beside the path."""
        header = self._names_of(text)
        if header is None:
            return None
        if len(header) != len(reading.columns) + 1:
            return ()
        return (*header[: reading.place], *header[reading.place + 1 :])

    def listed(
        self, number: int, text: str, name: str | None, missing: str | None, reading: Reading
    ) -> Listed:
        names = self.names(text, reading)
        place, columns = reading.place, reading.columns
        return Listed(number, text, name, missing, columns, place, names, reading.is_torn)

    def place(self, number: int, text: str) -> int | None:
        """Of the column of paths on a line; None where none is asked for."""
        column = self._path_column
        if column is None:
            return None
        header = self._names_of(text)
        if header is not None and column in header:
            return header.index(column)
        if _NUMBER_OF_COLUMN.fullmatch(column) and int(column) > 0:
            return int(column) - 1
        if header is None:
            why = "no header names the columns; --path-column takes a number from 1, too"
            raise UsageError(f"{self._shown}: line {number}: {why}")
        raise UsageError(
            f"{self._shown}: line {number}: --path-column {printable(column)}: there is no such "
            f"column; there are {', '.join(map(printable, header))}"
        )

    def _names_of(self, text: str) -> list[str] | None:
        held = _object(text) if text.startswith("{") else None
        return self._header if held is None else [name.lower() for name in held]

    def _note(self, names: list[str]) -> None:
        columns = [i for i, name in enumerate(names) if name in _ID_COLUMNS]
        if columns:
            self._id = columns[0]
            starts = [i for i, name in enumerate(names) if "start" in name]
            ends = [i for i, name in enumerate(names) if "end" in name]
            self._times = (starts[0] if starts else -1, ends[0] if ends else -1)

    def stems(self, number: int, text: str) -> tuple[list[str], Reading]:
        """(what the file's name may be, without its suffix; the id with the other columns)"""
        held = _object(text)
        is_torn = False
        if held is not None:
            fields = _values(held)
            self._note([name.lower() for name in held])
        else:
            delimiter = self._delimiter or _delimiter_of(text)
            fields, is_torn = _fields(text, delimiter), _is_torn(text, delimiter)
        asked = self.place(number, text)
        place = self._id if asked is None else asked
        if asked is not None and asked >= len(fields):
            raise UsageError(
                f"{self._shown}: line {number}: --path-column {self._path_column}: the line has "
                f"{len(fields)} columns"
            )
        if place >= len(fields):
            return [text], Reading(text)
        others = (*fields[:place], *fields[place + 1 :])
        name = fields[place]
        found = [text, name, f"Y{name}"]
        start, end = (_number(fields[i]) if 0 <= i < len(fields) else None for i in self._times)
        if start is not None:
            found += [f"{name}_{start:06.0f}", f"{name}_{start:g}", f"{name}_{start:.3f}"]
        if start is not None and end is not None:
            found += [
                f"{name}_{start:06.0f}_{end:06.0f}",
                f"{name}_{start:g}_{end:g}",
                f"{name}_{1000 * start:.0f}_{1000 * end:.0f}",
            ]
        return found, Reading(name, others, place, is_torn=is_torn)


_NUMBER_OF_COLUMN = re.compile("[0-9]{1,9}")
_ID_COLUMNS = {"youtube_id", "ytid", "video_id", "videoid", "youtubeid", "id", "clip_id"}
_NAMES = (
    "path paths file files filename filenames file_name filepath file_path fname name video videos "
    "video_path video_name audio audio_path wav image image_path img clip label labels class "
    "class_id category target split fold caption text"
)
_HEADERS: frozenset[str] = frozenset(_ID_COLUMNS).union(_NAMES.split())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

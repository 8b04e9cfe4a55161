"""The records of a run's files: millions of them in little memory, in files.json, and kept as a
scan goes on."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, overload

from .modality import Record

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_line(record: Record) -> bytes:
    """JSON without a line break."""
    # A character that UTF-8 does not have becomes its escape in JSON.
    return _ENCODER.encode(record).encode("utf-8", "backslashreplace")


class Records(Sequence[Record]):
    """A list of records that holds the JSON of each, one after the other in one piece of memory.

    A dict takes four times as much; and where processes are forked, their counts of references to
    it would make each of them copy it.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._text = bytearray()
        self._ends = array("Q", [0])  # place k is where record k begins
        for record in records:
            self.append_line(to_line(record))

    def append_line(self, line: bytes) -> None:
        self._text += line
        self._ends.append(len(self._text))

    def line(self, number: int) -> bytes:
        return bytes(self._text[self._ends[number] : self._ends[number + 1]])

    def lines(self) -> Iterator[bytes]:
        return map(self.line, range(len(self)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return json.loads(self.line(range(len(self))[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


_OF_DATA = ("name", "digest", "label", "split", "fold", "group")
_OF_LABELS = ("label", "split", "group")


class Known:
    """Records by what they are of; of two of the same, the one that was added last."""

    def __init__(self) -> None:
        self._records = Records()
        self._numbers: dict[str, int] = {}

    def add(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            record = json.loads(line)
            # One that could not be read may have been made readable since.
            if "digest" in record:
                # Labels are not of the file: they may be others now, or none.
                if "label" in record:
                    line = to_line({k: v for k, v in record.items() if k not in _OF_LABELS})
                self._numbers[_key(record["name"], record.get("shard"))] = len(self._records)
                self._records.append_line(line)

    def line(self, name: str, shard: str | None = None) -> bytes | None:
        number = self._numbers.get(_key(name, shard))
        return None if number is None else self._records.line(number)

    def __len__(self) -> int:
        return len(self._numbers)


def _key(name: str, shard: str | None) -> str:
    return f"{shard}\0{name}" if shard else name


def write_files(file: IO[bytes], usable: Records, skipped: Records) -> None:
    """files.json: an object of two lists, one record a line."""
    for before, records in ((b'{"usable": [', usable), (b'\n],\n"skipped": [', skipped)):
        file.write(before)
        for number, line in enumerate(records.lines()):
            file.write((b",\n" if number else b"\n") + line)
    file.write(b"\n]}\n")


def read_files(path: Path) -> tuple[Records, Records]:
    """(usable, skipped) of files.json, line by line where it is as write_files makes it."""
    usable, skipped = Records(), Records()
    with path.open("rb") as file:
        if file.readline() != b'{"usable": [\n':
            held = json.loads(path.read_bytes())
            return Records(held["usable"]), Records(held["skipped"])
        into = usable
        for line in file:
            if line.startswith(b"{"):
                into.append_line(line.rstrip(b",\n"))
            if line.startswith(b'"skipped"'):
                into = skipped
    return usable, skipped


def fingerprint(files: Iterable[Record]) -> str:
    """Of the names, contents, labels and divisions of files in their order: 16 bytes in hexadecimal
    digits. The same wherever files lie, and in whichever shards."""
    digest = hashlib.blake2b(digest_size=16)
    for record in files:
        digest.update(to_line({k: record[k] for k in _OF_DATA if k in record}) + b"\n")
    return digest.hexdigest()


class Journal:
    """A file to which a scan adds each record as it is made, so that one that was killed goes on.

    Its first line says of what it is: with another `of` it begins anew.
    """

    def __init__(self, path: Path, of: dict[str, Any]) -> None:
        self.path, self._first = path, to_line(of) + b"\n"
        self._file: IO[bytes] | None = None

    def read(self) -> Iterator[bytes]:
        """The whole lines of a scan of the same; none where it was of another."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            if file.readline() != self._first:
                return
            for line in file:
                with suppress(ValueError):  # torn when the process or the machine ended
                    if "name" in json.loads(line):
                        yield line.rstrip(b"\n")

    def open(self) -> None:
        """For `add`, behind what it holds."""
        with self.path.open("ab+") as file:
            file.seek(0)
            if file.readline() != self._first:
                file.truncate(0)
                file.write(self._first)
            else:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
        self._file = self.path.open("ab", buffering=0)

    def add(self, line: bytes) -> None:
        """In one call to the system, so that threads need no lock and a kill loses nothing."""
        if self._file is not None:
            self._file.write(line + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

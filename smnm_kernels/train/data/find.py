"""Finding what lies at a path: files below a folder, the files of a list, members of tar shards.

found = find(Path("DATA"), modality.suffixes)
for entry in found.entries:
    modality.probe(entry.source(found.base))
found.left_out.named    # {"lost+found/": "cannot be read (Permission denied)", ...}
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from smnm_kernels.errors import UsageError, printable

from . import braces, lists, shards
from .left_out import LeftOut, some_suffixes, special, suffix_of, unreadable
from .list_folder import folder_of_paths
from .modality import Record
from .source import Source

if TYPE_CHECKING:
    from .labels import Labels


class Entry(NamedTuple):
    """A file, or a member of a tar shard. Their order is the order that samples refer to: by name,
    so that members may be packed into any number of shards."""

    name: str  # relative to the base, forward slashes, or as listed; of a member, its own name
    shard: str = ""  # the tar that holds it, named in the same way
    start: int = 0
    size: int | None = None  # bytes of a member

    @classmethod
    def of(cls, record: Record) -> Entry:
        shard = record.get("shard", "")
        return cls(record["name"], shard, record.get("start", 0), record["size"] if shard else None)

    @property
    def shown(self) -> str:
        return f"{self.shard}: {self.name}" if self.shard else self.name

    def source(self, base: Path) -> Source:
        return Source(base / (self.shard or self.name), self.start, self.size)


def is_data_name(name: str, suffixes: frozenset[str]) -> bool:
    """Whether a file of this name is looked at."""
    suffix = suffix_of(name)
    return suffix in suffixes or suffix == shards.SUFFIX


@dataclass(frozen=True)
class Found:
    base: Path  # what the entries' names are relative to
    entries: list[Entry]  # sorted
    left_out: LeftOut
    labels: Labels | None = None  # of the entries, where they have any
    where: list[str] = field(
        default_factory=list, kw_only=True
    )  # lines on where a list's files lie

    def attached(self, record: Record) -> Record:
        """The record of an entry, with its label."""
        return record if self.labels is None else self.labels.attached(record)

    def judged(self, usable: Sequence[Record]) -> list[str]:
        """Lines to print, once it is known which entries are usable; raises UsageError where they
        do not suffice."""
        return []

    def remarks(self) -> list[str]:
        """Lines to print: what may surprise about the entries."""
        members = sum(1 for entry in self.entries if entry.shard)
        if not members:
            return list(self.where)
        shards = len({entry.shard for entry in self.entries if entry.shard})
        twice = {a.name: None for a, b in pairwise(self.entries) if a.name == b.name}
        found = [
            *self.where,
            f"{members} of them are members of {shards} tar shard{'s' * (shards > 1)}",
        ]
        if twice:
            some = ", ".join(map(printable, list(twice)[:3])) + ", …" * (len(twice) > 3)
            found.append(
                f"names in more than one shard: {len(twice)} ({some}); each of them is used"
            )
        return found


def base_of(data: Path) -> Path:
    """What names are relative to: the folder that DATA is or that it lies in."""
    if os.path.isdir(data):
        return data
    base = data.parent
    while braces.is_pattern(base):
        base = base.parent
    return base


def find(
    data: Path,
    suffixes: frozenset[str],
    besides: Path | None = None,
    tick: Callable[[], None] = lambda: None,
    files_from: Path | None = None,
) -> Found:
    """The files with one of these suffixes (lower case, with the dot) that `data` names or holds.

    `data` is a folder, which is searched with everything below it but the folder `besides`; a list
    (lists.py says of what kinds); a tar; one such file; or a pattern with braces that stands for
    several of the last two ("shards-{000..010}.tar"), where no file has that name. Links are
    followed, hidden names are not. Where a tar is met, its members count. An entry that cannot be
    used is left out by name and ends nothing; a UsageError says where nothing at all can be read.
    files_from: the folder that paths in a list are relative to; None: what `folder_of_paths` says.
    `tick` is called now and then, for a bar; what it raises ends the search.
    """
    search, shown = _Search(base_of(data), suffixes, tick), printable(str(data))
    said: list[str] = []
    is_list = not (
        os.path.isdir(data)
        or braces.is_pattern(data)
        or search.is_wanted(data.name)
        or shards.has_compressed_name(data.name)
    )
    if files_from is not None and not is_list:
        raise UsageError(f"{shown}: --files-from {printable(str(files_from))}: is for a list")
    try:
        if os.path.isdir(data):
            search.folder(data, besides)
        elif braces.is_pattern(data):
            search.pattern(data)
        elif search.is_wanted(data.name):
            search.file(data.name)
        elif shards.has_compressed_name(data.name):
            raise UsageError(f"{shown}: {shards.IS_COMPRESSED}")
        else:
            root = files_from
            if root is None:
                root, said = folder_of_paths(data, search.is_wanted, None, _WRITE_PATHS)
            for _ in search.list(data, ListForm(root)):
                pass
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read ({error.strerror})") from error
    search.entries.sort()
    return Found(search.base, search.entries, search.left_out, where=said)


def find_listed(
    path: Path,
    base: Path,
    suffixes: frozenset[str],
    form: ListForm,
    tick: Callable[[], None],
    left_out: LeftOut,
) -> Iterator[tuple[lists.Listed, list[Entry]]]:
    """What each line of a list names, as entries relative to the base, as often as it is named.

    What is left out is added to `left_out`. Raises UsageError where no line names a file.
    """
    search = _Search(base, suffixes, tick)
    search.left_out = left_out
    try:
        yield from search.list(path, form)
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error


class _Search:
    def __init__(self, base: Path, suffixes: frozenset[str], tick: Callable[[], None]) -> None:
        self.base, self.suffixes, self.tick = base, suffixes, tick
        self.entries: list[Entry] = []
        self.left_out = LeftOut()

    def is_wanted(self, name: str) -> bool:
        return is_data_name(name, self.suffixes)

    def file(self, name: str) -> None:
        """A file that is there, by its name below the base."""
        if not is_utf_8(name):
            self.left_out.add(name, _NOT_UTF_8)
        elif suffix_of(name) in self.suffixes:
            self.entries.append(Entry(name))
        elif name.lower().endswith(shards.SUFFIX):
            self.shard(name)
        elif shards.has_compressed_name(name):
            self.left_out.add(name, shards.IS_COMPRESSED)
        else:
            self.left_out.count_suffix(name)

    def shard(self, name: str) -> None:
        try:
            for member in shards.members(self.base / name):
                self.tick()
                self._member(name, member)
        except OSError as error:
            self.left_out.add(name, unreadable(error))

    def _member(self, shard: str, member: shards.Member) -> None:
        entry = Entry(member.name, shard, member.start, member.size)
        if not member.name:
            self.left_out.add(shard, member.fault)
        elif any(part.startswith(".") for part in member.name.split("/")):
            self.left_out.hidden += 1
        elif not is_utf_8(member.name):
            self.left_out.add(entry.shown, _NOT_UTF_8)
        elif suffix_of(member.name) not in self.suffixes:
            self.left_out.count_suffix(member.name)
        elif member.fault:
            self.left_out.add(entry.shown, member.fault)
        else:
            self.entries.append(entry)

    def folder(self, top: Path, besides: Path | None) -> None:
        seen = _Folders()
        if besides is not None:
            seen.add(besides, _EXCLUDED)
        waiting = [(str(top), "")]
        while waiting:
            path, prefix = waiting.pop()
            before = seen.add(path, printable(prefix) or "DATA itself")
            if before is not None:  # also by a link that leads back up
                if before != _EXCLUDED:
                    why = f"leads to a folder that is searched already ({before})"
                    self.left_out.add(prefix, why)
                continue
            below = []
            entries = self._listed(path, prefix)
            if prefix and is_of_a_command({entry.name for entry in entries}):
                self.left_out.add(prefix, "is a run, whose files are no data")
                continue
            for entry in entries:
                self.tick()
                name = prefix + entry.name
                if entry.name.startswith("."):
                    self.left_out.hidden += 1
                elif not is_utf_8(entry.name):
                    self.left_out.add(name, _NOT_UTF_8)
                else:
                    what = _kind_of(entry)
                    if what == _FOLDER:
                        below.append((entry.path, f"{name}/"))
                    elif what == _FILE:
                        self.file(name)
                    else:
                        self.left_out.add(name, what)
            waiting += reversed(below)

    def _listed(self, path: str, prefix: str) -> list[os.DirEntry[str]]:
        """What is in a folder, in the order of the names; what could be read of it."""
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(path) as listing:
                for entry in listing:
                    entries.append(entry)
        except OSError as error:
            if not prefix:
                raise
            self.left_out.add(prefix, unreadable(error))
        return sorted(entries, key=lambda entry: entry.name)

    def pattern(self, pattern: Path) -> None:
        names = braces.expanded(str(pattern.relative_to(self.base)))
        is_any = False
        for name in dict.fromkeys(names):  # {1,1} is one
            self.tick()
            if self.is_wanted(name) and self._is_file(name):
                self.file(name)
                is_any = True
            elif self._is_file(name) or os.path.lexists(self.base / name):
                self.left_out.add(name, "is no tar and no file of a suffix that is looked for")
            else:
                self.left_out.add(name, self._why_missing(name))
        if not is_any:
            raise UsageError(f"{printable(str(pattern))}: stands for no file that is there")

    def list(self, path: Path, form: ListForm) -> Iterator[tuple[lists.Listed, list[Entry]]]:
        """What the lines name, each line with the files that it means: the members of a tar."""
        root = _Root(path, self.base, form)
        is_file = self._is_file
        if root.prefix:
            is_file = lambda name: self._is_file(root.of(name))  # noqa: E731
        stems = _Stems(self, root)
        names: dict[str, list[Entry]] = {}
        first = None
        for line in lists.listed(
            path,
            self.is_wanted,
            is_file,
            stems.get,
            form.columns,
            form.path_column,
        ):
            self.tick()
            if line.name is not None:
                # By its stem it was found from the base.
                name = line.name if line.name in stems else root.of(line.name)
                if name not in names:
                    before = len(self.entries)
                    self.file(name)
                    names[name] = self.entries[before:]
                yield line, names[name]
                continue
            first = first or line
            if line.missing is not None:
                missing = root.of(line.missing)
                self.left_out.add(missing, self._why_missing(missing))
            else:
                self.left_out.add(f"line {line.line}: {line.text[:80]}", _NAMES_NOTHING)
        if not names:
            raise UsageError(f"{printable(str(path))}: {self._no_list(first, root)}")

    def _is_file(self, name: str) -> bool:
        return os.path.isfile(self.base / name)

    def _why_missing(self, name: str) -> str:
        try:
            mode = (self.base / name).stat().st_mode
        except OSError as error:
            return "is not there" if error.errno == errno.ENOENT else unreadable(error)
        except ValueError:  # NUL
            return "is no name of a file"
        return "is a folder; a list names files" if stat.S_ISDIR(mode) else special(mode)

    def _no_list(self, line: lists.Listed | None, root: _Root) -> str:
        what = "is not a folder, and as a list of files it"
        if line is None:
            return f"{what} is empty"
        shown = printable(line.text[:200])
        there = self.base / root.of(line.missing) if line.missing else None
        at = f"; {printable(str(there))} is not there" if there else ""
        return (
            f"{what} names none that is there and of use: line {line.line} is {shown!r}{at}. "
            f"Looked for {some_suffixes(self.suffixes)} {shards.SUFFIX}{root.advice}"
        )


class _Folders:
    """Those that were met, by what they are and not by their names."""

    def __init__(self) -> None:
        self._met: dict[tuple[int, int], list[tuple[str, str]]] = {}

    def add(self, path: str | Path, name: str) -> str | None:
        """The name by which it was met before, or None if it is new."""
        try:
            found = os.stat(path)
        except OSError:
            return None  # whoever reads it will see
        same = self._met.setdefault((found.st_dev, found.st_ino), [])
        for other, before in same:
            # Some file systems give several folders one number.
            if os.path.realpath(other) == os.path.realpath(path):
                return before
        same.append((str(path), name))
        return None


@dataclass(frozen=True)
class ListForm:
    """How the lines of a list are to be read."""

    #: The folder that its paths are relative to, and below which ids are found; None: its own.
    root: Path | None = None
    columns: tuple[str, ...] = ()  # names, lower case, that a header has
    path_column: str | None = None  # name, lower case, or number from 1
    advice: str = ""  # where no line names a file


class _Root:
    """From the name that a list has for a file to the name from the base."""

    def __init__(self, path: Path, base: Path, form: ListForm) -> None:
        self.folder = path.parent if form.root is None else form.root
        self.advice = f"; {form.advice}" if form.advice else ""
        self.prefix = prefix_from(base, self.folder)

    def of(self, name: str) -> str:
        return name if not self.prefix or name.startswith("/") else f"{self.prefix}{name}"


def prefix_from(base: Path, folder: Path) -> str:
    """What makes a name relative to a folder one relative to the base."""
    if os.path.abspath(folder) == os.path.abspath(base):
        return ""
    relative = os.path.relpath(folder, base)
    try:  # ".." behind a link leads elsewhere
        same = os.path.samefile(base / relative, folder)
    except OSError:
        same = False
    return f"{relative}/" if same else f"{os.path.abspath(folder)}/"


class _Stems:
    """Files below a folder by their names without suffix, with and without folders."""

    def __init__(self, search: _Search, root: _Root) -> None:
        self._search, self._root = search, root
        self._names: dict[str, str] | None = None
        self._found: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Whether it was found here."""
        return name in self._found

    def get(self, stem: str) -> str | None:
        if self._names is None:
            below = find(self._root.folder, self._search.suffixes, tick=self._search.tick)
            self._names = {}
            for entry in reversed(below.entries):
                if entry.shard:
                    continue
                path = PurePosixPath(entry.name)
                name = self._root.of(entry.name)
                self._names[path.stem] = name
                self._names[str(path.with_suffix(""))] = name
        found = self._names.get(stem)
        if found is not None:
            self._found.add(found)
        return found


def is_of_a_command(names: Collection[str]) -> bool:
    """Whether a folder in which these names are is the --out of one: a run, or results."""
    return "files.json" in names and (
        "data.json" in names or {".lock", "config.json"} <= set(names)
    )


_WRITE_PATHS = "its paths may be written from its own folder"
_EXCLUDED = "excluded"
_FOLDER, _FILE = "folder", "file"
_NOT_UTF_8 = "its name is not valid UTF-8"
_NAMES_NOTHING = "names no file that is there"


def is_utf_8(name: str) -> bool:
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def _kind_of(entry: os.DirEntry[str]) -> str:
    """_FOLDER, _FILE, or why it is neither."""
    try:
        if entry.is_dir():
            return _FOLDER
        if entry.is_file():
            return _FILE
        if not entry.is_symlink():
            return special(entry.stat().st_mode)
    except OSError as error:
        return unreadable(error)
    try:
        return special(os.stat(entry.path).st_mode)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "is a link to nowhere"
        return unreadable(error)

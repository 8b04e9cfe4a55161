"""Finding what lies at a path: files below a folder, the files of a list, members of tar shards.

found = find(Path("DATA"), modality.suffixes)
for entry in found.entries:
    modality.probe(entry.source(found.base))
found.left_out.named    # {"lost+found/": "cannot be read (Permission denied)", ...}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from smnm_kernels.errors import UsageError, printable

from . import braces, lists, shards
from .entries import Entry, Found, base_of
from .left_out import LeftOut, some_suffixes
from .list_folder import folder_of_paths
from .search import Search

_WRITE_PATHS = "its paths may be written from its own folder"
_NAMES_NOTHING = "names no file that is there"


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
    search, shown = Search(base_of(data), suffixes, tick), printable(str(data))
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
            for _ in _of_list(search, data, ListForm(root)):
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
    search = Search(base, suffixes, tick)
    search.left_out = left_out
    try:
        yield from _of_list(search, path, form)
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True)
class ListForm:
    """How the lines of a list are to be read."""

    #: The folder that its paths are relative to, and below which ids are found; None: its own.
    root: Path | None = None
    columns: tuple[str, ...] = ()  # names, lower case, that a header has
    path_column: str | None = None  # name, lower case, or number from 1
    advice: str = ""  # where no line names a file


def _of_list(
    search: Search, path: Path, form: ListForm
) -> Iterator[tuple[lists.Listed, list[Entry]]]:
    """What the lines name, each line with the files that it means: the members of a tar."""
    root = _Root(path, search.base, form)
    is_file = search.is_file
    if root.prefix:
        is_file = lambda name: search.is_file(root.of(name))  # noqa: E731
    stems = _Stems(search, root)
    names: dict[str, list[Entry]] = {}
    first = None
    for line in lists.listed(
        path,
        search.is_wanted,
        is_file,
        stems.get,
        form.columns,
        form.path_column,
    ):
        search.tick()
        if line.name is not None:
            # By its stem it was found from the base.
            name = line.name if line.name in stems else root.of(line.name)
            if name not in names:
                before = len(search.entries)
                search.file(name)
                names[name] = search.entries[before:]
            yield line, names[name]
            continue
        first = first or line
        if line.missing is not None:
            missing = root.of(line.missing)
            search.left_out.add(missing, search.why_missing(missing))
        else:
            search.left_out.add(f"line {line.line}: {line.text[:80]}", _NAMES_NOTHING)
    if not names:
        raise UsageError(f"{printable(str(path))}: {_no_list(search, first, root)}")


def _no_list(search: Search, line: lists.Listed | None, root: _Root) -> str:
    what = "is not a folder, and as a list of files it"
    if line is None:
        return f"{what} is empty"
    shown = printable(line.text[:200])
    there = search.base / root.of(line.missing) if line.missing else None
    at = f"; {printable(str(there))} is not there" if there else ""
    return (
        f"{what} names none that is there and of use: line {line.line} is {shown!r}{at}. "
        f"Looked for {some_suffixes(search.suffixes, shards.SUFFIX)}{root.advice}"
    )


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

    def __init__(self, search: Search, root: _Root) -> None:
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

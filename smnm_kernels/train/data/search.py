"""Files below a folder, members of tar shards, and the files that a pattern stands for.

An entry that cannot be used is left out by name and ends nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from smnm_kernels.errors import UsageError, printable

from . import braces, shards
from .entries import Entry
from .left_out import LeftOut, special, suffix_of, unreadable

_EXCLUDED = "excluded"
_FOLDER, _FILE = "folder", "file"
_NOT_UTF_8 = "its name is not valid UTF-8"


class Search:
    """Collects what is of use, by names below `base`."""

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
            if self.is_wanted(name) and self.is_file(name):
                self.file(name)
                is_any = True
            elif self.is_file(name) or os.path.lexists(self.base / name):
                self.left_out.add(name, "is no tar and no file of a suffix that is looked for")
            else:
                self.left_out.add(name, self.why_missing(name))
        if not is_any:
            raise UsageError(f"{printable(str(pattern))}: stands for no file that is there")

    def is_file(self, name: str) -> bool:
        return os.path.isfile(self.base / name)

    def why_missing(self, name: str) -> str:
        try:
            mode = (self.base / name).stat().st_mode
        except OSError as error:
            return "is not there" if error.errno == errno.ENOENT else unreadable(error)
        except ValueError:  # NUL
            return "is no name of a file"
        return "is a folder; a list names files" if stat.S_ISDIR(mode) else special(mode)


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


def is_data_name(name: str, suffixes: frozenset[str]) -> bool:
    """Whether a file of this name is looked at."""
    suffix = suffix_of(name)
    return suffix in suffixes or suffix == shards.SUFFIX


def is_of_a_command(names: Collection[str]) -> bool:
    """Whether a folder in which these names are is the --out of one: a run, or results."""
    return "files.json" in names and (
        "data.json" in names or {".lock", "config.json"} <= set(names)
    )


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

"""What is not looked at, and why, in words."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from smnm_kernels.errors import printable

_MOST_SHOWN = 20  # in a message
_USUAL = (
    *(".mp4", ".mkv", ".avi", ".mov", ".webm"),
    *(".wav", ".flac", ".mp3", ".ogg", ".m4a"),
    *(".jpg", ".jpeg", ".png", ".webp"),
)
_MOST_SUFFIXES = 1000  # that are counted each for itself: frame.000001, frame.000002, ...


@dataclass
class LeftOut:
    """What was not looked at, and why."""

    named: dict[str, str] = field(default_factory=dict)  # printable name -> reason
    suffixes: Counter[str] = field(default_factory=Counter)  # of files that are no data
    hidden: int = 0

    def add(self, name: str, reason: str) -> None:
        self.named[printable(name)] = reason

    def count_suffix(self, name: str) -> None:
        suffix = printable(suffix_of(name))
        if suffix not in self.suffixes and len(self.suffixes) >= _MOST_SUFFIXES:
            suffix = _OTHER
        self.suffixes[suffix] += 1

    def counts(self) -> list[str]:
        """["12 files that end in .txt, 3 in .json", "2 hidden names"]: what is counted only."""
        found = []
        common = self.suffixes.most_common()
        if common:
            parts = [f"{count} {_ending(suffix)}" for suffix, count in common[:8]]
            first, *rest = parts
            number, _, ending = first.partition(" ")
            rest += [f"{sum(n for _, n in common[8:])} in others"] if common[8:] else []
            files = "file that ends" if number == "1" else "files that end"
            found.append(", ".join([f"{number} {files} {ending}", *rest]))
        if self.hidden:
            found.append(f"{self.hidden} hidden name{'s' if self.hidden > 1 else ''}")
        return found

    def reasons(self) -> dict[str, str]:
        """Everything, for skipped.json: by name, or by pattern where it is only counted."""
        found = dict(self.named)
        for suffix, count in sorted(self.suffixes.items()):
            found[f"*{suffix}" if suffix else "*"] = f"not looked at: {count} {_ending(suffix)}"
        if self.hidden:
            found[".*"] = f"not looked at: {self.hidden} hidden"
        return found


def no_file(data: Path, suffixes: frozenset[str], left_out: LeftOut) -> str:
    """That DATA has none of these suffixes, and what it has."""
    return (
        f"{printable(str(data))}: no usable file is there{_instead(left_out)}. "
        f"Looked for {some_suffixes(suffixes)}"
    )


def some_suffixes(suffixes: frozenset[str], *first: str) -> str:
    """All of them where they are few, else the usual ones: of sounds there are a hundred; behind
    the `first`."""
    if len(suffixes) <= _MOST_SHOWN:
        return " ".join([*first, *sorted(suffixes)])
    usual = [suffix for suffix in _USUAL if suffix in suffixes]
    return f"{' '.join([*first, *usual])} and {len(suffixes) - len(usual)} other suffixes"


def _instead(left_out: LeftOut) -> str:
    """What was found where no data was, for the end of a sentence."""
    counts = Counter(_general(reason) for reason in left_out.named.values())
    parts = left_out.counts()
    for reason, count in counts.most_common():
        first = next(n for n, r in left_out.named.items() if _general(r) == reason)
        parts.append(
            f"{first} and {count - 1} more: {reason}" if count > 1 else f"{first} {reason}"
        )
    return f"; found instead: {'; '.join(parts)}" if parts else ", nor anything else"


def by_reason(reasons: Iterable[str]) -> str:
    """ "is too short (3 files), does not decode (1 file)": each kind of reason, and how often."""
    counts = Counter(map(_general, reasons)).most_common()
    return ", ".join(f"{reason} ({n} {'file' if n == 1 else 'files'})" for reason, n in counts)


def _general(reason: str) -> str:
    """A reason without its numbers."""
    return reason.split(":")[0].split(" (")[0]


_OTHER = ".other suffixes"


def _ending(suffix: str) -> str:
    return {"": "in no suffix", _OTHER: "in other suffixes"}.get(suffix, f"in {suffix}")


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def special(mode: int) -> str:
    for what, is_one in (
        ("a pipe", stat.S_ISFIFO),
        ("a socket", stat.S_ISSOCK),
        ("a device", lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode)),
    ):
        if is_one(mode):
            return f"is {what}, not a file"
    return "is no file"


def unreadable(error: OSError) -> str:
    """Why something could not be read, in words."""
    if error.errno == errno.ELOOP:
        return "is a link in a circle"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return "vanished while the files were looked at"
    return f"cannot be read ({error.strerror or error})"

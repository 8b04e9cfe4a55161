"""What a search for files gives: their names, and what was left out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from smnm_kernels.errors import printable

from . import braces
from .left_out import LeftOut
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

"""What a scan asks of who knows which files DATA means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .find import Found, find
from .labels import Labels
from .modality import Record


class Finder(Protocol):
    """What a scan looks at: which files DATA means, and what is known of each besides."""

    @property
    def data(self) -> Path:
        """As the command was given it. Names of entries are relative to `base_of` it."""

    @property
    def labels(self) -> Labels | None:
        """Of the files that `find` found; None where they have none."""

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> Found:
        """As the function `find`."""

    def attached(self, record: Record) -> Record:
        """The record of a file that was found, with what is known besides."""

    def look_at(self, usable: Sequence[Record]) -> list[str]:
        """Is told which files are usable. Lines to print; raises UsageError where they do not
        suffice."""


@dataclass(frozen=True)
class Files:
    """The files that DATA names or holds, without labels."""

    data: Path
    labels = None

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> Found:
        return find(self.data, suffixes, besides, tick)

    def attached(self, record: Record) -> Record:
        return record

    def look_at(self, usable: Sequence[Record]) -> list[str]:
        return []

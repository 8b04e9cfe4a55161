"""What a scan asks of who knows which files DATA means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .entries import Found
from .find import find


class Finder(Protocol):
    """What a scan looks at: which files DATA means, and what is known of each besides."""

    @property
    def data(self) -> Path:
        """As the command was given it. Names of entries are relative to `base_of` it."""

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> Found:
        """As the function `find`."""


@dataclass(frozen=True)
class Files:
    """The files that DATA names or holds, without labels."""

    data: Path
    files_from: Path | None = None  # the folder that paths in a list are relative to

    def find(
        self, suffixes: frozenset[str], besides: Path | None, tick: Callable[[], None]
    ) -> Found:
        return find(self.data, suffixes, besides, tick, self.files_from)

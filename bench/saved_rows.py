"""Rows of a measurement in a file of JSON, one a line, each saved when it is made: a process that
is killed leaves all but the row that it was writing, and the next one goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


class SavedRows:
    """The rows of a file, and those that are added to them; without a file only kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict] = []
        # Read and written again: nothing is appended to half a row.
        self.keep(read_rows(path) if path else [])

    def keep(self, rows: list[dict]) -> None:
        """These, and none of the others."""
        self.rows = rows
        if self.path:
            self.path.write_text("".join(map(line, rows)))

    def add(self, *rows: dict) -> None:
        """Rows that belong together are saved together or not at all."""
        self.rows += rows
        if self.path:
            with self.path.open("ab", buffering=0) as file:
                file.write("".join(map(line, rows)).encode())

    def have(self, wanted: Callable[[dict], bool]) -> bool:
        return any(map(wanted, self.rows))


def line(row: dict) -> str:
    return json.dumps(row) + "\n"


def read_rows(path: Path) -> list[dict]:
    """Of a file that is missing, none. Half a row at the end is left out, and so is a line that is
    no row, such as a warning among printed rows."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(errors="replace").rpartition("\n")
    rows = []
    for text in whole.splitlines():
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows

"""Rows of a measurement in a file, one JSON object a line. Each is saved as soon as it is measured.
If the process is killed, only the row that it was writing is lost, and the next process goes on
from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


class SavedRows:
    """The rows of a file, and those that are added to it. Without a file, rows stay in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict] = []
        # Written again without half rows, so that no row is appended to one.
        self.keep(read_rows(path) if path else [])

    def keep(self, rows: list[dict]) -> None:
        """Replaces all rows by these."""
        self.rows = rows
        if self.path:
            self.path.write_text("".join(map(line, rows)))

    def add(self, *rows: dict) -> None:
        """Adds rows. Rows of one call are written together, so none is saved without the others."""
        self.rows += rows
        if self.path:
            with self.path.open("ab", buffering=0) as file:
                file.write("".join(map(line, rows)).encode())

    def have(self, wanted: Callable[[dict], bool]) -> bool:
        return any(map(wanted, self.rows))


def line(row: dict) -> str:
    return json.dumps(row) + "\n"


def read_rows(path: Path) -> list[dict]:
    """The rows of a file; none if it is missing. Half a row at the end is left out, and so are
    lines that are no rows, such as warnings among printed rows."""
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

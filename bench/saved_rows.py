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
        if path and path.exists():
            self.rows = read_rows(path)
            # Written again without half rows, so that no row is appended to one.
            if path.read_text(errors="replace") != "".join(map(line, self.rows)):
                self.keep(self.rows)

    def keep(self, rows: list[dict]) -> None:
        """Replaces all rows by these."""
        self.rows = rows
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside it first: a kill leaves all rows, the old or the new.
            whole = self.path.with_name(f"{self.path.name}.part")
            whole.write_text("".join(map(line, rows)))
            whole.replace(self.path)

    def add(self, *rows: dict) -> None:
        """Adds rows. Rows of one call are written together, so none is saved without the others."""
        self.rows += rows
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write("".join(map(line, rows)).encode())

    def have(self, wanted: Callable[[dict], bool]) -> bool:
        return any(map(wanted, self.rows))

    def has(self, **key: object) -> bool:
        """Whether a row holds these."""
        return self.have(lambda row: all(row.get(name) == value for name, value in key.items()))


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

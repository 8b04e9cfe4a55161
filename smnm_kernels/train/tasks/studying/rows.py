"""Rows of a report: the results of finished cells, in one file that can be kept with the code.

report.json holds each cell's result whole, a row a line. What many share (options of measures,
versions, ...) is written once, in "shared", and rows hold its number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import reason, replacing

from .plan import StudyPlan
from .plan_file import plan_of

Result = dict[str, Any]
#: Of a result, what every row must have, with its type.
_NEEDED: dict[str, type | tuple[type, ...]] = {
    **{"id": str, "id_of_any_code": str, "name": str, "written": (int, float)},
    **{"data": str, "run": str, "seed": int, "settings": dict, "about": dict},
    **{"values": dict, "seconds": dict, "environment": dict},
}
#: What is shared: fields of a result, and of its settings.
_SHARED, _SHARED_SETTINGS = ("environment", "data_fingerprints"), ("data", "measures", "code")


@dataclass(frozen=True)
class RowsFile:
    """A report.json."""

    path: Path
    plan_file: str  # the name of the plan's file
    plan_text: str
    results: list[Result]

    def plan(self) -> StudyPlan:
        """The plan that the report is of."""
        return plan_of(self.plan_text.encode(), Path(self.plan_file))


def write_report_json(path: Path, content: Mapping[str, Any], results: Sequence[Result]) -> None:
    """content: all but the rows. NaN, which JSON has not, becomes null."""
    shared: dict[str, int] = {}
    rows = [_line(_packed(without_nan(one), shared)) for one in results]
    listed = [json.loads(text) for text in shared]
    text = json.dumps({**without_nan(content), "shared": listed}, indent=1)
    body = ",\n".join(rows)
    with replacing(path) as file:
        file.write(f'{text[:-2]},\n "rows": [\n{body}\n ]\n}}\n'.encode())


def read_rows(path: Path) -> RowsFile:
    """Raises UsageError, which names the file, where it is not what `write_report_json` wrote."""
    shown = f"--rows {printable(str(path))}"
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read ({reason(error)})") from error
    except ValueError as error:
        raise UsageError(f"{shown}: is no report of a study ({error})") from error
    try:
        plan, shared = content["plan_file"], content["shared"]
        results = [_unpacked(row, shared) for row in content["rows"]]
        found = RowsFile(path, str(plan), str(content["plan_text"]), results)
    except (KeyError, TypeError, IndexError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else "is laid out otherwise"
        raise UsageError(
            f"{shown}: {lacks}; it is no report of a study, or of one from before rows were kept "
            "whole"
        ) from error
    for number, row in enumerate(results):
        lacking = [k for k, kind in _NEEDED.items() if not isinstance(row.get(k), kind)]
        if lacking:
            raise UsageError(f"{shown}: row {number} has no {lacking[0]} as results of cells have")
        for name in ("values", "seconds"):
            for key, value in row[name].items():
                if not _is_number(value, name == "values"):
                    raise UsageError(f"{shown}: row {number}: {name}.{printable(key)} is no number")
        of = row["settings"]
        lacking = [name for name in _SHARED_SETTINGS if not isinstance(of.get(name), dict)]
        if lacking or not all(isinstance(one, dict) for one in of["data"].values()):
            wrong = lacking[0] if lacking else "data"
            raise UsageError(
                f"{shown}: row {number} has no settings.{wrong} as results of cells have"
            )
    return found


def _is_number(value: Any, may_lack: bool) -> bool:
    """Or null, as which NaN is written."""
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one or (may_lack and value is None)


def key_of(settings: Mapping[str, Any]) -> str:
    """Of what a plan says of a cell: the same wherever its data lies, and whatever code ran it."""
    data = {
        n: {k: v for k, v in d.items() if k != "fingerprint"} for n, d in settings["data"].items()
    }
    kept = {k: v for k, v in settings.items() if k != "code"} | {"data": data}
    return json.dumps(kept, sort_keys=True)


def once(results: Sequence[Result]) -> list[Result]:
    """Without those that are there before: the same cell, written at the same time."""
    found: dict[tuple[str, float], Result] = {}
    for one in results:
        found.setdefault((one["id"], one["written"]), one)
    return list(found.values())


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _line(row: Result) -> str:
    return json.dumps(row, separators=(",", ":"))


def _packed(result: Result, shared: dict[str, int]) -> Result:
    def number(value: Any) -> int:
        return shared.setdefault(json.dumps(value, sort_keys=True), len(shared))

    settings = result["settings"]
    settings = settings | {k: number(settings[k]) for k in _SHARED_SETTINGS if k in settings}
    fields = {k: number(result[k]) for k in _SHARED if k in result}
    return result | fields | {"settings": settings}


def _unpacked(row: Result, shared: Sequence[Any]) -> Result:
    settings = row["settings"]
    settings = settings | {k: shared[settings[k]] for k in _SHARED_SETTINGS if k in settings}
    fields = {k: shared[row[k]] for k in _SHARED if k in row}
    return row | fields | {"settings": settings}

"""`smnm study report`: tables of what is there, beside the paper's, and verdicts."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smnm_kernels.files import replacing
from smnm_kernels.train.metrics.intervals import Interval, t_interval
from smnm_kernels.train.run.folder import before_any_work

from .cells import Cell, cells_of
from .folders import StudyFolder
from .inputs import counts
from .markdown import markdown
from .paper import published
from .plan import Ordering, StudyPlan, Table
from .plots import write_orders, write_plots
from .restored import write_restored
from .rows import Result, key_of, once, without_nan, write_report_json
from .values import data_with, has_value, possible_of
from .verdicts import interval_of, overall, paired, verdict
from .warnings import environments_of, trained_on, warnings_of

REPORT, JSON = "report.md", "report.json"


@dataclass(frozen=True)
class Rows:
    """The finished cells of a plan."""

    plan: StudyPlan
    finished: list[tuple[Cell, Result]]
    missing: list[Cell]
    twice: int  # results that newer ones of the same cells took the place of

    @property
    def results(self) -> list[Result]:
        return [result for _, result in self.finished]

    def values(self, data: str, run: str, value: str) -> dict[int, float]:
        """By seed; without those that are undefined."""
        found = {}
        for one in self.results:
            if (one["data"], one["run"]) == (data, run):
                number = one["values"].get(value)
                if number is not None and not math.isnan(number):
                    found[one["seed"]] = float(number)
        return dict(sorted(found.items()))


def rows_of(plan: StudyPlan, results: Sequence[Result]) -> Rows:
    """What there is of the plan's cells, whatever code made it and wherever its data lay: settings
    must be the plan's. Of several the one that was written last."""
    cells = cells_of(plan, {})
    wanted = {key_of(cell.settings) for cell in cells}
    found: dict[str, Result] = {}
    twice = 0
    for one in once(results):
        key = key_of(one["settings"])
        if key in wanted:
            twice += key in found
            if key not in found or one["written"] > found[key]["written"]:
                found[key] = one
    finished, missing = list[tuple[Cell, Result]](), list[Cell]()
    for cell in cells:
        of = found.get(key_of(cell.settings))
        if of is None:
            missing.append(cell)
        else:  # the plan may have renamed its run since
            finished.append((cell, of | {"name": cell.name, "run": cell.run.name}))
    return Rows(plan, finished, missing, twice)


def write_report(
    plan: StudyPlan, results: Sequence[Result], folder: StudyFolder | None, out: Path
) -> None:
    """OUT/report.md, report.json and pictures; prints where they are and the verdicts.

    results: of finished cells. folder: where pictures of cells are; None: nowhere.
    """
    rows = rows_of(plan, results)
    with before_any_work(out):
        out.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "plan": plan.name,
        "plan_file": plan.file,
        "plan_text": plan.text.decode(),
        "about": plan.about,
        "cells": {
            "planned": len(rows.finished) + len(rows.missing),
            "finished": len(rows.finished),
        },
        "missing": [cell.name for cell in rows.missing],
        "replaced": rows.twice,
        "tables": [of for table in plan.tables for of in tables_of(rows, table)],
        "orderings": [of for one in plan.orderings for of in orderings_of(rows, one)],
        "costs": _costs(rows),
        "environments": _environments(rows),
        "data": {name: sorted(of) for name, of in trained_on(rows.results).items()},
        "warnings": warnings_of(plan, rows.results),
        "interval": "95%, Student's over seeds; differences are paired by seed",
    }
    pictures = {} if folder is None else write_restored(plan, rows.finished, folder, out)
    plots = write_plots(content["tables"], out)
    orders = write_orders(content["orderings"], out)
    write_report_json(out / JSON, content, rows.results)
    with replacing(out / REPORT) as file:
        file.write(markdown(without_nan(content), plots, orders, pictures).encode())
    print(f"{len(rows.finished)} of {content['cells']['planned']} cells are finished")
    if rows.twice:
        print(f"{rows.twice} rows are of cells that have a newer one: left out")
    for one in content["orderings"]:
        print(f"  {one['claim']} ({one['value']}, {one['data']}): {one['verdict']}")
    for words in content["warnings"]:
        print(f"warning: {words}")
    print(f"report: {out / REPORT}")


def tables_of(rows: Rows, table: Table) -> list[dict[str, Any]]:
    """One for each data set that has any of it: of each run and value mean, interval, seeds, the
    paired difference from the reference, and the paper's figure."""
    found = []
    for data in rows.plan.data:
        having = {
            value: [run for run in table.rows if has_value(rows.plan, value, run, data)]
            for value in table.columns
        }
        values = [value for value, runs in having.items() if runs]
        lines = []
        for run in table.rows:
            if any(run in runs for runs in having.values()):
                shown = counts(rows.plan.visible(run))
                shown["untrained"] = rows.plan.runs[run].untrained
                columns = {v: _cell(rows, table, data, run, v) for v in values}
                lines.append({"run": run, **shown, "columns": columns})
                for seed in rows.plan.runs[run].seeds if table.each_seed else ():
                    columns = {v: _cell(rows, table, data, run, v, seed) for v in values}
                    lines.append({"run": f"{run}, seed {seed}", **shown, "columns": columns})
        if {line["run"] for line in lines} <= {table.reference}:  # nothing to compare it with
            continue
        found.append(
            {
                "title": table.title,
                "data": data,
                "source": table.source,
                "paper_columns": table.paper,
                "reference": table.reference,
                "note": table.note,
                "columns": values,
                "rows": lines,
            }
        )
    return found


def _cell(
    rows: Rows, table: Table, data: str, run: str, value: str, seed: int | None = None
) -> dict[str, Any]:
    """Of all seeds, or of one, beside which the paper has nothing."""
    values = rows.values(data, run, value)
    if seed is not None:
        values = {seed: values[seed]} if seed in values else {}
    difference = None
    if table.reference and run != table.reference:
        gained = paired(values, rows.values(data, table.reference, value))
        difference = interval_of(gained).as_row() | {"seeds": len(gained)} if gained else None
    return {
        "mean": _mean(values, possible_of(rows.plan, value, data)).as_row(),
        "seeds": {str(seed): number for seed, number in values.items()},
        "difference": difference,
        "paper": None
        if seed is not None
        else published(table.source, table.paper.get(value, ""), run),
    }


def _mean(values: dict[int, float], possible: tuple[float, float]) -> Interval:
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    return t_interval(list(values.values()), possible=possible)


def orderings_of(rows: Rows, ordering: Ordering) -> list[dict[str, Any]]:
    """One for each data set on which all runs have the value: the claim's verdict, and that on each
    pair."""
    found = []
    for data in data_with(rows.plan, ordering.value, ordering.runs):
        values = {run: rows.values(data, run, ordering.value) for run in ordering.runs}
        pairs = [verdict(lower, higher, values) for lower, higher in ordering.pairs]
        found.append(
            {
                "claim": ordering.claim,
                "source": ordering.source,
                "value": ordering.value,
                "data": data,
                "verdict": overall(pairs),
                "runs": list(ordering.runs),
                "values": values,
                "means": {
                    run: _mean(of, possible_of(rows.plan, ordering.value, data)).as_row()
                    for run, of in values.items()
                },
                "pairs": [asdict(one) | {"difference": one.difference.as_row()} for one in pairs],
            }
        )
    return found


def _costs(rows: Rows) -> list[dict[str, Any]]:
    """Of each run and data set: what a step and its masks take, as A.6 has it of an epoch."""
    found = []
    for data in rows.plan.data:
        for run in rows.plan.runs:
            of = [r for r in rows.results if (r["data"], r["run"]) == (data, run)]
            of = [one for one in of if "clips_per_s" in one["about"]]
            if of:
                names = ("clips_per_s", "mask_ms")
                means = {n: sum(one["about"][n] for one in of) / len(of) for n in names}
                seconds = sum(sum(one["seconds"].values()) for one in of) / len(of)
                about = {"parameters": of[0]["about"]["parameters"], "seconds_a_cell": seconds}
                found.append({"data": data, "run": run, "cells": len(of), **means, **about})
    return found


def _environments(rows: Rows) -> list[dict[str, Any]]:
    """All that cells were run in, with the numbers of their cells."""
    counted = Counter(
        json.dumps(environment | {"code": one["settings"]["code"]}, sort_keys=True)
        for one in rows.results
        for environment in environments_of(one)
    )
    return [json.loads(text) | {"cells": count} for text, count in counted.most_common()]

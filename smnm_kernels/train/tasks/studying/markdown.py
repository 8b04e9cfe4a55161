"""A report as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .inputs import counts_in_words

_HOW_SURE = (
    "A claim is reproduced where all its pairs are. It is contradicted where one of its k pairs is "
    "at a level of 1 - 0.05 / k. Where runs do not differ, either happens in at most one study in "
    "forty, whatever k is; to a single pair in one in forty each."
)
_RESTORED = (
    "One held-out file, the same for all: input, visible under a mask of the run's own, restored"
)


def markdown(
    content: Mapping[str, Any],
    plots: Mapping[int, str],
    orders: str | None,
    pictures: Mapping[str, tuple[str, int]],
) -> str:
    """content: of report.json. plots: files by the places of tables; orders: of all
    claims; pictures: of what runs restore, and the seed, by data set."""
    cells = content["cells"]
    lines = [f"# {content['plan']}", "", content["about"], ""] if content["about"] else []
    lines = lines or [f"# {content['plan']}", ""]
    lines += [
        f"{cells['finished']} of {cells['planned']} cells are finished. Values are means over "
        "seeds with Student's 95% interval; Δ is the difference from the reference, paired by "
        "seed. What the paper reports is of other data and models: orders can be compared, not "
        "values.",
        "",
    ]
    if content["missing"]:
        lines += ["Missing: " + _some(content["missing"]) + ".", ""]
    for words in content["warnings"]:
        lines += [f"**{words}.**", ""]
    if content["orderings"]:
        lines += ["## Orders", "", *_orderings(content["orderings"]), "", _HOW_SURE, ""]
        lines += [f"![orders]({orders})", ""] if orders else []
    for place, table in enumerate(content["tables"]):
        lines += [f"## {table['title']} ({table['data']})", "", *_table(table), ""]
        if place in plots:
            lines += [f"![{table['title']}]({plots[place]})", ""]
    if content["costs"]:
        lines += ["## Cost", "", *_costs(content["costs"]), ""]
    for data, (file, seed) in pictures.items():
        lines += [f"## Restored ({data})", "", f"{_RESTORED}, seed {seed}.", ""]
        lines += [f"![restored]({file})", ""]
    lines += ["## Made with", "", *_environments(content["environments"])]
    for name, prints in content["data"].items():
        lines.append(f"* data {name}: fingerprint {', '.join(prints)}")
    return "\n".join(lines).rstrip() + "\n"


def _orderings(orderings: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| claim | source | value | data | verdict | pairs: higher - lower [95%], seeds |",
        "|---|---|---|---|---|---|",
    ]
    for one in orderings:
        pairs = "; ".join(_pair(pair) for pair in one["pairs"])
        claim, source = (one[name].replace("|", "\\|") for name in ("claim", "source"))
        lines.append(
            f"| {claim} | {source} | {one['value']} | {one['data']} | "
            f"**{one['verdict']}** | {pairs} |"
        )
    return lines


def _pair(pair: Mapping[str, Any]) -> str:
    shown = f"{pair['lower']} < {pair['higher']}: "
    if not pair["seeds"]:
        return shown + "no rows"
    shown += f"{interval(pair['difference'], sign='+')}, {pair['seeds']} seeds, {pair['word']}"
    if pair["word"].startswith("not"):
        unknown = "an unknown number of" if pair["difference"]["low"] is None else "over 10,000"
        needed = unknown if pair["needed"] is None else f"about {pair['needed']}"
        against = ", by these against the claim" if pair["difference"]["value"] < 0 else ""
        shown += f" ({needed} seeds would decide{against})"
    return shown


def _table(table: Mapping[str, Any]) -> list[str]:
    columns = table["columns"]
    titles = []
    for column in columns:
        titles.append(column)
        if table["reference"]:
            titles.append(f"Δ {table['reference']}")
        if column in table["paper_columns"]:
            titles.append(f"paper: {table['paper_columns'][column]}")
    lines = [f"| run | visible | seeds | {' | '.join(titles)} |", "|---" * (3 + len(titles)) + "|"]
    for row in table["rows"]:
        shown, seeds = [], max(len(row["columns"][column]["seeds"]) for column in columns)
        for column in columns:
            cell = row["columns"][column]
            shown.append(interval(cell["mean"]) + _of_fewer(len(cell["seeds"]), seeds))
            if table["reference"]:
                shown.append(_difference(cell["difference"], seeds))
            if column in table["paper_columns"]:
                shown.append("" if cell["paper"] is None else f"{cell['paper']:g}")
        lines.append(f"| {row['run']} | {counts_in_words(row)} | {seeds} | {' | '.join(shown)} |")
    if table["source"]:
        lines += ["", f"The paper's figures: {table['source']}."]
    if table["note"]:
        lines += ["", table["note"]]
    return lines


def _difference(gained: Mapping[str, Any] | None, seeds: int) -> str:
    return interval(gained, sign="+") + _of_fewer(gained["seeds"], seeds) if gained else ""


def _of_fewer(count: int, seeds: int) -> str:
    return f" ({count} of them)" if 0 < count < seeds else ""


def interval(row: Mapping[str, Any], sign: str = "") -> str:
    """value [low, high]; without bounds where there are none."""
    if row["value"] is None or math.isnan(row["value"]):
        return "-"
    shown = f"{row['value']:{sign}.4g}"
    if row["low"] is None or math.isnan(row["low"]):
        return shown
    return f"{shown} [{row['low']:{sign}.4g}, {row['high']:{sign}.4g}]"


def _costs(costs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| data | run | cells | parameters | clips a second | masks, ms a step | s a cell |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {c['data']} | {c['run']} | {c['cells']} | {c['parameters']:,} | "
        f"{c['clips_per_s']:.1f} | {c['mask_ms']:.2f} | {c['seconds_a_cell']:.0f} |"
        for c in costs
    ]


def _environments(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in environments:
        versions = ", ".join(f"{name} {v}" for name, v in one["versions"].items())
        lines.append(
            f"* {one['cells']} cells: {one['processor']} ({one['machine']}), {one['cores']} cores, "
            f"{one['threads']} threads, device {one['device']}; commit {one['commit']}, sources "
            f"{one['code']['sources']}; {versions}"
        )
    return lines


def _some(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

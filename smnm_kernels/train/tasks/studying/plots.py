"""Plots of a report: every seed, means with their intervals."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smnm_kernels.train.metrics.intervals import t_interval
from smnm_kernels.train.metrics.plots import new_figure, save_figure


def write_plots(tables: Sequence[Mapping[str, Any]], out: Path) -> dict[int, str]:
    """A PNG of each table that has values; file names by the table's place."""
    found = {}
    for place, table in enumerate(tables):
        if any(cell["seeds"] for row in table["rows"] for cell in row["columns"].values()):
            name = f"{table['title']} {table['data']}"
            words = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80]
            file = f"{place + 1:02}-{words}.png"  # titles may be the same, or begin so
            _write(table, out / file)
            found[place] = file
    return found


def _write(table: Mapping[str, Any], path: Path) -> None:
    rows, columns = table["rows"], table["columns"]
    figure = new_figure((1.6 + 2.6 * len(columns), 1.1 + 0.32 * len(rows)), layout="constrained")
    all_axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axes, column in zip(all_axes, columns, strict=True):
        for place, row in enumerate(rows):
            cell = row["columns"][column]
            values = list(cell["seeds"].values())
            axes.plot(values, [place] * len(values), "o", color="#56b4e9", ms=3, alpha=0.8)
            mean = cell["mean"]
            if mean["value"] is not None:
                axes.plot([mean["value"]], [place], "|", color="black", ms=9)
            if mean["low"] is not None:
                axes.plot([mean["low"], mean["high"]], [place, place], color="black", lw=1.2)
        axes.set_title(column, fontsize=9, parse_math=False)
        axes.set_yticks(range(len(rows)), [row["run"] for row in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def write_orders(orderings: Sequence[Mapping[str, Any]], out: Path) -> str | None:
    """OUT/orders.png: of each claim its runs in its order, a line for each seed, and the means;
    None where no claim has values."""
    drawn = [one for one in orderings if any(one["values"].values())]
    if not drawn:
        return None
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = new_figure((3.4 * columns, 2.9 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes[len(drawn) :]:
        axes.set_axis_off()
    for axes, one in zip(all_axes, drawn, strict=False):
        runs, values = one["runs"], one["values"]
        for seed in sorted({seed for of in values.values() for seed in of}):
            line = [values[run].get(seed, math.nan) for run in runs]
            axes.plot(range(len(runs)), line, "o-", color="#56b4e9", ms=3, lw=0.8, alpha=0.8)
        for place, run in enumerate(runs):
            if values[run]:
                mean = t_interval(list(values[run].values()))
                axes.plot([place], [mean.value], "_", color="black", ms=12)
                axes.plot([place, place], [mean.low, mean.high], color="black", lw=1.2)
        words = textwrap.fill(one["claim"], 40, max_lines=2)
        title = f"{words}\n{one['value']}, {one['data']}: {one['verdict']}"
        axes.set_title(title, fontsize=8, parse_math=False)
        axes.set_xticks(range(len(runs)), runs, rotation=20, ha="right", parse_math=False)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, out / "orders.png")
    return "orders.png"

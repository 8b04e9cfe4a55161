"""Plots of a report: every seed, means with their intervals."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smnm_kernels.train.metrics.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    """Above, values of all rows; below, differences from the reference, where there is one."""
    rows, columns, reference = table["rows"], table["columns"], table["reference"]
    of_reference = next((row for row in rows if row["run"] == reference), None)
    others = [row for row in rows if row is not of_reference and _differs(row)]
    heights = [len(rows), len(others)] if of_reference and others else [len(rows)]
    figure = new_figure(
        (1.6 + 2.6 * len(columns), 0.6 + 0.5 * len(heights) + 0.32 * sum(heights)),
        layout="constrained",
    )
    all_axes = figure.subplots(
        len(heights), len(columns), squeeze=False, sharey="row", height_ratios=heights
    )
    for place, column in enumerate(columns):
        values = [(row["columns"][column]["seeds"], row["columns"][column]["mean"]) for row in rows]
        _draw(all_axes[0, place], rows, values)
        all_axes[0, place].set_title(column, fontsize=9, parse_math=False)
        if len(heights) > 1:
            assert of_reference is not None
            beside = of_reference["columns"][column]["seeds"]
            differences = [_difference(row["columns"][column], beside) for row in others]
            _draw(all_axes[1, place], others, differences)
            all_axes[1, place].axvline(0, color="#d55e00", lw=0.8)
            words = f"minus {reference}, of the same seed"
            all_axes[1, place].set_title(words, fontsize=8, parse_math=False)
    save_figure(figure, path)


def _differs(row: Mapping[str, Any]) -> bool:
    return any(cell["difference"] for cell in row["columns"].values())


def _difference(
    cell: Mapping[str, Any], beside: Mapping[str, float]
) -> tuple[dict[str, float], Mapping[str, Any]]:
    """Seed by seed and their interval."""
    seeds = {seed: value - beside[seed] for seed, value in cell["seeds"].items() if seed in beside}
    return seeds, cell["difference"] or {"value": None, "low": None, "high": None}


def _draw(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    values: Sequence[tuple[Mapping[str, float], Mapping[str, Any]]],
) -> None:
    """A line for each row: its seeds, their mean and interval. The scale is that of trained
    encoders; untrained ones that lie far outside are told by an arrow and their mean."""
    trained = [of for row, of in zip(rows, values, strict=True) if not row["untrained"]]
    limits = _limits(trained or values)
    for place, (row, (seeds, mean)) in enumerate(zip(rows, values, strict=True)):
        if row["untrained"] and limits and mean["value"] is not None:
            low, high = limits
            if not low <= mean["value"] <= high:
                right = mean["value"] > high
                words = f"{mean['value']:.3g} \u2192" if right else f"\u2190 {mean['value']:.3g}"
                where, side = (0.98, "right") if right else (0.02, "left")
                at = axes.get_yaxis_transform()
                axes.text(where, place, words, ha=side, va="center", fontsize=8, transform=at)
                continue
        axes.plot(list(seeds.values()), [place] * len(seeds), "o", color="#56b4e9", ms=3, alpha=0.8)
        if mean["value"] is not None:
            axes.plot([mean["value"]], [place], "|", color="black", ms=9)
        if mean["low"] is not None:
            axes.plot([mean["low"], mean["high"]], [place, place], color="black", lw=1.2)
    if limits:
        axes.set_xlim(*limits)
    axes.set_yticks(range(len(rows)), [row["run"] for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(
    values: Sequence[tuple[Mapping[str, float], Mapping[str, Any]]],
) -> tuple[float, float] | None:
    """Around all seeds and intervals; None where there are none or they are one number."""
    ends = [value for seeds, _ in values for value in seeds.values()]
    ends += [mean[end] for _, mean in values for end in ("low", "high") if mean[end] is not None]
    finite = [one for one in ends if math.isfinite(one)]
    if not finite or min(finite) == max(finite):
        return None
    low, high = min(finite), max(finite)
    return low - 0.15 * (high - low), high + 0.15 * (high - low)


def write_orders(orderings: Sequence[Mapping[str, Any]], out: Path) -> str | None:
    """OUT/orders.png: of each claim its runs in its order, a line for each seed, and the means;
    None where no claim has two that have values."""
    drawn = [one for one in orderings if sum(map(bool, one["values"].values())) > 1]
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
                mean = {
                    end: math.nan if of is None else of for end, of in one["means"][run].items()
                }
                axes.plot([place], [mean["value"]], "_", color="black", ms=12)
                axes.plot([place, place], [mean["low"], mean["high"]], color="black", lw=1.2)
        words = textwrap.fill(one["claim"], 40, max_lines=2)
        title = f"{words}\n{one['value']}, {one['data']}: {one['verdict']}"
        axes.set_title(title, fontsize=8, parse_math=False)
        axes.set_xticks(range(len(runs)), runs, rotation=20, ha="right", parse_math=False)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, out / "orders.png")
    return "orders.png"

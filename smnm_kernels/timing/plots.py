"""Rows as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from smnm_kernels.files import replacing
from smnm_kernels.pictures.optional import import_for_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS, GRID = "#0b8793", "#9aa3b2", "#e6e8ec"


def write_plots(rows: list[dict], folder: Path) -> Iterator[Path]:
    """PNG files of the sections that rows hold."""
    for section, plot in (
        ("masks", _masks),
        ("growth", _growth),
        ("quality", _quality),
        ("training", _training),
    ):
        of_section = [row for row in rows if row["section"] == section and "us" in row]
        if not of_section:
            continue
        figure = plot(of_section)
        path = folder / f"{section}.png"
        with replacing(path) as file:
            figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
        yield path


def _figure(width: float, height: float, columns: int) -> tuple:
    figure_class = import_for_pictures("matplotlib.figure").Figure
    import_for_pictures("matplotlib.backends.backend_agg")
    figure = figure_class(figsize=(width, height))
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _bars(axes: Axes, group: list[dict], title: str, log: bool = False) -> None:
    names = [row["what"] for row in group][::-1]
    ratios = [row["ratio"] for row in group][::-1]
    colors = [OURS if row["ours"] else THEIRS for row in group][::-1]
    if log:  # on a logarithmic axis, a bar from 0 has no length: a stalk from 1 is plotted instead
        axes.hlines(names, 1, ratios, color=colors, lw=1.5)
        axes.scatter(ratios, names, color=colors, s=25, zorder=3)
        axes.set_xscale("log")
    else:
        axes.barh(names, ratios, color=colors)
    for i, ratio in enumerate(ratios):
        before = log and ratio < 1  # the text would else lie on the stalk
        text = f"{ratio:.3g}  " if before else f"  {ratio:.3g}"
        axes.text(ratio, i, text, va="center", ha="right" if before else "left", fontsize=8)
    axes.axvline(1, color="#555", lw=0.8, ls=":")
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.18)


def _masks(rows: list[dict]) -> Figure:
    """Ratios to MAE's random masking at the batch that came first, a panel for each shape."""
    batch = rows[0]["batch"]
    groups = [
        list(g) for _, g in groupby([r for r in rows if r["batch"] == batch], lambda r: r["shape"])
    ]
    figure, panels = _figure(6.5 * len(groups), 0.32 * max(map(len, groups)) + 1.2, len(groups))
    for axes, group in zip(panels, groups, strict=True):
        _bars(axes, group, f"{group[0]['shape']}, B = {batch}", log=True)
        axes.set_xlabel(f"time, as a ratio to {group[0]['ratio_to']}", fontsize=8)
    figure.tight_layout()
    return figure


def _training(rows: list[dict]) -> Figure:
    groups = [list(g) for _, g in groupby(rows, lambda r: (r["shape"], r["ratio_to"]))]
    figure, panels = _figure(6.5 * len(groups), 2.6, len(groups))
    for axes, group in zip(panels, groups, strict=True):
        _bars(axes, group, f"{group[0]['shape']}, B = {group[0]['batch']}")
        axes.set_xlabel("time of a step, as a ratio to the first", fontsize=8)
    figure.tight_layout()
    return figure


def _growth(rows: list[dict]) -> Figure:
    groups = {
        over: list(g)
        for over, g in groupby(sorted(rows, key=lambda r: r["over"]), lambda r: r["over"])
    }
    figure, panels = _figure(4.6 * len(groups), 3.6, len(groups))
    for axes, (over, group) in zip(panels, groups.items(), strict=True):
        for name, of_name in groupby(group, lambda r: r["curve"]):
            points = list(of_name)
            exponent = points[0]["exponent"]
            label = f"{name}, {points[0]['fixed']}"
            if exponent is not None:
                label += f": exponent {exponent:.2f}"
            color = None if points[0]["ours"] else THEIRS
            axes.loglog(
                [p["x"] for p in points],
                [p["us"] for p in points],
                "o-",
                ms=3,
                label=label,
                color=color,
            )
            _mark_switches(axes, points)
        if over in ("K", "sigma", "window"):
            ticks = sorted({row["x"] for row in group})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(import_for_pictures("matplotlib.ticker").NullLocator())
        axes.set_xlabel(over, fontsize=8)
        axes.set_ylabel("us a call", fontsize=8)
        axes.grid(color=GRID)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.2)  # room for the legend
        axes.legend(fontsize=7, frameon=False, loc="upper left")
        axes.tick_params(which="both", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _mark_switches(axes: Axes, points: list[dict]) -> None:
    """Plots a line between two points with different code paths, and names the second path."""
    for before, after in pairwise(points):
        if before["path"] != after["path"]:
            x = (before["x"] * after["x"]) ** 0.5
            axes.axvline(x, color=THEIRS, lw=0.8, ls=":")
            axes.text(
                x, 0.02, f" {points[0]['curve']}:\n {after['path']}", fontsize=6,
                transform=axes.get_xaxis_transform(), va="bottom",
            )  # fmt: skip


def _quality(rows: list[dict]) -> Figure:
    """Clustering against time, for each kind."""
    groups = [list(g) for _, g in groupby(rows, lambda r: r["shape"])]
    figure, panels = _figure(4.6 * len(groups), 3.6, len(groups))
    for axes, group in zip(panels, groups, strict=True):
        for row in group:
            axes.plot(row["us"], row["clustering"], "o", color=OURS)
            axes.annotate(
                row["what"], (row["us"], row["clustering"]), fontsize=7,
                xytext=(4, 3), textcoords="offset points",
            )  # fmt: skip
        axes.set_xscale("log")
        ticker = import_for_pictures("matplotlib.ticker")
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_title(group[0]["shape"], fontsize=9, loc="left")
        axes.set_xlabel("us for 64 masks", fontsize=8)
        axes.set_ylabel("clustering (lower is more even)", fontsize=8)
        axes.grid(color=GRID)
        axes.margins(0.15)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure

"""Pictures of an evaluation and of the training that led to it, in matplotlib without pyplot: what
happens to be set up elsewhere in the process changes nothing."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.errors import printable
from smnm_kernels.files import replacing
from smnm_kernels.pictures.optional import import_for_pictures

from .intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NUMBERS = 15  # classes up to which each cell says how many files it counts
_MOST_NAMES = 60  # classes up to which each row and column has its name
_LONGEST = 24  # characters of a name
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def confusions(predicted: Tensor, targets: Tensor, n_classes: int) -> Tensor:
    """int64 [classes, classes]: files of the class of the row that were taken for the column's.

    predicted, targets: int64 [n].
    """
    pairs = targets.long() * n_classes + predicted.long()
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)


def write_confusion_matrix(path: Path, counts: Tensor, names: Sequence[str]) -> None:
    """A PNG of what was taken for what, whole or not at all.

    counts: as `confusions` makes them.
    names: of the classes.

    Colours are shares of a row. Up to 15 classes have numbers, up to 60 have names at both sides;
    of more, the confusions that happen most often are named beside the matrix.
    """
    counts = counts.cpu()
    n = len(names)
    table = counts.double().numpy()
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    shown = [_short(name) for name in names]
    has_names = n <= _MOST_NAMES
    longest = max(map(len, shown)) * 0.075 if has_names else 0.6  # inches
    side = min(max(0.42 * n, 2.5), 13) if has_names else 9.0
    beside = 1.0 if has_names else 5.2
    width, height = longest + side + beside + 0.7, side + longest + 0.9
    figure = new_figure((width, height))
    axes = figure.add_axes(
        ((longest + 0.5) / width, (longest + 0.4) / height, side / width, side / height)
    )
    # A square of at least three pixels for each class; `nearest` keeps single cells in sight.
    picture = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.add_axes(
        (
            (longest + 0.5 + side + 0.12) / width,
            (longest + 0.4) / height,
            0.15 / width,
            side / height,
        )
    )
    figure.colorbar(picture, cax=bar)
    bar.tick_params(labelsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    right = table.trace() / max(table.sum(), 1)
    axes.set_title(f"{int(table.sum())} files, {right:.1%} right", fontsize=10)
    if has_names:
        axes.set_xticks(range(n), shown, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(n), shown, fontsize=8, parse_math=False)
    if n <= _MOST_NUMBERS:
        for row, column in np.ndindex(n, n):
            axes.text(
                column,
                row,
                str(int(table[row, column])),
                ha="center",
                va="center",
                fontsize=8 if table.max() < 1e5 else 6,
                color="black" if shares[row, column] > 0.6 else "white",
            )
    if not has_names:
        lines = ["taken most often for others:", "", *_worst(table, shown)]
        place = (longest + 0.5 + side + 0.9) / width
        figure.text(
            place, 1 - 0.6 / height, "\n".join(lines), fontsize=8, va="top", parse_math=False
        )
    save_figure(figure, path)


def _worst(table: np.ndarray, names: Sequence[str], most: int = 40) -> list[str]:
    """The confusions that happen most often."""
    others = table.copy()
    np.fill_diagonal(others, 0)
    order = np.argsort(-others, axis=None, kind="stable")[:most]
    places = np.stack(np.unravel_index(order, table.shape), axis=1)
    return [
        f"{int(others[row, column])} of {int(table[row].sum())} {names[row]}: as {names[column]}"
        for row, column in places
        if others[row, column]
    ]


def write_curves(
    path: Path, panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], along: str
) -> None:
    """A PNG of curves, whole or not at all: a panel below the other for each quantity.

    panels: by what is drawn ("loss"), then by the curve's name ("train"): pairs of place and value.
    along: what the place is ("step").
    """
    figure = new_figure((7, 0.5 + 2.3 * len(panels)), layout="constrained")
    # A curve has one colour in all panels.
    names = dict.fromkeys(name for curves in panels.values() for name in curves)
    colours = dict(zip(names, itertools.cycle(_COLOURS), strict=False))
    all_axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    for axes, (what, curves) in zip(all_axes, panels.items(), strict=True):
        shown = {}
        for name, points in curves.items():
            x = [place for place, _ in points]
            y = [value for _, value in points]
            colour = colours[name]
            if len(points) > 1000:  # single steps in the background, their means before them
                axes.plot(x, y, color=colour, alpha=0.2, lw=0.5)
                parts = np.array_split(np.arange(len(points)), 200)
                x = [float(np.mean([x[i] for i in part])) for part in parts]
                y = [float(np.mean([y[i] for i in part])) for part in parts]
            mark = "o" if len(points) <= 30 else ""
            [shown[name]] = axes.plot(x, y, color=colour, lw=1.4, marker=mark, ms=3)
        axes.set_ylabel(printable(what))
        _plain(axes, shown)
    all_axes[-1].set_xlabel(along)
    save_figure(figure, path)


def write_few_shot(path: Path, curves: Mapping[str, Mapping[int, Interval]], what: str) -> None:
    """A PNG, whole or not at all: a curve with its intervals for each name, over files a class.

    what: is measured.
    """
    figure = new_figure((7, 4), layout="constrained")
    axes = figure.subplots()
    shown = {}
    # Beside each other where they would lie behind each other.
    for place, (name, points) in enumerate(curves.items()):
        x = [n * 1.03 ** (place - (len(curves) - 1) / 2) for n in points]
        y = [interval.value for interval in points.values()]
        ends = [(i.value - i.low, i.high - i.value) for i in points.values()]
        errors = [[0.0 if math.isnan(end) else end for end in side] for side in zip(*ends)]  # noqa: B905
        colour = _COLOURS[place % len(_COLOURS)]
        shown[name] = axes.errorbar(x, y, errors, color=colour, marker="o", ms=3, lw=1.4, capsize=2)
    ticks = sorted({n for points in curves.values() for n in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training files a class")
    axes.set_ylabel(what)
    _plain(axes, shown)
    save_figure(figure, path)


def new_figure(inches: tuple[float, float], **more: Any) -> Figure:
    """White, of this width and height; more: as matplotlib's Figure takes it."""
    figure = import_for_pictures("matplotlib.figure").Figure(figsize=inches, dpi=110, **more)
    import_for_pictures("matplotlib.backends.backend_agg")
    figure.set_facecolor("white")
    return figure


def _plain(axes: Axes, shown: Mapping[str, Any]) -> None:
    """A grid, no frame, and a legend of what is shown, by its name."""
    axes.grid(color="#dddddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        # matplotlib leaves out names that begin with an underscore, and reads $ as mathematics.
        places = [str(place) for place in range(len(shown))]
        legend = axes.legend(list(shown.values()), places, frameon=False, fontsize=8)
        for text, name in zip(legend.get_texts(), shown, strict=True):
            text.set_parse_math(False)
            text.set_text(printable(name))


def _short(name: str) -> str:
    """One line, at most so long."""
    shown = printable(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def save_figure(figure: Figure, path: Path) -> None:
    """As a PNG, whole or not at all; the same bytes for the same figure."""
    with replacing(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a name; it is drawn as a box
        figure.savefig(file, format="png", metadata={"Software": None})

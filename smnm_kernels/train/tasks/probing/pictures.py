"""Curves over the number of labelled files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

from smnm_kernels.errors import printable
from smnm_kernels.files import replacing
from smnm_kernels.pictures.optional import import_for_pictures
from smnm_kernels.train.metrics.intervals import Interval

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def write_few_shot(path: Path, curves: Mapping[str, Mapping[int, Interval]], what: str) -> None:
    """A PNG, whole or not at all: a curve with its intervals for each name, over files a class.

    what: is measured.
    """
    figure = import_for_pictures("matplotlib.figure").Figure(
        figsize=(7, 4), dpi=110, layout="constrained"
    )
    import_for_pictures("matplotlib.backends.backend_agg")
    figure.set_facecolor("white")
    axes = figure.subplots()
    # Beside each other where they would lie behind each other.
    for place, (name, points) in enumerate(curves.items()):
        x = [n * 1.03 ** (place - (len(curves) - 1) / 2) for n in points]
        y = [interval.value for interval in points.values()]
        ends = [(i.value - i.low, i.high - i.value) for i in points.values()]
        errors = [[0.0 if math.isnan(end) else end for end in side] for side in zip(*ends)]  # noqa: B905
        colour = next(itertools.islice(itertools.cycle(_COLOURS), place, None))
        axes.errorbar(
            x, y, errors, color=colour, marker="o", ms=3, lw=1.4, capsize=2, label=printable(name)
        )
    ticks = sorted({n for points in curves.values() for n in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("training files a class")
    axes.set_ylabel(what)
    axes.grid(color="#dddddd", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format="png", metadata={"Software": None})

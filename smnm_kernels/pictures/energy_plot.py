"""The picture of `smnm spectrum`: power and energy of data and of masks over frequency."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smnm_kernels.analysis.energy import Distribution

from .optional import import_for_pictures
from .page import PAGE, QUIET, TEXT, VISIBLE
from .spectrum_plot import AXIS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

#: Of kinds that are not called after a colour, in turn.
COLOURS = ("#f6c453", "#c792ea", "#46d8e4", "#f78fb3", "#9bb8a8", "#e0986c", "#8fa8ff")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)


@dataclass(frozen=True)
class Column:
    """One way of looking: along some axes."""

    title: str
    data: Distribution
    #: Of the data brought to one value a patch, which is all that masks can follow.
    of_patches: Distribution
    masks: Mapping[str, Distribution]


def paint_energy(columns: Sequence[Column], title: str, notes: Sequence[str]) -> Image.Image:
    """Power above, energy below each frequency underneath; a column a way of looking."""
    width = 4.6 * len(columns) + 2.6
    figure = import_for_pictures("matplotlib.figure").Figure(
        figsize=(width, 7.4), dpi=125, layout="constrained", facecolor=PAGE
    )
    places = figure.subplots(2, len(columns), sharex="col", squeeze=False)
    for above, below, column in zip(places[0], places[1], columns, strict=True):
        _power(above, column)
        _energy(below, column)
    figure.suptitle(_wrapped(title, 8 * width), color=TEXT, fontsize=14, fontweight="bold")
    lines = [_wrapped(note, 12 * width) for note in notes]
    figure.supxlabel("\n".join(lines), color=QUIET, fontsize=10)
    handles, names = places[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside right upper", frameon=False, labelcolor=TEXT, fontsize=11
    )
    file = io.BytesIO()
    figure.savefig(file, format="png")
    # A palette makes the file a third as large.
    return import_for_pictures("PIL.Image").open(file).convert("RGB").quantize(256)


def _wrapped(text: str, letters: float) -> str:
    return textwrap.fill(text, int(letters), break_long_words=False, break_on_hyphens=False)


def _power(place: Axes, column: Column) -> None:
    _style(place)
    place.set_title(column.title, loc="left", color=TEXT, fontsize=12, fontweight="bold")
    place.set_ylabel("power (random masks = 1)", color=QUIET)
    place.set_yscale("log")
    highest = 1.0
    for name, spread, look in _curves(column):
        seen = _from_first(spread)
        place.plot(spread.frequency[seen], spread.power[seen], label=name, **look)
        highest = max(highest, spread.power[seen].max(initial=0))
    # A curve far below the masks says nothing beside them.
    place.set_ylim(1e-4, 2 * highest)


def _energy(place: Axes, column: Column) -> None:
    _style(place)
    place.set_ylabel("share of the energy below", color=QUIET)
    place.set_xlabel("cycles per patch", color=QUIET)
    place.set_ylim(0, 1.02)
    place.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    place.minorticks_off()
    place.set_xlim(0.8 * column.data.frequency[1], 1.1 * column.data.frequency[-1])
    for _, spread, look in _curves(column):
        seen = _from_first(spread)
        place.plot(spread.frequency[seen], spread.below[seen], **look)


def _curves(column: Column) -> list[tuple[str, Distribution, dict[str, Any]]]:
    """(name, curve, how it is drawn): masks behind the data."""
    others = 0
    look: dict[str, Any]
    curves: list[tuple[str, Distribution, dict[str, Any]]] = []
    for kind, spread in column.masks.items():
        colour = kind.removesuffix("2d").removesuffix("3d")
        if colour in ("red", "blue", "green"):
            look = {"color": "#{:02x}{:02x}{:02x}".format(*VISIBLE[colour])}
            look["ls"] = DASHES[kind.endswith("2d")]
        else:
            look = {"color": COLOURS[others % len(COLOURS)], "ls": DASHES[others // len(COLOURS)]}
            others += 1
        curves.append((kind, spread, {**look, "lw": 1.6}))
    curves.append(("data", column.data, {"color": TEXT, "lw": 2.4}))
    look = {"color": TEXT, "lw": 2.0, "ls": (0, (1, 1.2))}
    curves.append(("data, mean\nof each patch", column.of_patches, look))
    return curves


def _from_first(spread: Distribution) -> slice:
    """Without frequency 0, which a logarithmic axis has not; its energy counts below the others."""
    return slice(int(spread.frequency[0] == 0), None)


def _style(place: Axes) -> None:
    place.set_xscale("log")
    place.axvline(0.5, color=AXIS, lw=1)
    place.set_facecolor(PAGE)
    place.tick_params(which="both", color=AXIS, labelcolor=QUIET)
    place.grid(color=AXIS, lw=0.5)
    for spine in place.spines.values():
        spine.set_color(AXIS)

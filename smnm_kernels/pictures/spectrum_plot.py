"""The power spectra of `smnm show --spectrum` (the paper's Figure A.6)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.analysis.spectrum import expected_spectrum, radial_spectrum
from smnm_kernels.arguments import Seed

from .optional import import_for_pictures
from .page import PAGE, QUIET, TEXT, VISIBLE
from .panels import TIMES, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

#: Values transformed at a time: bounds memory at about a hundred megabytes.
CHUNK = 2**21
COLUMNS = 5

AXIS = "#2a3349"
DOTS: dict[str, Any] = {"ls": "", "marker": "o", "ms": 4.5, "mew": 0, "zorder": 3}
EXPECTED: dict[str, Any] = {"ls": "-", "lw": 1.3}
FORMULA: dict[str, Any] = {"ls": (0, (1, 1.5)), "lw": 1.3}
MASKS: dict[str, Any] = {"ls": (0, (5, 2)), "lw": 1.3}


@dataclass(frozen=True)
class Spectra:
    """The curves of one kind: power [n_bins] over frequency [n_bins] in cycles per patch."""

    frequency: np.ndarray
    #: The masks' power, after they are shifted and scaled to zero mean and unit variance.
    masks: np.ndarray
    #: The power of the noise that is thresholded; None, as the next two, if there is no noise.
    noise: np.ndarray | None
    #: The formula's power for this noise, as a window of this size shows it.
    expected: np.ndarray | None
    #: The formula's power for the endless field.
    formula: np.ndarray | None


def spectra(panel: Panel, n_samples: int) -> Spectra:
    """The curves of one kind, from the masks and fields of sample ids 0 to n_samples - 1."""
    # A mask that is repeated over T has one two-dimensional spectrum.
    noise, grid = panel.noise, panel.grid if panel.noise is None else panel.noise.grid
    share = panel.sampler.n_keep / panel.sampler.masks(torch.arange(0)).visible.shape[1]
    deviation = max(share * (1 - share), 1e-12) ** 0.5  # 0 where everything is visible

    def mask_fields(ids: Tensor) -> Tensor:
        visible = panel.sampler.masks(ids).visible.unflatten(1, panel.grid)
        return (visible[:, : grid[0]].float() - share) / deviation

    frequency, masks = _mean_spectrum(mask_fields, n_samples, grid)
    if noise is None:
        return Spectra(frequency, masks, None, None, None)

    def noise_fields(ids: Tensor) -> Tensor:
        return noise.draw(ids, Seed.beside(ids, panel.sampler.seed))

    expected = [
        expected_spectrum(
            grid, noise.color, noise.given_sigma, time_scale=noise.time_scale, window=window
        )[1]
        for window in (True, False)
    ]
    fields = _mean_spectrum(noise_fields, n_samples, grid)[1]
    return Spectra(frequency, masks, fields, *expected)


def _mean_spectrum(
    fields: Callable[[Tensor], Tensor], n_samples: int, grid: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    chunk = max(1, CHUNK // (grid[0] * grid[1] * grid[2]))
    weighted = []
    for ids in torch.arange(n_samples).split(chunk):
        frequency, power = radial_spectrum(fields(ids))
        weighted.append(power * len(ids))
    return frequency, np.sum(weighted, axis=0) / n_samples


def paint_spectra(panels: Sequence[Panel], n_samples: int) -> Image.Image:
    """One diagram for each kind, and one more place for the legend."""
    figure_module, lines_module = (
        import_for_pictures("matplotlib.figure"),
        import_for_pictures("matplotlib.lines"),
    )
    columns = min(COLUMNS, len(panels) + 1)
    rows = -(-(len(panels) + 1) // columns)
    figure = figure_module.Figure(
        figsize=(3.2 * columns, 3.0 * rows), dpi=125, layout="constrained", facecolor=PAGE
    )
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for place in axes.ravel()[len(panels) :]:
        place.set_axis_off()
    highest = 1.0
    for place, panel in zip(axes.ravel(), panels, strict=False):
        lines = spectra(panel, n_samples)
        _diagram(place, panel, lines)
        for power in (lines.masks, lines.noise, lines.expected, lines.formula):
            highest = max(highest, 0 if power is None else power.max(initial=0))

    # Below a thousandth of white noise's power a curve is as good as nothing.
    limits = {"xlim": (0, 0.9), "ylim": (1e-3, 2 * highest)}
    axes[0, 0].set(yscale="log", xticks=(0, 0.2, 0.4, 0.6, 0.8), **limits)
    for place in axes[:, 0]:
        place.set_ylabel("power (white noise = 1)", color=QUIET)
    for i in range(len(panels)):
        if i + columns >= len(panels):  # nothing below
            axes.flat[i].set_xlabel("frequency, cycles per patch", color=QUIET)
            axes.flat[i].tick_params(labelbottom=True)

    handles = [
        lines_module.Line2D([], [], label=label, color=TEXT, **style)
        for label, style in (
            (f"noise, mean of {n_samples}", DOTS),
            ("the formula, as a window\nof this size shows it", EXPECTED),
            ("the formula itself,\n|G₁ \N{MINUS SIGN} G₂|² of the endless field", FORMULA),
            (f"masks, mean of {n_samples}", MASKS),
        )
    ]
    axes.flat[len(panels)].legend(
        handles=handles, loc="center left", frameon=False, labelcolor=TEXT, fontsize=9,
        labelspacing=1.2, borderaxespad=0,
    )  # fmt: skip
    file = io.BytesIO()
    figure.savefig(file, format="png")
    # A palette makes the file a third as large.
    return import_for_pictures("PIL.Image").open(file).convert("RGB").quantize(256)


def _diagram(place: Axes, panel: Panel, lines: Spectra) -> None:
    colour = "#{:02x}{:02x}{:02x}".format(*VISIBLE[panel.color])
    words = [panel.ratio_in_words()]
    if lines.noise is None or lines.expected is None or lines.formula is None:
        words.append("no formula: these masks\ncompete for positions")
    else:
        place.plot(lines.frequency, lines.formula, color=QUIET, **FORMULA)
        place.plot(lines.frequency, lines.expected, color=TEXT, **EXPECTED)
        place.plot(lines.frequency, lines.noise, color=colour, **DOTS)
    place.plot(lines.frequency, lines.masks, color=colour, **MASKS)

    place.text(
        0.04,
        0.05,
        "\n".join(filter(None, words)),
        transform=place.transAxes,
        color=QUIET,
        fontsize=8,
    )
    grid = panel.grid if panel.noise is None else panel.noise.grid
    sides = grid[1:] if grid[0] == 1 else grid
    facts = [TIMES.join(map(str, sides)), panel.sigma_in_words()]
    place.set_title(panel.kind, loc="left", color=TEXT, fontsize=12, fontweight="bold")
    place.set_title("   ".join(filter(None, facts)), loc="right", color=QUIET, fontsize=8)
    place.set_facecolor(PAGE)
    place.tick_params(which="both", color=AXIS, labelcolor=QUIET)
    place.grid(color=AXIS, lw=0.5)
    for spine in place.spines.values():
        spine.set_color(AXIS)

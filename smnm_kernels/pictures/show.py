"""The command `smnm show`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from smnm_kernels.arguments import is_int
from smnm_kernels.errors import UsageError
from smnm_kernels.files import reason, replacing
from smnm_kernels.kinds import KINDS

from .optional import import_for_pictures
from .page import paint_frames, paint_masks
from .panels import AUDIO_KINDS, needs_data, panels
from .spectrum_plot import paint_spectra

if TYPE_CHECKING:
    from PIL import Image

FRAME_MS = 400
FOUR_KINDS = ("green3d", "tube", "random", "rbn")
#: In the order of the panels: three-dimensional kinds above their two-dimensional twins.
ALL_KINDS = ("random", "red3d", "blue3d", "green3d", "rbn", "tube", "red2d", "blue2d", "green2d")


@dataclass(kw_only=True)
class Show:
    """Show masks of one or several kinds in a picture: visible patches bright, masked ones dark.

    Video kinds show their frames in a row, in order of time; a name that ends in .gif plays them.
    Kinds that look at an input (dispersion, activity) are drawn over it: a file, or without --data
    one made by code. With --spectrum, plot the radial power spectrum of each kind beside the curve
    that its formula gives.

    Examples: smnm show green3d tube --grid 8 14 14 --ratio 0.9 --out masks.gif;
    smnm show blue2d green2d --spectrum --sigma 0.5 2; smnm show activity --data speech.wav
    """

    kinds: Positional[tuple[str, ...]] = ()
    """Kinds of mask, as smnm.MaskSampler takes them; or all. Default: green3d tube random rbn, and
    with --spectrum those of noise and rbn."""
    out: Path | None = None
    """File to write, .png or (not with --spectrum) .gif. Default: masks.png or spectra.png."""
    grid: tuple[int, ...] = ()
    """Patches in time, height and width, T H W; H W alone is one frame, as for images and
    spectrograms. Default: 8 14 14, and 32 32 32 with --spectrum."""
    audio_grid: tuple[int, int, int] = (1, 64, 8)
    """Grid of kinds of spectrograms, which need T = 1, when GRID has T > 1: 1, time, mel bands."""
    data: Path | None = None
    """A sound, video or picture, which data-driven kinds look at as the trainer would: 16 values of
    it a patch on each side. Default: bursts of tones, or a moving square where T > 1."""
    mask_ratio: Annotated[float | None, arg(aliases=("--ratio",))] = None
    """Share of patches that is masked, in [0, 1). Default: 0.9, of spectrograms 0.8, for activity
    0.4."""
    n_keep: int | None = None
    """Number of visible patches, instead of a ratio."""
    sigma: tuple[str, ...] = ()
    """Of red, blue and green kinds, in patches: a preset of green noise (variant-1 to variant-5,
    main-text), a number or a range LOW HIGH for red and blue, a pair S1 S2 or two ranges
    LOW1 HIGH1 LOW2 HIGH2 for green. Default: as for smnm.noise."""
    time_scale: tuple[float, ...] = ()
    """Of red3d, blue3d and green3d: sigma along time is so many times sigma. Several numbers draw
    the kind once for each. Default: 1."""
    samples: int | None = None
    """How many masks of each kind are shown (default 1), or with --spectrum averaged over (default
    400)."""
    seed: int = 0
    """Seed of the masks; their sample ids are 0, 1, ..."""
    spectrum: bool = False
    """Plot power spectra instead of masks."""

    def run(self) -> None:
        """Write the picture.

        Raises:
            UsageError: naming the argument, what came and what is allowed.
        """
        out = _parse_out(self.out, self.spectrum)
        default_samples = 400 if self.spectrum else 1
        samples = default_samples if self.samples is None else self.samples
        if not is_int(samples) or samples < 1:
            raise UsageError(f"samples must be a positive int, got {samples!r}")
        grid = _parse_grid(self.grid or ((32, 32, 32) if self.spectrum else (8, 14, 14)))
        if self.grid and grid[0] != 1 and self.kinds and set(self.kinds) <= set(AUDIO_KINDS):
            raise UsageError(f"--grid must be 1 H W for {' and '.join(self.kinds)}, got {grid}")
        kinds = self.kinds or (ALL_KINDS if self.spectrum else FOUR_KINDS)
        if kinds == ("all",):
            kinds = tuple(KINDS)
        elif "all" in kinds:
            raise UsageError(f"kinds: all stands alone, got {' '.join(kinds)}")
        if self.spectrum and (dependent := [k for k in kinds if k in KINDS and needs_data(k)]):
            raise UsageError(
                "kinds must not look at an input with --spectrum, which is a mean over many masks "
                f"of noise, got {', '.join(dependent)}"
            )
        shown = panels(
            kinds,
            grid,
            self.audio_grid,
            self.mask_ratio,
            self.n_keep,
            self.sigma,
            self.seed,
            self.data,
            self.time_scale,
        )
        animated = out.suffix.lower() == ".gif"
        if animated and all(panel.grid[0] == 1 for panel in shown):
            raise UsageError(f"out={out}: a .gif needs a kind whose grid has T > 1; write a .png")
        if self.spectrum:
            picture = _png(paint_spectra(shown, samples))
        elif animated:
            picture = _gif(paint_frames(shown, samples))
        else:
            picture = _png(paint_masks(shown, samples))
        try:
            with replacing(out) as file:
                file.write(picture)
        except OSError as error:
            raise UsageError(f"out={out} cannot be written: {reason(error)}") from error
        print(f"{out}: {', '.join(panel.kind for panel in shown)}")


def _parse_grid(grid: tuple[int, ...]) -> tuple[int, int, int]:
    """(T, H, W)"""
    if len(grid) not in (2, 3):
        raise UsageError(f"--grid must be T H W, or H W for one frame, got {grid}")
    *frames, height, width = grid
    return frames[0] if frames else 1, height, width


def _parse_out(out: Path | None, spectrum: bool) -> Path:
    if out is None:
        return Path("spectra.png" if spectrum else "masks.png")
    allowed = [".png"] if spectrum else [".png", ".gif"]
    if out.suffix.lower() not in allowed:
        raise UsageError(f"out must end in {' or '.join(allowed)}, got {out}")
    if not out.parent.is_dir():
        raise UsageError(f"out must be in a folder that exists, got {out}")
    return out


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _gif(frames: Iterator[Image.Image]) -> bytes:
    # All frames share one palette: with a palette each, colours would flicker.
    none = import_for_pictures("PIL.Image").Dither.NONE
    first = next(frames).quantize(128, dither=none)
    rest = (frame.quantize(palette=first, dither=none) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)
    return file.getvalue()

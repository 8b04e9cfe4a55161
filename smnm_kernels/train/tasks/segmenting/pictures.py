"""Frames under their masks and under what the clusters make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw

from smnm_kernels.files import replacing

from .davis import VOID

_OPACITY = 0.55
_GIF_MS = 120  # a frame
_LINE = 14
_FRAMES = 4  # of a row of the sheet

#: [(title, uint8 [T, h, w, 3])]
Strips = Sequence[tuple[str, np.ndarray]]


def palette() -> np.ndarray:
    """uint8 [256, 3], the colours of DAVIS's and Pascal VOC's annotations: three bits of the number
    at a time, the lowest first, are the next lower bits of red, green and blue."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    for number in range(256):
        for place in range(3):
            for channel in range(3):
                bit = number >> (3 * place + channel) & 1
                colours[number, channel] |= bit << (7 - place)
    return colours


def under(frames: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] in the colours of ids [T, h, w], which are brought to that size; the
    background stays as it is, void becomes white."""
    height, width = frames.shape[1:3]
    rows = np.arange(height) * ids.shape[1] // height
    columns = np.arange(width) * ids.shape[2] // width
    large = ids[:, rows][:, :, columns]
    colours = palette()
    colours[VOID] = 255
    mixed = (1 - _OPACITY) * frames + _OPACITY * colours[large]
    return np.where((large == 0)[..., None], frames, mixed).astype(np.uint8)


def save_gif(path: Path, strips: Strips) -> None:
    """All strips beside each other, frame after frame."""
    pages = []
    for number in range(len(strips[0][1])):
        page = np.concatenate([strip[number] for _, strip in strips], axis=1)
        picture = PIL.Image.new("RGB", (page.shape[1], page.shape[0] + _LINE), "white")
        picture.paste(PIL.Image.fromarray(page), (0, _LINE))
        pen = ImageDraw.Draw(picture)
        for i, (title, strip) in enumerate(strips):
            pen.text((i * strip.shape[2] + 2, 1), title, fill="black")
        pages.append(picture)
    with replacing(path) as file:
        pages[0].save(
            file, format="GIF", save_all=True, append_images=pages[1:], duration=_GIF_MS, loop=0
        )


def sheet(rows: Sequence[tuple[str, Strips]]) -> PIL.Image.Image:
    """One row of some frames of each strip, for each video."""
    made = []
    for name, strips in rows:
        parts = []
        for _, strip in strips:
            places = np.linspace(0, len(strip) - 1, min(_FRAMES, len(strip))).round().astype(int)
            parts.append(np.concatenate(list(strip[places]), axis=1))
        title = f"{name}: " + " | ".join(title for title, _ in strips)
        made.append((title, PIL.Image.fromarray(np.concatenate(parts, axis=0))))
    width = max(picture.width for _, picture in made)
    height = sum(picture.height + _LINE for _, picture in made)
    whole, y = PIL.Image.new("RGB", (width, height), "white"), 0
    pen = ImageDraw.Draw(whole)
    for title, picture in made:
        pen.text((2, y + 1), title, fill="black")
        whole.paste(picture, (0, y + _LINE))
        y += picture.height + _LINE
    return whole

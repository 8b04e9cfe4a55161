"""Masks as pixels: one block for each kind, with its frames or samples as tiles.

Every patch is a square of one colour: bright in the colour of its noise where visible, dark where
masked. Sizes are in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smnm_kernels.errors import UsageError

from .optional import import_for_pictures
from .panels import AUDIO_KINDS, Panel

if TYPE_CHECKING:
    from PIL import Image, ImageFont

Colour = tuple[int, int, int]

PAGE = "#0f1522"
MASKED: Colour = (42, 51, 73)
GRID_LINE: Colour = (25, 32, 49)
TEXT, QUIET = "#f2f4f8", "#98a3b8"
#: Below the sounds that activity masks are made of.
SEGMENT = "#ffc857"
#: The colour of visible patches, by the color of the noise; None is for kinds without noise.
VISIBLE: dict[str | None, Colour] = {
    "white": (246, 242, 230),
    "red": (255, 107, 94),
    "blue": (94, 166, 255),
    "green": (95, 226, 132),
    None: (70, 216, 228),
}

#: Blocks flow into rows at most this wide; patches shrink for it, down to one pixel.
WIDTH = 1680
MARGIN, GAP, SPACE = 40, 14, 44
LARGEST_PATCH = 26
MOST_FRAMES_IN_A_ROW = 16
NAME_SIZE, TEXT_SIZE, LABEL_SIZE = 34, 24, 20
CAPTION_GAP = "   "
LINE, LABEL, SWATCH = 34, 36, 30
HEADER = 56
STRIP = 12
MOST_PIXELS = 50_000_000


@dataclass(frozen=True)
class Tile:
    """One frame of one sample, bool [rows, columns] as it lies on the page."""

    visible: np.ndarray
    label: str
    #: What the mask was made from, as it lies on the page: uint8 [h, w, 3].
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class Block:
    """The part of the page that shows one kind."""

    name: str
    captions: list[str]
    colour: Colour
    rows: list[list[Tile]]
    patch: int
    #: Pixels from one tile of a row to the next.
    step: int
    width: int
    caption_beside_name: bool
    #: Of activity masks, for each column of patches: 0, or k in the k-th sound.
    segments: list[int] | None = None

    @property
    def strip(self) -> int:
        """Pixels below each tile, where sounds are marked."""
        return STRIP if self.segments else 0

    @property
    def title_height(self) -> int:
        return LINE + 14 + (0 if self.caption_beside_name else LINE * len(self.captions))

    @property
    def row_height(self) -> int:
        return self.rows[0][0].visible.shape[0] * self.patch + self.strip + LABEL

    @property
    def tiles_height(self) -> int:
        return len(self.rows) * self.row_height


def paint_masks(panels: Sequence[Panel], n_samples: int) -> Image.Image:
    """All frames of the masks with ids 0 to n_samples - 1: time runs to the right."""
    masks = _masks(panels, n_samples)
    return _paint([_block(*pair, frame=None) for pair in zip(panels, masks, strict=True)], panels)


def paint_frames(panels: Sequence[Panel], n_samples: int) -> Iterator[Image.Image]:
    """One picture for each frame of the same masks, with the kinds beside each other."""
    masks = _masks(panels, n_samples)
    length = max(panel.grid[0] for panel in panels)
    for t in range(length):
        blocks = [_block(*pair, frame=t) for pair in zip(panels, masks, strict=True)]
        yield _paint(blocks, panels, f"{CAPTION_GAP}t = {t} of 0 to {length - 1}")


def _masks(panels: Sequence[Panel], n_samples: int) -> list[np.ndarray]:
    """bool [n_samples, T, H, W] of each panel."""
    # A patch is at least a pixel, so a picture that is too large is known before masks are drawn.
    _check_size(n_samples * sum(math.prod(panel.grid) for panel in panels))
    return [panel.visible(n_samples).numpy() for panel in panels]


def _block(panel: Panel, masks: np.ndarray, frame: int | None) -> Block:
    """The block of one kind: all frames of its masks, or frame ``frame`` alone. Masks with T = 1
    show the same frame at every time."""
    n_samples, length, height, width = masks.shape
    captions = panel.facts()
    is_sound = panel.input.is_sound if panel.input else panel.kind in AUDIO_KINDS
    pictures = None if panel.input is None else panel.input.pixels
    if length == 1 and (height > width or (pictures is not None and is_sound)):
        # A spectrogram is time-major, H = time; people read it with time to the right, low below.
        masks = masks.transpose(0, 1, 3, 2)[:, :, ::-1]
        pictures = None if pictures is None else pictures.transpose(0, 2, 1, 3)[:, ::-1]
        captions = [*captions, "time → mel ↑" if is_sound else "H → W ↑"]
    if panel.segments:
        captions = [*captions, "sounds marked below"]
    across = masks.shape[-1]
    if frame is None and length > 1:
        columns = min(length, MOST_FRAMES_IN_A_ROW)
        names = [f"t = {t}" for t in range(length)]
        rows = []
        for i, sample in enumerate(masks):
            first = [f"sample {i}"] if n_samples > 1 else names[:1]
            rows += _in_rows(sample, first + names[1:], columns, pictures)
    else:
        columns = min(n_samples, max(1, (WIDTH + GAP) // (across * LARGEST_PATCH + GAP)))
        names = [f"sample {i}" if n_samples > 1 else "" for i in range(n_samples)]
        shown = 0 if frame is None else min(frame, length - 1)
        below = None if pictures is None else pictures[[shown] * n_samples]
        rows = _in_rows(masks[:, shown], names, columns, below)
    patch = (WIDTH - (columns - 1) * GAP) // (columns * across)
    patch = min(LARGEST_PATCH, max(1, patch))
    labels = {tile.label for row in rows for tile in row}
    step = GAP + max(across * patch, *(int(_font(LABEL_SIZE).getlength(w)) for w in labels))

    tiles_width = columns * step - GAP
    name_width = _name_width(panel.kind)
    beside = name_width + _text_width(CAPTION_GAP.join(captions)) <= tiles_width
    lines = [name_width] if beside else [name_width, *map(_text_width, captions)]
    return Block(
        name=panel.kind,
        captions=captions,
        colour=VISIBLE[panel.color],
        rows=rows,
        patch=patch,
        step=step,
        width=max(tiles_width, *lines),
        caption_beside_name=beside,
        segments=panel.segments,
    )


def _in_rows(
    frames: np.ndarray, labels: list[str], columns: int, pictures: np.ndarray | None
) -> list[list[Tile]]:
    below = [None] * len(labels) if pictures is None else list(pictures)
    tiles = [Tile(*parts) for parts in zip(frames, labels, below, strict=True)]
    return [tiles[i : i + columns] for i in range(0, len(tiles), columns)]


def _paint(blocks: list[Block], panels: Sequence[Panel], time: str = "") -> Image.Image:
    image_module, image_draw = (
        import_for_pictures("PIL.Image"),
        import_for_pictures("PIL.ImageDraw"),
    )
    places, width, height = _flow(blocks)
    flat = [block.colour for block in blocks if block.rows[0][0].picture is None]
    bright = list(dict.fromkeys(flat)) or [VISIBLE["white"]]
    note = f"seed {int(panels[0].sampler.seed)}{time}"
    legend = [(bright, "visible: goes to the encoder"), ([MASKED], "masked: is reconstructed")]
    header = _text_width(note) + sum(
        SWATCH * len(colours) + _text_width(words) + SPACE for colours, words in legend
    )
    width = max(width, header) + 2 * MARGIN
    _check_size(width * height)
    picture = image_module.new("RGB", (width, height), PAGE)
    pen = image_draw.Draw(picture)

    x, y = MARGIN, MARGIN
    for colours, words in legend:
        for colour in colours:
            pen.rectangle((x, y, x + TEXT_SIZE - 1, y + TEXT_SIZE - 1), fill=colour)
            x += SWATCH
        pen.text((x + 4, y + 12), words, fill=TEXT, font=_font(TEXT_SIZE), anchor="lm")
        x += _text_width(words) + SPACE
    pen.text((width - MARGIN, y + 12), note, fill=QUIET, font=_font(TEXT_SIZE), anchor="rm")

    for block, (left, top) in zip(blocks, places, strict=True):
        base = top - block.title_height + LINE
        pen.text((left, base), block.name, fill=TEXT, font=_font(NAME_SIZE, bold=True), anchor="ls")
        if block.caption_beside_name:
            lines = [(left + _name_width(block.name), base, CAPTION_GAP.join(block.captions))]
        else:
            lines = [(left, base + i * LINE, words) for i, words in enumerate(block.captions, 1)]
        for x, y, words in lines:
            pen.text((x, y), words, fill=QUIET, font=_font(TEXT_SIZE), anchor="ls")
        for i, row in enumerate(block.rows):
            for j, tile in enumerate(row):
                x, y = left + j * block.step, top + i * block.row_height
                pixels = _pixels(tile, block.patch, block.colour)
                picture.paste(image_module.fromarray(pixels), (x, y))
                for first, behind in runs_of_segments(block.segments or []):
                    ends = (x + first * block.patch + 1, x + behind * block.patch - 2)
                    top_of_strip = y + len(pixels) + 3
                    bottom = y + len(pixels) + STRIP - 1
                    pen.rectangle((ends[0], top_of_strip, ends[1], bottom), fill=SEGMENT)
                place = (x, y + len(pixels) + block.strip + 4)
                pen.text(place, tile.label, fill=QUIET, font=_font(LABEL_SIZE), anchor="la")
    return picture


def _flow(blocks: list[Block]) -> tuple[list[tuple[int, int]], int, int]:
    """((x, y) of the first tile of each block, width of the page without margins, its height).
    Blocks stand beside each other while they fit, with their tiles at one height."""
    rows: list[list[tuple[Block, int]]] = []
    x = WIDTH
    for block in blocks:
        if x + block.width > WIDTH or not rows:
            rows.append([])
            x = 0
        rows[-1].append((block, x))
        x += block.width + SPACE

    places, y = [], MARGIN + HEADER
    for row in rows:
        y += max(block.title_height for block, _ in row)
        places += [(MARGIN + x, y) for _, x in row]
        y += max(block.tiles_height for block, _ in row) + GAP
    return places, max(x + block.width for row in rows for block, x in row), y


def _check_size(pixels: int) -> None:
    if pixels > MOST_PIXELS:
        raise UsageError(
            f"kinds, grid and samples need {pixels} pixels, a picture has at most {MOST_PIXELS}: "
            "use a smaller grid, fewer samples or fewer kinds"
        )


def runs_of_segments(segments: Sequence[int]) -> list[tuple[int, int]]:
    """(first, behind the last) column of each sound."""
    last = max(segments, default=0)
    found = [[i for i, k in enumerate(segments) if k == number] for number in range(1, last + 1)]
    return [(columns[0], columns[-1] + 1) for columns in found]


def _pixels(tile: Tile, patch: int, colour: Colour) -> np.ndarray:
    """uint8 [rows * patch, columns * patch, 3]: flat colours, or the picture, dark where masked."""
    seen = tile.visible[..., None].repeat(patch, axis=0).repeat(patch, axis=1)
    bright, dark = np.array(colour, np.uint8), np.array(MASKED, np.uint8)
    if tile.picture is None:
        pixels = np.where(seen, bright, dark)
    else:
        image = import_for_pictures("PIL.Image").fromarray(np.ascontiguousarray(tile.picture))
        pixels = np.asarray(image.resize((seen.shape[1], seen.shape[0])))
        # What is black in the picture must be brighter where it is visible than where it is masked.
        pixels = np.where(seen, 80 + pixels // 3 * 2, dark // 2 + pixels // 6)
    if patch >= 5:  # below that a line would eat too much of the patch
        pixels[patch - 1 :: patch] = GRID_LINE
        pixels[:, patch - 1 :: patch] = GRID_LINE
    return pixels


def _name_width(name: str) -> int:
    return int(_font(NAME_SIZE, bold=True).getlength(name)) + 28


def _text_width(words: str) -> int:
    return int(_font(TEXT_SIZE).getlength(words))


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Pillow's own font lacks the multiplication sign and sigma; the font in matplotlib has both.
    fonts = Path(import_for_pictures("matplotlib").get_data_path()) / "fonts" / "ttf"
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return import_for_pictures("PIL.ImageFont").truetype(str(fonts / name), size)

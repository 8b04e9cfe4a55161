"""Pictures of a report: one held-out file as each run restores it, beside and below each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from smnm_kernels.errors import printable
from smnm_kernels.files import replacing

from .cells import Cell
from .folders import CELLS, PICTURE, StudyFolder
from .listing import masks_in_words
from .plan import StudyPlan
from .rows import Result

_TITLE, _GAP = 22, 6  # pixels
_ONE_COLUMN = 6  # wide pictures, of which more stand in two columns
_WIDEST = 1300  # pixels of narrow ones side by side


def write_restored(
    plan: StudyPlan, finished: Sequence[tuple[Cell, Result]], folder: StudyFolder, out: Path
) -> dict[str, tuple[str, int]]:
    """OUT/restored-DATA.png, of one seed: (file, seed) by data set, where there are pictures.

    The seed is the one of which most runs have a picture, of several the lowest.
    """
    found = {}
    for data in plan.data:
        by_seed: dict[int, list[tuple[str, Path]]] = {}
        for cell, result in finished:
            # Other code may have made the result: its id is another than the cell's.
            path = folder.path / CELLS / result["id"] / PICTURE
            if cell.data == data and path.exists():
                title = f"{cell.run.name}: {masks_in_words(plan, cell)}"
                by_seed.setdefault(cell.seed, []).append((printable(title), path))
        if by_seed:
            seed = max(by_seed, key=lambda seed: (len(by_seed[seed]), -seed))
            file = f"restored-{data}.png"
            with replacing(out / file) as target:
                _together(by_seed[seed]).save(target, format="PNG")
            found[data] = file, seed
    return found


def _together(titled: Sequence[tuple[str, Path]]) -> Image.Image:
    pictures = []
    for _, path in titled:
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    height = _TITLE + _GAP + max(picture.height for picture in pictures)
    font = ImageFont.load_default(size=14)
    longest = max(font.getlength(title) for title, _ in titled)
    width = _GAP + max(int(longest) + 1, *(picture.width for picture in pictures))
    columns = max(1 if len(titled) <= _ONE_COLUMN else 2, min(_WIDEST // width, len(titled)))
    rows = -(-len(pictures) // columns)
    columns = -(-len(pictures) // rows)  # as few as these rows need
    whole = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(whole)
    for number, (picture, (title, _)) in enumerate(zip(pictures, titled, strict=True)):
        row, column = divmod(number, columns)
        x, y = _GAP + column * width, _GAP + row * height
        pen.text((x, y), title, fill="black", font=font)
        whole.paste(picture, (x, y + _TITLE))
    return whole

"""Pictures of samples: what went in, what the encoder saw, what came out."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from smnm_kernels import Masks
from smnm_kernels.train.data.modality import InputFormat, Normalisation, PictureRows
from smnm_kernels.train.data.picture_rows import spectrograms
from smnm_kernels.train.models.objective import Objective

_GAP, _LABEL, _NOTE_SIZE = 4, 84, 13  # pixels
_NARROWEST = 256  # pixels of a spectrogram


@torch.no_grad()
def restored_by(
    objective: Objective,
    model: nn.Module,
    x: dict[str, Tensor],
    masks: dict[str, Masks],
    valid: Mapping[str, Tensor],
    inputs: Mapping[str, InputFormat],
    normalisations: Mapping[str, Normalisation],
    grids: Mapping[str, tuple[int, int, int]],
) -> Image.Image | None:
    """Of samples x, normalised, what the model makes of what masks hide: inputs one below the
    other. None where the objective restores nothing."""
    was_training = model.training
    restored = objective.restore(model.eval(), x, masks, dict(valid))
    model.train(was_training)
    samples = {}
    for name in restored:
        undo, grid = normalisations[name].undo, grids[name]
        visible = masks[name].visible.view(-1, *grid)
        real = valid[name].view(-1, *grid) if name in valid else None
        shown = undo(x[name]), visible, undo(restored[name])
        samples[name] = _rows_of(*shown, inputs[name].picture_rows, real)
    if not samples:
        return None
    widest = max(_NARROWEST, *(_width_of(of_input) for of_input in samples.values()))
    pictures = []
    for name, of_input in samples.items():
        if inputs[name].picture_rows is spectrograms:
            # A step in time is as wide as it can be beside the frames above, or in a picture that
            # one can read.
            times = widest // _width_of(of_input)
            of_input = [[row.repeat(times, axis=1) for row in rows] for rows in of_input]
        pictures.append(_drawn(of_input, objective.picture_row))
    return _with_note(stacked(pictures), objective.picture_note)


def reconstruction(
    raw: Tensor,
    visible: Tensor,
    restored: Tensor,
    rows: PictureRows,
    valid: Tensor | None = None,
    name: str = "restored",
) -> Image.Image:
    """Three rows for each sample. What is not `valid` is grey: nothing was to be restored there.

    raw, restored: float [B, C, T, H, W], values as they were before normalisation.
    visible: bool [B, T', H', W'], the patches that the encoder saw; the grid divides T, H and W.
    valid: likewise.
    name: of the last row.
    """
    return _drawn(_rows_of(raw, visible, restored, rows, valid), name)


def _rows_of(
    raw: Tensor, visible: Tensor, restored: Tensor, rows: PictureRows, valid: Tensor | None
) -> list[list[np.ndarray]]:
    """Of each sample the three rows, uint8 [h, w, 3] each."""
    before, after = (np.nan_to_num(x.cpu().numpy()) for x in (raw, restored))
    seen = _of_values(visible, before.shape)
    if valid is not None:
        inside = _of_values(valid, before.shape)
        before, after = (np.where(inside, x, np.nan) for x in (before, after))
    return [rows(before[i], seen[i], after[i]) for i in range(len(before))]


def _width_of(samples: list[list[np.ndarray]]) -> int:
    return samples[0][0].shape[1]


def _drawn(samples: list[list[np.ndarray]], name: str) -> Image.Image:
    height, width = samples[0][0].shape[:2]
    step = height + _GAP
    block = 3 * step + 2 * _GAP
    picture = Image.new("RGB", (_LABEL + width + _GAP, len(samples) * block), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    names = ("input", "visible", name)
    for i, three in enumerate(samples):
        for j, row in enumerate(three):
            y = i * block + _GAP + j * step
            picture.paste(Image.fromarray(row), (_LABEL, y))
            pen.text((6, y + height // 2), names[j], fill="black", font=font, anchor="lm")
    return picture


def _with_note(picture: Image.Image, note: str) -> Image.Image:
    """The note below, in as many lines as it needs."""
    if not note:
        return picture
    font = ImageFont.load_default(size=_NOTE_SIZE)
    text = "\n".join(textwrap.wrap(note, max(20, 2 * (picture.width - 12) // _NOTE_SIZE)))
    _, _, right, bottom = ImageDraw.Draw(picture).multiline_textbbox((6, 0), text, font)
    size = max(picture.width, int(right) + 6), picture.height + int(bottom) + 6
    whole = Image.new("RGB", size, "white")
    whole.paste(picture, (0, 0))
    ImageDraw.Draw(whole).multiline_text((6, picture.height), text, "black", font)
    return whole


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other."""
    if len(pictures) == 1:
        return pictures[0]
    size = max(picture.width for picture in pictures), sum(p.height for p in pictures)
    whole, y = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        whole.paste(picture, (0, y))
        y += picture.height
    return whole


def _of_values(patches: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """bool [B, T', H', W'] of patches -> of the values [B, C, T, H, W] in them."""
    values = patches.cpu().numpy()[:, None]
    for axis in (2, 3, 4):
        values = values.repeat(shape[axis] // values.shape[axis], axis)
    return np.broadcast_to(values, shape)

"""RUN/reconstruction.png: for a few samples what went in, what the encoder saw, what came out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from smnm_kernels.train.data.modality import PictureRows

_GAP, _LABEL = 4, 84  # pixels


def reconstruction(
    raw: Tensor,
    visible: Tensor,
    restored: Tensor,
    rows: PictureRows,
    valid: Tensor | None = None,
    name: str = "restored",
) -> Image.Image:
    """Three rows for each sample. Where patches are not `valid`, nothing was to be restored.

    raw, restored: float [B, C, T, H, W], values as they were before normalisation.
    visible: bool [B, T', H', W'], the patches that the encoder saw; the grid divides T, H and W.
    valid: likewise.
    name: of the last row.
    """
    before, after = (np.nan_to_num(x.cpu().numpy()) for x in (raw, restored))
    seen = _of_values(visible, before.shape)
    if valid is not None:
        after = np.where(_of_values(valid, before.shape), after, np.nan)
    samples = [rows(before[i], seen[i], after[i]) for i in range(len(before))]

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

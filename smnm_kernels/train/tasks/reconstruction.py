"""RUN/reconstruction.png: for a few samples what went in, what the encoder saw, what came out."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from smnm_kernels.train.data.modality import PictureRows

_ROWS = ("input", "visible", "restored")
_GAP, _LABEL = 4, 84  # pixels


def reconstruction(
    raw: Tensor, visible: Tensor, restored: Tensor, rows: PictureRows
) -> Image.Image:
    """Three rows for each sample.

    raw, restored: float [B, C, T, H, W], values as they were before normalisation.
    visible: bool [B, T', H', W'], the patches that the encoder saw; the grid divides T, H and W.
    """
    before, after = (np.nan_to_num(x.cpu().numpy()) for x in (raw, restored))
    seen = visible.cpu().numpy()[:, None]
    for axis in (2, 3, 4):
        seen = seen.repeat(before.shape[axis] // seen.shape[axis], axis)
    seen = np.broadcast_to(seen, before.shape)
    samples = [rows(before[i], seen[i], after[i]) for i in range(len(before))]

    height, width = samples[0][0].shape[:2]
    step = height + _GAP
    block = 3 * step + 2 * _GAP
    picture = Image.new("RGB", (_LABEL + width + _GAP, len(samples) * block), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for i, three in enumerate(samples):
        for j, row in enumerate(three):
            y = i * block + _GAP + j * step
            picture.paste(Image.fromarray(row), (_LABEL, y))
            pen.text((6, y + height // 2), _ROWS[j], fill="black", font=font, anchor="lm")
    return picture

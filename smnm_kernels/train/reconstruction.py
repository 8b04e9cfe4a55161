"""RUN/reconstruction.png: for a few clips what went in, what the encoder saw, what came out."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from smnm_kernels import Masks

from .model import MaskedAutoencoder

_ROWS = ("input", "visible", "restored")
_GAP, _LABEL = 4, 84  # pixels
_HIDDEN = 0.5  # grey
_MOST_FRAMES = 8

# Perceived brightness rises evenly along these colours (black, violet, red, orange, pale yellow).
_COLOURS = np.array(
    [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], dtype=np.float64
)


@torch.no_grad()
def draw(
    model: MaskedAutoencoder, x: Tensor, masks: Masks, mean: Tensor, scale: Tensor
) -> Image.Image:
    """Picture of clips x, the model's input [B, C, T, H, W]: three rows for each clip.

    mean and scale undo the input normalisation; the per-patch one is undone by the model.
    """
    was_training = model.training
    model.eval()
    pred = model.forward_decoder(model.forward_encoder(x, masks), masks)
    restored = model.restore(x, pred, masks)
    model.train(was_training)

    shown = model.encoder.patchify(torch.ones_like(x)) * masks.visible.unsqueeze(-1)
    visible = model.encoder.unpatchify(shown).bool().cpu().numpy()
    raw, restored = (np.nan_to_num((v.float() * scale + mean).cpu().numpy()) for v in (x, restored))
    clips = [
        _clip_rows(raw[i], visible[i], restored[i]) for i in range(len(raw))
    ]  # B x 3 x [h, w, 3]

    height, width = clips[0][0].shape[:2]
    step = height + _GAP
    block = 3 * step + 2 * _GAP
    picture = Image.new("RGB", (_LABEL + width + _GAP, len(clips) * block), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for i, rows in enumerate(clips):
        for j, row in enumerate(rows):
            y = i * block + _GAP + j * step
            picture.paste(Image.fromarray(row), (_LABEL, y))
            pen.text((6, y + height // 2), _ROWS[j], fill="black", font=font, anchor="lm")
    return picture


def _clip_rows(raw: np.ndarray, visible: np.ndarray, restored: np.ndarray) -> list[np.ndarray]:
    """[C, T, H, W] three times -> three uint8 pictures [h, w, 3]."""
    if raw.shape[0] == 3:
        hidden = np.where(visible, raw, _HIDDEN)
        return [_film_strip(clip) for clip in (raw, hidden, restored)]
    low, high = np.percentile(raw, (1, 99.5))
    spectra = [((clip[0, 0] - low) / max(high - low, 1e-6)) for clip in (raw, restored)]
    pictures = [_coloured(s) for s in spectra]
    seen = _upright(visible[0, 0])[..., None]
    grey = np.uint8(255 * _HIDDEN)
    return [pictures[0], np.where(seen, pictures[0], grey), pictures[1]]


def _film_strip(clip: np.ndarray) -> np.ndarray:
    """RGB in [0, 1], [3, T, H, W] -> up to 8 frames side by side, uint8 [H, w, 3]."""
    frames = clip[:, :: max(1, clip.shape[1] // _MOST_FRAMES)][:, :_MOST_FRAMES]
    pixels = (np.clip(frames, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 3, 0)
    return np.concatenate(list(pixels), axis=1)


def _upright(spectrum: np.ndarray) -> np.ndarray:
    """[time, band] -> time to the right, low bands at the bottom."""
    return spectrum.T[::-1]


def _coloured(spectrum: np.ndarray) -> np.ndarray:
    place = np.clip(_upright(spectrum), 0, 1) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    return (
        np.stack([np.interp(place, stops, c) for c in _COLOURS.T], axis=-1).round().astype(np.uint8)
    )

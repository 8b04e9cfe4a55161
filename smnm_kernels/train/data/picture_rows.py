"""Inputs as a person looks at them: three uint8 pictures [h, w, 3] for what went into a model,
what its encoder saw and what came out. Where the first or the last are nan, they are grey."""

from __future__ import annotations

import numpy as np

_HIDDEN = 0.5  # grey
_MOST_FRAMES = 8

# Perceived brightness rises evenly along these colours (black, violet, red, orange, pale yellow).
_COLOURS = np.array(
    [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], dtype=np.float64
)


def film_strips(raw: np.ndarray, visible: np.ndarray, restored: np.ndarray) -> list[np.ndarray]:
    """RGB in [0, 1], [3, T, H, W] each: up to 8 frames side by side."""
    hidden = np.where(visible, raw, _HIDDEN)
    raw, restored = (np.where(np.isnan(x), _HIDDEN, x) for x in (raw, restored))
    return [_film_strip(clip) for clip in (raw, hidden, restored)]


def _film_strip(clip: np.ndarray) -> np.ndarray:
    frames = clip[:, :: max(1, clip.shape[1] // _MOST_FRAMES)][:, :_MOST_FRAMES]
    pixels = (np.clip(frames, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 3, 0)
    return np.concatenate(list(pixels), axis=1)


def spectrograms(raw: np.ndarray, visible: np.ndarray, restored: np.ndarray) -> list[np.ndarray]:
    """Log-mel [1, 1, time, band] each: time to the right, low bands at the bottom."""
    low, high = np.nanpercentile(raw, (1, 99.5))
    before, after = (
        _where(~np.isnan(s), _to_colours((np.nan_to_num(s[0, 0]) - low) / max(high - low, 1e-6)))
        for s in (raw, restored)
    )
    return [before, _where(visible, before), after]


def _where(shown: np.ndarray, picture: np.ndarray) -> np.ndarray:
    return np.where(_upright(shown[0, 0])[..., None], picture, np.uint8(255 * _HIDDEN))


def _upright(spectrum: np.ndarray) -> np.ndarray:
    return spectrum.T[::-1]


def _to_colours(spectrum: np.ndarray) -> np.ndarray:
    place = np.clip(_upright(spectrum), 0, 1) * (len(_COLOURS) - 1)
    stops = np.arange(len(_COLOURS))
    channels = [np.interp(place, stops, c) for c in _COLOURS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)

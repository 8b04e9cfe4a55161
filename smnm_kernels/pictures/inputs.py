"""What kinds that look at an input get from `smnm show`: a file as the trainer sees it, or
something made by code, brought to the size of a grid of patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.arguments import Grid
from smnm_kernels.errors import Unusable, UsageError
from smnm_kernels.train.data.statistics import (
    AUDIOSET_MEAN,
    AUDIOSET_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
)

#: Values of a patch on each side, and frames of one where there are several.
PATCH, TUBELET = 16, 2
#: Of the frames of a video, at most; fewer where the file is short.
STRIDE = 4


@dataclass(frozen=True)
class Input:
    """One sample."""

    #: As captions call it.
    name: str
    #: What the masks look at: float32 [1, C, T, H, W], normalised as for a model.
    data: Tensor
    #: What is drawn, for each frame of the grid: uint8 [frames, H, W, 3].
    pixels: np.ndarray
    is_sound: bool
    #: Values along T, H and W that are no padding, where some are.
    real: Grid | None = None

    @property
    def patch(self) -> Grid:
        """(t, h, w) values."""
        return self.data.shape[2] // len(self.pixels), PATCH, PATCH


def made_by_code(grid: Grid) -> Input:
    """Bursts of tones where the grid has one frame, else a square that moves."""
    if grid[0] == 1:
        return _of_sound("built-in: bursts of tones", _tone_bursts(*_size(grid)))
    return _of_frames("built-in: a moving square", _moving_square(grid[0], *_size(grid)))


def is_sound_file(path: Path, kind: str, only_sound: bool) -> bool:
    """Whether a kind looks at the sound of this file, and not at its frames.

    Raises:
        UsageError: the file is not there, holds nothing, or not what the kind looks at.
    """
    from smnm_kernels.train.data.decoding import modality_of
    from smnm_kernels.train.data.source import Source

    if not path.is_file():
        raise UsageError(f"--data {path}: is no file")
    try:
        modality = modality_of(Source(path))
    except Unusable as error:
        raise UsageError(f"--data {path}: {error}") from None
    if only_sound and modality == "image":
        raise UsageError(f"--data {path}: is a picture, and {kind} masks need a sound")
    return only_sound or modality == "audio"


def of_file(path: Path, grid: Grid, is_sound: bool) -> Input:
    """The beginning of a sound, a clip from all over a video or its first frame, or a picture; its
    middle, where the grid has another aspect ratio.

    Raises:
        UsageError: it cannot be used.
    """
    try:
        if is_sound:
            mel, (frames, bands) = _log_mel(path, *_size(grid)), _size(grid)
            # With its smallest value, as masks of the trainer see padding. Zeros would be loud.
            padded = np.pad(mel, ((0, frames - len(mel)), (0, 0)), constant_values=mel.min())
            return _of_sound(path.name, padded, (1, len(mel), bands) if len(mel) < frames else None)
        return _of_frames(path.name, _frames(path, grid))
    except Unusable as error:
        raise UsageError(f"--data {path}: {error}") from None


def _size(grid: Grid) -> tuple[int, int]:
    return grid[1] * PATCH, grid[2] * PATCH


def _log_mel(path: Path, frames: int, bands: int) -> np.ndarray:
    """float32 [frames, bands], or fewer frames where the recording is short."""
    from smnm_kernels.train.data import audio, sound, spectrogram
    from smnm_kernels.train.data.source import Source

    source = Source(path)
    record = sound.probe(source, audio.MIN_SECONDS)
    samples = spectrogram.AUDIOMAE.samples(frames)
    read = sound.read(source, record, 0, -(-samples * record["rate"] // sound.RATE))
    return spectrogram.log_mel(sound.resample(read, record["rate"]), bands)[:frames]


def _frames(path: Path, grid: Grid) -> np.ndarray:
    """uint8 [frames, height, width, 3]"""
    from smnm_kernels.train.data import frames
    from smnm_kernels.train.data.decoding import modality_of
    from smnm_kernels.train.data.image import read_pixels
    from smnm_kernels.train.data.source import Source
    from smnm_kernels.train.data.video import usable_stride

    source, size = Source(path), _size(grid)
    count = 1 if grid[0] == 1 else grid[0] * TUBELET
    if modality_of(source) == "image":
        if count > 1:
            raise UsageError(
                f"--data {path}: is a picture, which has one frame; --grid must be H W, got {grid}"
            )
        return _fitted(read_pixels(source), *size)[None]
    record = frames.probe(source, count, "apply")
    begin, length = max(frames.undamaged(record), key=lambda stretch: stretch[1])
    stride = usable_stride(length, count, STRIDE) if count > 1 else 1
    shown = frames.read(source, record, begin, count, stride)
    return np.stack([_fitted(pixels, *size) for pixels in shown])


def _fitted(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of uint8 [h, w, 3], in this aspect ratio and size."""
    h, w = pixels.shape[:2]
    cut_h, cut_w = min(h, max(1, w * height // width)), min(w, max(1, h * width // height))
    top, left = (h - cut_h) // 2, (w - cut_w) // 2
    cut = np.ascontiguousarray(pixels[top : top + cut_h, left : left + cut_w])
    frame = torch.from_numpy(cut).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        frame, (height, width), mode="bilinear", antialias=True
    )
    return resized[0].permute(1, 2, 0).numpy()


def _of_frames(name: str, frames: np.ndarray) -> Input:
    raw = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    shown = frames[:: 1 if len(frames) == 1 else TUBELET]
    return Input(name, (raw - mean) / std, shown, is_sound=False)


def _of_sound(name: str, mel: np.ndarray, real: Grid | None = None) -> Input:
    from smnm_kernels.train.data.picture_rows import spectrograms

    raw = mel[None, None]
    upright, *_ = spectrograms(raw, np.ones(raw.shape, dtype=bool), raw)
    data = (torch.from_numpy(raw)[None] - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)
    # Time downwards and mel to the right again, as the grid lies.
    return Input(name, data, upright[::-1].transpose(1, 0, 2)[None].copy(), True, real)


def _tone_bursts(frames: int, bands: int) -> np.ndarray:
    """float32 [frames, bands]: bursts of tones with overtones above an uneven floor. Only sums and
    products, so that it is the same on every machine."""
    frame, band = np.arange(frames)[:, None], np.arange(bands)[None, :]
    mel = -9 + (frame // PATCH * 5 + band // PATCH * 3) % 7 / 14
    begin, number = frames // 16, 0
    while begin < frames:
        length = frames * (5 + 3 * (number % 3)) // 100 + 1
        lowest = bands * (2 + number * 3 % 7) / 24
        for overtone in range(1, 9):
            distance = np.abs(band - overtone * lowest) * 24 / bands
            tone = np.maximum(0, 1 - distance) * (9 - overtone / 2)
            mel[begin : begin + length] += tone[0]
        begin += length + frames * (6 + 4 * (number % 2)) // 100 + 1
        number += 1
    return mel.astype(np.float32)


def _moving_square(length: int, height: int, width: int) -> np.ndarray:
    """uint8 [frames, height, width, 3]"""
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    frames = np.zeros((length * TUBELET, height, width, 3), dtype=np.uint8)
    frames[..., 0] = 60 + 60 * y // height
    frames[..., 1] = 70 + 50 * x // width
    frames[..., 2] = 110
    side = max(1, min(height, width) // 3)
    checks = (y // 8 + x // 8) % 2 * 120
    for t, frame in enumerate(frames):
        top = (height - side) * t // max(1, len(frames) - 1)
        left = (width - side) * (len(frames) - 1 - t) // max(1, len(frames) - 1)
        part = frame[top : top + side, left : left + side]
        part[...] = np.array([250, 190, 60]) - checks[:side, :side, None]
    return frames

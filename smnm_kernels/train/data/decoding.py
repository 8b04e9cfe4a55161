"""Whole files as the trainer sees them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np

from smnm_kernels.errors import Unusable

from . import frames, sound
from .image import read_pixels
from .media import Kind, opened, reason_of
from .source import Source
from .suffixes import IMAGE
from .view import PixelAspect

ModalityOfFile = Literal["video", "audio", "image"]


def decode(
    path: str | os.PathLike[str] | Source,
    *,
    modality: ModalityOfFile | None = None,
    pixel_aspect: PixelAspect = "apply",
) -> np.ndarray:
    """The whole file as the trainer sees it.

    path: a file, in any format that FFmpeg or Pillow reads.
    modality: what to take from it. By default the video where there is one, as in a film with
        sound, else the sound; a picture where the name or the content is that of one.
    pixel_aspect: "apply" scales the width of a video whose pixels are not square, "ignore" does
        not.

    Returns, as NumPy arrays that are the caller's own:
        video: uint8 [frames, height, width, 3], RGB, every frame in the order in which they are
            shown, turned as the file says; frames of another size than the first are brought to it
        audio: float32 [samples], mono (the mean of the channels) at 16,000 Hz, full scale 1
        image: uint8 [height, width, 3], RGB, turned as its EXIF data say, white where transparent

    Samples are cut from these: a clip from the video's frames, a crop from the picture, an excerpt
    from the sound before it is brought to 16 kHz. Damaged, silent or short files, which a run
    leaves out, are decoded as far as FFmpeg gets.

    Raises FileNotFoundError where there is no such file; smnm_kernels.errors.Unusable, which says
    why, where nothing can be decoded or where a
    value of the sound is no sound (not finite, or beyond 8 times full scale); ValueError for
    another modality or pixel_aspect than those above.
    """
    if modality not in (None, *get_args(ModalityOfFile)):
        raise ValueError(f"modality must be video, audio, image or None, got {modality!r}")
    if pixel_aspect not in get_args(PixelAspect):
        raise ValueError(f"pixel_aspect must be apply or ignore, got {pixel_aspect!r}")
    source = path if isinstance(path, Source) else Source(Path(path))
    if not os.path.exists(source.path):
        raise FileNotFoundError(errno.ENOENT, "there is no file to decode", str(source.path))
    modality = modality or modality_of(source)
    if modality == "image":
        return read_pixels(source)
    if modality == "video":
        return np.stack([*frames.read_all(source, pixel_aspect)])
    return sound.resample(*sound.read_all(source))


def modality_of(source: Source) -> ModalityOfFile:
    """Which of a file's contents comes first; Unusable where there is none."""
    if source.path.suffix.lower() in IMAGE:
        return "image"
    try:
        with av.open(source.url, metadata_errors="replace") as container:
            # FFmpeg's names of pictures: image2 and png_pipe, jpeg_pipe, ...
            if container.format.name == "image2" or container.format.name.endswith("_pipe"):
                return "image"
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise Unusable(f"does not decode ({reason_of(error)})") from error
    return "video" if _holds(source, "video") else "audio"


def _holds(source: Source, kind: Kind) -> bool:
    try:
        with opened(source, kind):
            return True
    except Unusable:
        return False

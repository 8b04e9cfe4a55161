"""How long a sound is by a header that can be trusted: what tells that a file is cut."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

import av

from .source import Source

# Formats whose length FFmpeg reads from a header. Elsewhere it estimates, or looks at the end.
_BY_FFMPEG = frozenset(
    "aiff ape au avi caf flac matroska,webm mov,mp4,m4a,3gp,3g2,mj2 tta w64 wv".split()  # noqa: SIM905
)
# Programs that write a wav into a pipe give it about the most of 31 or 32 bits, or nothing.
_UNKNOWN = (1 << 31) - (1 << 16)


def by_header(
    source: Source, container: Any, stream: Any, seconds: float, frame_samples: int
) -> float | None:
    """Seconds that a file should have of which `seconds` are there, or None where nothing says it.
    `frame_samples`: of a whole frame of the codec."""
    if container.format.name == "wav":
        with source.open() as file:
            missing = _missing_share_of_wav(file)
        return None if missing is None else seconds / (1 - missing)
    if container.format.name == "mp3":
        with source.open() as file:
            frames = _xing_frames(file)
        return frames * frame_samples / stream.codec_context.sample_rate if frames else None
    if container.format.name not in _BY_FFMPEG:
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) == 1 and container.duration is not None:
        return container.duration / av.time_base
    return None


def _missing_share_of_wav(file: BinaryIO) -> float | None:
    """Of the data chunk, where the header gives its size. (FFmpeg's length is that of what is
    there.)"""
    if file.read(4) != b"RIFF":
        return None
    file.seek(12)
    while len(head := file.read(8)) == 8:
        size: int = struct.unpack("<I", head[4:])[0]
        if head[:4] == b"data":
            begin = file.tell()
            there = file.seek(0, os.SEEK_END) - begin
            return max(0.0, 1 - there / size) if 0 < size < _UNKNOWN and there else None
        file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _xing_frames(file: BinaryIO) -> int | None:
    """Number of frames by the Xing or Info header of an mp3. One that was joined has more."""
    head = file.read(10)
    skip = 0
    if head[:3] == b"ID3" and len(head) == 10:
        a, b, c, d = (byte & 127 for byte in head[6:])
        skip = 10 + (a << 21 | b << 14 | c << 7 | d)
    file.seek(skip)
    frame = file.read(256)
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at >= 0 and len(frame) >= at + 12 and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    return None

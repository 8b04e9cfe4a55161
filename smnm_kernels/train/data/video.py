"""Video files: what can be sampled from one, and the reading of one clip. PyAV (FFmpeg) decodes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from torch import Tensor

from smnm_kernels.errors import Unusable

from .crops import Crop
from .modality import InputFormat, Record
from .picture_rows import film_strips
from .sample_randomness import SampleRandomness
from .source import Source
from .statistics import IMAGENET_MEAN, IMAGENET_STD

_CONTAINERS = "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv"
SUFFIXES = frozenset("." + name for name in _CONTAINERS.split())

_READ_ERRORS = (av.error.FFmpegError, OSError, ValueError, EOFError)


def _open(path: Path) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    container = av.open(str(path))
    if not container.streams.video:
        container.close()
        raise Unusable("has no video stream")
    stream = container.streams.video[0]
    # One decoding thread per file: the loader's workers are what runs in parallel.
    stream.thread_type = "NONE"
    return container, stream


def probe(path: Path, frames: int) -> dict[str, int]:
    """Frame count and time stamps of a video of at least `frames`; raises Unusable otherwise.

    Every packet is read but few frames are decoded: the first `frames`, and the end where the
    packets give reason for doubt.
    """
    try:
        container, stream = _open(path)
        with container:
            declared = stream.frames  # 0 where the container does not say (mkv, webm, mpg)
            stamps: list[int | None] = []
            doubtful = declared == 0
            for packet in container.demux(stream):
                if packet.size:
                    stamps.append(packet.pts)
                    doubtful |= packet.is_corrupt
            count = len(stamps)
            if count < 0.9 * declared:
                raise Unusable(f"is truncated: {count} of {declared} frames are there")
            if count < frames:
                raise Unusable(f"is too short: {count} frames, {frames} are needed")
            timed = [s for s in stamps if s is not None]
            # Raw streams and some AVI files carry no usable times: read those by counting frames.
            times = [min(timed), max(timed)] if len(timed) == count else [0, 0]
            if times[0] < times[1]:
                container.seek(times[0], stream=stream)
                decoded = len(list(islice(container.decode(stream), frames)))
                if decoded == frames and doubtful:
                    container.seek(times[1], stream=stream)
                    decoded += sum(1 for _ in container.decode(stream))
        if times[0] >= times[1]:
            container, stream = _open(path)
            with container:
                decoded = count = sum(1 for _ in container.decode(stream))
        if decoded < frames:
            raise Unusable(f"is too short: {decoded} frames decode, {frames} are needed")
        return {"frames": count, "first": times[0], "last": times[1]}
    except _READ_ERRORS as error:
        raise Unusable(f"does not decode ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def usable_stride(total: int, frames: int, stride: int) -> int:
    """The wished stride, or for a shorter file the largest one at which `frames` fit into it."""
    return min(stride, (total - 1) // (frames - 1))


def _decode_from(path: Path, seek_to: int | None) -> Iterator[av.VideoFrame]:
    container, stream = _open(path)
    with container:
        if seek_to is not None:
            container.seek(seek_to, stream=stream)
        yield from container.decode(stream)


def read_frames(
    path: Path, info: dict[str, int], start: int, frames: int, stride: int
) -> np.ndarray:
    """`frames` frames, every `stride`-th from frame `start` on: uint8 [frames, height, width, 3].

    Decoding begins at the key frame before the start, not at the beginning of the file.
    """
    span = (frames - 1) * stride + 1
    first, last = info["first"], info["last"]
    try:
        if first == last:
            chosen = list(islice(_decode_from(path, None), start, start + span, stride))
        else:
            interval = (last - first) / (info["frames"] - 1)
            # Half an interval early, so that rounding never skips the frame that is meant.
            threshold = math.ceil(first + (start - 0.5) * interval)
            # A seek can land late (streams with reordered frames) and uneven time stamps can leave
            # too few frames behind the start: begin earlier then, at last with the first frames.
            earlier = math.floor(threshold - span * interval)
            for seek_to, begin in ((threshold, threshold), (earlier, threshold), (first, first)):
                seek_to = max(seek_to, first)
                decoded = _decode_from(path, seek_to)
                wanted = _not_before(decoded, begin, seek_to == first)
                chosen = list(islice(wanted, 0, span, stride))
                if len(chosen) == frames:
                    break
        if len(chosen) < frames:
            raise Unusable(f"has only {len(chosen)} of {frames} frames behind frame {start}")
        height, width = chosen[0].height, chosen[0].width
        return np.stack([f.to_ndarray(format="rgb24", width=width, height=height) for f in chosen])
    except _READ_ERRORS as error:
        raise Unusable(f"does not decode ({_reason(error)})") from error


def _not_before(
    decoded: Iterator[av.VideoFrame], begin: int, at_first: bool
) -> Iterator[av.VideoFrame]:
    """Frames from time stamp `begin` on; nothing where decoding began later than that."""
    for i, frame in enumerate(decoded):
        if frame.pts is None or (i == 0 and frame.pts > begin and not at_first):
            return
        if frame.pts >= begin:
            yield frame


@dataclass(frozen=True)
class Video:
    """Clips of `frames` frames, every `stride`-th of the file, cropped and resized to size x size.

    A file too short for the stride is read with the largest stride that fits.
    """

    frames: int
    size: int  # pixels
    stride: int
    crop: Crop
    flip: bool  # mirror half of the clips

    name = "video"
    suffixes = SUFFIXES

    @property
    def inputs(self) -> dict[str, InputFormat]:
        size = (3, self.frames, self.size, self.size)
        return {"video": InputFormat(size, IMAGENET_MEAN, IMAGENET_STD, film_strips)}

    def probe(self, source: Source) -> dict[str, int]:
        return probe(source.path, self.frames)

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        u = randomness.uniforms(2 + self.crop.n_uniforms)
        stride = usable_stride(record["frames"], self.frames, self.stride)
        starts = record["frames"] - (self.frames - 1) * stride
        pixels = read_frames(source.path, record, int(u[0] * starts), self.frames, stride)
        clip = self.crop(pixels, self.size, u[1:-1])
        if self.flip and u[-1] < 0.5:
            clip = clip.flip(3)
        return {"video": clip.contiguous()}

    def remarks(self, records: Sequence[Record]) -> list[str]:
        strides = Counter(usable_stride(r["frames"], self.frames, self.stride) for r in records)
        return [
            f"{count} short files are read with a stride of {stride} frames, not {self.stride}"
            for stride, count in sorted(strides.items())
            if stride < self.stride
        ]

"""Clips of video files: which are looked at, and which frames of them become a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from . import frames as frames_of_files
from .augment import RandAugment, RandomErasing, changed
from .crops import CentreCrop, Crop, square_side
from .modality import FixedView, InputFormat, Record, evenly
from .picture_rows import film_strips
from .sample_randomness import AUGMENT, ERASE, SampleRandomness
from .source import Source
from .statistics import IMAGENET_MEAN, IMAGENET_STD
from .suffixes import VIDEO as SUFFIXES
from .view import PixelAspect, View


def usable_stride(total: int, frames: int, stride: int) -> int:
    """The wished stride, or for a shorter file the largest one at which `frames` fit into it."""
    return min(stride, (total - 1) // (frames - 1))


def _place(stretches: list[tuple[int, int]], span: int, u: float) -> int:
    """One of the frames behind which `span` frames, itself among them, lie in one stretch; each is
    as likely."""
    rooms = [(begin, max(0, length - span + 1)) for begin, length in stretches]
    number = int(u * sum(room for _, room in rooms))
    for begin, room in rooms:
        if number < room:
            return begin + number
        number -= room
    raise AssertionError("the stride was chosen so that a clip fits")


#: None: frames that lie `stride` apart. "segments": of all frames, cut into equal segments, one of
#: each (TSN, Wang et al. 2016; VideoMAE for Something-Something v2).
Sampling = Literal["segments"] | None


@dataclass(frozen=True)
class Video:
    """Clips of `frames` frames, every `stride`-th of the file, cropped and resized to size x size.

    A file too short for the stride is read with the largest stride that fits. Frames are augmented
    before they are cropped, boxes are erased from what the model gets. Fixed views are resized as
    the crop resizes: CAV-MAE takes bicubic in training and evaluation alike.
    """

    frames: int
    size: int  # pixels
    stride: int
    crop: Crop
    flip: bool  # mirror half of the clips
    pixel_aspect: PixelAspect = "apply"
    sampling: Sampling = None
    augment: RandAugment | None = None
    erase: RandomErasing | None = None

    name = "video"
    suffixes = SUFFIXES

    @property
    def fixed_crop(self) -> CentreCrop:
        """Of evaluation."""
        return CentreCrop(interpolation=self.crop.interpolation)

    @property
    def inputs(self) -> dict[str, InputFormat]:
        size = (3, self.frames, self.size, self.size)
        return {"video": InputFormat(size, IMAGENET_MEAN, IMAGENET_STD, film_strips)}

    def sized(self, size: tuple[int, int, int, int]) -> Video:
        return replace(self, frames=size[1], size=square_side(size))

    @property
    def probed(self) -> dict[str, Any]:
        return {"frames": self.frames, "pixel_aspect": self.pixel_aspect}

    def probe(self, source: Source) -> dict[str, Any]:
        return frames_of_files.probe(source, self.frames, self.pixel_aspect)

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        n = self.frames if self.sampling == "segments" else 1
        u = randomness.uniforms(n + self.crop.n_uniforms + 1)
        if self.sampling == "segments":
            numbers = self._one_of_each_segment(record, u[:n])
        else:
            numbers = self._stretch(record, u[0])
        return {"video": self.clip(source, record, numbers, u[n:], randomness)}

    def clip(
        self,
        source: Source,
        record: Record,
        numbers: Sequence[int],
        u: np.ndarray,
        randomness: SampleRandomness,
    ) -> Tensor:
        """uint8 [3, n, size, size]: the frames of these numbers, which rise, changed as in training
        by u, float64 [crop.n_uniforms + 1] in [0, 1)."""
        width, height = View.from_list(record["view"]).size
        part = self.crop.part(height, width, self.size, u[:-1])
        changes = self.augment.changes(randomness.apart(AUGMENT)) if self.augment else []
        # One frame after the other: only what is cut from it stays, however large it is.
        shown = frames_of_files.read_numbers(source, record, numbers)
        clip = torch.stack([part.of(changed(p, changes), self.size) for p in shown], dim=1)
        if self.flip and u[-1] < 0.5:
            clip = clip.flip(3)
        clip = clip.contiguous()
        return self.erase(clip, randomness.apart(ERASE)) if self.erase else clip

    def read_fixed(self, source: Source, record: Record, view: FixedView) -> dict[str, Tensor]:
        """Clips from the longest stretch without damage; the short side fills the picture.

        Of segments the same place in each: the middle for one clip alone, else the beginning of
        each `clips`-th of a segment (VideoMAE).
        """
        begin, length = max(frames_of_files.undamaged(record), key=lambda stretch: stretch[1])
        if self.sampling == "segments":
            share = 0.5 if view.clips == 1 else view.clip / view.clips
            numbers = [begin + int(length * (i + share) / self.frames) for i in range(self.frames)]
        else:
            stride = self._stride(record)
            start = begin + evenly(view.clip, view.clips, length - (self.frames - 1) * stride - 1)
            numbers = [start + i * stride for i in range(self.frames)]
        return {"video": self.fixed_clip(source, record, numbers, view)}

    def fixed_clip(
        self, source: Source, record: Record, numbers: Sequence[int], view: FixedView
    ) -> Tensor:
        """As `clip`, with the view's crop and unchanged."""
        width, height = View.from_list(record["view"]).size
        part = self.fixed_crop.along(height, width, view.crop, view.crops)
        shown = frames_of_files.read_numbers(source, record, numbers)
        return torch.stack([part.of(pixels, self.size) for pixels in shown], dim=1)

    def _stretch(self, record: Record, u: float) -> list[int]:
        stride = self._stride(record)
        start = _place(frames_of_files.undamaged(record), (self.frames - 1) * stride + 1, u)
        return [start + i * stride for i in range(self.frames)]

    def _one_of_each_segment(self, record: Record, u: np.ndarray) -> list[int]:
        begin, length = max(frames_of_files.undamaged(record), key=lambda stretch: stretch[1])
        each = length // self.frames  # whole frames; what is left over at the end is not used
        return [begin + i * each + int(u[i] * each) for i in range(self.frames)]

    def _stride(self, record: Record) -> int:
        longest = max(length for _, length in frames_of_files.undamaged(record))
        return usable_stride(longest, self.frames, self.stride)

    def padded(self, record: Record) -> dict[str, tuple[int, int, int]]:
        return {}

    def remarks(self, records: Sequence[Record]) -> list[str]:
        if self.sampling == "segments":
            return []
        strides = Counter(self._stride(record) for record in records)
        return [
            f"{count} short files are read with a stride of {stride} frames, not {self.stride}"
            for stride, count in sorted(strides.items())
            if stride < self.stride
        ]

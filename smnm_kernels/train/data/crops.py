"""Random crops of frames, resized to the model's size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .modality import evenly

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Part:
    """A rectangle of a frame that becomes the model's picture."""

    y: int
    x: int
    height: int
    width: int
    interpolation: Interpolation = "bilinear"

    def of(self, pixels: np.ndarray, size: int) -> Tensor:
        """uint8 [h, w, 3] -> uint8 [3, size, size]."""
        cut = pixels[self.y : self.y + self.height, self.x : self.x + self.width]
        return resize(cut, size, self.interpolation)


class Crop(Protocol):
    """Chooses a part of the frames, the same in each."""

    @property
    def n_uniforms(self) -> int:
        """Uniform random numbers that one crop needs."""

    @property
    def interpolation(self) -> Interpolation:
        """How its parts are resized."""

    def part(self, height: int, width: int, size: int, u: np.ndarray) -> Part:
        """Of frames of this height and width, to be brought to size x size; u holds n_uniforms in
        [0, 1)."""


@dataclass(frozen=True)
class ResizedCrop:
    """A share of the frame's area at a random aspect ratio (width / height), as MAE and its video
    version crop. A side longer than the frame is cut to it."""

    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"

    n_uniforms = 4  # area, aspect, y, x

    def part(self, height: int, width: int, size: int, u: np.ndarray) -> Part:
        area = height * width * (self.area[0] + u[0] * (self.area[1] - self.area[0]))
        low, high = (math.log(a) for a in self.aspect)
        aspect = math.exp(low + u[1] * (high - low))
        w = max(1, min(width, round(math.sqrt(area * aspect))))
        h = max(1, min(height, round(math.sqrt(area / aspect))))
        y, x = int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1))
        return Part(y, x, h, w, self.interpolation)


def square(
    height: int,
    width: int,
    number: int = 0,
    count: int = 1,
    share: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> Part:
    """A square of a share of the short side: number `number` of `count` along the longer side."""
    side = max(1, round(min(height, width) * share))
    y, x = (height - side) // 2, (width - side) // 2
    if height > width:
        y = evenly(number, count, height - side)
    else:
        x = evenly(number, count, width - side)
    return Part(y, x, side, side, interpolation)


@dataclass(frozen=True)
class CentreCrop:
    """No chance: the square in the middle, of a share of the short side."""

    share: float = 1.0
    interpolation: Interpolation = "bilinear"

    n_uniforms = 0

    def part(self, height: int, width: int, size: int, u: np.ndarray) -> Part:
        return self.along(height, width)

    def along(self, height: int, width: int, number: int = 0, count: int = 1) -> Part:
        """Number `number` of `count` such squares along the longer side."""
        return square(height, width, number, count, self.share, self.interpolation)


def interpolation_of(kept: Mapping[str, Any]) -> Interpolation:
    """Of a crop by what a run keeps of it (`asdict`)."""
    return kept.get("interpolation", MultiScaleCrop.interpolation)


def square_side(size: tuple[int, int, int, int]) -> int:
    """Of an input (C, T, H, W) that is made of squares; ValueError where it is not."""
    if size[2] != size[3]:
        raise ValueError(f"pictures of {size[2]} x {size[3]} were asked for; only squares are read")
    return size[2]


def resize(pixels: np.ndarray, size: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """uint8 [h, w, 3] -> uint8 [3, size, size]."""
    frame = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    # On uint8 the resize rounds in integers: the same bytes on every machine and thread count.
    return F.interpolate(frame, (size, size), mode=interpolation, antialias=True)[0]


@dataclass(frozen=True)
class MultiScaleCrop:
    """A share of the short side in either direction, at one of 13 places: VideoMAE's, as in TSN
    (Wang et al. 2016).

    The scales of width and height are the same or neighbours in the list. A side less than 3 pixels
    from the model's size becomes that size, so that the resize leaves it alone.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    n_uniforms = 2  # sizes, place
    interpolation: ClassVar[Interpolation] = "bilinear"

    def part(self, height: int, width: int, size: int, u: np.ndarray) -> Part:
        short = min(height, width)
        sides = [int(short * scale) for scale in self.scales]
        sides = [size if abs(side - size) < 3 else side for side in sides]
        sides = [min(max(side, 1), short) for side in sides]
        pairs = [
            (h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1
        ]
        h, w = pairs[int(u[0] * len(pairs))]
        place_y, place_x = _PLACES[int(u[1] * len(_PLACES))]
        y, x = place_y * ((height - h) // 4), place_x * ((width - w) // 4)
        return Part(y, x, h, w)


# Corners, centre, middles of the edges, and between centre and corners: in quarters of the room.
_PLACES = (
    *((y, x) for y in (0, 2, 4) for x in (0, 2, 4)),
    *((y, x) for y in (1, 3) for x in (1, 3)),
)

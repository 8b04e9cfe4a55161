"""Random crops of frames, resized to the model's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Crop(Protocol):
    """A part of the frames, the same in each, at the size that the model takes."""

    @property
    def n_uniforms(self) -> int:
        """Uniform random numbers that one crop needs."""

    def __call__(self, pixels: np.ndarray, size: int, u: np.ndarray) -> Tensor:
        """uint8 [T, h, w, 3] -> uint8 [3, T, size, size]; u holds n_uniforms in [0, 1)."""


@dataclass(frozen=True)
class ResizedCrop:
    """A share of the frame's area at a random aspect ratio (width / height), as MAE and its video
    version crop. A side longer than the frame is cut to it."""

    area: tuple[float, float]
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    n_uniforms = 4  # area, aspect, y, x

    def __call__(self, pixels: np.ndarray, size: int, u: np.ndarray) -> Tensor:
        _, height, width, _ = pixels.shape
        area = height * width * (self.area[0] + u[0] * (self.area[1] - self.area[0]))
        low, high = (math.log(a) for a in self.aspect)
        aspect = math.exp(low + u[1] * (high - low))
        w = max(1, min(width, round(math.sqrt(area * aspect))))
        h = max(1, min(height, round(math.sqrt(area / aspect))))
        y, x = int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1))
        return resize(pixels[:, y : y + h, x : x + w], size, self.interpolation)


def resize(pixels: np.ndarray, size: int, interpolation: str = "bilinear") -> Tensor:
    """uint8 [T, h, w, 3] -> uint8 [3, T, size, size]."""
    frames = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
    # On uint8 the resize rounds in integers: the same bytes on every machine and thread count.
    return F.interpolate(frames, (size, size), mode=interpolation, antialias=True).transpose(0, 1)


@dataclass(frozen=True)
class MultiScaleCrop:
    """A share of the short side in either direction, at one of 13 places: VideoMAE's, as in TSN
    (Wang et al. 2016).

    The scales of width and height are the same or neighbours in the list. A side less than 3 pixels
    from the model's size becomes that size, so that the resize leaves it alone.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    n_uniforms = 2  # sizes, place

    def __call__(self, pixels: np.ndarray, size: int, u: np.ndarray) -> Tensor:
        _, height, width, _ = pixels.shape
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
        return resize(pixels[:, y : y + h, x : x + w], size)


# Corners, centre, middles of the edges, and between centre and corners: in quarters of the room.
_PLACES = (
    *((y, x) for y in (0, 2, 4) for x in (0, 2, 4)),
    *((y, x) for y in (1, 3) for x in (1, 3)),
)

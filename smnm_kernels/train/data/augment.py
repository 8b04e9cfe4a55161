"""RandAugment on Pillow's operations, and random erasing: pure functions of (seed, sample).

RandAugment (Cubuk et al. 2020) as timm has it under `rand-m7-n4-mstd0.5-inc1`, and as VideoMAE has
it for clips: the same operations with the same strengths on all frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
import PIL.Image
import torch
from PIL import ImageEnhance, ImageOps
from torch import Tensor

from .sample_randomness import SampleRandomness
from .statistics import IMAGENET_MEAN, IMAGENET_STD

Change = Callable[[PIL.Image.Image], PIL.Image.Image]
# (strength from 0 to 10, sign, colour behind the picture) -> the operation.
_Operation = Callable[[float, int, tuple[int, int, int]], Change]

_MOST = 10.0  # strength

_GREY = (128, 128, 128)  # what VideoMAE's code fills with


def _shear_x(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    return _affine((1, sign * 0.3 * strength / _MOST, 0, 0, 1, 0), fill)


def _shear_y(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    return _affine((1, 0, 0, sign * 0.3 * strength / _MOST, 1, 0), fill)


def _translate_x(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    share = sign * 0.45 * strength / _MOST
    return lambda p: _affine((1, 0, share * p.width, 0, 1, 0), fill)(p)


def _translate_y(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    share = sign * 0.45 * strength / _MOST
    return lambda p: _affine((1, 0, 0, 0, 1, share * p.height), fill)(p)


def _affine(matrix: tuple[float, ...], fill: tuple[int, int, int]) -> Change:
    return lambda p: p.transform(
        p.size,
        PIL.Image.Transform.AFFINE,
        matrix,
        resample=PIL.Image.Resampling.BICUBIC,
        fillcolor=fill,
    )


def _rotate(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    degrees = sign * 30 * strength / _MOST
    return lambda p: p.rotate(degrees, PIL.Image.Resampling.BICUBIC, fillcolor=fill)


def _posterize(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    bits = 4 - int(4 * strength / _MOST)  # of 0, which Pillow refuses, a black picture is left
    table = [value >> (8 - bits) << (8 - bits) for value in range(256)]
    return lambda p: p.point(table * 3)


def _solarize(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    return lambda p: ImageOps.solarize(p, 256 - int(256 * strength / _MOST))


def _solarize_add(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
    more = int(110 * strength / _MOST)
    table = [min(255, value + more) if value < 128 else value for value in range(256)]
    return lambda p: p.point(table * 3)


def _enhanced(enhancer: Callable[[PIL.Image.Image], ImageEnhance._Enhance]) -> _Operation:
    def operation(strength: float, sign: int, fill: tuple[int, int, int]) -> Change:
        return lambda p: enhancer(p).enhance(1 + sign * 0.9 * strength / _MOST)

    return operation


def _plain(change: Change) -> _Operation:
    return lambda strength, sign, fill: change


#: timm's "increasing" ones: a larger strength changes more.
OPERATIONS: dict[str, _Operation] = {
    "autocontrast": _plain(ImageOps.autocontrast),
    "equalize": _plain(ImageOps.equalize),
    "invert": _plain(ImageOps.invert),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}


@dataclass(frozen=True)
class RandAugment:
    """`layers` operations drawn with replacement; each is done with probability `prob`, at a
    strength from N(magnitude, spread) cut to [0, 10], in a random direction where it has one."""

    magnitude: float
    layers: int
    spread: float = 0.5
    prob: float = 0.5
    fill: tuple[int, int, int] = _GREY

    def drawn(self, randomness: SampleRandomness) -> list[tuple[str, float, int]]:
        """(name, strength, sign) of the operations of a sample, in their order."""
        u = randomness.uniforms(4 * self.layers).reshape(self.layers, 4)
        names = list(OPERATIONS)
        found = []
        for which, whether, strength, sign in u.tolist():
            if whether < self.prob:
                # A uniform number may be 0, of which there is no quantile.
                value = NormalDist(self.magnitude, self.spread).inv_cdf(max(strength, 2.0**-54))
                value = min(_MOST, max(0.0, value))
                found.append((names[int(which * len(names))], value, -1 if sign < 0.5 else 1))
        return found

    def changes(self, randomness: SampleRandomness) -> list[Change]:
        return [
            OPERATIONS[name](strength, sign, self.fill)
            for name, strength, sign in self.drawn(randomness)
        ]


def changed(pixels: np.ndarray, changes: list[Change]) -> np.ndarray:
    """uint8 [h, w, 3] -> uint8 [h, w, 3]"""
    if not changes:
        return pixels
    picture = PIL.Image.fromarray(pixels)
    for change in changes:
        picture = change(picture)
    return np.array(picture)  # writable, as torch wants it


@dataclass(frozen=True)
class RandomErasing:
    """With probability `prob` a box of noise, the same box in all frames, new noise in each (Zhong
    et al. 2020; VideoMAE's and MAE's, from timm).

    There the noise is N(0, 1) of the normalised picture. Here it is that, rounded to the 256 values
    of a picture and cut where those end: 2.5 to 5% of it on either side.
    """

    prob: float
    area: tuple[float, float] = (0.02, 1 / 3)  # share of the picture
    aspect: tuple[float, float] = (0.3, 1 / 0.3)  # height / width

    def box(self, u: np.ndarray, height: int, width: int) -> tuple[int, int, int, int] | None:
        """(y, x, h, w) from `n_uniforms` numbers; None where nothing is erased."""
        if u[0] >= self.prob:
            return None
        low, high = (math.log(a) for a in self.aspect)
        for first in range(1, self.n_uniforms, 4):
            area, aspect, y, x = u[first : first + 4].tolist()
            area = height * width * (self.area[0] + area * (self.area[1] - self.area[0]))
            aspect = math.exp(low + aspect * (high - low))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
        return None

    n_uniforms = 1 + 4 * 10  # ten tries, as timm

    def __call__(self, clip: Tensor, randomness: SampleRandomness) -> Tensor:
        """uint8 [3, T, H, W], in place."""
        u = randomness.uniforms(self.n_uniforms)
        box = self.box(u, *clip.shape[2:])
        if box is None:
            return clip
        y, x, h, w = box
        shape = (3, clip.shape[1], h, w)
        n = math.prod(shape)
        words = randomness.words(self.n_uniforms + -(-n // 4))[self.n_uniforms :]
        noise = _noise_table()[np.arange(3)[:, None], words.view(np.uint16)[:n].reshape(3, -1)]
        clip[:, :, y : y + h, x : x + w] = torch.from_numpy(noise.reshape(shape))
        return clip


@cache
def _noise_table() -> np.ndarray:
    """uint8 [3, 65536]: quantiles of N(0, 1) of the normalised picture, of each channel."""
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((i + 0.5) / 65536) for i in range(65536)])
    mean, std = (np.array(values)[:, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return np.clip(np.round(255 * (mean + std * quantiles)), 0, 255).astype(np.uint8)

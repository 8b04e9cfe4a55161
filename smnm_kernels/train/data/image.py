"""Pictures: how one is read, and the crop that becomes a sample. Pillow decodes."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL import ImageOps
from torch import Tensor

from smnm_kernels.errors import Unusable

from .augment import RandAugment, RandomErasing, changed
from .crops import CentreCrop, Crop, square_side
from .modality import FixedView, InputFormat, Record
from .picture_rows import film_strips
from .sample_randomness import AUGMENT, ERASE, SampleRandomness
from .source import Source
from .statistics import IMAGENET_MEAN, IMAGENET_STD
from .suffixes import IMAGE as SUFFIXES

# What it warns of is either repaired or raised, too.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# What Pillow's readers raise on damaged files.
_READ_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    KeyError,
    TypeError,
    ArithmeticError,
    EOFError,
    struct.error,
    PIL.Image.DecompressionBombError,
)


def read_pixels(source: Source) -> np.ndarray:
    """The whole picture, turned as its EXIF data say: uint8 [height, width, 3]; raises Unusable.

    Grey and palettes become RGB, 16 bits 8; what is transparent shows white behind it.
    """
    try:
        with source.open() as content, PIL.Image.open(content) as file:
            file.load()
            picture = ImageOps.exif_transpose(file)
            if picture.mode == "F":
                raise Unusable("holds floating-point values, whose range is not known")
            if picture.mode.startswith("I"):
                return _from_16_bits(np.asarray(picture))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                white = PIL.Image.new("RGBA", picture.size, "white")
                picture = PIL.Image.alpha_composite(white, picture)
            return np.array(picture.convert("RGB"))  # writable, as torch wants it
    except PIL.UnidentifiedImageError as error:  # its text names our reader, not the file
        raise Unusable("does not decode (its content is of no known format)") from error
    except _READ_ERRORS as error:
        raise Unusable(f"does not decode ({error or type(error).__name__})") from error


def _from_16_bits(grey: np.ndarray) -> np.ndarray:
    """[h, w] in [0, 65535] -> uint8 [h, w, 3]."""
    if grey.min() < 0 or grey.max() > 65535:
        raise Unusable("holds values of more than 16 bits")
    rounded = (grey.astype(np.uint32) + 128) // 257
    return np.repeat(rounded.astype(np.uint8)[..., None], 3, axis=2)


@dataclass(frozen=True)
class Image:
    """Pictures, cropped and resized to size x size; the model gets them as one frame. What is
    augmented, and erased from, is that (timm)."""

    size: int  # pixels
    crop: Crop
    flip: bool  # mirror half of the samples
    augment: RandAugment | None = None
    erase: RandomErasing | None = None

    name = "image"
    suffixes = SUFFIXES
    # Of evaluation: 7/8 of the short side, as MAE's code has it (224 of 256 pixels).
    fixed_crop = CentreCrop(0.875, "bicubic")

    @property
    def inputs(self) -> dict[str, InputFormat]:
        size = (3, 1, self.size, self.size)
        return {"image": InputFormat(size, IMAGENET_MEAN, IMAGENET_STD, film_strips)}

    def sized(self, size: tuple[int, int, int, int]) -> Image:
        return replace(self, size=square_side(size))

    @property
    def probed(self) -> dict[str, Any]:
        return {}

    def probe(self, source: Source) -> dict[str, int]:
        height, width, _ = read_pixels(source).shape
        return {"width": width, "height": height}

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        u = randomness.uniforms(self.crop.n_uniforms + 1)
        pixels = read_pixels(source)
        height, width, _ = pixels.shape
        part = self.crop.part(height, width, self.size, u[:-1])
        picture = part.of(pixels, self.size)[:, None]
        if self.flip and u[-1] < 0.5:
            picture = picture.flip(3)
        if self.augment:
            pixels = picture[:, 0].permute(1, 2, 0).contiguous().numpy()
            pixels = changed(pixels, self.augment.changes(randomness.apart(AUGMENT)))
            picture = torch.from_numpy(pixels).permute(2, 0, 1)[:, None]
        picture = picture.contiguous()
        return {"image": self.erase(picture, randomness.apart(ERASE)) if self.erase else picture}

    def read_fixed(self, source: Source, record: Record, view: FixedView) -> dict[str, Tensor]:
        pixels = read_pixels(source)
        height, width, _ = pixels.shape
        part = self.fixed_crop.along(height, width, view.crop, view.crops)
        return {"image": part.of(pixels, self.size)[:, None]}

    def padded(self, record: Record) -> dict[str, tuple[int, int, int]]:
        return {}

    def remarks(self, records: Sequence[Record]) -> list[str]:
        return []

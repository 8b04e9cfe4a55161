"""How the frames of a video are shown: at which size, and turned how."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

from smnm_kernels.errors import Unusable

# What is done about pixels that are not square: the width is scaled, or nothing.
PixelAspect = Literal["apply", "ignore"]

# What a wrong header asks for, not a camera.
_MOST_ASPECT = 16
# As far as this from a quarter turn a file's matrix may be, as players and FFmpeg's program see it.
_MOST_TILT = 1.0  # degrees


@dataclass(frozen=True)
class View:
    """Made from a file's first frame. Others that are larger or smaller are brought to its size."""

    lying: tuple[int, int]  # width and height with square pixels, before the frame is turned
    transposed: bool
    flipped: tuple[bool, bool]  # upside down, left to right; after the transposition
    _reformatter: VideoReformatter = field(
        default_factory=VideoReformatter, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, frame: Any, stream: Any, pixel_aspect: PixelAspect) -> View:
        # Width of a pixel by its height, in the frame as it is stored.
        aspect = (pixel_aspect == "apply" and stream.sample_aspect_ratio) or Fraction(1)
        if not 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT:
            raise Unusable(
                f"says that its pixels are {aspect} times as wide as high; "
                "--pixel-aspect ignore reads it nevertheless"
            )
        transposed, flipped = _turn(frame)
        # It is the width, as shown, that is scaled: the height of a frame that lies on its side.
        scale = (Fraction(1), 1 / aspect) if transposed else (aspect, Fraction(1))
        lying = (max(1, int(frame.width * scale[0])), max(1, int(frame.height * scale[1])))
        return cls(lying, transposed, flipped)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what `pixels` gives."""
        width, height = self.lying
        return (height, width) if self.transposed else (width, height)

    def pixels(self, frame: Any) -> np.ndarray:
        """uint8 [height, width, 3]."""
        width, height = self.lying
        is_scaled = self.lying != (frame.width, frame.height)
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgb24",
            # As FFmpeg's program scales. Without scaling this decides how colours are brought to
            # the size of the frame.
            interpolation=Interpolation.BICUBIC if is_scaled else Interpolation.BILINEAR,
            threads=1,  # the loader's workers are what runs in parallel
        )
        pixels = rgb.to_ndarray()
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        upside_down, left_to_right = self.flipped
        return np.ascontiguousarray(
            pixels[:: -1 if upside_down else 1, :: -1 if left_to_right else 1]
        )

    def to_list(self) -> list[Any]:
        """As a file of JSON keeps it."""
        return [*self.lying, self.transposed, *self.flipped]

    @classmethod
    def from_list(cls, kept: list[Any]) -> View:
        width, height, transposed, upside_down, left_to_right = kept
        return cls((width, height), transposed, (upside_down, left_to_right))


def _turn(frame: Any) -> tuple[bool, tuple[bool, bool]]:
    """By the display matrix: whether rows become columns, and what is mirrored then."""
    found = [data for data in frame.side_data if data.type is Type.DISPLAYMATRIX]
    if not found:
        return False, (False, False)
    # A point (x, y), y downwards, is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = np.frombuffer(bytes(found[0]), dtype=np.int32).tolist()
    tilt = math.degrees(math.atan2(b, a)) % 90
    if min(tilt, 90 - tilt) > _MOST_TILT or a * d == b * c:
        raise Unusable(f"is to be shown turned by {tilt:.1f} degrees")
    if abs(a) > abs(b):
        return False, (d < 0, a < 0)
    return True, (b < 0, c < 0)

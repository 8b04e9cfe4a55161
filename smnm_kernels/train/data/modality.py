"""What the trainer asks of a kind of data. Each kind is one file of this room, and nothing outside
that file asks which kind it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from .sample_randomness import SampleRandomness
from .source import Source

Record = dict[str, Any]  # one file: name, size, mtime_ns, digest, and what the probe found

# (raw [C, T, H, W], visible bool of the same shape, restored likewise, NaN where nothing was to be
# restored) -> what went in, what the encoder saw, what came out: three uint8 [h, w, 3] of one size.
PictureRows = Callable[[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class InputFormat:
    """One input of a model."""

    size: tuple[int, int, int, int]  # C, T, H, W
    # A value for each channel; or, of a single one, for each of the W bands of a spectrogram. The
    # model's input is (raw - mean) / scale; raw is in [0, 1] where it was uint8.
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    picture_rows: PictureRows

    def __post_init__(self) -> None:
        """ValueError where mean and scale are neither."""
        channels, bands = self.size[0], self.size[3]
        allowed = (channels, bands) if channels == 1 else (channels,)
        if len(self.mean) not in allowed or len(self.scale) not in allowed:
            raise ValueError(
                f"mean and scale must have {' or '.join(map(str, allowed))} values for an input of "
                f"{self.size}, got {len(self.mean)} and {len(self.scale)}"
            )


def of_inputs(values: dict[str, Any]) -> Any:
    """The value of the only input, or those of several by their names, as files of ours hold
    them."""
    return next(iter(values.values())) if len(values) == 1 else values


@dataclass(frozen=True)
class FixedView:
    """One of the parts of a file that an evaluation looks at: the same ones every time.

    Number `clip` of `clips` that lie evenly along time, and number `crop` of `crops` that lie
    evenly along the longer side of the picture; one alone lies in the middle. Where a file has no
    time, or a spectrogram no sides, all are the same.
    """

    clip: int = 0
    clips: int = 1
    crop: int = 0
    crops: int = 1


def evenly(number: int, count: int, room: int) -> int:
    """The place of `number` of `count` things in [0, room]: first and last at its ends, one alone
    in the middle."""
    return room // 2 if count == 1 else number * room // (count - 1)


class Normalisation:
    """An input's mean and scale on a device, float32 [C, 1, 1, 1] or [1, 1, 1, W]."""

    def __init__(self, given: InputFormat, device: torch.device | str = "cpu") -> None:
        channels = given.size[0]
        self.mean, self.scale = (
            torch.tensor(values, device=device).view(
                (-1, 1, 1, 1) if len(values) == channels else (1, 1, 1, -1)
            )
            for values in (given.mean, given.scale)
        )

    def __call__(self, raw: Tensor) -> Tensor:
        """[B, C, T, H, W] as the loader gives it, on the same device -> the model's float32."""
        if raw.dtype == torch.uint8:
            raw = raw.float() / 255
        return (raw - self.mean) / self.scale

    def undo(self, x: Tensor) -> Tensor:
        """The model's input [..., C, T, H, W] -> raw values, float32."""
        return x.float() * self.scale + self.mean


class Modality(Protocol):
    """A kind of data with its settings: a frozen dataclass whose fields are what a recipe sets.

    An audio-visual kind would have two inputs.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def name(self) -> str:
        """As in `smnm pretrain NAME DATA`."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Of the files that are looked at, lower case, with the dot."""

    @property
    def inputs(self) -> dict[str, InputFormat]:
        """The model's inputs by name."""

    def sized(self, size: tuple[int, int, int, int]) -> Modality:
        """The same with a single input of this size (C, T, H, W); ValueError where there is none
        such."""

    @property
    def probed(self) -> dict[str, Any]:
        """Those of the settings that decide what `probe` finds or refuses."""

    def probe(self, source: Source) -> dict[str, Any]:
        """What `read` needs to know of a file; raises Unusable where nothing can be read."""

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        """One sample of this file: for each input a tensor [C, T, H, W], uint8 or float32.

        A pure function of its arguments and the file; raises Unusable where the file fails.
        """

    def read_fixed(self, source: Source, record: Record, view: FixedView) -> dict[str, Tensor]:
        """As `read`, of a part that no chance decides: nothing is mirrored or changed."""

    def padded(self, record: Record) -> dict[str, tuple[int, int, int]]:
        """Of each input that samples of this file pad at its end: how many values along (T, H, W)
        are real. Empty where nothing is padded, or padding is treated as if it were real."""

    def remarks(self, records: Sequence[Record]) -> list[str]:
        """Lines to print after a scan: what is done with these usable files that may surprise."""

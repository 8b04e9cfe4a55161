"""Weights of other people under our names, with all that builds the model again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, get_args

from ..classifier import HeadSettings
from ..settings import EncoderSettings, ModelSettings, Target
from ..vit import InputSize
from .state import State


@dataclass(frozen=True)
class Told:
    """What a configuration beside weights says of them; None where it says nothing."""

    heads: int | None = None
    norm_eps: float = 1e-6  # of MAE's, AudioMAE's, VideoMAE's and timm's code
    final_norm: bool | None = None
    input_size: InputSize | None = None
    decoder_heads: int | None = None
    decoder_norm_eps: float | None = None  # of its last norm; None: as norm_eps
    target: Target | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    #: Sizes that the weights must have: name -> (as the configuration names it, value).
    sizes: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """ValueError where a value, which people may have written, cannot be."""
        if self.input_size is not None and len(self.input_size) != 4:
            raise ValueError(f"its input_size must be four numbers, got {self.input_size!r}")
        sides = zip(("channels", "frames", "height", "width"), self.input_size or (), strict=False)
        heads = (("heads", self.heads), ("decoder's heads", self.decoder_heads))
        for name, count in (*heads, *sides):
            if count is not None and not (type(count) is int and count > 0):
                raise ValueError(f"its {name} must be a whole number above 0, got {count!r}")
        for eps in (self.norm_eps, self.decoder_norm_eps or 0.0):
            if not (isinstance(eps, (int, float)) and 0 <= eps < 1):
                raise ValueError(f"its eps must be a number in [0, 1), got {eps!r}")
        if self.target not in (None, *get_args(Target)):
            raise ValueError(f"its target must be one of {get_args(Target)}, got {self.target!r}")
        for name, values in (("mean", self.mean), ("scale", self.scale)):
            for value in values or ():
                number = isinstance(value, (int, float)) and math.isfinite(value)
                if not number or (name == "scale" and value <= 0):
                    raise ValueError(
                        f"its {name} must be numbers, of a scale above 0, got {values}"
                    )


@dataclass(frozen=True)
class Head:
    """What fine-tuning put behind an encoder."""

    state: State  # head.weight, head.bias, and fc_norm.weight, fc_norm.bias where pool is "mean"
    settings: HeadSettings
    norm_eps: float = 1e-6  # of fc_norm


@dataclass(frozen=True)
class Weights:
    """A model's weights in our names, and all that builds it."""

    state: State  # "encoder.", and "decoder." where there is a `model`
    encoder: EncoderSettings
    input_size: InputSize
    modality: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    model: ModelSettings | None = None  # where the decoder is there, too
    unmapped: tuple[str, ...] = ()  # tensors of the file that have no place in it
    remarks: tuple[str, ...] = ()  # what is worth knowing, a line each
    clip: dict[str, Any] = field(default_factory=dict)  # the modality's fields, where known
    step: int | None = None  # of the run that made it, where known
    head: Head | None = None  # of a fine-tuning run of ours

    def __post_init__(self) -> None:
        """ValueError where an input cannot be normalised by `mean` and `scale`."""
        channels, bands = self.input_size[0], self.input_size[3]
        allowed = (channels, bands) if channels == 1 else (channels,)  # or of each mel band
        if len(self.mean) not in allowed or len(self.scale) not in allowed:
            raise ValueError(
                f"its input has {channels} channels, and mean and scale {self.mean}, {self.scale}"
            )
        if not all(math.isfinite(x) for x in self.mean) or not all(
            math.isfinite(x) and x > 0 for x in self.scale
        ):
            raise ValueError(
                f"its mean and scale must be numbers, of a scale above 0, got {self.mean} and "
                f"{self.scale}"
            )

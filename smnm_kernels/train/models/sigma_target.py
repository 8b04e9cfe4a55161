"""A frozen encoder whose features SIGMA's model learns to assign."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.modality import InputFormat

from .formats.state import State, digest_of, encoder_part, load_weights
from .positions import Grid
from .pretrained import read_weights, remarks_on
from .resizing import at_size, how_resized
from .settings import EncoderSettings
from .vit import Encoder, InputSize

_EPS = 1e-6  # SIGMA's code
_MODALITIES = ("image", "video")


@dataclass(frozen=True)
class FrozenSettings:
    """The encoder, at the size at which it is used, and what it is given."""

    encoder: EncoderSettings
    input_size: InputSize  # of a picture where it is an encoder of pictures
    # Of each channel: input = raw * scale + shift, raw being the model's own input.
    scale: tuple[float, ...]
    shift: tuple[float, ...]


class FrozenEncoder(nn.Module):
    """Features of clips, token by token of the model's grid.

    forward(x [B, C, T, H, W], the model's input) -> float32 [B, N, dim], without gradients. An
    encoder of pictures gets the first frame of each tubelet. Where it has another number of patches
    in a frame, features are resized bilinearly. Each channel is normalised over the clip's tokens:
    (feature - mean) / (standard deviation + 1e-6) (SIGMA's code).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, settings: FrozenSettings, grid: Grid) -> None:
        super().__init__()
        self.encoder = Encoder(settings.encoder, settings.input_size).requires_grad_(False)
        self.grid = grid
        self.of_pictures = settings.input_size[1] == 1
        self.same_input = set(settings.scale) == {1.0} and set(settings.shift) == {0.0}
        for name in ("scale", "shift"):
            values = torch.tensor(getattr(settings, name)).view(-1, 1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if not self.same_input:
            x = x * self.scale + self.shift
        if self.of_pictures:
            x = x[:, :, :: x.shape[2] // self.grid[0]]
            pictures = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)
            features = self.encoder(pictures)
        else:
            features = self.encoder(x)
        features = self._on_grid(features.float().unflatten(1, (-1, *self.encoder.grid[1:])))
        features = features.reshape(len(x), -1, features.shape[-1])
        std, mean = torch.std_mean(features, 1, keepdim=True)
        return (features - mean) / (std + _EPS)

    def _on_grid(self, features: Tensor) -> Tensor:
        """[B, T, h, w, dim] or, of pictures, [B * T, 1, h, w, dim] -> likewise, as h and w of the
        grid."""
        if features.shape[2:4] == self.grid[1:]:
            return features
        pictures = features.flatten(0, 1).permute(0, 3, 1, 2)
        pictures = F.interpolate(pictures, self.grid[1:], mode="bilinear", align_corners=False)
        return pictures.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Frozen:
    """A frozen encoder that was found."""

    settings: FrozenSettings
    state: State  # of the encoder, under its own names
    digest: str  # of the weights as they were found
    said: tuple[str, ...]  # what is done with it, a line each

    def load(self, model: Any) -> None:
        """Into a model whose `frozen` is of these settings."""
        load_weights(model.frozen.encoder, self.state)


def find_frozen(given: Path, inputs: InputFormat, grid: Grid) -> Frozen:
    """The encoder that `--target GIVEN` means, for a model with this input and grid.

    given: what `read_weights` reads, of pictures or of video.

    Raises:
        UsageError: which names it, where it is none, or its tokens cannot be brought to the grid.
    """
    asked = f"--target {printable(str(given))}"
    try:
        weights = read_weights(given, inputs.size)
        if weights.modality not in _MODALITIES:
            raise ValueError(f"is of {weights.modality}; {' or '.join(_MODALITIES)} is needed")
        if weights.input_size[0] != inputs.size[0]:
            raise ValueError(
                f"takes inputs of {weights.input_size[0]} channels, and the model's have "
                f"{inputs.size[0]}"
            )
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced
            encoder = Encoder(weights.encoder, weights.input_size)
        load_weights(encoder, encoder_part(weights.state))
        frames = encoder.input_size[1] if weights.modality == "image" else inputs.size[1]
        size = (inputs.size[0], frames, *inputs.size[2:])
        how = how_resized(encoder, size)
        encoder = at_size(encoder, size)
        if weights.modality == "video" and encoder.grid[0] != grid[0]:
            raise ValueError(
                f"has {encoder.grid[0]} tubelets of {size[1]} frames, and the model {grid[0]}"
            )
    except ValueError as error:
        raise UsageError(f"{asked}: {printable(str(error))}") from error
    scale = tuple(ours / its for ours, its in zip(inputs.scale, weights.scale, strict=True))
    shift = tuple(
        (ours - its) / width
        for ours, its, width in zip(inputs.mean, weights.mean, weights.scale, strict=True)
    )
    settings = FrozenSettings(encoder.settings, size, scale, shift)
    tubelet = inputs.size[1] // grid[0]
    of = f"frames 0, {tubelet}, ... of a clip" if weights.modality == "image" else "the clip"
    said = [f"the target is {encoder.settings.dim} features a token, of {of}"]
    said += [how] if how else []
    if encoder.grid[1:] != grid[1:]:
        ours, its = (" x ".join(map(str, sides[1:])) for sides in (grid, encoder.grid))
        said.append(f"its features of {its} patches a frame are resized to {ours}, bilinearly")
    return Frozen(
        settings,
        dict(encoder.state_dict()),
        digest_of(weights.state),
        (*remarks_on(weights), *said),
    )

"""AVT's encoder: a ViT for the video, one for the sound, and blocks that fuse their tokens.

AVT: Zhu, Efficient Selective Audio Masked Multimodal Bottleneck Transformer (2024,
arXiv 2401.04154). Its code is not public; what the paper leaves open is named as our choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .audio_video_encoder import MODALITIES, each_alone, mean_of
from .contrast import normalised
from .encoder_file import loaded
from .fusion import Fusion, FusionSettings
from .settings import EncoderSettings
from .vit import Encoder, InputSize, select_tokens

FORMAT = "smnm-avt-encoder-1"


@dataclass(frozen=True)
class FusedEncoderSettings:
    """The encoders' blocks and those behind them are of one shape each."""

    video: EncoderSettings
    audio: EncoderSettings
    fusion: FusionSettings = field(default_factory=FusionSettings)

    @property
    def dim(self) -> int:
        return self.video.dim

    def of(self, name: str) -> EncoderSettings:
        """The encoder of "video" or "audio"."""
        return {"video": self.video, "audio": self.audio}[name]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FusedEncoderSettings:
        """Back from JSON, where tuples are lists."""
        return cls(
            EncoderSettings.from_dict(values["video"]),
            EncoderSettings.from_dict(values["audio"]),
            FusionSettings(**values["fusion"]),
        )


class FusedEncoder(nn.Module):
    """What an AVT run exports. `inputs`, and whatever belongs to them, are dicts by "video" and
    "audio": float32 [B, C, T, H, W] of clips and [B, 1, 1, frames, bands] of spectrograms,
    normalised as the file's metadata say. Either may be missing: the other one's tokens go through
    their own blocks alone.
    """

    def __init__(
        self, settings: FusedEncoderSettings, input_sizes: Mapping[str, InputSize]
    ) -> None:
        """Raises ValueError where patches do not fill an input, or widths differ."""
        super().__init__()
        self.settings = settings
        self.encoders = nn.ModuleDict(
            {name: Encoder(settings.of(name), input_sizes[name]) for name in MODALITIES}
        )
        self.fusion = Fusion(settings.fusion, {name: settings.of(name) for name in MODALITIES})
        # One for the tokens of both (MBT's code).
        self.norm = nn.LayerNorm(settings.dim, eps=settings.video.norm_eps)

    @property
    def input_sizes(self) -> dict[str, InputSize]:
        """(C, T, H, W) of each input."""
        return {name: self.branch(name).input_size for name in MODALITIES}

    @property
    def checkpoint_activations(self) -> bool:
        """Whether activations are computed again for the backward pass instead of kept."""
        return self.fusion.checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, again: bool) -> None:
        self.fusion.checkpoint_activations = again
        for name in MODALITIES:
            self.branch(name).checkpoint_activations = again

    def branch(self, name: str) -> Encoder:
        """The encoder of one input."""
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def own(
        self, name: str, x: Tensor, seen: Tensor | None = None, ids: Tensor | None = None
    ) -> Tensor:
        """One input's tokens before fusion, [B, n, dim]: of its patches `ids`, int64 [B, n], or of
        all. A class token, which an encoder may have, takes part in its blocks and goes no
        further.

        seen: bool [B, n], those that are attended to.
        """
        encoder = self.branch(name)
        patches = encoder.patchify(x)
        if ids is not None:
            patches = select_tokens(patches, ids)
        first = encoder.class_tokens
        attended = None if seen is None else F.pad(seen, (first, 0), value=True)
        return encoder.encode(patches, ids, attended)[:, first:]

    def tokens(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Features of all patches of each input that is given, [B, N, dim], behind fusion.

        valid: bool [B, N] of inputs with padding: tokens that are not valid are attended to by
            none. Their own features mean nothing.
        """
        own, seen = each_alone(self.own, inputs, valid)
        return {name: self.norm(x) for name, x in self.fusion(own, seen).items()}

    def embed(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """What is compared between inputs: [B, dim] of length 1 of each input that is given, the
        mean of its (valid) tokens before fusion."""
        own, seen = each_alone(self.own, inputs, valid)
        return {name: normalised(mean_of(x, seen.get(name))) for name, x in own.items()}

    def forward(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        return self.tokens(inputs, valid)


def fused_encoder_metadata(encoder: FusedEncoder, **more: str) -> dict[str, str]:
    """What `load_fused_encoder` needs to build the module again."""
    shape = {"input_sizes": encoder.input_sizes, "settings": asdict(encoder.settings)}
    return {"format": FORMAT, "encoder": json.dumps(shape), **more}


def empty_fused_encoder(shape: Mapping[str, Any]) -> FusedEncoder:
    """What the metadata describe under "encoder", with weights that wait for a file's."""
    c_t_h_w = {name: tuple(size) for name, size in shape["input_sizes"].items()}
    with torch.random.fork_rng(devices=[]):
        return FusedEncoder(FusedEncoderSettings.from_dict(shape["settings"]), c_t_h_w)


def load_fused_encoder(path: str | Path) -> FusedEncoder:
    """The FusedEncoder that a run of --objective avt exported as RUN/encoder.safetensors, in eval
    mode on the CPU. The file's metadata `mean` and `scale` hold the normalisation of each input.

    Raises:
        ValueError: where the file is none; it names the file.
    """
    return loaded(path, FORMAT, "--objective avt", empty_fused_encoder)

"""A head on an encoder of clips with sound: what fine-tuning trains, and its file.

As CAV-MAE fine-tunes (Gong et al. 2023): the mean of the tokens of all inputs, those of both
together, goes through a new norm and one linear layer. With one input alone CAV-MAE's joint block
takes that input's own norms.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .audio_video_encoder import mean_of
from .classifier import HEAD, NORM_EPS, HeadSettings, drop_path_rates, real_patches
from .encoder_file import read, save_tensors
from .joint_encoders import (
    JointEncoder,
    depth_of,
    joint_encoder_like,
    joint_metadata,
    layer_of,
    unread,
)
from .vit import Block, joined_seen

FORMAT = "smnm-audio-video-classifier-1"
_ENCODER_FORMAT, _INPUTS = "encoder_format", "inputs"  # keys in the metadata

#: Which inputs a model looks at.
Modalities = Literal["both", "audio", "video"]


def inputs_of(modalities: Modalities) -> tuple[str, ...]:
    """Names of the inputs, video first."""
    if modalities not in get_args(Modalities):
        allowed = ", ".join(get_args(Modalities))
        raise ValueError(f"modalities must be one of {allowed}, got {modalities!r}")
    return ("video", "audio") if modalities == "both" else (modalities,)


class JointClassifier(nn.Module):
    """forward(inputs {name: [B, C, T, H, W]}, real {name: int64 [B, 3]}) -> [B, outputs].

    real: of inputs that may be padded, how many values along (T, H, W) are no padding; patches of
        padding alone are neither attended to nor in the mean. Where none of a sample's patches is
        real, all count.
    """

    def __init__(
        self,
        encoder: JointEncoder,
        head: HeadSettings,
        inputs: tuple[str, ...],
        *,
        drop_path: float = 0.0,
        head_std: float = 0.02,
        seed: int = 0,
    ) -> None:
        """`encoder` becomes a part of it; what of it these inputs do not read is not trained.

        Raises ValueError where the head wants a class token.
        """
        super().__init__()
        if head.pool != "mean":
            raise ValueError(f"pool must be mean for clips with sound, got {head.pool!r}")
        self.head_settings, self.inputs = head, inputs
        self.encoder = encoder
        self.fc_norm = nn.LayerNorm(encoder.settings.dim, eps=NORM_EPS)
        self.head = nn.Linear(encoder.settings.dim, head.outputs)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=head_std, generator=generator)
        nn.init.zeros_(self.head.bias)
        for part in unread(encoder, inputs):
            part.requires_grad_(False)
        rates = drop_path_rates(depth_of(encoder), drop_path)
        for name, module in encoder.named_modules():
            if isinstance(module, Block):
                module.drop_path = rates[layer_of(encoder, f"{name}.") - 1]

    @property
    def depth(self) -> int:
        return depth_of(self.encoder)

    def layer_of(self, name: str) -> int:
        """Of a parameter, for layer-wise rates: 0 before the blocks, depth + 1 behind them."""
        within = name.removeprefix("encoder.")
        return self.depth + 1 if within == name else layer_of(self.encoder, within)

    def forward(self, inputs: dict[str, Tensor], real: dict[str, Tensor] | None = None) -> Tensor:
        given = {name: inputs[name] for name in self.inputs}
        seen = self.seen(real or {})
        tokens = self.encoder.tokens(given, seen)
        return self.of_tokens(tokens, seen)

    def of_tokens(self, tokens: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
        """Outputs [B, outputs] of the encoder's tokens {name: [B, N, dim]}, `seen` as `self.seen`
        gives it."""
        together = torch.cat(list(tokens.values()), dim=1)
        return self.head(self.fc_norm(mean_of(together, joined_seen(tokens, seen))))

    def seen(self, real: dict[str, Tensor]) -> dict[str, Tensor]:
        """bool [B, N], of these inputs the patches that hold anything real."""
        found = {}
        for name in self.inputs:
            if name in real:
                seen = real_patches(real[name], self.encoder.branch(name))
                found[name] = seen | ~seen.any(1, keepdim=True)
        return found

    def predict(self, inputs: dict[str, Tensor], real: dict[str, Tensor] | None = None) -> Tensor:
        """Normalised inputs -> what `HeadSettings.predictions` makes of them; `real` as in
        forward."""
        return self.head_settings.predictions(self(inputs, real))


def save_joint_classifier(model: JointClassifier, path: Path, metadata: dict[str, str]) -> None:
    """Write it with the metadata, whole or not at all."""
    held = joint_metadata(model.encoder, **metadata)
    own = {
        "format": FORMAT,
        _ENCODER_FORMAT: held["format"],
        _INPUTS: json.dumps(model.inputs),
        HEAD: json.dumps(asdict(model.head_settings)),
    }
    save_tensors(model, path, held | own)


def load_joint_classifier(path: str | Path) -> JointClassifier:
    """The model of RUN/classifier.safetensors of clips with sound, in eval mode on the CPU.

    `predict` takes {"video": float32 [B, 3, T, H, W], "audio": float32 [B, 1, 1, frames, bands]},
    of `model.inputs`, normalised as the file's metadata `mean` and `scale` say by these names.

    Raises:
        ValueError: where the file is none; it names the file.
    """
    held, state = read(path)
    if held.get("format") != FORMAT:
        raise ValueError(
            f"path must be a classifier of clips with sound ({FORMAT}), got {path} of format "
            f"{held.get('format')!r}"
        )
    try:
        encoder = joint_encoder_like(held | {"format": held[_ENCODER_FORMAT]})
        head = json.loads(held[HEAD])
        settings = HeadSettings(**head | {"names": tuple(head["names"])})
        model = JointClassifier(encoder, settings, tuple(json.loads(held[_INPUTS])))
        model.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: its tensors do not fit its metadata: {error}") from error
    return model.eval()

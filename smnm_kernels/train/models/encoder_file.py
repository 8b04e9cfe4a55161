"""encoder.safetensors: the encoder that a run exports, with all that builds it again.

Tensors are named as in `Encoder.state_dict()`; the metadata holds the format's name, the input size
and the settings. Files of the format before (smnm_kernels 0.1) are read, too.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .settings import EncoderSettings
from .vit import Encoder, InputSize

FORMAT = "smnm-encoder-2"
_FORMAT_1 = "smnm-encoder-1"


def encoder_metadata(encoder: Encoder, **more: str) -> dict[str, str]:
    """What `load_encoder` needs to build the module again, as safetensors metadata (strings)."""
    shape = {"input_size": encoder.input_size, "settings": encoder.settings.to_dict()}
    return {"format": FORMAT, "encoder": json.dumps(shape), **more}


def load_encoder(path: str | Path) -> Encoder:
    """The Encoder that a run exported as RUN/encoder.safetensors, in eval mode on the CPU.

    It takes float32 [B, C, T, H, W], normalised as the file's metadata says (`mean`, `scale`: the
    input is (raw - mean) / scale, pictures and video raw being RGB in [0, 1]), and gives the
    patches' features [B, N, dim]; a class token is left out.

    Raises:
        ValueError: where the file is no encoder of this package; it names the file.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from error
    shape = json.loads(metadata.get("encoder", "{}"))
    if metadata.get("format") == FORMAT:
        settings, input_size = EncoderSettings.from_dict(shape["settings"]), shape["input_size"]
    elif metadata.get("format") == _FORMAT_1:
        settings, input_size = _settings_1(shape), shape["input_size"]
        state = {_name_1(name): t for name, t in state.items()}
        state["patch_embed.weight"] = _channel_slowest(
            state["patch_embed.weight"], channels=input_size[0]
        )
    else:
        raise ValueError(
            f"path must be an encoder exported by smnm ({FORMAT} or {_FORMAT_1}), "
            f"got {path} of format {metadata.get('format')!r}"
        )
    encoder = Encoder(settings, _input_size(input_size))
    encoder.load_state_dict(state)
    return encoder.eval()


def _input_size(lengths: list[int]) -> InputSize:
    c, t, h, w = lengths
    return c, t, h, w


def _settings_1(shape: dict) -> EncoderSettings:
    return EncoderSettings(
        patch=tuple(shape["patch"]),
        dim=shape["dim"],
        depth=shape["depth"],
        heads=shape["heads"],
        positions="axes",
        class_token=False,
        key_bias=True,
    )


def _name_1(name: str) -> str:
    name = re.sub(r"^(blocks\.\d+)\.(qkv|proj)\.", r"\1.attn.\2.", name)
    return re.sub(r"^(blocks\.\d+)\.(fc1|fc2)\.", r"\1.mlp.\2.", name)


def _channel_slowest(weight: Tensor, channels: int) -> Tensor:
    """In format 1 the channel ran fastest within a patch."""
    return weight.unflatten(1, (-1, channels)).transpose(1, 2).flatten(1)

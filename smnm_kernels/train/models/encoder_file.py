"""encoder.safetensors: the encoder that a run exports, with all that builds it again.

Tensors are named as in `Encoder.state_dict()`; the metadata holds the format's name, the input size
and the settings. Files of the format before (smnm_kernels 0.1) are read, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from smnm_kernels.files import replacing

from .settings import EncoderSettings
from .vit import Encoder, InputSize

FORMAT = "smnm-encoder-2"
#: Where an encoder of one input is wanted.
OF_CLIPS_WITH_SOUND = (
    "is an encoder of clips with their sound: smnm finetune audio-video and smnm retrieve take it"
)
_FORMAT_1 = "smnm-encoder-1"

Module = TypeVar("Module", bound=nn.Module)


def encoder_metadata(encoder: Encoder, **more: str) -> dict[str, str]:
    """What `load_encoder` needs to build the module again, as safetensors metadata (strings)."""
    shape = {"input_size": encoder.input_size, "settings": encoder.settings.to_dict()}
    return {"format": FORMAT, "encoder": json.dumps(shape), **more}


def save_tensors(module: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a module's state with these metadata, whole or not at all."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    with replacing(path) as file:
        file.write(safetensors_bytes(tensors, metadata))


def metadata_of(path: str | Path) -> dict[str, str]:
    """Empty where it has none; ValueError, which names the file, where it is no safetensors."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from error


def read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """(metadata, tensors); errors as `metadata_of`."""
    metadata = metadata_of(path)
    with safe_open(str(path), framework="pt") as file:
        return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def loaded(
    path: str | Path, format_name: str, exported_by: str, empty: Callable[[dict[str, Any]], Module]
) -> Module:
    """The module that `empty` makes of what the metadata have under "encoder", with the file's
    weights, in eval mode on the CPU.

    Raises:
        ValueError: where the file is of another format, or its tensors do not fit; it names the
            file.
    """
    metadata, state = read(path)
    if metadata.get("format") != format_name:
        raise ValueError(
            f"path must be an encoder exported by {exported_by} ({format_name}), got {path} of "
            f"format {metadata.get('format')!r}"
        )
    try:
        module = empty(json.loads(metadata["encoder"]))
        module.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: its tensors do not fit its metadata: {error}") from error
    return module.eval()


def step_of(path: Path) -> int | None:
    """The step of the run that wrote the file, -1 where it does not say; None where there is no
    file."""
    return int(metadata_of(path).get("step", -1)) if path.exists() else None


def load_encoder(path: str | Path) -> Encoder:
    """The Encoder that a run exported as RUN/encoder.safetensors, in eval mode on the CPU.

    It takes float32 [B, C, T, H, W], normalised as the file's metadata says (`mean`, `scale`: the
    input is (raw - mean) / scale, pictures and video raw being RGB in [0, 1]), and gives the
    patches' features [B, N, dim]; a class token is left out.

    Raises:
        ValueError: where the file is no encoder of this package; it names the file.
    """
    metadata, state = read(path)
    if metadata.get("modality") == "audio-video":
        raise ValueError(f"{path}: {OF_CLIPS_WITH_SOUND}")
    if metadata.get("format") not in _READERS:
        raise ValueError(
            f"path must be an encoder exported by smnm ({' or '.join(_READERS)}), "
            f"got {path} of format {metadata.get('format')!r}"
        )
    encoder_of = _READERS[metadata["format"]]
    try:
        return encoder_of(json.loads(metadata["encoder"]), state).eval()
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: its tensors do not fit its metadata: {error}") from error


def empty_encoder(shape: dict[str, Any]) -> Encoder:
    """What the metadata describe under "encoder", with weights that wait for a file's."""
    return Encoder(EncoderSettings.from_dict(shape["settings"]), _input_size(shape))


def _read_2(shape: dict[str, Any], state: dict[str, Tensor]) -> Encoder:
    encoder = empty_encoder(shape)
    encoder.load_state_dict(state)
    return encoder


def _read_1(shape: dict[str, Any], state: dict[str, Tensor]) -> Encoder:
    encoder = Encoder(_settings_1(shape), _input_size(shape))
    state = {_name_1(name): tensor for name, tensor in state.items()}
    state["patch_embed.weight"] = _channel_slowest(
        state["patch_embed.weight"], channels=encoder.input_size[0]
    )
    encoder.load_state_dict(state)
    return encoder


_READERS: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Encoder]] = {
    FORMAT: _read_2,
    _FORMAT_1: _read_1,
}


def _input_size(shape: dict[str, Any]) -> InputSize:
    c, t, h, w = shape["input_size"]
    return c, t, h, w


def _settings_1(shape: dict[str, Any]) -> EncoderSettings:
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

"""The encoders of clips with sound, whichever it is: their files, their layers, what of them an
input reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import audio_video_encoder, avt_encoder
from .audio_video_encoder import (
    MODALITIES,
    AudioVideoEncoder,
    AudioVideoSettings,
    audio_video_metadata,
    empty_audio_video_encoder,
    load_audio_video_encoder,
)
from .avt_encoder import (
    FusedEncoder,
    FusedEncoderSettings,
    empty_fused_encoder,
    fused_encoder_metadata,
    load_fused_encoder,
)
from .encoder_file import metadata_of
from .vit import InputSize

#: Both give tokens(inputs, valid) -> {name: [B, N, dim]}, of either input or of both.
JointEncoder = AudioVideoEncoder | FusedEncoder
JointSettings = AudioVideoSettings | FusedEncoderSettings

_EMPTY: dict[str, Callable[[dict[str, Any]], JointEncoder]] = {
    audio_video_encoder.FORMAT: empty_audio_video_encoder,
    avt_encoder.FORMAT: empty_fused_encoder,
}
_READERS: dict[str, Callable[[str | Path], JointEncoder]] = {
    audio_video_encoder.FORMAT: load_audio_video_encoder,
    avt_encoder.FORMAT: load_fused_encoder,
}


def joint_metadata(encoder: JointEncoder, **more: str) -> dict[str, str]:
    """What `load_joint_encoder` needs to build the module again."""
    if isinstance(encoder, AudioVideoEncoder):
        return audio_video_metadata(encoder, **more)
    return fused_encoder_metadata(encoder, **more)


def load_joint_encoder(path: str | Path) -> JointEncoder:
    """CAV-MAE's or AVT's encoder, in eval mode on the CPU.

    Raises:
        ValueError: where the file is none; it names the file.
    """
    found = metadata_of(path).get("format")
    if found not in _READERS:
        raise ValueError(
            f"path must be an encoder of clips with sound ({' or '.join(_READERS)}), got {path} of "
            f"format {found!r}"
        )
    return _READERS[found](path)


def new_joint_encoder(
    settings: JointSettings, input_sizes: dict[str, InputSize], seed: int
) -> JointEncoder:
    """With the seed's weights. torch's own random stream stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(settings, AudioVideoSettings):
            return AudioVideoEncoder(settings, input_sizes)
        return FusedEncoder(settings, input_sizes)


def joint_encoder_like(metadata: dict[str, str]) -> JointEncoder:
    """What `joint_metadata` describe, with weights that wait for a file's."""
    return _EMPTY[metadata["format"]](json.loads(metadata["encoder"]))


_OWN_BLOCK = re.compile(r"(?:branches|encoders)\.(\w+)\.blocks\.(\d+)\.")
_SHARED_BLOCK = re.compile(r"(?:joint|fusion\.blocks\.\w+)\.(\d+)\.")
_OWN_START = re.compile(r"(?:branches|encoders)\.\w+\.(?:patch_embed|cls_token|modality)\b")


def own_depth(encoder: JointEncoder) -> int:
    """Blocks of the deeper one of the two inputs' own."""
    return max(encoder.settings.of(name).depth for name in MODALITIES)


def depth_of(encoder: JointEncoder) -> int:
    """Blocks that an input goes through."""
    settings = encoder.settings
    shared = (
        settings.joint_depth if isinstance(settings, AudioVideoSettings) else settings.fusion.blocks
    )
    return own_depth(encoder) + shared


def layer_of(encoder: JointEncoder, name: str) -> int:
    """Of a parameter or block ("....blocks.3."), for rates by layer: 0 before the blocks, then
    counted so that the first block that both inputs share, or fuse in, has one number; depth + 1
    behind all blocks."""
    own = own_depth(encoder)
    if found := _OWN_BLOCK.match(name):
        return own - encoder.settings.of(found[1]).depth + int(found[2]) + 1
    if found := _SHARED_BLOCK.match(name):
        return own + int(found[1]) + 1
    if _OWN_START.match(name):
        return 0
    if name.startswith("encoders."):  # a norm behind own blocks
        return own
    return own + 1 if name == "fusion.bottleneck" else depth_of(encoder) + 1


def unread(encoder: JointEncoder, inputs: tuple[str, ...]) -> list[nn.Module]:
    """What has no part in the tokens of these inputs, one of them or both together."""
    others = [name for name in MODALITIES if name not in inputs]
    if isinstance(encoder, FusedEncoder):
        return [part[name] for name in others for part in (encoder.encoders, encoder.fusion.blocks)]
    joint = [block for block in encoder.joint]
    if not others:
        return [encoder.norms, *(block.get_submodule("norms") for block in joint)]
    found: list[nn.Module] = [encoder.norm]
    found += [block.get_submodule(norm) for block in joint for norm in ("norm1", "norm2")]
    for name in others:
        found += [encoder.branches[name], encoder.norms[name]]
        found += [block.get_submodule(f"norms.{name}") for block in joint]
    return found

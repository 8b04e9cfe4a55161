"""An encoder as an evaluation uses it: frozen, with the clips and the normalisation it was trained
on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.modality import InputFormat, Modality
from smnm_kernels.train.models.pretrained import UNTRAINED, Pretrained, find_encoder
from smnm_kernels.train.models.settings import ModelSettings
from smnm_kernels.train.models.vit import Encoder, InputSize
from smnm_kernels.train.tasks.presets import Preset

# Fields of the modality in pretraining that say how a file is read when chance has no part in it.
# Sizes follow from the encoder.
_KEPT = ("stride", "pixel_aspect", "padding")


@dataclass(frozen=True)
class Frozen:
    """One encoder of a comparison."""

    name: str  # as it was given
    origin: str
    digest: str  # of weights and settings
    encoder: Encoder  # float32, eval mode, without gradients
    clip: Modality
    input: InputFormat  # with the encoder's own normalisation

    @property
    def input_name(self) -> str:
        return next(iter(self.clip.inputs))

    def normalisation(self) -> dict[str, Any]:
        return {"mean": list(self.input.mean), "scale": list(self.input.scale)}


def find_frozen(
    given: Sequence[str | Path],
    modality: str,
    preset: Preset,
    seed: int,
    overrides: dict[str, Any],
) -> list[Frozen]:
    """The encoders that were asked for, in their order.

    "none" has the architecture and the clips of the first of them that is something, else those of
    `preset`. `overrides` are fields of the modality that were given as options; None is not given.

    Raises UsageError, which names it, where one is no encoder of this modality.
    """
    trained = next((one for one in given if str(one) != UNTRAINED), None)
    clip, untrained = preset.clip, preset.objective.model  # type: ignore[attr-defined]
    kept: dict[str, Any] = {}
    if trained is not None:
        [inputs] = clip.inputs.values()
        first = find_encoder(trained, modality, inputs, untrained, seed)
        clip = _clip_of(first.encoder.input_size, clip, first.clip, str(trained))
        untrained = replace(untrained, encoder=first.encoder.settings)
        kept = first.clip
    return [_freeze(str(one), modality, clip, untrained, seed, kept, overrides) for one in given]


def _freeze(
    given: str,
    modality: str,
    clip: Modality,
    untrained: ModelSettings,
    seed: int,
    kept: dict[str, Any],
    overrides: dict[str, Any],
) -> Frozen:
    [inputs] = clip.inputs.values()
    found: Pretrained = find_encoder(given, modality, inputs, untrained, seed)
    own = _clip_of(found.encoder.input_size, clip, found.clip or kept, given)
    own = replace(own, **{k: v for k, v in overrides.items() if v is not None})
    [form] = own.inputs.values()
    if form.size != found.encoder.input_size:  # by an override
        found = found.at_size(form.size, f"--encoder {printable(given)}")
    encoder = found.encoder.eval().requires_grad_(False)
    form = replace(form, mean=tuple(found.mean), scale=tuple(found.scale))
    return Frozen(given, found.origin, digest_of(encoder), encoder, own, form)


def _clip_of(size: InputSize, like: Modality, kept: dict[str, Any], given: str) -> Modality:
    """The modality whose samples have this size (C, T, H, W)."""
    names = {field.name for field in fields(like)}
    _, t, h, w = size
    sides = {"frames": t, "size": h} if "size" in names else {"frames": h, "bands": w}
    own = {name: kept[name] for name in _KEPT if name in kept and name in names}
    clip = replace(like, **{k: v for k, v in {**sides, **own}.items() if k in names})
    [form] = clip.inputs.values()
    if tuple(form.size) != tuple(size):
        raise UsageError(
            f"--encoder {printable(given)}: takes inputs of (C, T, H, W) = {tuple(size)}, which "
            f"{clip.name} files are not read as (nearest: {tuple(form.size)})"
        )
    return clip


def digest_of(module: nn.Module) -> str:
    """Of an encoder's settings and every weight: 16 bytes in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(module, Encoder):
        said = {"input_size": module.input_size, "settings": asdict(module.settings)}
        digest.update(json.dumps(said, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

"""An encoder as an evaluation uses it: frozen, with the clips and the normalisation it was trained
on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.modality import InputFormat, Modality
from smnm_kernels.train.models.formats.state import digest_of
from smnm_kernels.train.models.pretrained import UNTRAINED, Pretrained, find_encoder
from smnm_kernels.train.models.settings import EncoderSettings, ModelSettings
from smnm_kernels.train.models.vit import Encoder, InputSize
from smnm_kernels.train.tasks.presets.preset import Preset

# Fields of the modality in pretraining that say how a file is read when chance has no part in it.
# Sizes follow from the encoder.
_KEPT = ("stride", "pixel_aspect", "padding", "front")


@dataclass(frozen=True)
class Frozen:
    """One encoder of a comparison."""

    name: str  # as it was given
    origin: str
    digest: str  # of the weights
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
    """The encoders that were asked for, by --encoder the first and by --against the others.

    "none" has the architecture, clips and normalisation of the first of them that is something,
    else those of `preset`. `overrides` are fields of the modality that were given as options; None
    is not given.

    Raises UsageError, which names it, where one is no encoder of this modality.
    """
    names = [str(one) for one in given]
    options = {name: "--encoder" if name == names[0] else "--against" for name in names}
    clip, model = preset.clip, preset.objective.model  # type: ignore[attr-defined]
    [inputs] = clip.inputs.values()
    trained = {
        name: find_encoder(name, modality, inputs, model, seed, option=options[name])
        for name in dict.fromkeys(names)
        if name != UNTRAINED
    }
    kept: dict[str, Any] = {}
    if not trained and isinstance(clip, Audio) and clip.measures:
        raise UsageError(
            f"--encoder {UNTRAINED}: the preset's sounds are normalised by what pretraining "
            "measures in its data; give a pretrained encoder, and --against none"
        )
    if trained:
        name, first = next(iter(trained.items()))
        asked = f"{options[name]} {printable(name)}"
        kept, clip = first.clip, _clip_of(first.encoder.input_size, clip, first.clip, asked)
        model = _untrained(model, first.encoder.settings)
        [inputs] = clip.inputs.values()
        inputs = replace(inputs, mean=tuple(first.mean), scale=tuple(first.scale))
    frozen = {}
    for name in dict.fromkeys(names):
        found = trained.get(name) or find_encoder(name, modality, inputs, model, seed)
        frozen[name] = _freeze(name, options[name], found, clip, found.clip or kept, overrides)
    return [frozen[name] for name in names]


def _untrained(model: ModelSettings, encoder: EncoderSettings) -> ModelSettings:
    """What an encoder of these settings is made by.

    Positions that come with weights would be zeros without them: codes by axis take their place.
    The decoder has no part in the encoder's weights, and must suit any grid.
    """
    if encoder.positions == "given":
        encoder = replace(encoder, positions="axes")
    decoder = replace(model.decoder, positions="axes", window=None)
    return replace(model, encoder=encoder, decoder=decoder)


def _freeze(
    name: str,
    option: str,
    found: Pretrained,
    like: Modality,
    kept: dict[str, Any],
    overrides: dict[str, Any],
) -> Frozen:
    asked = f"{option} {printable(name)}"
    clip = _clip_of(found.encoder.input_size, like, kept, asked)
    clip = replace(clip, **{k: v for k, v in overrides.items() if v is not None})
    [form] = clip.inputs.values()
    if form.size != found.encoder.input_size:  # by an override
        found = found.at_size(form.size, asked)
    encoder = found.encoder.eval().requires_grad_(False)
    form = replace(form, mean=tuple(found.mean), scale=tuple(found.scale))
    return Frozen(name, found.origin, digest_of(encoder.state_dict()), encoder, clip, form)


def _clip_of(size: InputSize, like: Modality, kept: dict[str, Any], asked: str) -> Modality:
    """The modality whose samples have this size (C, T, H, W)."""
    names = {field.name for field in fields(like)}
    own = {name: kept[name] for name in _KEPT if name in kept and name in names}
    if kept and "front" in names:
        own.setdefault("front", None)  # an encoder from before there were others
    try:
        clip = replace(like, **own).sized(size)
    except ValueError:
        clip = like
    [form] = clip.inputs.values()
    if tuple(form.size) != tuple(size):
        raise UsageError(
            f"{asked}: takes inputs of (C, T, H, W) = {tuple(size)}, which "
            f"{clip.name} files are not read as (such as {tuple(form.size)})"
        )
    return clip

"""The weights with which CAV-MAE begins where it continues from an MAE of pictures."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from smnm_kernels.train.data.modality import InputFormat

from .audio_video_encoder import MODALITIES, AudioVideoSettings
from .cav_mae_model import CavMaeSettings
from .formats.state import State, digest_of, with_key_bias
from .formats.weights import Weights
from .initial import Start
from .settings import DecoderSettings

# What must be the same, as all that decides the tensors' shapes.
_BLOCKS = ("dim", "heads", "mlp_ratio")
_DECODER = ("dim", "depth", "heads", "embed_bias", "window", "mlp_ratio")


def start_from_pictures(
    weights: Weights, model: CavMaeSettings, inputs: Mapping[str, InputFormat]
) -> Start:
    """As CAV-MAE's code begins with MAE. The first blocks go to both branches, the last ones to the
    joint blocks, all sets of norms included. The kernel of the spectrogram's patches is the sum
    over RGB, with the picture's rows as bands. Positions and eps are the model's own.

    Our choices, where its code has no rule or does not fit: a kernel for tubelets is the picture's,
    shared out evenly among the frames; predictions of all frames begin as the picture's, those of
    the spectrogram as red's.

    Raises:
        ValueError: where the encoder is of another shape.
    """
    _check_shape(weights, model.encoder)
    state = with_key_bias(weights.state, model.encoder.video.key_bias)
    said = ["blocks and patches of the picture's encoder are taken for both branches and the joint"]
    said.append("positions are made by the model's rule")
    if weights.encoder.class_token:
        said.append("the class token is left out")
    if not weights.encoder.final_norm:
        said.append("the norms behind the joint block start anew: it has none")
    video = inputs["video"]
    if (weights.mean, weights.scale) != (video.mean, video.scale):
        said.append(
            f"it was trained on inputs (raw - {weights.mean}) / {weights.scale}, and gets "
            f"(raw - {video.mean}) / {video.scale}"
        )
    ours = _patches(state, model.encoder) | _blocks(state, model.encoder)
    if weights.encoder.final_norm:
        for name, t in _below(state, "encoder.norm.").items():
            ours[f"encoder.norm.{name}"] = t
            ours |= {f"encoder.norms.{modality}.{name}": t for modality in MODALITIES}
    why_not = _why_no_decoder(weights, model.decoder)
    if why_not:
        said.append(f"the decoder starts anew: {why_not}")
    else:
        ours |= _decoder(state, model.encoder)
        said.append("the decoder's weights are taken")
    ours = {name: t.clone() for name, t in ours.items()}
    return Start(ours, model, digest_of(weights.state), tuple(said))


def _check_shape(weights: Weights, model: AudioVideoSettings) -> None:
    theirs, branch = weights.encoder, model.video
    found = {name: (getattr(theirs, name), getattr(branch, name)) for name in _BLOCKS}
    found["depth"] = theirs.depth, branch.depth + model.joint_depth
    found["patch"] = theirs.patch, (1, *branch.patch[1:])
    others = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    if others:
        raise ValueError(
            "its encoder has "
            + ", ".join(f"{name} {there}" for name, (there, _) in others.items())
            + ", and for the model it must have "
            + ", ".join(f"{name} {here}" for name, (_, here) in others.items())
        )
    if model.audio.patch != theirs.patch:
        raise ValueError(
            f"its encoder has patch {theirs.patch}, and the model's audio {model.audio.patch}"
        )


def _below(state: State, prefix: str) -> State:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _of_audio(t: Tensor, model: AudioVideoSettings) -> Tensor:
    """[..., one channel's h * w] of a picture with bands as rows -> of our time-major one."""
    _, h, w = model.audio.patch
    return t.unflatten(-1, (h, w)).transpose(-1, -2).flatten(-2)


def _patches(state: State, model: AudioVideoSettings) -> State:
    kernel = state["encoder.patch_embed.weight"].unflatten(1, (3, 1, -1))  # [dim, 3, 1, h * w]
    frames = model.video.patch[0]
    ours = {
        "video": kernel.expand(-1, -1, frames, -1).flatten(1) / frames,
        "audio": _of_audio(kernel.sum((1, 2)), model),
    }
    found = {}
    for name in MODALITIES:
        found[f"encoder.branches.{name}.patch_embed.weight"] = ours[name]
        found[f"encoder.branches.{name}.patch_embed.bias"] = state["encoder.patch_embed.bias"]
    return found


def _blocks(state: State, model: AudioVideoSettings) -> State:
    found: State = {}
    for i in range(model.video.depth):
        for name, t in _below(state, f"encoder.blocks.{i}.").items():
            found |= {f"encoder.branches.{m}.blocks.{i}.{name}": t for m in MODALITIES}
    for i in range(model.joint_depth):
        for name, t in _below(state, f"encoder.blocks.{model.video.depth + i}.").items():
            found[f"encoder.joint.{i}.{name}"] = t
            if name.startswith("norm"):
                found |= {f"encoder.joint.{i}.norms.{m}.{name}": t for m in MODALITIES}
    return found


def _why_no_decoder(weights: Weights, ours: DecoderSettings) -> str:
    """Empty where it fits."""
    if weights.model is None:
        return "there is none"
    theirs = weights.model.decoder
    others = [name for name in _DECODER if getattr(theirs, name) != getattr(ours, name)]
    if not others:
        return ""
    there = ", ".join(f"{name} {getattr(theirs, name)}" for name in others)
    here = ", ".join(f"{name} {getattr(ours, name)}" for name in others)
    return f"it has {there}, and the model {here}"


def _decoder(state: State, model: AudioVideoSettings) -> State:
    kept = _below(state, "decoder.")
    found = {
        f"decoder.{name}": t
        for name, t in kept.items()
        if not name.startswith("pred.") and name != "pos_embed"
    }
    frames = model.video.patch[0]
    for name in ("weight", "bias"):
        rows = kept[f"pred.{name}"].unflatten(0, (3, 1, -1))  # [3, 1, h * w, ...]
        shape = [-1, frames, *[-1] * (rows.ndim - 2)]
        found[f"decoder.pred.video.{name}"] = rows.expand(shape).flatten(0, 2)
        red = rows[0, 0].movedim(0, -1)
        found[f"decoder.pred.audio.{name}"] = _of_audio(red, model).movedim(-1, 0)
    return found

"""The weights with which pretraining begins where it continues from another model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from smnm_kernels.train.data.modality import InputFormat

from .formats.state import (
    State,
    digest_of,
    encoder_part,
    encoder_state,
    load_weights,
    with_key_bias,
)
from .formats.weights import Weights
from .resizing import at_size, how_resized, positions_at
from .settings import DecoderSettings, ModelSettings
from .vit import Encoder, InputSize

# Of an encoder and of a decoder, what must be the same: all that decides the tensors' shapes.
_ENCODER = ("patch", "dim", "depth", "heads", "class_token", "mlp_ratio")
_DECODER = ("dim", "depth", "heads", "embed_bias", "window", "mlp_ratio")


@dataclass(frozen=True)
class Start:
    state: State  # of the model, without what starts from random weights
    model: Any  # settings of the model that the state is for
    digest: str  # of the weights that it comes from
    said: tuple[str, ...]  # what is taken and what is not, a line each

    def load(self, model: nn.Module) -> None:
        """Into a new model of these settings."""
        load_weights(model, {**model.state_dict(), **self.state})


def start_from(
    weights: Weights, model: ModelSettings, inputs: InputFormat, decoder: bool = True
) -> Start:
    """`model` with the weights' positions and eps, and as much of their tensors as fits.

    decoder: whether the model's restores patches, as the weights' does.

    Raises:
        ValueError: where the encoder is of another shape, or does not fit the input.
    """
    theirs, ours = weights.encoder, model.encoder
    others = [name for name in _ENCODER if getattr(theirs, name) != getattr(ours, name)]
    if others:
        raise ValueError(
            "its encoder has "
            + ", ".join(f"{name} {getattr(theirs, name)}" for name in others)
            + ", the model "
            + ", ".join(f"{name} {getattr(ours, name)}" for name in others)
        )
    encoder, how = encoder_at(weights, inputs)
    state = with_key_bias(encoder_state(encoder), ours.key_bias)
    said = ["the encoder's weights are taken", *how]
    if ours.final_norm and not theirs.final_norm:
        said.append("the norm behind its last block starts anew: it has none")
    said += other_inputs(weights, inputs)
    changed = replace(
        ours, positions=encoder.settings.positions, norm_eps=encoder.settings.norm_eps
    )
    if decoder:
        settings, of_decoder, line = _decoder_of(weights, model.decoder, inputs.size)
    else:
        settings, of_decoder = model.decoder, {}
        line = "the decoder starts anew: it is to predict other things than patches"
    return Start(
        {**state, **of_decoder},
        replace(model, encoder=changed, decoder=replace(settings, norm_eps=changed.norm_eps)),
        digest_of(weights.state),
        (*said, line),
    )


def encoder_at(weights: Weights, inputs: InputFormat) -> tuple[Encoder, list[str]]:
    """The weights' encoder for inputs of this size, and what that changes, in at most a line.

    Raises:
        ValueError: where it does not fit the input.
    """
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced
        encoder = Encoder(weights.encoder, weights.input_size).eval()
    load_weights(encoder, encoder_part(weights.state))
    how = how_resized(encoder, inputs.size)
    return at_size(encoder, inputs.size), [how] if how else []


def other_inputs(weights: Weights, inputs: InputFormat) -> list[str]:
    """A line where the weights were trained on inputs that were normalised otherwise."""
    if (weights.mean, weights.scale) == (inputs.mean, inputs.scale):
        return []
    return [
        f"it was trained on inputs (raw - {_values(weights.mean)}) / {_values(weights.scale)}, "
        f"and gets (raw - {_values(inputs.mean)}) / {_values(inputs.scale)}"
    ]


def _values(values: tuple[float, ...]) -> str:
    """All of a picture's channels; of the bands of a spectrogram the first and the last."""
    return str(values) if len(values) < 4 else f"({values[0]}, ..., {values[-1]})"


def _decoder_of(
    weights: Weights, ours: DecoderSettings, input_size: InputSize
) -> tuple[DecoderSettings, State, str]:
    """(settings, tensors, what is said of it)"""
    if weights.model is None:
        return ours, {}, "the decoder starts anew: there is none"
    theirs = weights.model.decoder
    others = [name for name in _DECODER if getattr(theirs, name) != getattr(ours, name)]
    if others:
        there = ", ".join(f"{name} {getattr(theirs, name)}" for name in others)
        here = ", ".join(f"{name} {getattr(ours, name)}" for name in others)
        return ours, {}, f"the decoder starts anew: it has {there}, and the model {here}"
    state = {n: t for n, t in weights.state.items() if n.startswith("decoder.")}
    state = with_key_bias(state, ours.key_bias)
    rule = theirs.positions
    if "decoder.pos_embed" in state:
        before, grid = (weights.encoder.grid(size) for size in (weights.input_size, input_size))
        is_sound = input_size[:2] == (1, 1)
        table, rule, _ = positions_at(
            state["decoder.pos_embed"], rule, weights.encoder.class_token, is_sound, before, grid
        )
        state["decoder.pos_embed"] = table
    settings = replace(ours, positions=rule, final_norm_eps=theirs.final_norm_eps)
    return settings, state, "the decoder's weights are taken"

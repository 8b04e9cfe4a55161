"""Reconstruction of the masked patches of one input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from smnm_kernels import Masks
from smnm_kernels.train.data.modality import InputFormat

from .encoder_file import encoder_metadata, save_tensors
from .mae import MaskedAutoencoder, build_model
from .objective import NO_FACTS, Facts, Objective
from .settings import EncoderSettings, ModelSettings
from .targets import note_of


@dataclass(frozen=True)
class MaskedAutoencoding(Objective):
    """VideoMAE, MAE, AudioMAE: an Objective of modalities with a single input."""

    model: ModelSettings

    @property
    def encoder(self) -> EncoderSettings:
        return self.model.encoder

    @property
    def picture_note(self) -> str:
        return note_of(self.model.target)

    def grids(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        return {name: self.model.encoder.grid(given.size) for name, given in inputs.items()}

    def build(
        self, inputs: dict[str, InputFormat], seed: int, checkpoint_activations: bool = False
    ) -> MaskedAutoencoder:
        (given,) = inputs.values()
        model = build_model(self.model, given.size, seed)
        model.checkpoint_activations = checkpoint_activations
        return model

    def losses(
        self,
        forward: Callable[..., Any],
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
        facts: Facts = NO_FACTS,
    ) -> dict[str, Tensor]:
        (name,) = inputs
        return {"loss": forward(inputs[name], masks[name], *valid.values())}

    def restore(
        self,
        model: MaskedAutoencoder,
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        (name,) = inputs
        x, seen = inputs[name], masks[name]
        pred = model.forward_decoder(model.forward_encoder(x, seen), seen)
        return {name: model.restore(x, pred, seen)}

    def export(self, model: MaskedAutoencoder, path: Path, metadata: dict[str, str]) -> None:
        save_tensors(model.encoder, path, encoder_metadata(model.encoder, **metadata))

"""What fine-tuning asks of a model, for models of one input and of clips with sound.

Inputs, what is real of them, and whatever else belongs to them are dicts by the inputs' names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.on_device import moved
from smnm_kernels.train.data.padding import TokenGrid, with_quiet_padding
from smnm_kernels.train.models.avt_learner import (
    LossWeights,
    avt_losses,
    pair_chances,
    weighted,
)
from smnm_kernels.train.models.avt_supervised import SupervisedAvt
from smnm_kernels.train.models.classifier import Classifier, HeadSettings, save_classifier
from smnm_kernels.train.models.encoder_file import encoder_metadata, save_tensors
from smnm_kernels.train.models.joint_classifier import (
    JointClassifier,
    Modalities,
    inputs_of,
    save_joint_classifier,
)
from smnm_kernels.train.models.joint_encoders import JointEncoder, joint_metadata
from smnm_kernels.train.models.objective import Facts
from smnm_kernels.train.models.vit import Encoder

from .finetune_presets.preset import FinetunePreset

Grid = tuple[int, int, int]
Tensors = dict[str, Tensor]
Forward = Callable[..., Any]


@dataclass(frozen=True)
class Given:
    """Of a batch, beside its inputs."""

    sample_ids: Tensor  # int64 [B], on the host
    keep: Tensors  # int64 [B, n], the patches that are looked at; of inputs that are masked
    facts: Facts  # of the samples as they are mixed
    valid: Tensors  # bool [B, N], the tokens that masks may show
    plain: Tensors  # sounds without bands and noise, where a form finds sounds and x has either


class Form(Protocol):
    """A model that is not built yet, and how it is built, called and kept."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the losses, as JSON can hold it."""

    @property
    def finds_sounds(self) -> bool:
        """Whether it looks for sounds in the input."""
        return False

    def tokens(self, sizes: dict[str, Grid]) -> dict[str, TokenGrid]:
        """Of inputs of these sizes (T, H, W), by which padding is judged."""

    def build(self, head: HeadSettings, preset: FinetunePreset, seed: int, again: bool) -> Any:
        """The model that is trained. With `again` its blocks compute their activations again for
        the gradients."""

    def to(self, device: torch.device) -> None:
        """Move there what is no part of the model."""

    def learn(self, forward: Forward, x: Tensors, given: Given) -> tuple[Tensor, Tensors, Tensor]:
        """(outputs [B, k], other losses by name, their weighted sum) of a batch in training."""

    def outputs(self, forward: Forward, x: Tensors, real: Tensors) -> Tensor:
        """[B, k], nothing masked."""

    def kept(self, model: Any) -> nn.Module:
        """The part of the model that classifier.safetensors holds."""

    def save(self, model: Any, path: Path, metadata: dict[str, str]) -> None:
        """The classifier, whole or not at all."""

    def export(self, model: Any, path: Path, metadata: dict[str, str]) -> None:
        """The encoder, whole or not at all."""


@dataclass
class OneInput(Form):
    """A Classifier of the only input."""

    name: str
    encoder: Encoder

    @property
    def settings(self) -> dict[str, Any]:
        return {"encoder_settings": self.encoder.settings.to_dict()}

    def tokens(self, sizes: dict[str, Grid]) -> dict[str, TokenGrid]:
        return {self.name: TokenGrid(sizes[self.name], self.encoder.grid, n_keep=None)}

    def build(
        self, head: HeadSettings, preset: FinetunePreset, seed: int, again: bool
    ) -> Classifier:
        model = Classifier(
            self.encoder.train(),
            head,
            drop_path=preset.drop_path,
            head_std=preset.head_std,
            seed=seed,
        )
        self.encoder.checkpoint_activations = again
        return model

    def to(self, device: torch.device) -> None:
        pass

    def learn(self, forward: Forward, x: Tensors, given: Given) -> tuple[Tensor, Tensors, Tensor]:
        outputs = forward(x[self.name], given.keep.get(self.name), given.facts.real.get(self.name))
        return outputs, {}, outputs.new_zeros(())

    def outputs(self, forward: Forward, x: Tensors, real: Tensors) -> Tensor:
        return forward(x[self.name], None, real.get(self.name))

    def kept(self, model: Classifier) -> nn.Module:
        return model

    def save(self, model: Classifier, path: Path, metadata: dict[str, str]) -> None:
        save_classifier(model, path, metadata)

    def export(self, model: Classifier, path: Path, metadata: dict[str, str]) -> None:
        """It has no final norm where the head has one of its own."""
        save_tensors(model.encoder, path, encoder_metadata(model.encoder, **metadata))


@dataclass
class WithSound(Form):
    """A JointClassifier of clips with sound, or of one of the two."""

    encoder: JointEncoder
    modalities: Modalities

    @property
    def settings(self) -> dict[str, Any]:
        settings = self.encoder.settings
        return {"encoder_settings": asdict(settings), "modalities": self.modalities}

    def tokens(self, sizes: dict[str, Grid]) -> dict[str, TokenGrid]:
        return {
            name: TokenGrid(sizes[name], self.encoder.branch(name).grid, self.n_keep(name))
            for name in inputs_of(self.modalities)
        }

    def n_keep(self, name: str) -> int | None:
        """Of this input's patches, how many masks show; None where none are drawn."""
        return None

    def build(
        self, head: HeadSettings, preset: FinetunePreset, seed: int, again: bool
    ) -> nn.Module:
        self.encoder.train().checkpoint_activations = again
        for name in inputs_of(self.modalities):
            self.encoder.branch(name).checkpoint_activations = again
        return JointClassifier(
            self.encoder,
            head,
            inputs_of(self.modalities),
            drop_path=preset.drop_path,
            head_std=preset.head_std,
            seed=seed,
        )

    def to(self, device: torch.device) -> None:
        pass

    def learn(self, forward: Forward, x: Tensors, given: Given) -> tuple[Tensor, Tensors, Tensor]:
        outputs = forward(x, given.facts.real)
        return outputs, {}, outputs.new_zeros(())

    def outputs(self, forward: Forward, x: Tensors, real: Tensors) -> Tensor:
        return forward(x, real)

    def kept(self, model: Any) -> JointClassifier:
        return model

    def save(self, model: Any, path: Path, metadata: dict[str, str]) -> None:
        save_joint_classifier(self.kept(model), path, metadata)

    def export(self, model: Any, path: Path, metadata: dict[str, str]) -> None:
        encoder = self.kept(model).encoder
        save_tensors(encoder, path, joint_metadata(encoder, **metadata))


@dataclass
class WithAvtLosses(WithSound):
    """A SupervisedAvt: AVT's losses beside that of the labels."""

    weights: LossWeights
    sampler: MaskSampler | None  # of the sound's masked segments; None where none is restored

    @property
    def settings(self) -> dict[str, Any]:
        masks = self.sampler and {"n_keep": self.sampler.n_keep, "kind": "activity"}
        return super().settings | {"weights": asdict(self.weights), "segment_masks": masks}

    @property
    def finds_sounds(self) -> bool:
        return self.sampler is not None

    def n_keep(self, name: str) -> int | None:
        return self.sampler.n_keep if self.sampler and name == "audio" else None

    def build(
        self, head: HeadSettings, preset: FinetunePreset, seed: int, again: bool
    ) -> SupervisedAvt:
        classifier = super().build(head, preset, seed, again)
        assert isinstance(classifier, JointClassifier)
        return SupervisedAvt(classifier, self.weights, seed)

    def to(self, device: torch.device) -> None:
        if self.sampler is not None:
            self.sampler.to(device)

    def learn(self, forward: Forward, x: Tensors, given: Given) -> tuple[Tensor, Tensors, Tensor]:
        sound, real, valid = (
            given.plain.get("audio", x["audio"]),
            given.facts.real.get("audio"),
            None,
        )
        masks = None
        if self.sampler is not None:
            quiet = sound if real is None else with_quiet_padding(sound, real)
            valid = None if real is None else given.valid.get("audio")
            ids = moved(given.sample_ids, sound.device)
            masks = self.sampler.masks(ids, quiet, valid)
        chance = pair_chances(self.weights, sound, given.facts.files)
        outputs, parts = forward(x, given.facts.real, masks, chance, True)
        patch = self.encoder.settings.audio.patch
        found = avt_losses(parts, self.weights, patch, sound, masks, valid, given.facts)
        return outputs, found, weighted(found, self.weights)

    def kept(self, model: SupervisedAvt) -> JointClassifier:
        return model.classifier

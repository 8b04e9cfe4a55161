"""Pretraining of clips and their sound as AVT does (Zhu 2024, arXiv 2401.04154), without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smnm_kernels import Masks
from smnm_kernels.train.data.modality import InputFormat

from .audio_video_encoder import MODALITIES
from .avt_encoder import FusedEncoder, FusedEncoderSettings, fused_encoder_metadata
from .avt_learner import (
    AvtLearner,
    LossWeights,
    avt_losses,
    check_learns,
    pair_chances,
    weighted,
)
from .encoder_file import save_tensors
from .objective import NO_FACTS, Facts, Objective
from .vit import InputSize


@dataclass(frozen=True)
class Avt(Objective):
    """An Objective of inputs "video" and "audio": `avt_losses`, each times its weight.

    Contrast compares the samples of all processes, matching those of one; neither compares those of
    one file. Where a batch comes in parts, `--accumulate`, both compare the samples of one part.
    """

    model: FusedEncoderSettings
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        check_learns(self.weights, self.model.fusion)

    def grids(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        """Of the sound: nothing of the video is masked. Of nothing where no segment is restored."""
        return self._of_sound(inputs) if self.weights.segment else {}

    def unmasked(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        """The sound, where no segment of it is restored."""
        return {} if self.weights.segment else self._of_sound(inputs)

    def _of_sound(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        return {"audio": self.model.audio.grid(inputs["audio"].size)}

    def build(
        self, inputs: dict[str, InputFormat], seed: int, checkpoint_activations: bool = False
    ) -> AvtLearner:
        sizes = {name: inputs[name].size for name in MODALITIES}
        model = build_learner(self.model, self.weights, sizes, seed, classifies=False)
        model.encoder.checkpoint_activations = checkpoint_activations
        return model

    @property
    def reported(self) -> tuple[str, ...]:
        return tuple(f"loss_{name}" for name, weight in asdict(self.weights).items() if weight)

    @property
    def compares(self) -> tuple[str, ...]:
        return tuple(name for name in ("contrast", "matching") if getattr(self.weights, name))

    def losses(
        self,
        forward: Callable[..., Any],
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
        facts: Facts = NO_FACTS,
    ) -> dict[str, Tensor]:
        of_sound, w = masks.get("audio"), self.weights
        chance = pair_chances(w, inputs["audio"], facts.files)
        parts = forward(inputs, valid, of_sound, False, chance)
        patch = self.model.audio.patch
        found = avt_losses(parts, w, patch, inputs["audio"], of_sound, valid.get("audio"), facts)
        return {"loss": weighted(found, w)} | {f"loss_{name}": x for name, x in found.items()}

    @torch.no_grad()
    def restore(
        self,
        model: AvtLearner,
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """The sound, where segments are restored."""
        if "audio" not in masks:
            return {}
        return {"audio": model.restore(inputs, valid, masks["audio"])}

    def export(self, model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
        assert isinstance(model, AvtLearner)
        save_tensors(model.encoder, path, fused_encoder_metadata(model.encoder, **metadata))


def build_learner(
    settings: FusedEncoderSettings,
    weights: LossWeights,
    input_sizes: Mapping[str, InputSize],
    seed: int,
    classifies: bool,
) -> AvtLearner:
    """The model for inputs (C, T, H, W) with the seed's weights: on every device the same. torch's
    own random stream stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AvtLearner(FusedEncoder(settings, input_sizes), weights, classifies)

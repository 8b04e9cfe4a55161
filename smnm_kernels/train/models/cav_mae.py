"""Reconstruction and contrast of clips and their sound: CAV-MAE (Gong et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from smnm_kernels import Masks
from smnm_kernels.train.data.modality import InputFormat

from .audio_video_encoder import MODALITIES, audio_video_metadata
from .cav_mae_model import CavMaeModel, CavMaeSettings, build_cav_mae
from .contrast import Directions, accuracy, info_nce, related_of_all
from .encoder_file import save_tensors
from .exchange import everyones
from .objective import NO_FACTS, Facts, Objective
from .targets import note_of


@dataclass(frozen=True)
class CavMae(Objective):
    """An Objective of inputs "video" and "audio". The defaults are those of CAV-MAE's code.

    loss = video_weight * error of video + audio_weight * error of audio + contrast_weight * InfoNCE

    InfoNCE compares the modalities' means, from video to audio or both ways, over the samples of
    all processes (CAV-MAE: of one GPU), but none with others of its own file (our choice). Where a
    batch comes in parts, `--accumulate`, it compares the samples of one part.
    """

    model: CavMaeSettings
    video_weight: float = 1.0
    audio_weight: float = 1.0
    contrast_weight: float = 0.01
    temperature: float = 0.05
    #: "a_to_b": which sound belongs to this clip.
    directions: Directions = "a_to_b"

    @property
    def picture_note(self) -> str:
        return note_of(self.model.target)

    def grids(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        return {name: self.model.encoder.of(name).grid(inputs[name].size) for name in MODALITIES}

    def build(
        self, inputs: dict[str, InputFormat], seed: int, checkpoint_activations: bool = False
    ) -> CavMaeModel:
        sizes = {name: inputs[name].size for name in MODALITIES}
        model = build_cav_mae(self.model, sizes, seed)
        model.checkpoint_activations = checkpoint_activations
        return model

    @property
    def reported(self) -> tuple[str, ...]:
        return ("loss_video", "loss_audio", "loss_contrast", "contrast_accuracy")

    @property
    def compares(self) -> tuple[str, ...]:
        return ("contrast",) if self.contrast_weight else ()

    def losses(
        self,
        forward: Callable[..., Any],
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
        facts: Facts = NO_FACTS,
    ) -> dict[str, Tensor]:
        found = forward(inputs, masks, valid)
        video, audio = (everyones(found.means[name].float()) for name in MODALITIES)
        related = related_of_all(facts.files, video.device)
        contrast = info_nce(video, audio, self.temperature, self.directions, related)
        loss = self.contrast_weight * contrast
        loss = loss + self.video_weight * found.losses["video"]
        loss = loss + self.audio_weight * found.losses["audio"]
        return {
            "loss": loss,
            "loss_video": found.losses["video"],
            "loss_audio": found.losses["audio"],
            "loss_contrast": contrast,
            "contrast_accuracy": accuracy(video, audio, related),
        }

    def restore(
        self,
        model: CavMaeModel,
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        return model.restore(inputs, masks)

    def export(self, model: CavMaeModel, path: Path, metadata: dict[str, str]) -> None:
        save_tensors(model.encoder, path, audio_video_metadata(model.encoder, **metadata))

"""What a fine-tuning run has settled before it begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from smnm_kernels.train.data.modality import InputFormat, Modality, of_inputs

from .finetune_forms import Form
from .finetune_presets.preset import FinetunePreset
from .measuring import measures, with_measured


@dataclass(frozen=True)
class Setup:
    """What follows from the options and the encoder alone."""

    preset: FinetunePreset
    clip: Modality
    #: Those that the model looks at, normalised as the encoder, or the preset, wants it.
    inputs: dict[str, InputFormat]
    form: Form
    grids: dict[str, tuple[int, int, int]]  # patches of each of these
    origin: str  # of the encoder
    digest: str  # of its weights
    device: torch.device
    seed: int
    #: Whether the encoder's weights are random.
    untrained: bool = False
    #: All inputs of the encoder, as a file of it has them; None: those that the model looks at.
    all_inputs: dict[str, InputFormat] | None = None

    @property
    def hides_padding(self) -> bool:
        sound = getattr(self.clip, "audio", self.clip)
        return getattr(sound, "padding", "see") == "hide"

    @property
    def formats(self) -> dict[str, InputFormat]:
        return self.all_inputs or self.inputs

    @property
    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """(T, H, W) of each input."""
        return {name: given.size[1:] for name, given in self.inputs.items()}

    @property
    def measures(self) -> bool:
        """Whether what inputs are normalised by is to be measured in the training files."""
        return self.preset.measured or (self.untrained and measures(self.clip))

    def with_measured(self, measured: dict[str, Any] | None) -> Setup:
        if measured is None:
            return self
        clip = with_measured(self.clip, measured)
        return replace(self, clip=clip, inputs=clip.inputs)

    def of_formats(self, field: str) -> Any:
        """ "mean" or "scale" of the only input, or of several by their names."""
        return of_inputs({name: getattr(given, field) for name, given in self.formats.items()})

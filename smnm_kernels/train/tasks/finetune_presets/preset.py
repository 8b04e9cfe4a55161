"""What a preset of fine-tuning holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_jitter import Jitter
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.models.audio_video_encoder import AudioVideoSettings
from smnm_kernels.train.models.classifier import Pool
from smnm_kernels.train.models.settings import ModelSettings
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.presets.preset import TINY


@dataclass(frozen=True)
class InputMask:
    """Patches that are masked in training."""

    #: Share of all patches; or of the columns of time and of the rows of mel bands (AudioMAE).
    share: float | tuple[float, float]
    kind: str = "time_frequency"

    def n_keep(self, grid: tuple[int, int, int]) -> int:
        if isinstance(self.share, tuple):
            time, mel = self.share
            return math.floor(grid[1] * (1 - time)) * math.floor(grid[2] * (1 - mel))
        return MaskSampler(self.kind, grid, self.share).n_keep

    def sampler(self, grid: tuple[int, int, int], seed: int) -> MaskSampler:
        return MaskSampler(self.kind, grid, n_keep=self.n_keep(grid), seed=seed)


@dataclass(frozen=True)
class FinetunePreset:
    #: How files are read in training. Its sizes are an untrained encoder's; another one brings its
    #: own.
    clip: Modality
    model: ModelSettings | AudioVideoSettings  # of --encoder none
    optimisation: Optimisation
    layer_decay: float
    drop_path: float  # of the last block
    #: Of labels of one class a file.
    label_smoothing: float
    mix: Mix
    #: (clips, crops) of the evaluation in the end.
    views: tuple[int, int]
    head_std: float = 2e-5
    pool: Pool = "mean"
    mask: InputMask | None = None
    bands: Bands | None = None
    jitter: Jitter | None = None  # of sounds
    #: Mean and standard deviation that the input is normalised by, in place of the encoder's:
    #: (x - mean) / (2 deviations), of sounds.
    statistics: tuple[float, float] | None = None
    #: Whether mean and deviation are measured in the training files, in place of the encoder's.
    measured: bool = False
    evaluate_every: int | None = None  # steps; None: an epoch
    head_rate: float = 1.0  # of the head and the norm before it, by the step's
    #: Files are drawn with replacement, those with rare labels more often (CAV-MAE).
    with_replacement: bool = False


def tiny(
    clip: Modality,
    model: ModelSettings | AudioVideoSettings,
    views: tuple[int, int] = (1, 1),
    mask: InputMask | None = None,
) -> FinetunePreset:
    return FinetunePreset(
        clip=clip,
        model=model,
        optimisation=replace(TINY, betas=(0.9, 0.999)),  # of fine-tuning, as in MAE
        layer_decay=0.75,
        drop_path=0.0,
        label_smoothing=0.1,
        mix=Mix(),
        views=views,
        mask=mask,
        evaluate_every=50,
    )

"""What a preset of pretraining holds."""

from __future__ import annotations

from dataclasses import dataclass

from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.models.objective import Objective
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.masking import MaskSettings


@dataclass(frozen=True)
class Preset:
    """Data, masks, objective with its model, and optimisation of one run."""

    clip: Modality
    masks: dict[str, MaskSettings]  # of each of the clip's inputs
    objective: Objective
    optimisation: Optimisation
    #: Of video and audio: the share of moments that is hidden in both; None: they are independent.
    hidden_time: float | None = None


#: Of every modality's preset `tiny`. Its rate is for AdamW and batches of 8 to 32: at four times
#: the rate, which growing with the batch made of 32, an encoder of sounds knew less than untrained.
TINY = Optimisation(
    batch_size=8,
    base_lr=1e-3,
    base_min_lr=1e-5,
    rates_grow=False,
    weight_decay=0.05,
    betas=(0.9, 0.95),
    steps=300,
    warmup_steps=30,
    checkpoint_every=50,
)

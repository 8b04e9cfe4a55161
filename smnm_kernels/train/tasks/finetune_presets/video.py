"""Presets of fine-tuning on video."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.augment import RandAugment, RandomErasing
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.crops import ResizedCrop
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.settings import VIDEOMAE
from smnm_kernels.train.run.optimisation import Optimisation

from .preset import FinetunePreset, tiny

_VIDEOMAE_OPTIMISATION = Optimisation(
    batch_size=512,  # VideoMAE
    base_lr=1e-3,  # VideoMAE, for Kinetics-400
    base_min_lr=1e-6,  # VideoMAE's code, which scales it like the rate
    weight_decay=0.05,  # VideoMAE
    betas=(0.9, 0.999),  # VideoMAE
    epochs=100,  # VideoMAE, for Kinetics-400
    warmup_epochs=5,  # VideoMAE
)
MIX = Mix(mixup=0.8, cutmix=1.0, prob=1.0, switch=0.5)  # VideoMAE, MAE
_VIDEOMAE = FinetunePreset(
    clip=Video(
        frames=16,
        size=224,
        stride=4,  # VideoMAE, for Kinetics-400
        crop=ResizedCrop(area=(0.08, 1.0)),  # VideoMAE
        flip=True,  # VideoMAE, for Kinetics-400
        augment=RandAugment(magnitude=7, layers=4),  # VideoMAE: rand-m7-n4-mstd0.5-inc1
        erase=RandomErasing(0.25),  # VideoMAE
    ),
    model=VIDEOMAE,
    optimisation=_VIDEOMAE_OPTIMISATION,
    layer_decay=0.75,  # VideoMAE
    drop_path=0.1,  # VideoMAE
    label_smoothing=0.1,  # VideoMAE
    mix=MIX,
    views=(5, 3),  # VideoMAE, for Kinetics-400
)

VIDEO: dict[str, FinetunePreset] = {
    "tiny": tiny(
        # Not mirrored, so that directions can be labels.
        clip=Video(frames=16, size=96, stride=2, crop=ResizedCrop(area=(0.5, 1.0)), flip=False),
        model=VIDEOMAE.tiny(),
        views=(2, 1),
    ),
    "videomae": _VIDEOMAE,
    "videomae-ssv2": replace(
        _VIDEOMAE,
        clip=replace(_VIDEOMAE.clip, sampling="segments", flip=False),
        optimisation=replace(_VIDEOMAE_OPTIMISATION, base_lr=5e-4, epochs=50),
        views=(2, 3),
    ),
    # Table A.10, for Kinetics-400 and SEVERE; for Something-Something v2 it has a batch of 32, 40
    # epochs and no flip.
    "snm-video": replace(
        _VIDEOMAE,
        clip=replace(
            _VIDEOMAE.clip,
            augment=RandAugment(magnitude=9, layers=4),  # its strength 9, the code's layers
            erase=None,
        ),
        optimisation=replace(_VIDEOMAE_OPTIMISATION, batch_size=16),
    ),
}

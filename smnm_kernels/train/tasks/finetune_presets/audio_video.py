"""Presets of fine-tuning on clips with sound."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_jitter import Jitter
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.crops import ResizedCrop
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.presets.audio_video import CAV_MAE_CLIP

from .preset import FinetunePreset, tiny
from .video import MIX

_CAV_MAE_RATE = 1e-4 * 256 / 48  # its code's 1e-4, at its batch
_CAV_MAE = FinetunePreset(
    clip=CAV_MAE_CLIP,
    model=CAV_MAE.encoder,
    optimisation=Optimisation(
        batch_size=48,  # CAV-MAE, VGGSound
        base_lr=_CAV_MAE_RATE,
        base_min_lr=_CAV_MAE_RATE / 2**8,  # eight halvings
        weight_decay=5e-7,  # CAV-MAE's code
        betas=(0.95, 0.999),  # CAV-MAE's code
        epochs=10,  # CAV-MAE
        optimizer="adam",  # CAV-MAE's code
        halvings=tuple(epoch / 10 for epoch in range(2, 10)),  # CAV-MAE's code: after each of these
    ),
    layer_decay=1.0,
    drop_path=0.0,
    label_smoothing=0.1,  # CAV-MAE's code
    mix=Mix(mixup=10.0, prob=0.5),  # CAV-MAE's code
    views=(10, 1),  # CAV-MAE: all ten frames
    head_std=0.02,  # ours, as torch starts a layer: within 1 / sqrt(768)
    bands=Bands(time=192, mel=48),  # CAV-MAE
    jitter=Jitter(noise=0.1),  # CAV-MAE's code
    head_rate=10.0,  # CAV-MAE
    with_replacement=True,  # CAV-MAE
)

AUDIO_VIDEO: dict[str, FinetunePreset] = {
    "tiny": tiny(
        clip=AudioVideo(
            Video(frames=16, size=96, stride=2, crop=ResizedCrop(area=(0.5, 1.0)), flip=False),
            Audio(frames=128, bands=128),
        ),
        model=CAV_MAE.with_clips().encoder.resized(dim=192, depth=4, heads=3),
        views=(2, 1),
    ),
    "cav-mae": _CAV_MAE,
    # Table A.15. It names neither the lowest rate, 0 here, nor bands, nor noise and shifts, nor a
    # rate of its own for the head, nor rates that fall from layer to layer.
    "snm-cav-mae": replace(
        _CAV_MAE,
        optimisation=replace(
            _CAV_MAE.optimisation,
            base_min_lr=0.0,
            weight_decay=0.05,
            betas=(0.9, 0.999),  # AdamW's own
            warmup_epochs=2,
            optimizer="adamw",
            halvings=(),
        ),
        drop_path=0.1,
        mix=MIX,
        bands=None,
        jitter=None,
        head_rate=1.0,
    ),
}

"""Presets of video."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.crops import MultiScaleCrop, ResizedCrop
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.settings import VIDEOMAE, VIDEOMAE_SMALL
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.masking import MaskSettings

from .preset import TINY, Preset

GREEN3D = {"video": MaskSettings("green3d", 0.9)}  # SNM, at VideoMAE's ratio
# VideoMAE's rounding of 0.9 masks 176 of a frame's 196 patches; 0.9 itself would mask 177.
_VIDEOMAE_TUBE = {"video": MaskSettings("tube", 0.8979)}

# Stride 4 is for Kinetics-400; VideoMAE and SNM take 2 for Something-Something v2.
_VIDEOMAE_CLIP = Video(frames=16, size=224, stride=4, crop=MultiScaleCrop(), flip=False)  # VideoMAE
_VIDEO_CROP = ResizedCrop(area=(0.5, 1.0))  # MAE for video (Feichtenhofer et al. 2022)
VIDEO_CLIP = replace(_VIDEOMAE_CLIP, crop=_VIDEO_CROP, flip=True)

_VIDEOMAE_OPTIMISATION = Optimisation(
    batch_size=2048,  # VideoMAE's scripts for Kinetics-400: 64 GPUs of 32
    base_lr=1.5e-4,  # VideoMAE
    base_min_lr=1e-5,  # VideoMAE's code
    weight_decay=0.05,  # VideoMAE
    betas=(0.9, 0.95),  # VideoMAE
    epochs=800,  # VideoMAE; also 1600, and 2400 for Something-Something v2
    warmup_epochs=40,  # VideoMAE
)
_SIGMA_OPTIMISATION = replace(
    _VIDEOMAE_OPTIMISATION,
    batch_size=640,  # SIGMA's scripts for Kinetics-400: 16 GPUs of 40
    epochs=801,  # SIGMA's scripts
)
_VIDEO_OPTIMISATION = replace(_VIDEOMAE_OPTIMISATION, batch_size=1024)  # VideoMAE's appendix

VIDEO: dict[str, Preset] = {
    "tiny": Preset(
        replace(VIDEO_CLIP, size=96, stride=2),
        GREEN3D,
        MaskedAutoencoding(VIDEOMAE.tiny()),
        TINY,
    ),
    "small": Preset(
        VIDEO_CLIP,
        GREEN3D,
        MaskedAutoencoding(VIDEOMAE_SMALL),
        _VIDEO_OPTIMISATION,
    ),
    "base": Preset(VIDEO_CLIP, GREEN3D, MaskedAutoencoding(VIDEOMAE), _VIDEO_OPTIMISATION),
    "videomae": Preset(
        _VIDEOMAE_CLIP, _VIDEOMAE_TUBE, MaskedAutoencoding(VIDEOMAE), _VIDEOMAE_OPTIMISATION
    ),
    # Table A.9, which names neither the lowest rate nor the decoder: VideoMAE's.
    "snm-video": Preset(
        replace(_VIDEOMAE_CLIP, flip=True),  # for Kinetics-400
        GREEN3D,
        MaskedAutoencoding(VIDEOMAE),
        replace(_VIDEOMAE_OPTIMISATION, batch_size=256),
    ),
    # Its scripts for ViT-B take the target from DINO's ViT-B/16: --target.
    "sigma": Preset(_VIDEOMAE_CLIP, _VIDEOMAE_TUBE, Sigma(VIDEOMAE), _SIGMA_OPTIMISATION),
    # Table A.9, as above; what it does not name of SIGMA is as in its code.
    "snm-sigma": Preset(
        replace(_VIDEOMAE_CLIP, flip=True),  # for Kinetics-400
        GREEN3D,
        Sigma(VIDEOMAE),
        replace(_VIDEOMAE_OPTIMISATION, batch_size=256),
    ),
}  # fmt: skip

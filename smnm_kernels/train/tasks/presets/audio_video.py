"""Presets of clips and their sound."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.crops import CentreCrop
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.masking import MaskSettings

from .audio import RBN
from .preset import TINY, Preset
from .video import GREEN3D, VIDEO_CLIP

#: CAV-MAE's code: (x + 5.081) / 4.4849, which is not two deviations as in AudioMAE's.
CAV_MAE_SOUND = Audio(frames=1024, bands=128, padding="see", mean=(-5.081,), std=(4.4849 / 2,))
CAV_MAE_FRAME = Video(
    frames=1, size=224, stride=1, crop=CentreCrop(interpolation="bicubic"), flip=False
)
# One of ten frames that are spread over ten seconds.
CAV_MAE_CLIP = AudioVideo(CAV_MAE_FRAME, CAV_MAE_SOUND, spread=10)

_CAV_MAE_RATE = 1e-4 * 256 / 120  # its code's 1e-4, at its batch
_CAV_MAE_OPTIMISATION = Optimisation(
    batch_size=120,  # CAV-MAE, over 4 GPUs
    base_lr=_CAV_MAE_RATE,
    base_min_lr=_CAV_MAE_RATE / 8,  # three halvings
    weight_decay=5e-7,  # CAV-MAE's code
    betas=(0.95, 0.999),  # CAV-MAE's code
    epochs=25,  # CAV-MAE, VGGSound
    optimizer="adam",  # CAV-MAE's code
    halvings=(10 / 25, 15 / 25, 20 / 25),  # CAV-MAE's code: after these epochs
)
# Table A.14. It does not name the lowest rate: 0, as AudioMAE's code.
_SNM_CAV_MAE_OPTIMISATION = replace(
    _CAV_MAE_OPTIMISATION, base_min_lr=0.0, warmup_epochs=2, optimizer="adamw", halvings=()
)
_RBN_OF_SOUND = MaskSettings("rbn", 0.75)  # SNM, at CAV-MAE's ratio

AUDIO_VIDEO: dict[str, Preset] = {
    # Sixteen frames at 30 a second, every other one, and the sound of little more than that time.
    "tiny": Preset(
        AudioVideo(replace(VIDEO_CLIP, size=96, stride=2), Audio(frames=128, bands=128)),
        {**GREEN3D, **RBN},
        CavMae(
            CAV_MAE.with_clips().resized(
                dim=192, depth=4, heads=3, decoder_dim=128, decoder_depth=2, decoder_heads=4
            )
        ),
        TINY,
    ),
    # Its code also adds noise to spectrograms and shifts them in time; here they are as they are.
    "cav-mae": Preset(
        CAV_MAE_CLIP,
        {"video": MaskSettings("random", 0.75), "audio": MaskSettings("random", 0.75)},  # CAV-MAE
        CavMae(CAV_MAE),
        _CAV_MAE_OPTIMISATION,
    ),
    # How SNM puts green noise in three dimensions on a single frame is not known: green noise in
    # two is our choice.
    "snm-cav-mae": Preset(
        CAV_MAE_CLIP,
        {"video": MaskSettings("green2d", 0.75), "audio": _RBN_OF_SOUND},
        CavMae(CAV_MAE),
        _SNM_CAV_MAE_OPTIMISATION,
    ),
    # Ours: sixteen frames over the same ten seconds, all of them, masked as VideoMAE's clips.
    "cav-mae-clip": Preset(
        AudioVideo(replace(CAV_MAE_FRAME, frames=16), CAV_MAE_SOUND, spread=16),
        {**GREEN3D, "audio": _RBN_OF_SOUND},
        CavMae(CAV_MAE.with_clips()),
        _SNM_CAV_MAE_OPTIMISATION,
    ),
}  # fmt: skip

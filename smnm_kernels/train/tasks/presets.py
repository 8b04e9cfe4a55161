"""Every number that decides a pretraining run, one table a modality.

A preset named after a method does what the method's public code does; one named snm-... does what
the tables of the structured-noise paper say (arXiv 2503.16311), and takes from the code of the
method under it what they leave out, augmentations aside. `small` and `base` are the methods'
recipes with structured masks, for ViT-S and ViT-B. `tiny` is ours altogether: it shows the whole
path on two CPU cores in about a minute and is no recipe for good features.

Known differences. MAE's and AudioMAE's code also decays the class token and the mask token; here,
as in VideoMAE's code, only weight matrices decay. The warmup begins at its first step's share of
the peak, where the codes begin at 0.

Sources, by the names in the comments. VideoMAE: Tong et al. 2022 and MCG-NJU/VideoMAE. MAE: He et
al. 2022 and facebookresearch/mae. AudioMAE: Huang et al. 2022 and facebookresearch/AudioMAE.
CAV-MAE: Gong et al. 2023 and YuanGongND/cav-mae. SNM: the structured-noise paper. MaskSpec: Chong
et al. 2022 and WangHelin1997/MaskSpec. MSM-MAE: Niizumi et al. 2022 and nttcslab/msm-mae; M2D:
nttcslab/m2d, which trains it anew. DWM: the paper on dispersion-weighted masking (arXiv 2603.23810)
and its author's code, which adds to M2D's.
SIGMA: Salehi et al. 2024 and QUVA-Lab/SIGMA.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.crops import CentreCrop, MultiScaleCrop, ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.spectrogram import Spectrogram
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.objective import Objective
from smnm_kernels.train.models.settings import (
    AUDIOMAE,
    MAE,
    MASKSPEC,
    MSM_MAE,
    MSM_MAE_M2D,
    VIDEOMAE,
    VIDEOMAE_SMALL,
)
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.run.optimisation import Optimisation

from .masking import HintSettings, MaskSettings


@dataclass(frozen=True)
class Preset:
    """Data, masks, objective with its model, and optimisation of one run."""

    clip: Modality
    masks: dict[str, MaskSettings]  # of each of the clip's inputs
    objective: Objective
    optimisation: Optimisation
    #: Of video and audio: the share of moments that is hidden in both; None: they are independent.
    hidden_time: float | None = None


_TINY = Optimisation(
    batch_size=8,
    base_lr=3.2e-2,
    base_min_lr=3.2e-4,
    weight_decay=0.05,
    betas=(0.9, 0.95),
    steps=300,
    warmup_steps=30,
    checkpoint_every=50,
)

# Video.

_GREEN3D = {"video": MaskSettings("green3d", 0.9)}  # SNM, at VideoMAE's ratio
# VideoMAE's rounding of 0.9 masks 176 of a frame's 196 patches; 0.9 itself would mask 177.
_VIDEOMAE_TUBE = {"video": MaskSettings("tube", 0.8979)}

# Stride 4 is for Kinetics-400; VideoMAE and SNM take 2 for Something-Something v2.
_VIDEOMAE_CLIP = Video(frames=16, size=224, stride=4, crop=MultiScaleCrop(), flip=False)  # VideoMAE
_VIDEO_CROP = ResizedCrop(area=(0.5, 1.0))  # MAE for video (Feichtenhofer et al. 2022)
_VIDEO_CLIP = replace(_VIDEOMAE_CLIP, crop=_VIDEO_CROP, flip=True)

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
        replace(_VIDEO_CLIP, size=96, stride=2),
        _GREEN3D,
        MaskedAutoencoding(VIDEOMAE.tiny()),
        _TINY,
    ),
    "small": Preset(
        _VIDEO_CLIP,
        _GREEN3D,
        MaskedAutoencoding(VIDEOMAE_SMALL),
        _VIDEO_OPTIMISATION,
    ),
    "base": Preset(_VIDEO_CLIP, _GREEN3D, MaskedAutoencoding(VIDEOMAE), _VIDEO_OPTIMISATION),
    "videomae": Preset(
        _VIDEOMAE_CLIP, _VIDEOMAE_TUBE, MaskedAutoencoding(VIDEOMAE), _VIDEOMAE_OPTIMISATION
    ),
    # Table A.9, which names neither the lowest rate nor the decoder: VideoMAE's.
    "snm-video": Preset(
        replace(_VIDEOMAE_CLIP, flip=True),  # for Kinetics-400
        _GREEN3D,
        MaskedAutoencoding(VIDEOMAE),
        replace(_VIDEOMAE_OPTIMISATION, batch_size=256),
    ),
    # Its scripts for ViT-B take the target from DINO's ViT-B/16: --target.
    "sigma": Preset(_VIDEOMAE_CLIP, _VIDEOMAE_TUBE, Sigma(VIDEOMAE), _SIGMA_OPTIMISATION),
    # Table A.9, as above; what it does not name of SIGMA is as in its code.
    "snm-sigma": Preset(
        replace(_VIDEOMAE_CLIP, flip=True),  # for Kinetics-400
        _GREEN3D,
        Sigma(VIDEOMAE),
        replace(_VIDEOMAE_OPTIMISATION, batch_size=256),
    ),
}  # fmt: skip

# Audio.

_RBN = {"audio": MaskSettings("rbn", 0.8)}  # SNM, at AudioMAE's ratio

_AUDIO_CLIP = Audio(frames=1024, bands=128)  # AudioMAE: ten seconds
# Its scripts ask for a random gain and a random shift in time; the shift is always 0 in its code.
# It pads short recordings with zeros and treats these as sound: they are visible or masked like
# any patch, and masked ones are in the loss.
_AUDIOMAE_CLIP = replace(_AUDIO_CLIP, gain=True, padding="see")

_AUDIOMAE_OPTIMISATION = Optimisation(
    batch_size=512,  # AudioMAE
    base_lr=2e-4,  # AudioMAE
    base_min_lr=0.0,  # AudioMAE's code
    weight_decay=1e-4,  # AudioMAE's scripts
    betas=(0.9, 0.95),  # AudioMAE's code
    epochs=33,  # AudioMAE's scripts
    warmup_epochs=3,  # AudioMAE
)
_AUDIO_OPTIMISATION = replace(_AUDIOMAE_OPTIMISATION, epochs=32)  # AudioMAE's appendix

# With global attention in the decoder, which AudioMAE's ablation compares with windows, and
# positions in the order of the tokens.
_GLOBAL_AUDIOMAE = replace(
    AUDIOMAE,
    encoder=replace(AUDIOMAE.encoder, positions="rows_columns"),
    decoder=replace(AUDIOMAE.decoder, positions="rows_columns", window=None),
)

# MaskSpec. Its code makes the spectrogram of the first ten seconds and keeps 992 of 1000 frames; an
# excerpt of ours may lie anywhere in a longer recording. It also divides by 5 what it then
# normalises band by band, which changes nothing, and computes sounds in half precision.
MASKSPEC_FRONT = Spectrogram(
    rate=32_000, fft=1024, window=800, hop=320,  # MaskSpec
    periodic=False, preemphasis=0.97,  # MaskSpec
    low=0.0, high=15_000.0, mel="kaldi", offset=1e-5,  # MaskSpec
    jitter=(10, 2000),  # MaskSpec, in pretraining and fine-tuning
    pads_samples=True,  # MaskSpec: of short recordings the waveform
    by_band=True,  # MaskSpec, from 10,000 recordings
)  # fmt: skip
MASKSPEC_CLIP = Audio(frames=992, bands=128, padding="see", front=MASKSPEC_FRONT)  # MaskSpec
_MASKSPEC_OPTIMISATION = Optimisation(
    batch_size=512,  # MaskSpec: 8 GPUs of 64
    base_lr=1e-3,  # MaskSpec
    base_min_lr=0.0,  # MaskSpec
    weight_decay=0.05,  # MaskSpec
    betas=(0.9, 0.95),  # MaskSpec
    epochs=400,  # MaskSpec's default; its fine-tuning takes the model of epoch 60
    warmup_epochs=40,  # MaskSpec
)

_MASKSPEC = Preset(
    MASKSPEC_CLIP,
    {"audio": MaskSettings("random", 0.75)},  # MaskSpec's scripts; its default is 0.8
    MaskedAutoencoding(MASKSPEC),
    _MASKSPEC_OPTIMISATION,
)

# MSM-MAE. Excerpts are made as spectrograms of their own, where its code cuts those of whole files.
MSM_MAE_FRONT = Spectrogram(
    rate=16_000, fft=400, window=400, hop=160,  # MSM-MAE
    low=50.0, high=8000.0, mel="slaney",  # MSM-MAE, by nnAudio
    offset=2.0**-23,  # MSM-MAE: the smallest step of float32 at 1
)  # fmt: skip
_MSM_MAE_CLIP = Audio(frames=208, bands=80, padding="see", front=MSM_MAE_FRONT)  # MSM-MAE
_MSM_MAE_OPTIMISATION = Optimisation(
    batch_size=512,  # ours: its code takes 64 for each GPU, however many there are
    base_lr=3e-4,  # MSM-MAE: 1.5e-4 for 128
    base_min_lr=0.0,  # MSM-MAE
    weight_decay=0.05,  # MSM-MAE
    betas=(0.9, 0.95),  # MSM-MAE
    epochs=100,  # MSM-MAE
    warmup_epochs=10,  # MSM-MAE
)
_RANDOM_75 = {"audio": MaskSettings("random", 0.75)}  # MSM-MAE, M2D

_MSM_MAE_M2D = Preset(
    replace(_MSM_MAE_CLIP, frames=608),  # M2D
    _RANDOM_75,
    MaskedAutoencoding(MSM_MAE_M2D),
    replace(
        _MSM_MAE_OPTIMISATION,
        batch_size=2048,  # M2D: 4 GPUs of 512
        base_lr=3e-4,  # M2D
        epochs=300,  # M2D
        warmup_epochs=20,  # M2D
        clip_norm=3.0,  # M2D
    ),
)

AUDIO: dict[str, Preset] = {
    "tiny": Preset(
        replace(_AUDIO_CLIP, frames=512),
        _RBN,
        MaskedAutoencoding(_GLOBAL_AUDIOMAE.tiny()),
        replace(_TINY, weight_decay=1e-4),
    ),
    "small": Preset(
        _AUDIO_CLIP,
        _RBN,
        MaskedAutoencoding(
            _GLOBAL_AUDIOMAE.resized(
                dim=384, depth=12, heads=6,  # ViT-S
                decoder_dim=256, decoder_depth=8, decoder_heads=8,  # ours
            )
        ),
        _AUDIO_OPTIMISATION,
    ),
    "base": Preset(_AUDIO_CLIP, _RBN, MaskedAutoencoding(_GLOBAL_AUDIOMAE), _AUDIO_OPTIMISATION),
    "audiomae": Preset(
        _AUDIOMAE_CLIP,
        {"audio": MaskSettings("random", 0.8)},  # AudioMAE
        MaskedAutoencoding(AUDIOMAE),
        _AUDIOMAE_OPTIMISATION,
    ),
    # Table A.12, which names neither the lowest rate nor a gain nor what is done with padding:
    # AudioMAE's code for the first and the last.
    "snm-audio": Preset(
        replace(_AUDIO_CLIP, padding="see"),
        _RBN,
        MaskedAutoencoding(AUDIOMAE),
        replace(_AUDIOMAE_OPTIMISATION, weight_decay=0.05, epochs=32, warmup_epochs=5),
    ),
    "maskspec": _MASKSPEC,
    # Table 4, which gives results and no settings: MaskSpec's, with R-BN at its ratio.
    "snm-maskspec": replace(_MASKSPEC, masks={"audio": MaskSettings("rbn", 0.75)}),
    "msm-mae": Preset(
        _MSM_MAE_CLIP, _RANDOM_75, MaskedAutoencoding(MSM_MAE), _MSM_MAE_OPTIMISATION
    ),
    "msm-mae-m2d": _MSM_MAE_M2D,
    # The share of chance begins to fall after 50 of 300 epochs (DWM).
    "dwm": replace(
        _MSM_MAE_M2D, masks={"audio": MaskSettings("dispersion", 0.75, hint=HintSettings())}
    ),
}  # fmt: skip

# Images.

_GREEN2D = {"image": MaskSettings("green2d", 0.75)}  # ColorMAE (Hinojosa et al. 2024)

_MAE_CLIP = Image(
    size=224,  # MAE
    crop=ResizedCrop(area=(0.2, 1.0), interpolation="bicubic"),  # MAE
    flip=True,  # MAE
)
_MAE_OPTIMISATION = Optimisation(
    batch_size=4096,  # MAE
    base_lr=1.5e-4,  # MAE
    base_min_lr=0.0,  # MAE
    weight_decay=0.05,  # MAE
    betas=(0.9, 0.95),  # MAE
    epochs=800,  # MAE
    warmup_epochs=40,  # MAE
)

IMAGE: dict[str, Preset] = {
    "tiny": Preset(replace(_MAE_CLIP, size=96), _GREEN2D, MaskedAutoencoding(MAE.tiny()), _TINY),
    "small": Preset(
        _MAE_CLIP,
        _GREEN2D,
        MaskedAutoencoding(
            MAE.resized(
                dim=384, depth=12, heads=6,  # ViT-S
                decoder_dim=256, decoder_depth=8, decoder_heads=8,  # ours
            )
        ),
        _MAE_OPTIMISATION,
    ),
    "base": Preset(_MAE_CLIP, _GREEN2D, MaskedAutoencoding(MAE), _MAE_OPTIMISATION),
    "mae": Preset(
        _MAE_CLIP,
        {"image": MaskSettings("random", 0.75)},  # MAE
        MaskedAutoencoding(MAE),
        _MAE_OPTIMISATION,
    ),
}  # fmt: skip

# Clips and their sound.

#: CAV-MAE's code: (x + 5.081) / 4.4849, which is not two deviations as in AudioMAE's.
_CAV_MAE_SOUND = Audio(frames=1024, bands=128, padding="see", mean=(-5.081,), std=(4.4849 / 2,))
_CAV_MAE_FRAME = Video(
    frames=1, size=224, stride=1, crop=CentreCrop(interpolation="bicubic"), flip=False
)
# One of ten frames that are spread over ten seconds.
_CAV_MAE_CLIP = AudioVideo(_CAV_MAE_FRAME, _CAV_MAE_SOUND, spread=10)

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
        AudioVideo(replace(_VIDEO_CLIP, size=96, stride=2), Audio(frames=128, bands=128)),
        {**_GREEN3D, **_RBN},
        CavMae(
            CAV_MAE.with_clips().resized(
                dim=192, depth=4, heads=3, decoder_dim=128, decoder_depth=2, decoder_heads=4
            )
        ),
        _TINY,
    ),
    # Its code also adds noise to spectrograms and shifts them in time; here they are as they are.
    "cav-mae": Preset(
        _CAV_MAE_CLIP,
        {"video": MaskSettings("random", 0.75), "audio": MaskSettings("random", 0.75)},  # CAV-MAE
        CavMae(CAV_MAE),
        _CAV_MAE_OPTIMISATION,
    ),
    # How SNM puts green noise in three dimensions on a single frame is not known: green noise in
    # two is our choice.
    "snm-cav-mae": Preset(
        _CAV_MAE_CLIP,
        {"video": MaskSettings("green2d", 0.75), "audio": _RBN_OF_SOUND},
        CavMae(CAV_MAE),
        _SNM_CAV_MAE_OPTIMISATION,
    ),
    # Ours: sixteen frames over the same ten seconds, all of them, masked as VideoMAE's clips.
    "cav-mae-clip": Preset(
        AudioVideo(replace(_CAV_MAE_FRAME, frames=16), _CAV_MAE_SOUND, spread=16),
        {**_GREEN3D, "audio": _RBN_OF_SOUND},
        CavMae(CAV_MAE.with_clips()),
        _SNM_CAV_MAE_OPTIMISATION,
    ),
}  # fmt: skip

PRESETS: dict[str, dict[str, Preset]] = {
    "video": VIDEO,
    "audio": AUDIO,
    "image": IMAGE,
    "audio-video": AUDIO_VIDEO,
}

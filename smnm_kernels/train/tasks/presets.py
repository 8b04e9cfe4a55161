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
al. 2022 and facebookresearch/mae. AudioMAE: Huang et al. 2022 and facebookresearch/AudioMAE. SNM:
the structured-noise paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.crops import MultiScaleCrop, ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.objective import Objective
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, VIDEOMAE, VIDEOMAE_SMALL
from smnm_kernels.train.run.optimisation import Optimisation

from .masking import MaskSettings


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

PRESETS: dict[str, dict[str, Preset]] = {"video": VIDEO, "audio": AUDIO, "image": IMAGE}

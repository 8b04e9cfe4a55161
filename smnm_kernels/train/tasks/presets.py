"""Every number that decides a pretraining run, one table a modality.

Where the numbers come from. `base` follows the two methods as they were published: VideoMAE (Tong
et al. 2022, Kinetics-400 settings of its appendix and scripts) and AudioMAE (Huang et al. 2022,
AudioSet-2M settings of its appendix and scripts), with structured masks.
`small` is the same recipe with ViT-S: VideoMAE publishes its decoder (192 wide, 4 blocks), AudioMAE
publishes none, so that one is ours. `tiny` is ours altogether: it shows the whole path on two CPU
cores in about a minute and is no recipe for good features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.crops import ResizedCrop
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.objective import Objective
from smnm_kernels.train.models.settings import AUDIOMAE, VIDEOMAE, ModelSettings
from smnm_kernels.train.run.optimisation import Optimisation


@dataclass(frozen=True)
class MaskSettings:
    """Masks of one input: a kind of MaskSampler's and the share of patches that is masked."""

    kind: str
    ratio: float


@dataclass(frozen=True)
class Preset:
    """Data, masks, objective with its model, and optimisation of one run."""

    clip: Modality
    masks: dict[str, MaskSettings]  # of each of the clip's inputs
    objective: Objective
    optimisation: Optimisation


# The structured-noise paper's masks at the ratios of the two methods.
GREEN_VIDEO = {"video": MaskSettings("green3d", 0.9)}
RBN_AUDIO = {"audio": MaskSettings("rbn", 0.8)}

# Half to all of the area, 3/4 to 4/3: MAE for video (Feichtenhofer et al. 2022).
_VIDEO_CROP = ResizedCrop(area=(0.5, 1.0))


def _tiny(model: ModelSettings) -> ModelSettings:
    return model.resized(
        dim=192, depth=4, heads=3, decoder_dim=128, decoder_depth=2, decoder_heads=4
    )


_TINY = Optimisation(
    batch_size=8, base_lr=3.2e-2, base_min_lr=3.2e-4, weight_decay=0.05, betas=(0.9, 0.95),
    steps=300, warmup_steps=30, checkpoint_every=50,
)  # fmt: skip

_VIDEO_OPTIMISATION = Optimisation(
    batch_size=1024,  # VideoMAE
    base_lr=1.5e-4,  # VideoMAE
    base_min_lr=1e-5,  # VideoMAE's code, which also multiplies it by batch / 256
    weight_decay=0.05,  # VideoMAE
    betas=(0.9, 0.95),  # VideoMAE
    epochs=800,  # VideoMAE on Kinetics-400 (2400 on Something-Something v2)
    warmup_epochs=40,  # VideoMAE
)
# Stride 4 is VideoMAE on Kinetics-400; it takes 2 on Something-Something v2.
_VIDEO_CLIP = Video(frames=16, size=224, stride=4, crop=_VIDEO_CROP, flip=True)

VIDEO: dict[str, Preset] = {
    "tiny": Preset(
        Video(frames=16, size=96, stride=2, crop=_VIDEO_CROP, flip=True),
        GREEN_VIDEO,
        MaskedAutoencoding(_tiny(VIDEOMAE)),
        _TINY,
    ),
    "small": Preset(
        _VIDEO_CLIP,
        GREEN_VIDEO,
        MaskedAutoencoding(
            VIDEOMAE.resized(
                dim=384, depth=12, heads=6, decoder_dim=192, decoder_depth=4, decoder_heads=3
            )
        ),
        _VIDEO_OPTIMISATION,
    ),
    "base": Preset(_VIDEO_CLIP, GREEN_VIDEO, MaskedAutoencoding(VIDEOMAE), _VIDEO_OPTIMISATION),
}

_AUDIO_OPTIMISATION = Optimisation(
    batch_size=512,  # AudioMAE
    base_lr=2e-4,  # AudioMAE
    base_min_lr=5e-7,
    weight_decay=1e-4,  # AudioMAE's scripts
    betas=(0.9, 0.95),  # AudioMAE
    epochs=32,  # AudioMAE on AudioSet-2M
    warmup_epochs=3,  # AudioMAE
)
_AUDIO_CLIP = Audio(frames=1024, bands=128)  # AudioMAE
# AudioMAE's decoder attends in shifted local windows; these attend globally, which its ablation
# compares with that, and have positions in the tokens' own order.
_GLOBAL_AUDIOMAE = replace(
    AUDIOMAE,
    encoder=replace(AUDIOMAE.encoder, positions="rows_columns"),
    decoder=replace(AUDIOMAE.decoder, positions="rows_columns", window=None),
)

AUDIO: dict[str, Preset] = {
    "tiny": Preset(
        Audio(frames=512, bands=128),
        RBN_AUDIO,
        MaskedAutoencoding(_tiny(_GLOBAL_AUDIOMAE)),
        replace(_TINY, weight_decay=1e-4),
    ),
    "small": Preset(
        _AUDIO_CLIP,
        RBN_AUDIO,
        MaskedAutoencoding(
            _GLOBAL_AUDIOMAE.resized(
                dim=384, depth=12, heads=6, decoder_dim=256, decoder_depth=8, decoder_heads=8
            )
        ),
        _AUDIO_OPTIMISATION,
    ),
    "base": Preset(
        _AUDIO_CLIP, RBN_AUDIO, MaskedAutoencoding(_GLOBAL_AUDIOMAE), _AUDIO_OPTIMISATION
    ),
}

PRESETS: dict[str, dict[str, Preset]] = {"video": VIDEO, "audio": AUDIO}

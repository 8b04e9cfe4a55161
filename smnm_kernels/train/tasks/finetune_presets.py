"""Every number that decides a fine-tuning run, one table a modality.

A preset named after a method does what its public code does: `videomae` for Kinetics-400,
`videomae-ssv2` for Something-Something v2, `mae` for ImageNet, `audiomae-...` for AudioSet-20K,
AudioSet-2M and ESC-50, `maskspec-...` for AudioSet, ESC-50 and Speech Commands. `snm-video` and
`snm-audio` take the structured-noise paper's Tables A.10 and A.13 (arXiv 2503.16311), and from the
method's code what they leave out, augmentations aside. `tiny` is ours: it shows the whole path on
two CPU cores in a minute or two.

Known differences from the codes. Neighbours are mixed, each pair with a share of its own, where the
codes draw one for a whole batch. AudioMAE mixes waveforms, here powers of spectrograms are mixed.
On AudioSet-2M its balanced draw chooses the files of an epoch, and uniform chance whom each is
mixed with (its code notes that a balanced partner makes the results worse); here both of a pair
come from the balanced draw. Its patches are masked by columns of time and rows of mel bands that
are drawn apart; here our kind time_frequency masks as many. The head starts as N(0, 2e-5), which is
also what VideoMAE's code starts with (0.02 times 0.001). VideoMAE's num_sample reads each file so
many times for a batch, which then holds as many more samples, at the same rates and steps;
--repeats leaves the batch as large as it is, and a pass takes more steps. MAE's and MaskSpec's code
also train the position codes. Of what MaskSpec's code does to waveforms (mixing, gain, shifts,
effects) nothing is done, its balanced draw has weights of 1000 / (100 + count), and it leaves out
the same patches of all samples of a batch. Warm-up begins at its first step's share of the peak.

Sources, by the names in the comments. VideoMAE: MCG-NJU/VideoMAE, its scripts and code. MAE:
facebookresearch/mae, FINETUNE.md and code. AudioMAE: facebookresearch/AudioMAE. SNM: the
structured-noise paper. MaskSpec: WangHelin1997/MaskSpec.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.augment import RandAugment, RandomErasing
from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.crops import CentreCrop, ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.audio_video_encoder import AudioVideoSettings
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.classifier import Pool
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, MASKSPEC, VIDEOMAE, ModelSettings
from smnm_kernels.train.run.optimisation import Optimisation

from .presets import MASKSPEC_CLIP


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
    #: Mean and standard deviation that the input is normalised by, in place of the encoder's:
    #: (x - mean) / (2 deviations), of sounds.
    statistics: tuple[float, float] | None = None
    #: Whether mean and deviation are measured in the training files, in place of the encoder's.
    measured: bool = False
    evaluate_every: int | None = None  # steps; None: an epoch
    head_rate: float = 1.0  # of the head and the norm before it, by the step's
    #: Files are drawn with replacement, those with rare labels more often (CAV-MAE).
    with_replacement: bool = False


def _tiny(
    clip: Modality,
    model: ModelSettings | AudioVideoSettings,
    views: tuple[int, int] = (1, 1),
    mask: InputMask | None = None,
) -> FinetunePreset:
    return FinetunePreset(
        clip=clip,
        model=model,
        optimisation=Optimisation(
            batch_size=8,
            base_lr=3.2e-2,
            base_min_lr=3.2e-4,
            weight_decay=0.05,
            betas=(0.9, 0.999),
            steps=300,
            warmup_steps=30,
            checkpoint_every=50,
        ),
        layer_decay=0.75,
        drop_path=0.0,
        label_smoothing=0.1,
        mix=Mix(),
        views=views,
        mask=mask,
        evaluate_every=50,
    )


# Video.

_VIDEOMAE_OPTIMISATION = Optimisation(
    batch_size=512,  # VideoMAE
    base_lr=1e-3,  # VideoMAE, for Kinetics-400
    base_min_lr=1e-6,  # VideoMAE's code, which scales it like the rate
    weight_decay=0.05,  # VideoMAE
    betas=(0.9, 0.999),  # VideoMAE
    epochs=100,  # VideoMAE, for Kinetics-400
    warmup_epochs=5,  # VideoMAE
)
_VIDEOMAE_MIX = Mix(mixup=0.8, cutmix=1.0, prob=1.0, switch=0.5)  # VideoMAE, MAE
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
    mix=_VIDEOMAE_MIX,
    views=(5, 3),  # VideoMAE, for Kinetics-400
)

VIDEO: dict[str, FinetunePreset] = {
    "tiny": _tiny(
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

# Audio.

_AUDIOMAE_CLIP = Audio(frames=1024, bands=128, padding="see")  # AudioMAE
# AudioMAE's ft_as.sh and submit_ft_mask_bal.sh pass roll_mag_aug. It rolls nothing: the place is
# drawn below the length of the channels' axis, which is 1.
_AUDIOSET_CLIP = replace(_AUDIOMAE_CLIP, gain=True)
_AS20K_OPTIMISATION = Optimisation(
    batch_size=32,  # AudioMAE
    base_lr=1e-3,  # AudioMAE
    base_min_lr=1e-6 * 256 / 32,  # AudioMAE: 1e-6, which it does not scale
    weight_decay=5e-4,  # AudioMAE
    betas=(0.9, 0.999),  # AudioMAE's code: AdamW's own
    epochs=60,  # AudioMAE
    warmup_epochs=4,  # AudioMAE
)
_AS20K = FinetunePreset(
    clip=_AUDIOSET_CLIP,
    model=AUDIOMAE,
    optimisation=_AS20K_OPTIMISATION,
    layer_decay=0.75,  # AudioMAE
    drop_path=0.1,  # AudioMAE
    label_smoothing=0.0,  # AudioMAE, of several labels
    mix=Mix(mixup=10.0, prob=0.5, powers=True),  # AudioMAE: Beta(10, 10)
    views=(1, 1),
    mask=InputMask((0.2, 0.2)),  # AudioMAE
    bands=Bands(time=192, mel=48),  # AudioMAE
)

_MASKSPEC_OPTIMISATION = Optimisation(
    batch_size=512,  # MaskSpec: 8 GPUs of 64
    base_lr=1e-3,  # MaskSpec
    base_min_lr=1e-6 * 256 / 512,  # MaskSpec: 1e-6, which it does not scale
    weight_decay=0.05,  # MaskSpec
    betas=(0.9, 0.999),  # MaskSpec: AdamW's own
    epochs=80,  # MaskSpec
    warmup_epochs=5,  # MaskSpec
)
_MASKSPEC = FinetunePreset(
    clip=MASKSPEC_CLIP,
    model=MASKSPEC,
    optimisation=replace(
        _MASKSPEC_OPTIMISATION,
        most_per_epoch=100_000,  # MaskSpec: weighted, without replacement
    ),
    layer_decay=0.75,  # MaskSpec
    drop_path=0.1,  # MaskSpec
    label_smoothing=0.0,  # MaskSpec: its 0.1 has no effect on mixed labels
    mix=Mix(mixup=0.3),  # MaskSpec: of spectrograms
    views=(1, 1),
    mask=InputMask(200 / 496, "random"),  # MaskSpec
    bands=Bands(time=192, mel=48),  # MaskSpec
)
# MaskSpec's code begins with what it has fine-tuned on AudioSet; --encoder takes that, too.
_MASKSPEC_SMALL_SET = replace(
    _MASKSPEC,
    optimisation=replace(
        _MASKSPEC_OPTIMISATION,
        batch_size=64,  # MaskSpec
        base_min_lr=1e-6 * 256 / 64,
    ),
    measured=True,  # MaskSpec
)

AUDIO: dict[str, FinetunePreset] = {
    "tiny": _tiny(
        clip=Audio(frames=512, bands=128),
        model=replace(AUDIOMAE, encoder=replace(AUDIOMAE.encoder, positions="rows_columns")).tiny(),
        mask=InputMask(0.3),
    ),
    "audiomae-as20k": _AS20K,
    "audiomae-as2m": replace(
        _AS20K,
        optimisation=replace(
            _AS20K_OPTIMISATION,
            batch_size=256,
            base_lr=2e-4,
            base_min_lr=1e-6,
            epochs=100,
            warmup_epochs=10,
            most_per_epoch=200_000,  # AudioMAE: weighted, without replacement
        ),
    ),
    "audiomae-esc50": replace(
        _AS20K,
        clip=replace(_AUDIOMAE_CLIP, frames=512),
        optimisation=replace(
            _AS20K_OPTIMISATION,
            batch_size=64,
            base_min_lr=1e-6 * 256 / 64,
            weight_decay=0.05,
            epochs=50,
            warmup_epochs=5,
        ),
        label_smoothing=0.1,
        mix=Mix(),
        mask=None,
        bands=Bands(time=24, mel=96),
        statistics=(-6.6268077, 5.358466),
    ),
    # Table A.13, for AudioSet-20K; for AudioSet-2M it has 100 epochs. Whether its 30% are in total
    # or on each axis it does not say: in total.
    "snm-audio": replace(
        _AS20K,
        clip=_AUDIOMAE_CLIP,
        optimisation=replace(
            _AS20K_OPTIMISATION,
            batch_size=256,
            base_min_lr=1e-6,
            weight_decay=0.05,
            warmup_epochs=5,
        ),
        mix=Mix(),
        mask=InputMask(0.3),
        bands=None,
    ),
    "maskspec-as": _MASKSPEC,
    "maskspec-esc50": replace(
        _MASKSPEC_SMALL_SET,
        clip=replace(MASKSPEC_CLIP, frames=496),  # MaskSpec: five seconds
        mask=InputMask(100 / 248, "random"),  # MaskSpec
    ),
    "maskspec-scv2": replace(
        _MASKSPEC_SMALL_SET,
        clip=replace(MASKSPEC_CLIP, frames=96),  # MaskSpec: a second
        mask=None,  # MaskSpec
    ),
}

# Images.

IMAGE: dict[str, FinetunePreset] = {
    "tiny": _tiny(
        clip=Image(size=96, crop=ResizedCrop((0.5, 1.0), interpolation="bicubic"), flip=False),
        model=MAE.tiny(),
    ),
    "mae": FinetunePreset(
        clip=Image(
            size=224,
            crop=ResizedCrop(area=(0.08, 1.0), interpolation="bicubic"),  # MAE's code: timm's
            flip=True,
            # MAE: rand-m9-mstd0.5-inc1, and timm's two operations.
            augment=RandAugment(magnitude=9, layers=2, fill=(124, 116, 104)),
            erase=RandomErasing(0.25),  # MAE
        ),
        model=MAE,
        optimisation=Optimisation(
            batch_size=1024,  # MAE, of ViT-B as all below
            base_lr=5e-4,
            base_min_lr=1e-6 * 256 / 1024,  # 1e-6, which it does not scale
            weight_decay=0.05,
            betas=(0.9, 0.999),
            epochs=100,
            warmup_epochs=5,
        ),
        layer_decay=0.65,
        drop_path=0.1,
        label_smoothing=0.1,
        mix=_VIDEOMAE_MIX,
        views=(1, 1),
    ),
}

# Clips with sound.

_CAV_MAE_CLIP = AudioVideo(
    Video(frames=1, size=224, stride=1, crop=CentreCrop(interpolation="bicubic"), flip=False),
    # CAV-MAE's code: (x + 5.081) / 4.4849, which is not two deviations as in AudioMAE's.
    Audio(frames=1024, bands=128, padding="see", mean=(-5.081,), std=(4.4849 / 2,)),
    spread=10,  # CAV-MAE: one of ten frames
)
_CAV_MAE_RATE = 1e-4 * 256 / 48  # its code's 1e-4, at its batch
_CAV_MAE = FinetunePreset(
    clip=_CAV_MAE_CLIP,
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
    head_rate=10.0,  # CAV-MAE
    with_replacement=True,  # CAV-MAE
)

AUDIO_VIDEO: dict[str, FinetunePreset] = {
    "tiny": _tiny(
        clip=AudioVideo(
            Video(frames=16, size=96, stride=2, crop=ResizedCrop(area=(0.5, 1.0)), flip=False),
            Audio(frames=128, bands=128),
        ),
        model=CAV_MAE.with_clips().encoder.resized(dim=192, depth=4, heads=3),
        views=(2, 1),
    ),
    "cav-mae": _CAV_MAE,
    # Table A.15. It names neither the lowest rate, 0 here, nor bands, nor a rate of its own for the
    # head, nor rates that fall from layer to layer.
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
        mix=_VIDEOMAE_MIX,
        bands=None,
        head_rate=1.0,
    ),
}

PRESETS: dict[str, dict[str, FinetunePreset]] = {
    "video": VIDEO,
    "audio": AUDIO,
    "image": IMAGE,
    "audio-video": AUDIO_VIDEO,
}

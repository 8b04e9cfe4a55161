"""Presets of fine-tuning on sound."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.models.settings import AUDIOMAE, MASKSPEC
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.presets.audio import MASKSPEC_CLIP

from .preset import FinetunePreset, InputMask, tiny

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
    "tiny": tiny(
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

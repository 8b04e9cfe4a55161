"""Presets of sound."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.spectrogram import Spectrogram
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.settings import AUDIOMAE, MASKSPEC, MSM_MAE, MSM_MAE_M2D
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.masking import HintSettings, MaskSettings

from .preset import TINY, Preset

RBN = {"audio": MaskSettings("rbn", 0.8)}  # SNM, at AudioMAE's ratio

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
# normalises band by band, which changes nothing, and computes sounds in half precision. It draws
# one jitter for all sounds of a batch that a GPU has; ours is of each sample, so that a batch may
# be cut in any way.
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
        RBN,
        MaskedAutoencoding(_GLOBAL_AUDIOMAE.tiny()),
        replace(TINY, weight_decay=1e-4),
    ),
    "small": Preset(
        _AUDIO_CLIP,
        RBN,
        MaskedAutoencoding(
            _GLOBAL_AUDIOMAE.resized(
                dim=384, depth=12, heads=6,  # ViT-S
                decoder_dim=256, decoder_depth=8, decoder_heads=8,  # ours
            )
        ),
        _AUDIO_OPTIMISATION,
    ),
    "base": Preset(_AUDIO_CLIP, RBN, MaskedAutoencoding(_GLOBAL_AUDIOMAE), _AUDIO_OPTIMISATION),
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
        RBN,
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

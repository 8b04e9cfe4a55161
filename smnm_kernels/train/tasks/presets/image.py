"""Presets of pictures."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.data.crops import ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.settings import MAE
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.masking import MaskSettings

from .preset import TINY, Preset

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
    "tiny": Preset(replace(_MAE_CLIP, size=96), _GREEN2D, MaskedAutoencoding(MAE.tiny()), TINY),
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

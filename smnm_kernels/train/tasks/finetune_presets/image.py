"""Presets of fine-tuning on pictures."""

from __future__ import annotations

from smnm_kernels.train.data.augment import RandAugment, RandomErasing
from smnm_kernels.train.data.crops import ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.models.settings import MAE
from smnm_kernels.train.run.optimisation import Optimisation

from .preset import FinetunePreset, tiny
from .video import MIX

IMAGE: dict[str, FinetunePreset] = {
    "tiny": tiny(
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
        mix=MIX,
        views=(1, 1),
    ),
}

"""A small AVT for tests."""

from __future__ import annotations

from dataclasses import replace

from smnm_kernels.train.models.avt_encoder import FusedEncoderSettings
from smnm_kernels.train.models.fusion import FusionSettings
from smnm_kernels.train.models.settings import AUDIOMAE, VIDEOMAE

SIZES = {"video": (3, 4, 32, 32), "audio": (1, 1, 128, 32)}


def fused_settings(kind: str = "bottleneck", blocks: int = 2) -> FusedEncoderSettings:
    """One block in each encoder, the sound's with a class token."""
    shape = {"dim": 16, "depth": 1, "heads": 2}
    return FusedEncoderSettings(
        replace(VIDEOMAE.encoder, **shape),
        replace(AUDIOMAE.encoder, **shape, positions="rows_columns"),
        FusionSettings(kind, tokens=2, blocks=blocks),
    )

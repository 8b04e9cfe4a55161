"""Structured-noise masks for video and audio masked autoencoders.

A mask is a pure function of (seed, sample id, kind, grid, ratio, parameters): bit-identical on
every device, for any batch split, worker count or resume.
"""

from . import reference
from .functional import noise, noise_masks, rbn_bank, rbn_masks, threshold
from .masks import Masks
from .noise_bank import NoiseBank
from .ops import backends, build_info
from .sampler import MaskSampler

__all__ = [
    "MaskSampler",
    "Masks",
    "NoiseBank",
    "backends",
    "build_info",
    "noise",
    "noise_masks",
    "rbn_bank",
    "rbn_masks",
    "reference",
    "threshold",
]

"""Structured-noise masks for video and audio masked autoencoders.

A mask is a pure function of (seed, sample id, kind, grid, ratio, parameters): bit-identical on
every device, for any batch split, worker count or resume.
"""

try:
    import torch
except ModuleNotFoundError:
    raise ImportError("smnm_kernels needs torch >= 2.10, and no torch is installed") from None
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
    raise ImportError(f"smnm_kernels needs torch >= 2.10, and {torch.__version__} is installed")

from . import reference, schedules
from .audio_video import AudioVideoMasks, AudioVideoSampler
from .baselines import baseline_masks
from .dispatch import backends, build_info
from .functional import noise, noise_masks, rbn_bank, rbn_masks, threshold
from .masks import Masks
from .noise_bank import NoiseBank
from .sampler import MaskSampler
from .scheduled_sampler import ScheduledSampler

__all__ = [
    "AudioVideoMasks",
    "AudioVideoSampler",
    "MaskSampler",
    "Masks",
    "NoiseBank",
    "ScheduledSampler",
    "backends",
    "baseline_masks",
    "build_info",
    "noise",
    "noise_masks",
    "rbn_bank",
    "rbn_masks",
    "reference",
    "schedules",
    "threshold",
]

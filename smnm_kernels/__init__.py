"""Structured-noise masks for video and audio masked autoencoders.

A mask is a pure function of (seed, sample id, kind, grid, ratio, parameters): bit-identical on
every device, for any batch split, worker count or resume.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    import torch
except ModuleNotFoundError:
    raise ImportError("smnm_kernels needs torch >= 2.10, and no torch is installed") from None
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10):
    raise ImportError(f"smnm_kernels needs torch >= 2.10, and {torch.__version__} is installed")

try:
    __version__ = version("smnm_kernels")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "unknown"

from . import reference, schedules
from .activity import activity_masks, activity_segments
from .bank_sampler import BankSampler
from .data_driven import dispersion_masks, guided_masks, patch_dispersion, weighted_masks
from .dispatch import backends, build_info
from .functional import (
    baseline_masks,
    noise,
    noise_masks,
    rbn_bank,
    rbn_masks,
    threshold,
)
from .kinds.multi_block import MultiBlockMasks
from .masks import ActivityMasks, Masks
from .multi_block import multi_block_masks
from .noise_bank import NoiseBank
from .samplers import (
    AudioVideoMasks,
    AudioVideoSampler,
    CurriculumSampler,
    MaskSampler,
    ScheduledSampler,
)
from .scores import patch_motion, self_guided_scores

__all__ = [
    "ActivityMasks",
    "AudioVideoMasks",
    "AudioVideoSampler",
    "BankSampler",
    "CurriculumSampler",
    "MaskSampler",
    "Masks",
    "MultiBlockMasks",
    "NoiseBank",
    "ScheduledSampler",
    "activity_masks",
    "activity_segments",
    "backends",
    "baseline_masks",
    "build_info",
    "dispersion_masks",
    "guided_masks",
    "multi_block_masks",
    "noise",
    "noise_masks",
    "patch_dispersion",
    "patch_motion",
    "rbn_bank",
    "rbn_masks",
    "reference",
    "schedules",
    "self_guided_scores",
    "threshold",
    "weighted_masks",
]

"""Samplers: modules that draw the next masks of one seed's endless stream of sample ids."""

from .audio_video import AudioVideoMasks, AudioVideoSampler
from .mask_sampler import MaskSampler
from .scheduled import ScheduledSampler
from .stream import MaskStream, check_sampler, rank_and_world_size

__all__ = [
    "AudioVideoMasks",
    "AudioVideoSampler",
    "MaskSampler",
    "MaskStream",
    "ScheduledSampler",
    "check_sampler",
    "rank_and_world_size",
]

"""Samplers: modules that draw masks, one call after the other.

The stream of a sampler is the endless sequence of its sample ids: sample number i of the run has
id i. Each call takes the next ids of the stream.
"""

from .audio_video import AudioVideoMasks, AudioVideoSampler
from .curriculum import CurriculumSampler
from .mask_sampler import MaskSampler
from .scheduled import ScheduledSampler
from .stream import MaskStream, check_sampler, rank_and_world_size

__all__ = [
    "AudioVideoMasks",
    "AudioVideoSampler",
    "CurriculumSampler",
    "MaskSampler",
    "MaskStream",
    "ScheduledSampler",
    "check_sampler",
    "rank_and_world_size",
]

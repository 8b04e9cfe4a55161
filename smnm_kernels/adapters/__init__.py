"""Masks in the form that existing training codebases call for.

Most of them take a view of ``Masks`` (``masked``, ``mae``, ``vitmae_noise``, ``hiera_kept``,
``jepa``, ``data2vec_masked``) as it is. Here is what stands in for a method, class or collator of
theirs. Each is an ordinary object that can be pickled and copied.
"""

from .collators import JepaCollator
from .generators import ClonedMasks, MaskingGenerator
from .hugging_face import epoch_callback, hf_sampler
from .methods import M2dMasking, RandomMasking

__all__ = [
    "ClonedMasks",
    "JepaCollator",
    "M2dMasking",
    "MaskingGenerator",
    "RandomMasking",
    "epoch_callback",
    "hf_sampler",
]

"""Masks in the form that existing training codebases expect.

Most codebases take a view of ``Masks`` (``masked``, ``mae``, ``vitmae_noise``, ``hiera_kept``,
``jepa``, ``data2vec_masked``) as it is. The objects here replace a method, class or collator of a
codebase. All of them can be pickled and copied.
"""

from .collators import JepaCollator, Vjepa2Collator
from .generators import ClonedMasks, MaskingGenerator
from .hugging_face import epoch_callback, hf_sampler
from .install import Installed, install
from .methods import AdaMaeMasking, HieraMasking, M2dMasking, RandomMasking

__all__ = [
    "AdaMaeMasking",
    "ClonedMasks",
    "HieraMasking",
    "Installed",
    "JepaCollator",
    "M2dMasking",
    "MaskingGenerator",
    "RandomMasking",
    "Vjepa2Collator",
    "epoch_callback",
    "hf_sampler",
    "install",
]

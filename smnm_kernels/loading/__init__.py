"""Masks made in data loaders. They depend on the example and the epoch, not on the workers."""

from .collator import MaskCollator
from .keys import sample_id_of_key
from .with_ids import Numbered, WithSampleIds, split_ids

__all__ = ["MaskCollator", "Numbered", "WithSampleIds", "sample_id_of_key", "split_ids"]

"""Documented place of what loads a run's models: `load_encoder`, and `load_classifier`."""

from .models.classifier import load_classifier
from .models.encoder_file import load_encoder

__all__ = ["load_classifier", "load_encoder"]

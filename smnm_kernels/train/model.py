"""Documented place of `load_encoder`, which loads what a run exports."""

from .models.encoder_file import load_encoder

__all__ = ["load_encoder"]

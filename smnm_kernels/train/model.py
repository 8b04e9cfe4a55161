"""Documented place of what loads a run's models, and of what they say of files."""

from .models.audio_video_encoder import load_audio_video_encoder
from .models.avt_encoder import load_fused_encoder
from .models.classifier import load_classifier
from .models.encoder_file import load_encoder
from .models.joint_classifier import load_joint_classifier
from .tasks.predict import predictions

__all__ = [
    "load_audio_video_encoder",
    "load_classifier",
    "load_encoder",
    "load_fused_encoder",
    "load_joint_classifier",
    "predictions",
]

"""Documented place of `pretrain`: the command `smnm pretrain` from Python."""

from .tasks.pretrain import pretrain

__all__ = ["pretrain"]

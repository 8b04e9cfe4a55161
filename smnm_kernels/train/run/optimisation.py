"""How a model is optimised: AdamW, batch size, rates, lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """The part of a recipe that any task has. Rates are given for a batch of 256 samples and grow
    in proportion to the batch size."""

    batch_size: int  # samples a step, over all processes
    base_lr: float
    base_min_lr: float
    weight_decay: float
    betas: tuple[float, float]
    # Lengths in passes over the files; those in steps replace them where they are given.
    epochs: int = 0
    warmup_epochs: int = 0
    steps: int | None = None
    warmup_steps: int | None = None
    checkpoint_every: int = 500  # steps

    def total_steps(self, n_files: int) -> int:
        if self.steps is not None:
            return self.steps
        return math.ceil(self.epochs * n_files / self.batch_size)

    def warmup_of(self, schedule_steps: int) -> int:
        """Steps of warmup in a schedule of this length."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round(schedule_steps * self.warmup_epochs / self.epochs)

    @property
    def lr(self) -> float:
        return self.base_lr * self.batch_size / 256

    @property
    def min_lr(self) -> float:
        return self.base_min_lr * self.batch_size / 256


def adamw(model: nn.Module, optimisation: Optimisation) -> torch.optim.AdamW:
    """Biases, norms and single tokens do not decay. The loop sets each step's rate."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if _decays(p)]
    others = [p for p in parameters if not _decays(p)]
    groups = [
        {"params": matrices, "weight_decay": optimisation.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    # On the CPU, too, one pass over the weights takes a third of the time of many.
    return torch.optim.AdamW(groups, lr=0.0, betas=optimisation.betas, fused=True)


def _decays(parameter: nn.Parameter) -> bool:
    """A weight matrix or kernel; a token of a model may have leading axes of length 1."""
    return sum(length > 1 for length in parameter.shape) > 1

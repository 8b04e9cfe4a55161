"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warmup to `peak`, half a cosine down to `lowest` at step `length`, then `lowest`."""

    peak: float
    lowest: float
    warmup_steps: int
    length: int  # steps, warmup included

    def rate(self, done: int) -> float:
        """Of the step after `done` ones. Within the warmup it does not depend on the length."""
        if done < self.warmup_steps:
            return self.peak * (done + 1) / self.warmup_steps
        if done >= self.length:
            return self.lowest
        share = (done - self.warmup_steps) / (self.length - self.warmup_steps)
        return self.lowest + (self.peak - self.lowest) * 0.5 * (1 + math.cos(math.pi * share))

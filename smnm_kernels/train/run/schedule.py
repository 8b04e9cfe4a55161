"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warmup to `peak`, half a cosine down to `lowest` at step `length`, then `lowest`.

    With `halvings`, shares of the length, the rate stays at `peak` instead and is halved behind
    each of them; `lowest` is not asked.
    """

    peak: float
    lowest: float
    warmup_steps: int
    length: int  # steps, warmup included
    halvings: tuple[float, ...] = ()

    def rate(self, done: int) -> float:
        """Of the step after `done` ones. Within the warmup it does not depend on the length."""
        if done < self.warmup_steps:
            return self.peak * (done + 1) / self.warmup_steps
        if self.halvings:
            # A share of 10 epochs of 25 is a whole number of steps but for its rounding.
            return self.peak * 0.5 ** sum(done >= round(s * self.length) for s in self.halvings)
        if done >= self.length:
            return self.lowest
        share = (done - self.warmup_steps) / (self.length - self.warmup_steps)
        return self.lowest + (self.peak - self.lowest) * 0.5 * (1 + math.cos(math.pi * share))

    @property
    def last(self) -> float:
        """The rate of steps behind the schedule."""
        return self.rate(max(self.length, self.warmup_steps))

"""Values that change as training goes on: functions of the step (or epoch), the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arguments import is_int, is_sequence


def linear(start: object, end: object, steps: int, *, places: int = 2) -> Ramp:
    """From ``start`` at step 0 to ``end`` at step ``steps`` and after, in a straight line.

    Args:
        start, end: numbers, or sequences of them such as sigma's ranges, of the same form.
        steps: steps (or epochs) from one to the other.
        places: decimals that values between the ends are rounded to; ints stay ints. Every sigma
            needs filters of its own and every ratio other shapes, so a few different values are
            faster than one for each step.
    """
    return Ramp(start, end, steps, places, half_cosine=False)


def cosine(start: object, end: object, steps: int, *, places: int = 2) -> Ramp:
    """As ``linear``, along half a cosine: slow at both ends."""
    return Ramp(start, end, steps, places, half_cosine=True)


def stages(values: Mapping[int, object]) -> Stages:
    """A constant value for each stage: ``stages({0: "random", 2000: "green3d"})`` changes at step
    2000."""
    return Stages(dict(values))


def hint(steps: int, *, start: int | float = 1 / 6, power: float = 2) -> Hint:
    """The share of chance of dispersion-weighted masking: 1 before ``start``, then
    1 - (step / steps)**power, and 0 from ``steps`` on.

    Args:
        steps: steps (or epochs) of the whole training, E.
        start: the first step with less chance: an int, or a float that is a share of ``steps``. A
            sixth is the 50 of 300 epochs of that method's code.
        power: k.
    """
    return Hint(steps, start, power)


@dataclass(frozen=True)
class Hint:
    steps: int
    start: int | float
    power: float

    def __post_init__(self) -> None:
        if not is_int(self.steps) or self.steps < 1:
            raise ValueError(f"steps must be a positive int, got {self.steps!r}")
        is_share = isinstance(self.start, float) and 0 <= self.start <= 1
        if not is_share and not (is_int(self.start) and self.start >= 0):
            raise ValueError(
                f"start must be a non-negative int, or a float in [0, 1], got {self.start!r}"
            )
        if not is_share and self.start >= self.steps:
            raise ValueError(
                f"start must be before the {self.steps} steps are over, got {self.start!r}"
            )
        if isinstance(self.power, bool) or not 0 < self.power < math.inf:
            raise ValueError(f"power must be a finite number > 0, got {self.power!r}")

    @property
    def milestones(self) -> tuple[int, ...]:
        return (0, self.steps)

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return 0.0
        start = self.start * self.steps if isinstance(self.start, float) else self.start
        if step < start:
            return 1.0
        # Four decimals: a power is not rounded the same on every machine.
        return round(1 - (step / self.steps) ** self.power, 4)


@dataclass(frozen=True)
class Ramp:
    start: object
    end: object
    steps: int
    places: int
    half_cosine: bool

    def __post_init__(self) -> None:
        if not is_int(self.steps) or self.steps < 1:
            raise ValueError(f"steps must be a positive int, got {self.steps!r}")
        if not is_int(self.places) or self.places < 0:
            raise ValueError(f"places must be a non-negative int, got {self.places!r}")
        try:
            self(0)
        except TypeError:
            raise TypeError(
                "start and end must be numbers, or sequences of numbers of the same form, "
                f"got {self.start!r} and {self.end!r}"
            ) from None

    @property
    def milestones(self) -> tuple[int, ...]:
        return (0, self.steps)

    def __call__(self, step: int) -> object:
        share = min(max(step, 0), self.steps) / self.steps
        if self.half_cosine:
            share = (1 - math.cos(math.pi * share)) / 2
        return self._between(self.start, self.end, share)

    def _between(self, start: Any, end: Any, share: float) -> object:
        if is_sequence(start) and is_sequence(end) and len(start) == len(end):
            return tuple(self._between(a, b, share) for a, b in zip(start, end, strict=True))
        value = start + share * (end - start)
        if share in (0, 1):  # the ends are not rounded
            return end if share else start
        value = round(value) if is_int(start) and is_int(end) else round(value, self.places)
        return min(max(value, min(start, end)), max(start, end))


@dataclass(frozen=True)
class Stages:
    values: dict[int, object]

    def __post_init__(self) -> None:
        if 0 not in self.values or not all(is_int(step) and step >= 0 for step in self.values):
            raise ValueError(
                "stages must map the first step of each stage, 0 among them, to its value, "
                f"got {self.values!r}"
            )

    @property
    def milestones(self) -> tuple[int, ...]:
        return tuple(sorted(self.values))

    def __call__(self, step: int) -> object:
        return self.values[max(first for first in self.values if first <= step)]

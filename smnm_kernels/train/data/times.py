"""When the frames and samples of a file are shown and heard, in seconds of its own time stamps.

The streams of a file may begin at different times, frames may follow each other unevenly, and sound
may pause. The stamps of a decoder tell, with edit lists, delays of encoders and the order of
frames already taken into account. What is kept of them is a line through numbers and times, bent
only where it would miss a stamp by more than `TOLERANCE`.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import itemgetter
from typing import Any

from smnm_kernels.errors import Unusable

TOLERANCE = 0.004  # seconds; that of picture and of sound together stay within a hop of 10 ms
# Stamps that go back further than frames are reordered, or one clock differs from another.
_MOST_BACK = 1.0  # seconds
# By this share two clocks of one sound may differ; beyond it the sound pauses.
_CLOCKS = 5e-4
# Between a frame's time and one that was computed for it.
_ROUNDING = 1e-6

# [number, seconds, seconds from one number to the next], up to the next piece.
Piece = list[Any]


class Stamps:
    """Those of one stream, in the order in which it is decoded."""

    def __init__(self) -> None:
        self._numbers, self._stamps = array("q"), array("q")
        self._last_duration = 0

    def add(self, number: int, frame: Any) -> None:
        """Of a decoded frame, which is the one of this number or holds the samples from it on."""
        if frame.pts is not None:
            self._numbers.append(number)
            self._stamps.append(frame.pts)
            self._last_duration = frame.duration or 0

    def of_frames(self, time_base: Fraction, count: int) -> dict[str, Any]:
        """What a record keeps of a video of `count` frames: {"pieces", "end"}."""
        # AVI has stamps in the order of decoding.
        times = sorted(self._seconds(time_base))
        mean = (times[-1] - times[0]) / max(1, self._numbers[-1] - self._numbers[0])
        found = _pieces(self._numbers, times, mean, (0.0, math.inf))
        last = float(self._last_duration * time_base) or mean
        return {"pieces": found, "end": round(_on(found, count - 1) + last, 6)}

    def of_samples(self, time_base: Fraction, count: int, rate: int) -> dict[str, Any]:
        """What a record keeps of a sound of `count` samples at `rate` Hz."""
        bounds = ((1 - _CLOCKS) / rate, (1 + _CLOCKS) / rate)
        found = _pieces(self._numbers, self._seconds(time_base), 1 / rate, bounds)
        return {"pieces": found, "end": round(_on(found, count), 6)}

    def _seconds(self, time_base: Fraction) -> list[float]:
        if not self._stamps:
            raise Unusable("has no time stamps")
        highest, back = self._stamps[0], 0
        for stamp in self._stamps:
            highest = max(highest, stamp)
            back = max(back, highest - stamp)
        if back * time_base > _MOST_BACK:
            raise Unusable(f"has time stamps that go back by {float(back * time_base):.3f} s")
        return [float(stamp * time_base) for stamp in self._stamps]


def _pieces(
    numbers: Sequence[int], times: Sequence[float], usual: float, bounds: tuple[float, float]
) -> list[Piece]:
    """Each begins at a stamp and takes all that follow, as long as some step within `bounds` misses
    none of them by more than the tolerance."""
    found: list[Piece] = []
    begin = 0
    while begin < len(numbers):
        n, t = numbers[begin], times[begin]
        low, high = bounds
        end = begin + 1
        while end < len(numbers):
            far, gone = numbers[end] - n, times[end] - t
            least, most = (gone - TOLERANCE) / far, (gone + TOLERANCE) / far
            if max(low, least) > min(high, most):
                break
            low, high = max(low, least), min(high, most)
            end += 1
        last = end - 1
        step = (times[last] - t) / (numbers[last] - n) if last > begin else usual
        found.append([n, round(t, 6), float(f"{min(max(step, low), high):.12g}")])
        begin = end
    return found


def _on(pieces: Sequence[Piece], number: int) -> float:
    """Seconds at which this number begins."""
    following = bisect_right(pieces, number, key=itemgetter(0))
    n, t, step = pieces[max(0, following - 1)]
    seconds = t + (number - n) * step
    # Rounded, the end of a piece may lie behind the beginning of the next one.
    return min(seconds, pieces[following][1]) if 0 < following < len(pieces) else seconds


@dataclass(frozen=True)
class Times:
    """Of a stream, from its record."""

    kept: dict[str, Any]
    count: int  # frames or samples

    @property
    def begin(self) -> float:
        return self.of(0)

    @property
    def end(self) -> float:
        """Seconds; where the last frame or sample ends."""
        return self.kept["end"]

    @property
    def step(self) -> float:
        """Seconds from one to the next, in the mean."""
        return (self.end - self.begin) / self.count

    def of(self, number: int) -> float:
        """Seconds at which a frame or sample begins; of the number behind the last one, the end."""
        return self.end if number >= self.count else _on(self.kept["pieces"], number)

    def at(self, seconds: float) -> int:
        """The number of the last one that has begun by then; the first one before all."""
        seconds += _ROUNDING
        low, high = 0, self.count
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.of(middle) <= seconds else (low, middle)
        return low

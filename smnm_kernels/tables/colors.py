"""The colors of noise and their sigmas: names, presets, checks, and what a sample may draw.

red = G(s)*w, blue = w - G(s)*w, green = G(s1)*w - G(s2)*w. All three are a difference of two
Gaussians of white noise: blue has s1 = 0 (the identity), red has no second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from smnm_kernels.arguments import constant_in_graphs

Color = str
COLORS = ("white", "red", "blue", "green")

MIN_SIGMA, MAX_SIGMA = 0.2, 8.0
#: The smallest sigma that may be subtracted. A narrower Gaussian is nearly the identity: subtracted
#: from white noise (blue) or from a still narrower Gaussian (green), it leaves too little.
MIN_SUBTRACTED_SIGMA = 0.35
#: Bounds of sigma1 / sigma2. Green noise with close sigmas is a difference of which little is left.
#: Fixed pairs above the first bound are errors; drawn pairs above the second are drawn again. Taps
#: are rounded, so that at 0.95 a covariance is off by up to 1.5% of the variance, and up to 0.85 by
#: less than 1%.
MAX_FIXED_QUOTIENT, MAX_DRAWN_QUOTIENT = 0.95, 0.9
#: A sigma drawn from a range takes one of this many equally spaced values.
N_LEVELS = 32
#: The paper's Table A.1 (sigma1, sigma2 of green noise) and its main text, in patches.
SIGMA_PRESETS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "variant-1": ((0.5, 0.5), (2.0, 2.0)),
    "variant-2": ((1.5, 1.5), (3.0, 3.0)),
    "variant-3": ((0.5, 1.5), (2.0, 3.0)),
    "variant-4": ((0.2, 1.7), (0.8, 2.3)),
    "variant-5": ((0.4, 1.5), (1.4, 3.0)),
    "main-text": ((0.5, 2.0), (0.5, 2.0)),
}
DEFAULT_GREEN = "variant-5"
DEFAULT_RANGE = (0.5, 2.0)

Sigma = str | float | Sequence[float] | Sequence[Sequence[float]] | None


def parse_color(color: str) -> str:
    if not isinstance(color, str) or color not in COLORS:
        raise ValueError(f"color must be one of {', '.join(COLORS)}, got {color!r}")
    return color


@constant_in_graphs
def parse_sigma(color: Color, sigma: Sigma) -> list[float]:
    """Sigma in its canonical form: [] for white, [low, high] for red and blue,
    [low1, high1, low2, high2] for green. A fixed value has low = high. Units: patches."""
    allowed = {
        "white": "None",
        "red": "None, a number or a (low, high) range",
        "blue": "None, a number or a (low, high) range",
        "green": "None, a preset name, or a pair (sigma1, sigma2) of numbers or (low, high) ranges",
    }[color]
    complaint = f"sigma for {color} noise must be {allowed}"
    if color == "white":
        if sigma is not None:
            raise ValueError(f"{complaint}, got {sigma!r}")
        return []
    if isinstance(sigma, str):
        if color != "green" or sigma not in SIGMA_PRESETS:
            raise ValueError(
                f"{complaint}; presets of green: {', '.join(SIGMA_PRESETS)}; got {sigma!r}"
            )
        sigma = SIGMA_PRESETS[sigma]
    if sigma is None:
        sigma = SIGMA_PRESETS[DEFAULT_GREEN] if color == "green" else DEFAULT_RANGE
    if color != "green":
        least = MIN_SUBTRACTED_SIGMA if color == "blue" else MIN_SIGMA
        return [*_parse_range(sigma, complaint, least)]
    if not isinstance(sigma, Sequence) or len(sigma) != 2:
        raise ValueError(f"{complaint}, got {sigma!r}")
    ranges = [
        *_parse_range(sigma[0], complaint),
        *_parse_range(sigma[1], complaint, MIN_SUBTRACTED_SIGMA),
    ]
    if ranges[0] >= ranges[3]:
        raise ValueError(f"{complaint} with sigma1 < sigma2, got {sigma!r}")
    return ranges


@constant_in_graphs
def parse_time_scale(
    color: Color, sigma: Sequence[float], time_scale: float, has_time: bool
) -> float:
    """``time_scale`` as a float. ``sigma`` is canonical; ``has_time``: the noise is filtered along
    T."""
    if not _is_number(time_scale):
        raise TypeError(f"time_scale must be a number, got {time_scale!r}")
    if time_scale == 1:
        return 1.0
    if color == "white" or not has_time:
        raise ValueError(
            "time_scale is for red, blue and green noise in three dimensions, on a grid with "
            f"T > 1, got {time_scale!r}"
        )
    most = MAX_SIGMA / max(sigma)
    if not 0 <= time_scale <= most:
        raise ValueError(
            f"time_scale must be in [0, {most:g}], so that sigma along time is at most "
            f"{MAX_SIGMA:g} patches, got {time_scale!r}"
        )
    return float(time_scale)


def _parse_range(value: Any, complaint: str, least: float = MIN_SIGMA) -> tuple[float, float]:
    ends = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(ends) != 2 or not all(_is_number(end) for end in ends):
        raise ValueError(f"{complaint}, got {value!r}")
    low, high = float(ends[0]), float(ends[1])
    if not least <= low <= high <= MAX_SIGMA:
        raise ValueError(f"{complaint} in [{least}, {MAX_SIGMA:g}], low <= high, got {value!r}")
    return low, high


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def sigma_pairs(color: Color, sigma: Sequence[float]) -> list[tuple[float, float | None]]:
    """Every (sigma1, sigma2) a sample may draw, each with the same probability. Blue has
    sigma1 = 0, red no sigma2. ``sigma`` is canonical."""
    if color == "red":
        return [(s1, None) for s1 in _levels(*sigma)]
    levels1 = [0.0] if color == "blue" else _levels(*sigma[:2])
    levels2 = _levels(*sigma[-2:])
    fixed = len(levels1) == len(levels2) == 1
    most = MAX_FIXED_QUOTIENT if fixed else MAX_DRAWN_QUOTIENT
    # A little more than most, so that (0.95, 1) is allowed however 0.95 is rounded.
    pairs = [(s1, s2) for s1 in levels1 for s2 in levels2 if s1 / s2 <= most + 1e-9]
    if not pairs:
        raise ValueError(
            f"sigma for green noise must allow sigma1 <= {most} * sigma2, or little is left of "
            f"their difference; got sigma1 in [{sigma[0]:g}, {sigma[1]:g}] and sigma2 in "
            f"[{sigma[2]:g}, {sigma[3]:g}]"
        )
    return pairs  # type: ignore[return-value]


def _levels(low: float, high: float) -> list[float]:
    if low == high:
        return [low]
    return [low + (high - low) * (i + 0.5) / N_LEVELS for i in range(N_LEVELS)]

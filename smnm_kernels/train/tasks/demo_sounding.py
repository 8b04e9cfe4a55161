"""Clips with sound for `smnm demo audio-video`: what is heard follows what is seen.

The same files on every machine up to the encoder's version, like those of the other demos.
"""

from __future__ import annotations

import numpy as np

SIZE, FRAMES, RATE = 96, 90, 30
SOUND_RATE = 16_000  # Hz

_CLICK = 0.03  # seconds
_LOWEST, _HIGHEST = 300.0, 2400.0  # Hz, of the largest and the smallest ball
_SMALLEST, _LARGEST = 8.0, 22.0  # pixels, radius


def sounding_ball(number: int) -> tuple[list[np.ndarray], np.ndarray]:
    """A ball that bounces about on a slope of colours: (uint8 [SIZE, SIZE, 3] frames, float samples
    in [-1, 1]). Small balls hum higher, faster ones louder, and each bounce clicks."""
    rng = np.random.default_rng([4, number])
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    slope = ((x - SIZE / 2) * np.cos(angle) + (y - SIZE / 2) * np.sin(angle)) / SIZE
    ground = rng.uniform(40, 100, 3) + 90 * slope[..., None] * rng.uniform(0.3, 1, 3)
    radius = rng.uniform(_SMALLEST, _LARGEST)
    at, step = rng.uniform(radius, SIZE - radius, 2), rng.uniform(1, 4, 2)
    step *= rng.choice([-1, 1], 2)
    colour = rng.uniform(140, 255, 3)
    pictures, bounces = [], []
    for frame in range(FRAMES):
        picture = ground.copy()
        picture[np.hypot(x - at[0], y - at[1]) < radius] = colour
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
        at = at + step
        out = (at < radius) | (at > SIZE - radius)
        step = np.where(out, np.where(at < radius, 1, -1) * np.abs(step), step)
        if out.any():
            bounces.append(frame + 1)
    return pictures, _hum_and_clicks(radius, float(np.hypot(*step)), bounces, rng)


def _hum_and_clicks(
    radius: float, speed: float, bounces: list[int], rng: np.random.Generator
) -> np.ndarray:
    t = np.arange(FRAMES * SOUND_RATE // RATE) / SOUND_RATE
    size = (radius - _SMALLEST) / (_LARGEST - _SMALLEST)
    pitch = _HIGHEST * (_LOWEST / _HIGHEST) ** size
    loudness = 0.03 * speed
    sound = sum(loudness / k * np.sin(2 * np.pi * k * pitch * t) for k in (1, 2, 3))
    sound = sound + 0.003 * rng.standard_normal(len(t))
    for frame in bounces:
        since = t - frame / RATE
        fading = np.where((since >= 0) & (since < _CLICK), np.exp(-since / (_CLICK / 4)), 0)
        sound += 0.4 * fading * rng.standard_normal(len(t))
    return np.clip(sound, -1, 1)

"""Bright sprites that sound: they click where they bounce, the smaller the higher, and a class that
neither picture nor sound tells alone.

    python examples/data/sounding_sprites.py --out data/sounding_sprites

`clips/SPLIT/*.mkv` with `labels.csv` hold groups of four clips: two pictures, which differ in the
shape of the sprite alone, each with two sounds, which differ in their timbre alone. `both` is
"like" where shape and timbre go together (a disc that sounds pure, a cross that sounds rich) and
"unlike" where not. Each picture comes with both values, and so does each sound: whoever only sees
or only hears guesses. `pair` names shape and timbre, of which who only sees or only hears knows one
and guesses the other: half of them right. (It is the easier one: `both` is no sum of what is seen
and what is heard.) `single/*.mkv` with `single.csv` are clips that share nothing, to match
sounds with pictures: a pitch follows from a size, but not exactly, and clicks from bounces.

Other columns: split (groups stay together), group, shape, timbre, size (radius as a share of the
picture's side), pitch (Hz) and bounces. Everything is computed from the seed; the set is in the
public domain (CC0).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from set_files import make_once, split_of, write_film, write_manifest, write_table
from sprites import RATE, Texture, holds

SOUND_RATE = 16_000  # Hz
SHAPES = ("disc", "cross")
#: Amplitudes of the fundamental and the odd overtones.
TIMBRES = {"pure": (1.0,), "rich": (0.5, 0.45, 0.4)}
SIZES = (0.09, 0.20)  # radii, as shares of the picture's side
PITCHES = (1000.0, 250.0)  # Hz, of the smallest and the largest, but for what chance adds
PITCH_CHANCE = 0.12  # octaves, the standard deviation
SPEEDS = (0.25, 0.7)  # of the picture's side, a second, along each axis

_TONE, _CLICK, _HISS = 0.15, 0.6, 0.002  # loudness, of full scale
_CLICK_SECONDS = 0.012


@dataclass(frozen=True)
class Bouncer:
    """A sprite that is reflected by the picture's edges. Lengths are shares of the picture's side,
    times are seconds."""

    shape: str
    timbre: str
    radius: float
    pitch: float
    texture: Texture
    background: Texture
    start: np.ndarray  # [2], x and y of the centre at time 0
    velocity: np.ndarray  # [2]
    noise: int  # names the noise of its sound

    @classmethod
    def random(cls, rng: np.random.Generator) -> Bouncer:
        share = rng.uniform()
        radius = SIZES[0] + share * (SIZES[1] - SIZES[0])
        octaves = share * np.log2(PITCHES[1] / PITCHES[0]) + PITCH_CHANCE * rng.standard_normal()
        return cls(
            shape=SHAPES[rng.integers(2)],
            timbre=list(TIMBRES)[rng.integers(2)],
            radius=radius,
            pitch=float(PITCHES[0] * 2**octaves),
            texture=Texture.random(rng, (150, 225), 150),
            background=Texture.random(rng, (40, 90), 80),
            start=rng.uniform(radius, 1 - radius, 2),
            velocity=rng.uniform(*SPEEDS, 2) * rng.choice([-1, 1], 2),
            noise=int(rng.integers(2**31)),
        )

    def centre(self, t: float) -> np.ndarray:
        """x and y at time t."""
        room = 1 - 2 * self.radius
        way = (self.start + t * self.velocity - self.radius) % (2 * room)
        return self.radius + np.minimum(way, 2 * room - way)

    def bounces(self, until: float) -> list[float]:
        """Times before `until` at which it touches an edge."""
        room = 1 - 2 * self.radius
        found: list[float] = []
        for at, speed in zip((self.start - self.radius) / room, self.velocity / room, strict=True):
            # An edge is at every whole number of the way that nothing reflects.
            begin, end = sorted((at, at + until * speed))
            found += [(k - at) / speed for k in range(int(np.ceil(begin)), int(np.ceil(end)))]
        return sorted(found)

    def frames(self, count: int, size: int) -> Iterator[np.ndarray]:
        """uint8 [size, size, 3] each; frame k shows time k / RATE."""
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        ground = self.background.at(x - 0.5, y - 0.5)
        for k in range(count):
            centre = self.centre(k / RATE)
            dx, dy = x - centre[0], y - centre[1]
            held = holds(self.shape, dx / self.radius, dy / self.radius)
            picture = ground.copy()
            picture[held] = self.texture.at(dx[held], dy[held])
            yield picture

    def samples(self, seconds: float) -> np.ndarray:
        """int16 [samples]."""
        rng = np.random.default_rng(self.noise)
        count = round(seconds * SOUND_RATE)
        t = np.arange(count) / SOUND_RATE
        sound = _HISS * rng.uniform(-1, 1, count)
        for number, loudness in enumerate(TIMBRES[self.timbre]):
            overtone = 2 * number + 1
            sound += _TONE * loudness * np.sin(2 * np.pi * overtone * self.pitch * t)
        length = round(_CLICK_SECONDS * SOUND_RATE)
        click = _CLICK * rng.uniform(-1, 1, length) * np.linspace(1, 0, length)
        for bounce in self.bounces(seconds):
            first = round(bounce * SOUND_RATE)
            sound[first : first + length] += click[: count - first]
        return np.round(32767 * np.clip(sound, -1, 1)).astype(np.int16)

    def labels(self, seconds: float) -> dict[str, Any]:
        is_like = SHAPES.index(self.shape) == list(TIMBRES).index(self.timbre)
        return {
            "both": "like" if is_like else "unlike",
            "pair": f"{self.shape}-{self.timbre}",
            "shape": self.shape,
            "timbre": self.timbre,
            "size": self.radius,
            "pitch": self.pitch,
            "bounces": len(self.bounces(seconds)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=150, help="of four clips each")
    parser.add_argument("--single", type=int, default=240, help="clips that share nothing")
    parser.add_argument("--frames", type=int, default=60, help=f"{RATE} a second")
    parser.add_argument("--size", type=int, default=96, help="pixels, of either side; even")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_once(given.out, lambda: make(**vars(given)))


def make(out: Path, groups: int, single: int, frames: int, size: int, seed: int) -> None:
    def write(path: str, clip: Bouncer) -> dict[str, Any]:
        sound = clip.samples(frames / RATE)
        write_film(out / path, clip.frames(frames, size), RATE, sound, SOUND_RATE)
        return clip.labels(frames / RATE)

    rows: list[dict[str, Any]] = []
    for group in range(groups):
        clip, split = (
            Bouncer.random(np.random.default_rng([seed, 6, group])),
            split_of(group, groups),
        )
        for shape in SHAPES:
            for timbre in TIMBRES:
                path = f"clips/{split}/{group:04d}-{shape}-{timbre}.mkv"
                row = {"path": path, "split": split, "group": group}
                rows.append(row | write(path, replace(clip, shape=shape, timbre=timbre)))
    if rows:
        write_table(out / "labels.csv", rows)
    alone: list[dict[str, Any]] = []
    for number in range(single):
        clip = Bouncer.random(np.random.default_rng([seed, 7, number]))
        path = f"single/{number:04d}.mkv"
        alone.append({"path": path, "split": "test", "group": number} | write(path, clip))
    if alone:
        write_table(out / "single.csv", alone)
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/sounding_sprites.py --groups {groups} --single {single} "
        f"--frames {frames} --size {size} --seed {seed}",
        licence="CC0-1.0",
        sources={},
        packages=("av", "numpy", "pillow"),
    )
    print(f"{len(rows)} + {len(alone)} clips in {out}, fingerprint {fingerprint[:16]}")


if __name__ == "__main__":
    main()

"""Bright sprites over smooth, darker grounds: direction, speed, shape, place as labels, and masks.

    python examples/data/sprites.py --out data/sprites

`clips/*.mp4` with `labels.csv` (path, split, and what holds of the first sprite: direction, speed,
shape, and its centre x and y at the middle frame, as shares of the picture) are for probes and
fine-tuning. The first sprite is in front. `masks/` holds other videos of several sprites in the
layout of DAVIS 2017: JPEGImages/480p/NAME/00000.jpg, Annotations/480p/NAME/00000.png with an index
a sprite (0 is background), ImageSets/2017/train.txt and val.txt. A mask is exactly the pixels that
were drawn. `--stills N` adds pictures of one sprite each, `stills/*.png`, with `stills.csv` (path,
split, shape, x, y, and the radius as a share of the picture's side). Everything is computed from
the seed; the set is in the public domain (CC0).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from set_files import (
    make_once,
    split_of,
    write,
    write_manifest,
    write_picture,
    write_table,
    write_video,
)

RATE = 30
DIRECTIONS = ("right", "down", "left", "up")
SPEEDS = {"slow": 0.006, "medium": 0.014, "fast": 0.026}  # of the picture's side, a frame
SHAPES = ("disc", "square", "triangle", "ring", "cross")
#: Colours of the masks' indices, as DAVIS has them.
PALETTE = (0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128)


@dataclass(frozen=True)
class Texture:
    """A colour that brightens along one direction, with faint waves.

    Of any part the rest can be guessed: where nothing can be, a masked autoencoder learns nothing.
    """

    colour: np.ndarray  # [3], 0 to 255
    slope: np.ndarray  # [2, 3]: along x and y, of r, g, b, a picture's side
    waves: np.ndarray  # [n, 4]: along x and y (radians a picture's side), phase, depth

    @classmethod
    def random(
        cls, rng: np.random.Generator, colours: tuple[float, float], steepness: float
    ) -> Texture:
        angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi, 2)
        rise = steepness * rng.uniform(0.4, 1, 3)
        count = 2 * np.pi * rng.uniform(0.5, 1.2, 2)
        waves = np.column_stack(
            [count * np.cos(bend), count * np.sin(bend), rng.uniform(0, 6, 2), (4.0, 4.0)]
        )
        slope = np.array([np.cos(angle) * rise, np.sin(angle) * rise])
        return cls(rng.uniform(*colours, 3), slope, waves)

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """uint8 [..., 3] at places in shares of the picture, 0 its middle."""
        colours = self.colour + x[..., None] * self.slope[0] + y[..., None] * self.slope[1]
        for along_x, along_y, phase, depth in self.waves:
            colours += (depth * np.sin(along_x * x + along_y * y + phase))[..., None]
        return np.clip(colours, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Sprite:
    shape: str
    radius: float  # share of the picture's side, as are all lengths
    texture: Texture
    start: np.ndarray  # [2], x and y of the centre
    direction: str
    speed: str

    @classmethod
    def random(cls, rng: np.random.Generator) -> Sprite:
        return cls(
            shape=str(rng.choice(SHAPES)),
            radius=rng.uniform(0.10, 0.17),
            texture=Texture.random(rng, (150, 225), 150),
            start=rng.uniform(0, 1, 2),
            direction=str(rng.choice(DIRECTIONS)),
            speed=str(rng.choice(list(SPEEDS))),
        )

    def centre(self, t: int) -> np.ndarray:
        """x and y in [0, 1): what leaves on one side comes back on the other."""
        angle = DIRECTIONS.index(self.direction) * np.pi / 2  # y grows downwards
        step = SPEEDS[self.speed] * np.array([np.cos(angle), np.sin(angle)])
        return (self.start + t * step) % 1

    def drawn(self, t: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(bool [h, w]: which pixels it has at frame t, uint8 [pixels, 3]: the colours of these)"""
        centre = self.centre(t)
        dx, dy = (x - centre[0] + 0.5) % 1 - 0.5, (y - centre[1] + 0.5) % 1 - 0.5
        held = holds(self.shape, dx / self.radius, dy / self.radius)
        return held, self.texture.at(dx[held], dy[held])


def holds(shape: str, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Which places a shape covers: bool, by their distances from its centre in its radius."""
    far, distance = np.maximum(abs(dx), abs(dy)), np.hypot(dx, dy)
    if shape == "disc":
        return distance < 1
    if shape == "square":
        return far < 0.86
    if shape == "triangle":
        return (dy < 0.8) & (dy > 2 * abs(dx) - 1)
    if shape == "ring":
        return (distance < 1.05) & (distance > 0.55)
    return (far < 1) & (np.minimum(abs(dx), abs(dy)) < 0.36)


@dataclass(frozen=True)
class Scene:
    background: Texture
    sprites: tuple[Sprite, ...]  # the first is in front

    @classmethod
    def random(cls, rng: np.random.Generator, sprites: int) -> Scene:
        background = Texture.random(rng, (40, 90), 80)
        return cls(background, tuple(Sprite.random(rng) for _ in range(sprites)))

    def frame(self, t: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """(picture uint8 [size, size, 3], mask uint8 [size, size]: 0, or 1 + sprite's number)"""
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        picture = self.background.at(x - 0.5, y - 0.5)
        mask = np.zeros((size, size), np.uint8)
        for number in reversed(range(len(self.sprites))):
            held, colours = self.sprites[number].drawn(t, x, y)
            picture[held], mask[held] = colours, 1 + number
        return picture, mask

    def frames(self, count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self.frame(t, size) for t in range(count))

    def labels(self, frames: int) -> dict[str, Any]:
        """Of the first sprite."""
        first = self.sprites[0]
        x, y = first.centre(frames // 2).tolist()
        return {
            "direction": first.direction,
            "speed": first.speed,
            "shape": first.shape,
            "x": x,
            "y": y,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=480, help="with labels")
    parser.add_argument("--sprites", type=int, default=1, help="in each clip with labels")
    parser.add_argument("--masked", type=int, default=16, help="videos with masks")
    parser.add_argument("--masked-sprites", type=int, default=3, help="in each, at most 4")
    parser.add_argument("--stills", type=int, default=0, help="pictures with labels")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=int, default=96, help="pixels, of either side; even")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_once(given.out, lambda: make(**vars(given)))


def make(
    out: Path,
    clips: int,
    sprites: int,
    masked: int,
    masked_sprites: int,
    frames: int,
    size: int,
    seed: int,
    stills: int = 0,
) -> None:
    rows = []
    for number in range(clips):
        scene = Scene.random(np.random.default_rng([seed, 4, number]), sprites)
        path = f"clips/{number:04d}.mp4"
        write_video(out / path, (picture for picture, _ in scene.frames(frames, size)), RATE)
        row = {"path": path, "split": split_of(number, clips)}
        rows.append({**row, **scene.labels(frames)})
    if rows:
        write_table(out / "labels.csv", rows)
    if stills:
        write_table(
            out / "stills.csv", [write_still(out, n, stills, size, seed) for n in range(stills)]
        )
    names = []
    for number in range(masked):
        scene = Scene.random(np.random.default_rng([seed, 5, number]), masked_sprites)
        names.append(f"sprites-{number:03d}")
        write_masked(out / "masks", names[-1], scene, frames, size)
    if names:
        # Nothing is learnt from masks: all of them are for evaluation.
        write(out / "masks/ImageSets/2017/train.txt", b"")
        write(out / "masks/ImageSets/2017/val.txt", "".join(f"{n}\n" for n in names).encode())
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/sprites.py --clips {clips} --sprites {sprites} "
        f"--masked {masked} --masked-sprites {masked_sprites} --stills {stills} --frames {frames} "
        f"--size {size} --seed {seed}",
        licence="CC0-1.0",
        sources={},
        packages=("av", "numpy", "pillow"),
    )
    print(
        f"{clips} clips, {masked} videos with masks and {stills} pictures in {out}, fingerprint "
        f"{fingerprint[:16]}"
    )


def write_still(out: Path, number: int, count: int, size: int, seed: int) -> dict[str, Any]:
    """Of `count` pictures that of this number; its row of the table."""
    scene = Scene.random(np.random.default_rng([seed, 6, number]), 1)
    path = f"stills/{number:04d}.png"
    write_picture(out / path, scene.frame(0, size)[0])
    labels, (sprite,) = scene.labels(0), scene.sprites
    shown = {name: labels[name] for name in ("shape", "x", "y")}
    return {"path": path, "split": split_of(number, count), **shown, "radius": sprite.radius}


def write_masked(out: Path, name: str, scene: Scene, frames: int, size: int) -> None:
    for t, (picture, mask) in enumerate(scene.frames(frames, size)):
        jpeg, png = io.BytesIO(), io.BytesIO()
        PIL.Image.fromarray(picture).save(jpeg, "JPEG", quality=95, subsampling=0)
        indexed = PIL.Image.fromarray(mask).convert("P")
        indexed.putpalette(PALETTE)
        indexed.save(png, "PNG")
        write(out / f"JPEGImages/480p/{name}/{t:05d}.jpg", jpeg.getvalue())
        write(out / f"Annotations/480p/{name}/{t:05d}.png", png.getvalue())


if __name__ == "__main__":
    main()

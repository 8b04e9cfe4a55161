"""Labelled files for `smnm demo MODALITY --finetune`: DATA/SPLIT/CLASS/FILE.

The same files on every machine up to the encoder's version, like those of the demo without labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SIZE, FRAMES = 96, 40
#: Class -> step along x and y; y grows downwards.
DIRECTIONS = {"down": (0, 1), "left": (-1, 0), "right": (1, 0), "up": (0, -1)}
#: Files of each class in each split.
COUNTS = {"train": 20, "val": 4, "test": 16}


def labelled_names() -> list[str]:
    """Of all files, below DATA: the number of a file is its place here."""
    return [
        f"{split}/{direction}/clip{i:02d}.mp4"
        for split, count in COUNTS.items()
        for direction in DIRECTIONS
        for i in range(count)
    ]


def moving_shape(number: int) -> Iterator[np.ndarray]:
    """uint8 [SIZE, SIZE, 3] frames: a bright disc or box goes over a dark ramp, where the file's
    folder says; what leaves on one side comes back on the other."""
    rng = np.random.default_rng([3, number])
    step = np.array(DIRECTIONS[labelled_names()[number].split("/")[1]]) * rng.uniform(1.5, 3)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = ((x - SIZE / 2) * np.cos(angle) + (y - SIZE / 2) * np.sin(angle)) / SIZE
    ground = rng.uniform(30, 80, 3) + 80 * ramp[..., None] * rng.uniform(0.3, 1, 3)
    radius, is_box = rng.uniform(14, 22), bool(rng.integers(2))
    colour, turn = rng.uniform(150, 235, 3), rng.uniform(0, 2 * np.pi)
    at = rng.uniform(0, SIZE, 2)
    for _ in range(FRAMES):
        dx, dy = ((p - c + SIZE / 2) % SIZE - SIZE / 2 for p, c in zip((x, y), at, strict=True))
        inside = np.maximum(abs(dx), abs(dy)) < radius if is_box else np.hypot(dx, dy) < radius
        along = (dx * np.cos(turn) + dy * np.sin(turn))[inside]
        picture = ground.copy()
        picture[inside] = colour + along[:, None]
        at = (at + step) % SIZE
        yield np.clip(picture, 0, 255).astype(np.uint8)

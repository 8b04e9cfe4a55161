"""Labelled files for `smnm demo video --finetune`: DATA/SPLIT/CLASS/FILE.

The same files on every machine up to the encoder's version, like those of the demo without labels.
The label was found by trying: bench/results/demo.md has what showed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

SIZE, FRAMES = 64, 40
#: Class -> what belongs to the form, of places in its radii, [h, w] each. All have about the area
#: of the disc, and are larger than a patch: no patch alone says which it is.
FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cross": lambda u, v: (_far(u, v) < 1.1) & (np.minimum(abs(u), abs(v)) < 0.43),
    "diamond": lambda u, v: abs(u) + abs(v) < 1.25,
    "disc": lambda u, v: np.hypot(u, v) < 1,
    "square": lambda u, v: _far(u, v) < 0.89,
}
#: Files of each class in each split.
COUNTS = {"train": 40, "val": 10, "test": 50}


def labelled_names() -> list[str]:
    """Of all files, below DATA: the number of a file is its place here."""
    return [
        f"{split}/{form}/clip{i:02d}.mp4"
        for split, count in COUNTS.items()
        for form in FORMS
        for i in range(count)
    ]


def moving_form(number: int) -> Iterator[np.ndarray]:
    """uint8 [SIZE, SIZE, 3] frames: a bright form, shaded from one side, goes straight over a
    ground that is the same in all files; what leaves on one side comes back on the other."""
    rng = np.random.default_rng([3, number])
    holds = FORMS[labelled_names()[number].split("/")[1]]
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
    radius, at = rng.uniform(13, 17), rng.uniform(0, SIZE, 2)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    ground = _ground(x / SIZE, y / SIZE)
    for _ in range(FRAMES):
        dx, dy = ((p - c + SIZE / 2) % SIZE - SIZE / 2 for p, c in zip((x, y), at, strict=True))
        inside = holds(dx / radius, dy / radius)
        picture = ground.copy()
        picture[inside] = (220, 190, 120) + (1.5 * dx + 1.3 * dy)[inside][:, None]
        at = (at + speed * np.array([np.cos(angle), np.sin(angle)])) % SIZE
        yield np.clip(picture, 0, 255).astype(np.uint8)


def _far(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v))


def _ground(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[h, w, 3], from places in [0, 1)."""
    rising = 30 * np.sin(2 * np.pi * (x + y / 2))[..., None] * (1, 0.6, 0.2)
    falling = 25 * np.cos(3 * np.pi * (y - 0.3 * x))[..., None] * (0.2, 0.7, 1)
    return 60 + rising + falling

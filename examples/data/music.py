"""Short phrases of music with labels: what plays, which chord, and how its notes follow each other.

    python examples/data/music.py --out data/music

Each file is one chord of 1.3 s at 16 kHz, its notes together or one after the other, played by
recorded instruments of Debian's timgm6mb-soundfont (5 MB are fetched with apt-get and unpacked in a
temporary folder; nothing is installed). `labels.csv` has the columns instrument (24), family (8),
chord (6) and motion (4). Keys are drawn: roots in test are pitch classes that train does not have,
and no chord in test, whatever its inversion, has the keys of one in train.
The layout is SPLIT/FAMILY/FILE.wav, mono.
Licence: GPL-2, as the package's copyright file says of the recordings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from set_files import debian_package, make_once, write_manifest, write_sound, write_table
from sound_font import SoundFont

PACKAGE = "timgm6mb-soundfont"
FONT = "usr/share/sounds/sf2/TimGM6mb.sf2"
RATE, SECONDS = 16000, 1.3
#: family -> instrument -> its number in General MIDI, counted from 0.
FAMILIES = {
    "keys": {"piano": 0, "electric-piano": 4, "harpsichord": 6},
    "mallets": {"celesta": 8, "vibraphone": 11, "marimba": 12},
    "organs": {"drawbar-organ": 16, "church-organ": 19, "accordion": 21},
    "guitars": {"nylon-guitar": 24, "steel-guitar": 25, "clean-guitar": 27},
    "strings": {"violin": 40, "cello": 42, "string-ensemble": 48},
    "brass": {"trumpet": 56, "trombone": 57, "french-horn": 60},
    "reeds": {"alto-sax": 65, "oboe": 68, "clarinet": 71},
    "pipes": {"flute": 73, "recorder": 74, "pan-flute": 75},
}
#: Half tones above the root.
CHORDS = {
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "diminished": (0, 3, 6),
    "augmented": (0, 4, 8),
    "suspended": (0, 5, 7),
    "seventh": (0, 4, 10),
}
MOTIONS = ("together", "up", "down", "broken")
#: Pitch classes of the roots, 0 = C: those of test and val are heard nowhere else. An augmented
#: chord has the same notes on roots four half tones apart, which are therefore in one split.
ROOTS = {"train": (0, 1, 4, 5, 8, 9), "val": (3, 7, 11), "test": (2, 6, 10)}
LOWEST = 48  # MIDI's C below middle C; roots lie in two octaves from there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--takes", type=int, default=7, help="of each chord by each instrument")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.takes < 4:
        parser.error(f"--takes must be at least 4, one for each split and more, got {given.takes}")
    make_once(given.out, lambda: make(given.out, given.takes, given.seed))


def make(out: Path, takes: int, seed: int) -> None:
    rows = []
    with debian_package(PACKAGE) as (folder, version):
        font = SoundFont(folder / FONT)
        for family, instruments in FAMILIES.items():
            for instrument, program in instruments.items():
                for chord in CHORDS:
                    for take in range(takes):
                        split = split_of_take(take, takes)
                        rng = np.random.default_rng(
                            [seed, program, list(CHORDS).index(chord), take]
                        )
                        motion = MOTIONS[rng.integers(len(MOTIONS))]
                        root = LOWEST + int(rng.choice(ROOTS[split])) + 12 * int(rng.integers(2))
                        samples = phrase(font, program, notes_of(root, chord, rng), motion, rng)
                        path = f"{split}/{family}/{instrument}-{chord}-{take}.wav"
                        write_sound(out / path, samples, RATE)
                        rows.append({
                            "path": path, "split": split, "family": family,
                            "instrument": instrument, "chord": chord, "motion": motion,
                            "root": root,
                        })  # fmt: skip
    write_table(out / "labels.csv", rows)
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/music.py --takes {takes} --seed {seed}",
        licence="GPL-2 (TimGM6mb.sf2)",
        sources={PACKAGE: version},
        packages=("numpy",),
    )
    print(f"{len(rows)} phrases in {out}, fingerprint {fingerprint[:16]}")


def split_of_take(take: int, takes: int) -> str:
    """The last quarter of a chord's takes, rounded up, is test, the one before it val."""
    first_of_test = takes - -(-takes // 4)
    return "test" if take >= first_of_test else "val" if take == first_of_test - 1 else "train"


def notes_of(root: int, chord: str, rng: np.random.Generator) -> list[int]:
    """Keys from low to high: an inversion of the chord."""
    keys = [root + step for step in CHORDS[chord]]
    for _ in range(int(rng.integers(len(keys)))):
        keys = [*keys[1:], keys[0] + 12]
    return keys


def phrase(
    font: SoundFont, program: int, keys: list[int], motion: str, rng: np.random.Generator
) -> np.ndarray:
    """int16 [samples]: these keys, in an order and at a pace, somewhat early or late."""
    order = {"together": keys, "up": keys, "down": keys[::-1], "broken": [*keys[1:], keys[0]]}
    step = 0.0 if motion == "together" else rng.uniform(0.16, 0.26)
    sound = np.zeros(int(RATE * SECONDS))
    start = rng.uniform(0.02, 0.15)
    for i, key in enumerate(order[motion]):
        first = int(RATE * max(0.0, start + i * step + rng.normal(0, 0.008)))
        length = len(sound) - first
        sound[first:] += rng.uniform(0.6, 1) * font.note(program, key, length, RATE)
    fade = np.minimum(1, np.arange(len(sound), 0, -1) / (0.08 * RATE))
    sound *= fade
    return np.round(32767 * rng.uniform(0.2, 0.8) * sound / np.abs(sound).max()).astype(np.int16)


if __name__ == "__main__":
    main()

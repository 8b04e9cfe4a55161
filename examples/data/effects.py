"""Recorded sound effects with their kind as label: weapons, cries of men and beasts, magic, horns.

    python examples/data/effects.py --out data/effects

From Debian's wesnoth-1.16-data, the sounds of the game Battle for Wesnoth (146 MB are fetched with
apt-get and unpacked in a temporary folder; nothing is installed, and 16 MB are kept). The layout is
SPLIT/CLASS/FILE.wav, mono, at the rate of the recording. Takes of one thing (wolf-die-1 and
wolf-die-2, an attack that hits or misses) are in one split, so that test asks for kinds and not for
recordings.
Licence: GPL-2+, as the package's copyright file says.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path

import numpy as np
from set_files import debian_package, make_once, sound_of, write_manifest, write_sound, write_table

PACKAGE = "wesnoth-1.16-data"
SOUNDS = "usr/share/games/wesnoth/1.16/data/core/sounds"
#: class -> beginnings of the names of its sounds.
CLASSES = {
    "blade": "axe claws knife mace pincers spear staff sword tail flail club fist",
    "shot": "bow crossbow dragonstick sling thunderstick throwing",
    "fire-and-magic": "flame lightning magic melee-fire torch explosion fuse",
    "people": "human dwarf elf mermaid mermen",
    "beasts": "bat bite drake gryphon horse naga tusker wolf yeti",
    "monsters": "goblin lich ogre orc skeleton troll wose zombie",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_once(given.out, lambda: make(given.out, given.seed))


def make(out: Path, seed: int) -> None:
    with debian_package(PACKAGE) as (folder, version):
        paths = {path.stem: path for path in sorted((folder / SOUNDS).rglob("*.ogg"))}
        splits = splits_of(list(paths), seed)
        rows = []
        for name, (kind, split) in splits.items():
            samples, rate = sound_of(paths[name])
            path = f"{split}/{kind}/{name}.wav"
            write_sound(out / path, samples, rate)
            rows.append({"path": path, "split": split, "kind": kind, "thing": thing_of(name)})
    write_table(out / "labels.csv", rows)
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/effects.py --seed {seed}",
        licence="GPL-2+ (Battle for Wesnoth)",
        sources={PACKAGE: version},
        packages=("av", "numpy"),
    )
    print(f"{len(rows)} sounds in {out}, fingerprint {fingerprint[:16]}")


def thing_of(name: str) -> str:
    """wolf of wolf-die-1, bow of bow-puny-fire-miss: what its takes and variants have in common."""
    words = re.sub(r"-(miss|\d+)(?=-|$)", "", name).split("-")
    return "-".join(words[:2]) if words[0] in ("magic", "human") else words[0]


def class_of(name: str) -> str | None:
    for kind, beginnings in CLASSES.items():
        if name.startswith(tuple(beginnings.split())):
            return kind
    return None


def splits_of(names: list[str], seed: int) -> dict[str, tuple[str, str]]:
    """name -> (class, split) of the sounds that are in a class.

    Whole things, those with fewest takes first and else in an order of chance: to test until it has
    a quarter of a class's sounds, to val until it has an eighth, the rest to train.
    """
    rng = np.random.default_rng([seed, 3])
    found = {}
    for kind in CLASSES:
        of_kind = [name for name in names if class_of(name) == kind]
        things = sorted({thing_of(name) for name in of_kind})
        held = {"test": 0, "val": 0, "train": 0}
        wanted = {"test": len(of_kind) / 4, "val": len(of_kind) / 8, "train": np.inf}
        takes = Counter(thing_of(name) for name in of_kind)
        for thing in sorted(rng.permutation(things).tolist(), key=takes.__getitem__):
            split = next(name for name in held if held[name] < wanted[name])
            for name in of_kind:
                if thing_of(name) == thing:
                    found[name] = (kind, split)
                    held[split] += 1
    return found


if __name__ == "__main__":
    main()

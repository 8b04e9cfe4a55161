"""How far a rule gets that knows only that small things sound high: on the single clips of
examples/data/sounding_sprites.py, for a trained encoder to be compared with.

    python bench/retrieval_rule.py data/sounding_sprites

The rule is told sizes and pitches exactly, as no encoder is. A line through the training clips says
which pitch a size has, and what lies nearest to it in octaves is taken for a pair. Measures are
those of `smnm retrieve`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from smnm_kernels.train.metrics.intervals import bootstrap
from smnm_kernels.train.metrics.retrieval import Ranks, ranks_of
from smnm_kernels.train.tasks.probing.results import table


def rule(folder: Path) -> dict[str, Ranks]:
    """Of the clips of single.csv, both ways."""
    known, asked = (_rows(folder / name) for name in ("labels.csv", "single.csv"))
    known = [row for row in known if row["split"] == "train"]
    line = np.polyfit(*_sizes_and_octaves(known), 1)
    sizes, octaves = _sizes_and_octaves(asked)
    alike = -abs(octaves[:, None] - np.polyval(line, sizes)[None])  # [sounds, pictures]
    return {"sound_to_video": ranks_of(alike), "video_to_sound": ranks_of(alike.T)}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _sizes_and_octaves(rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([float(row["size"]) for row in rows])
    return sizes, np.log2([float(row["pitch"]) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="what examples/data/sounding_sprites.py made")
    found = {way: bootstrap(of_way) for way, of_way in rule(parser.parse_args().data).items()}
    cells = [[way.replace("_", " "), *map(str, of_way.values())] for way, of_way in found.items()]
    print(table(["direction", *next(iter(found.values()))], cells))


if __name__ == "__main__":
    main()

"""What `smnm segment` writes and prints of its numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smnm_kernels.files import replacing
from smnm_kernels.train.metrics.intervals import bootstrap, bootstrap_difference
from smnm_kernels.train.run.folder import write_json
from smnm_kernels.train.run.machine import versions
from smnm_kernels.train.tasks.probing.frozen import Frozen
from smnm_kernels.train.tasks.probing.results import (
    described,
    shortened,
    signed,
    table,
    unlike,
)

from .clusters import TIMES, Segmented, Way

RESULTS, VIDEOS = "results.json", "videos.csv"
_PROTOCOL = {
    "mean": "over the ids of a clip, then the clips of a video, then the videos",
    "clusters": "as many as the clip has ids, background among them; three times as many",
    "labels": "each frame of a tubelet is scored with the tubelet's cluster",
}


class Found(NamedTuple):
    """One video."""

    name: str
    results: list[list[dict[Way, Segmented]]]  # of each encoder, of each clip


class About(NamedTuple):
    """What the numbers are of."""

    data: str
    data_fingerprint: str  # of all frames and masks that were looked at
    settings: dict[str, Any]
    left_out: dict[str, str]  # video -> reason


class _Means:
    """Mean IoU of videos, for the bootstrap."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def measures(self, counts: np.ndarray | None = None) -> dict[str, float]:
        return {"miou": float(np.average(self.values, weights=counts))}


def write_results(
    out: Path,
    about: About,
    encoders: Sequence[Frozen],
    found: Sequence[Found],
    background: bool,
    seed: int,
) -> None:
    """results.json and videos.csv, and a table on the screen."""
    names = unlike([frozen.name for frozen in encoders])
    rows = []
    cells = [[shortened(name)] for name in names]
    differences = [[f"{shortened(names[0])} - {shortened(name)}"] for name in names[1:]]
    for way in TIMES:
        first = None
        for number, frozen in enumerate(encoders):
            means = _Means(np.array([_of_video(one, number, way, background) for one in found]))
            interval = bootstrap(means, seed=seed)["miou"]
            cells[number].append(str(interval))
            row = {
                **described(frozen),
                "name": names[number],
                "way": way,
                "miou": interval.as_row(),
                "videos": {
                    one.name: value for one, value in zip(found, means.values.tolist(), strict=True)
                },
            }
            if first is None:
                first = means
            else:
                difference = bootstrap_difference(first, means, seed=seed)["miou"]
                row["first_minus_this"] = difference.as_row()
                differences[number - 1].append(signed(difference))
            rows.append(row)
    content = {
        "command": "segment",
        **about._asdict(),
        "background_counts": background,
        "protocol": _PROTOCOL,
        "interval": "bootstrap over videos",
        "versions": versions(),
        "rows": rows,
    }
    write_json(out / RESULTS, content)
    _write_videos(out / VIDEOS, names, found, background)
    said = "with" if background else "without"
    print(f"mean IoU of {len(found)} videos, {said} the background among the ids:")
    print(table(["encoder", *TIMES], [*cells, *differences]))
    print(f"results: {out / RESULTS}", flush=True)


def _of_video(one: Found, encoder: int, way: Way, background: bool) -> float:
    return float(np.mean([clip[way].miou(background) for clip in one.results[encoder]]))


def _write_videos(
    path: Path, names: Sequence[str], found: Sequence[Found], background: bool
) -> None:
    """One row for each video, encoder, clip and way."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["encoder", "video", "clip", "way", "miou", "ids", "iou of each id"])
    for video, of_encoders in found:
        for name, clips in zip(names, of_encoders, strict=True):
            for number, clip in enumerate(clips):
                for way, one in clip.items():
                    ids = " ".join(map(str, one.ids))
                    each = " ".join(f"{x:.4f}" for x in one.ious)
                    miou = f"{one.miou(background):.6f}"
                    writer.writerow([name, video, number, way, miou, ids, each])
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))

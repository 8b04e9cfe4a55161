"""Kills a training run (SIGKILL) at random moments, starts it again each time, and compares its
losses with those of a run that was never killed, row for row.

    python bench/kills.py --kills 50 --modality video --out /tmp/kills --seed 0

A kill takes the trainer alone or its whole process group, by turns of chance. Moments are drawn
evenly from three sorts: while it starts (imports, scan, building), while it trains, and while it
writes a file (a checkpoint, most often). A run that comes to its end is compared, and another is
begun, until all kills are done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from safetensors.torch import load_file

from smnm_kernels.train.tasks.demo import make_files

STEPS, EVERY = 24, 4
_END_S = 60  # so long a run may show nothing at all


class Life:
    """One process that trains, from its start to its end."""

    def __init__(self, modality: str, data: Path, run: Path) -> None:
        self.run = run
        options = {"steps": STEPS, "checkpoint-every": EVERY, "batch-size": 2}
        options |= {"out": run, "workers": 2, "threads": 1, "warmup-steps": 2}
        words = [str(w) for name, value in options.items() for w in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smnm_kernels.cli", "pretrain", modality, data, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def rows(self) -> int:
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_until(self, condition) -> bool:
        """Whether it came true before the process ended."""
        until = time.monotonic() + _END_S
        while self.process.poll() is None:
            if condition():
                return True
            assert time.monotonic() < until, "nothing moves"
            time.sleep(0.0005)
        return False

    def kill(self, chance: random.Random) -> None:
        alone = chance.random() < 0.5
        if alone:
            self.process.kill()
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        said, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, said.decode()


def being_written(run: Path) -> str | None:
    """The file of which a half is there."""
    for half in run.glob(".*.tmp"):
        return half.name[1:].rsplit(".", 2)[0]
    return None


def one_kill(life: Life, chance: random.Random, start_s: float) -> str | None:
    """Kill it at a random moment; what it was at then, or None where it ended before."""
    sort = chance.choice(["start", "training", "writing"])
    if sort == "start":
        moment = time.monotonic() + chance.uniform(0, start_s)
        came = life.wait_until(lambda: time.monotonic() > moment)
    elif sort == "training":
        rows = []

        def trains() -> bool:
            rows.append(life.rows())
            return rows[-1] > rows[-2] >= 0 if len(rows) > 1 else False

        came = life.wait_until(trains)
        moment = time.monotonic() + chance.uniform(0, 0.5)
        came = came and life.wait_until(lambda: time.monotonic() > moment)
    else:
        skipped = chance.randrange(4)  # not always the first file
        seen: set[str] = set()

        def writes() -> bool:
            name = being_written(life.run)
            if name:
                seen.add(name)
            return bool(name) and len(seen) > skipped

        came = life.wait_until(writes)
    if not came:
        return None
    file = being_written(life.run)
    life.kill(chance)
    return f"writing {file}" if file else "start" if sort == "start" else "training"


def rows_of(run: Path) -> list[tuple[int, float, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["lr"], row["loss"]) for row in map(json.loads, lines)]


def check_equal(run: Path, straight: Path) -> None:
    assert rows_of(run) == rows_of(straight), f"{run}: other losses than {straight}"
    ours, theirs = (load_file(r / "encoder.safetensors") for r in (run, straight))
    assert all(ours[name].equal(theirs[name]) for name in theirs), f"{run}: other weights"
    assert not list(run.glob(".*.tmp"))


def kills(modality: str, count: int, seed: int, out: Path) -> Counter[str]:
    """How many kills came at what. AssertionError where a restart fails or a loss differs."""
    chance = random.Random(f"{modality} {seed}")
    data = out / "data"
    data.mkdir(parents=True)
    make_files(data, modality)
    straight = out / "straight"
    began = time.monotonic()
    life = Life(modality, data, straight)
    life.wait_until(lambda: life.rows() > 0)
    start_s = time.monotonic() - began
    life.finish()
    moments: Counter[str] = Counter()
    runs = 0
    while moments.total() < count:
        runs += 1
        run = out / f"run{runs}"
        while moments.total() < count:
            life = Life(modality, data, run)
            moment = one_kill(life, chance, start_s)
            if moment is None:  # it has come to its end
                break
            moments[moment] += 1
        else:
            life = Life(modality, data, run)
        life.finish()
        check_equal(run, straight)
    moments["runs compared"] = runs
    return moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--modality", choices=("video", "audio", "image"), default="video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a new folder; removed at the end")
    options = parser.parse_args()
    found = kills(options.modality, options.kills, options.seed, options.out)
    runs = found.pop("runs compared")
    print(
        f"{options.modality}: {options.kills} kills, {runs} runs, each with the losses and weights "
        "of one that was never killed"
    )
    for moment, n in found.most_common():
        print(f"  {n:3} {moment}")
    shutil.rmtree(options.out)


if __name__ == "__main__":
    main()

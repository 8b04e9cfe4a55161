"""Kills a training run (SIGKILL) at random moments, starts it again each time, and compares its
losses with those of a run that was never killed, row for row; of fine-tuning also evaluations,
predictions and measures.

    python bench/kills.py --kills 50 --modality video --out /tmp/kills --seed 0
    python bench/kills.py --kills 20 --command finetune --modality image --out /tmp/kills --seed 0

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
from itertools import pairwise
from pathlib import Path

from safetensors.torch import load_file

from smnm_kernels.train.tasks.demo import FILES, make_files

STEPS, EVERY = 24, 4
START_FILES = ("files.json", "skipped.json", "config.json", "metrics.jsonl")
CHECKPOINT_FILES = {
    "pretrain": ("last.pt", "last.pt", "reconstruction.png"),
    "finetune": ("last.pt", "classifier.safetensors", "evaluations.jsonl", "results.json"),
}
COMMANDS = tuple(CHECKPOINT_FILES)
_END_S = 60  # so long a run may show nothing at all


class Life:
    """One process that trains, from its start to its end."""

    def __init__(self, command: str, modality: str, data: Path, run: Path) -> None:
        self.run, self.command = run, command
        options = {"steps": STEPS, "checkpoint-every": EVERY, "batch-size": 2}
        options |= {"out": run, "workers": 2, "threads": 1, "warmup-steps": 2}
        if command == "finetune":
            options |= {"encoder": "none", "evaluate-every": EVERY}
        words = [str(w) for name, value in options.items() for w in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smnm_kernels.cli", command, modality, data, *words],
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

    def being_written(self) -> str | None:
        """The file that it is writing."""
        for half in self.run.glob(f".*.{self.process.pid}.tmp"):
            return half.name[1:].rsplit(".", 2)[0]
        return None

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


def one_kill(life: Life, chance: random.Random, start_s: float) -> str | None:
    """Kill it at a random moment; what it was at then, or None where it ended before."""
    sort = chance.choice(["start", "training", "writing"])
    if sort == "start":
        moment = time.monotonic() + chance.uniform(0, start_s)
        came = life.wait_until(lambda: time.monotonic() > moment)
    elif sort == "training":
        new = chance.randint(1, 2 * EVERY)
        counts = [life.rows()]

        def trains() -> bool:
            """Whether so many rows came; a start takes away those of no checkpoint."""
            counts.append(life.rows())
            return sum(max(0, b - a) for a, b in pairwise(counts)) >= new

        came = life.wait_until(trains)
        moment = time.monotonic() + chance.uniform(0, 0.3)
        came = came and life.wait_until(lambda: time.monotonic() > moment)
    else:
        # Some are written at each start, some with each checkpoint.
        files = chance.choice([START_FILES, CHECKPOINT_FILES[life.command]])
        file = chance.choice(files)
        came = life.wait_until(lambda: life.being_written() == file)
        time.sleep(chance.uniform(0, 0.03 if file == "last.pt" else 0.001))
    if not came:
        return None
    half = life.being_written()
    life.kill(chance)
    if half:
        return f"while it wrote {half}"
    return f"just after it wrote {file}" if sort == "writing" else sort


def rows_of(run: Path) -> list[tuple[int, float, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["lr"], row["loss"]) for row in map(json.loads, lines)]


def check_equal(run: Path, straight: Path) -> None:
    assert rows_of(run) == rows_of(straight), f"{run}: other losses than {straight}"
    for path in straight.glob("*.safetensors"):
        ours, theirs = load_file(run / path.name), load_file(path)
        assert all(ours[n].equal(theirs[n]) for n in theirs), f"{run}: other {path.name}"
    for name in ("evaluations.jsonl", "predictions.csv", "results.json"):
        if (straight / name).exists():
            same = (run / name).read_bytes() == (straight / name).read_bytes()
            assert same, f"{run / name}: unlike that of {straight}"
    assert not list(run.glob(".*.tmp"))


def make_data(command: str, modality: str, data: Path) -> None:
    """The demo's files; for fine-tuning as DATA/SPLIT/CLASS/FILE, with classes that mean nothing:
    what they are does not change what a restart may lose."""
    data.mkdir(parents=True)
    make_files(data, FILES[modality])
    if command == "finetune":
        for i, name in enumerate(FILES[modality].names):
            folder = data / ("train", "train", "val", "test")[i // 2 % 4] / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (data / name).rename(folder / name)


def kills(command: str, modality: str, count: int, seed: int, out: Path) -> Counter[str]:
    """How many kills came at what. AssertionError where a restart fails or a loss differs."""
    chance = random.Random(f"{modality} {seed}")
    data = out / "data"
    make_data(command, modality, data)
    straight = out / "straight"
    began = time.monotonic()
    life = Life(command, modality, data, straight)
    life.wait_until(lambda: life.rows() > 0)
    start_s = time.monotonic() - began
    life.finish()
    moments: Counter[str] = Counter()
    runs = 0
    while moments.total() < count:
        runs += 1
        run = out / f"run{runs}"
        while moments.total() < count:
            life = Life(command, modality, data, run)
            moment = one_kill(life, chance, start_s)
            if moment is None:  # it has come to its end
                break
            moments[moment] += 1
        else:
            life = Life(command, modality, data, run)
        life.finish()
        check_equal(run, straight)
    moments["runs compared"] = runs
    return moments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--command", choices=COMMANDS, default="pretrain")
    parser.add_argument("--modality", choices=("video", "audio", "image"), default="video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a new folder; removed at the end")
    options = parser.parse_args()
    found = kills(options.command, options.modality, options.kills, options.seed, options.out)
    runs = found.pop("runs compared")
    print(
        f"{options.command} {options.modality}: {options.kills} kills, {runs} runs, each with the "
        "losses, measures and weights of one that was never killed"
    )
    for moment, n in found.most_common():
        print(f"  {n:3} {moment}")
    shutil.rmtree(options.out)


if __name__ == "__main__":
    main()

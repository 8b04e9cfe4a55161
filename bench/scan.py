"""Time and memory of a scan of very many files, of which nothing is decoded.

    python bench/scan.py --files 1000000 --out runs/scan

The files are hard links of 1 KB each, 1,000 in a folder; their probe looks at nothing, so that what
is measured is the scan's own. Each line of the table is a process of its own, which has imported
everything before its clock and its memory are read. The links stay in OUT and are used again.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import pickle
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.records import Journal, Known, Records, read_files, write_files
from smnm_kernels.train.data.scan import scan

_PER_FOLDER = 1000
_LINKS = 30_000  # that a file may have on most file systems


@dataclass(frozen=True)
class Trivial:
    """A modality that finds in every file what a video would hold."""

    name = "trivial"
    suffixes = frozenset([".mp4"])

    def probe(self, source: Any) -> dict[str, int]:
        return {"frames": 300, "first": 0, "last": 149_500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder of files and journals")
    arguments = parser.parse_args()
    n, out = arguments.files, arguments.out
    (out / "scan.jsonl").unlink(missing_ok=True)
    data, shards = make_files(out / f"files-{n}", n), make_shards(out / f"shards-{n}", n)
    print(f"{n} files, {arguments.threads} threads\n")
    print("| what | time | CPU time | memory at its peak | bytes a file |\n|---|---|---|---|---|")
    threads = arguments.threads
    for label, work, *given in (
        ("folder: search alone", search, data),
        ("folder: first scan", first_scan, data, out, threads),
        ("folder: scan that goes on from its journal", first_scan, data, out, threads),
        ("folder: scan of a run's known files", known_scan, data, out, threads),
        ("100 tar shards: first scan", first_scan, shards, out, threads),
        ("records, read from files.json", read_records, out),
        ("the same as a list of dicts", read_dicts, out),
        ("records, each read once in a forked process", in_fork, read_records, out),
        ("a list of dicts, each read once in a forked process", in_fork, read_dicts, out),
    ):  # fmt: skip
        seconds, cpu, peak = measured(work, *given)
        row = f"{seconds:.1f} s | {cpu:.1f} s | {peak / 1e6:.0f} MB | {peak / n:.0f}"
        print(f"| {label} | {row} |", flush=True)
    records = read_files(out / "files.json")[0]
    print(f"\nfiles.json: {(out / 'files.json').stat().st_size / n:.0f} bytes a file")
    print(f"sent to another process: {len(pickle.dumps(records)) / n:.0f} bytes a file")


def make_files(folder: Path, n: int) -> Path:
    if not folder.exists():
        for i in range(n):
            if i % _PER_FOLDER == 0:
                below = folder / f"class_{i // _PER_FOLDER:05}"
                below.mkdir(parents=True)
            if i % _LINKS == 0:
                source = folder / f".source-{i}"
                source.write_bytes(b"x" * 1024)
            os.link(source, below / f"video_{i:08}.mp4")
    return folder


def make_shards(folder: Path, n: int, count: int = 100) -> Path:
    if not folder.exists():
        folder.mkdir()
        for shard in range(count):
            with tarfile.open(folder / f"shard-{shard:04}.tar", "w") as tar:
                for i in range(shard, n, count):
                    member = tarfile.TarInfo(f"class_{i // _PER_FOLDER:05}/video_{i:08}.mp4")
                    member.size = 16
                    tar.addfile(member, io.BytesIO(b"x" * 16))
                    tar.members = []
    return folder


def search(data: Path) -> Any:
    return find(data, Trivial.suffixes)


def first_scan(data: Path, out: Path, threads: int) -> Any:
    journal = Journal(out / "scan.jsonl", {"data": str(data)})
    listing = scan(data, Trivial(), None, threads, journal=journal)
    with (out / "files.json").open("wb") as file:
        write_files(file, listing.usable, listing.skipped)
    return listing


def known_scan(data: Path, out: Path, threads: int) -> Any:
    known = Known()
    for records in read_files(out / "files.json"):
        known.add(records.lines())
    return scan(data, Trivial(), known, threads)


def read_records(out: Path) -> Records:
    return read_files(out / "files.json")[0]


def read_dicts(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "files.json").read_bytes())["usable"]


def in_fork(make: Callable[[Path], Any], out: Path) -> Any:
    """The memory that a loader's process adds: what it writes to, of what it shares at first."""
    records = make(out)
    process = multiprocessing.get_context("fork").Process(target=_read_all, args=(records, out))
    process.start()
    process.join()
    return int((out / "private").read_text())


def _read_all(records: Any, out: Path) -> None:
    before = _memory("/proc/self/smaps_rollup", "Private_Dirty:")
    for number in range(len(records)):
        records[number]["name"]
    added = _memory("/proc/self/smaps_rollup", "Private_Dirty:") - before
    (out / "private").write_text(str(added))


def measured(work: Callable[..., Any], *given: Any) -> tuple[float, float, float]:
    """(seconds, CPU seconds, bytes at the peak beyond those at the start) in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, work, given))
    process.start()
    found = ours.recv()
    process.join()
    return found


def _measure(pipe: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    before = _memory("/proc/self/status", "VmRSS:")
    since, cpu_before = time.perf_counter(), os.times()[:4]
    result = work(*given)
    seconds = time.perf_counter() - since
    cpu = sum(os.times()[:4]) - sum(cpu_before)  # children's, too
    peak = result if isinstance(result, int) else _memory("/proc/self/status", "VmHWM:") - before
    pipe.send((seconds, cpu, peak))


def _memory(file: str, name: str) -> int:
    """Bytes."""
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{name} is not in {file}")


if __name__ == "__main__":
    main()

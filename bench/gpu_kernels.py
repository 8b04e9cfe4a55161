"""Making masks on a GPU: smnm, what training code does without it, and the limits of the GPU.

    python bench/gpu_kernels.py [--seconds 2] [--rows kernels.jsonl]

Times are taken as in ``smnm bench``: CUDA graphs of several calls, each contender once a round,
ratios of paired times. Rows are saved after each batch size; with the rows of an earlier run, only
missing ones are measured. ``--device cpu`` says nothing about a GPU; it shows that every row can be
measured.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_table import kernel_line
from saved_rows import SavedRows

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.kinds.rbn import default_n_candidates
from smnm_kernels.tables.colors import parse_sigma
from smnm_kernels.tables.noise import noise_table
from smnm_kernels.timing.paired_times import CALLS_PER_GRAPH, Contender, Times, measure, rows
from smnm_kernels.timing.peers import mae_random_masking, rand_topk, resident_bank_masking
from smnm_kernels.timing.profiling import device_work

#: The most telling ones first, should the time run out. 132 is a program for each multiprocessor of
#: an H100 or H200.
BATCHES = (256, 64, 1024, 132, 512, 1, 128)
COPY_BYTES = 2**30
OURS, RANDOM, BANK = "smnm", "MAE random masking", "noise bank on the GPU, argsorts"


class Work(NamedTuple):
    name: str
    grid: Grid
    ratio: float
    #: Volumes of the bank that masks are cropped from instead.
    bank: tuple[int, Grid, str]

    @property
    def n_tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def n_keep(self) -> int:
        return int(self.n_tokens * (1 - self.ratio))

    def masks(self, sample_ids: torch.Tensor) -> smnm.Masks:
        if self.name == "rbn":
            return smnm.rbn_masks(sample_ids, self.grid, self.ratio)
        return smnm.noise_masks(sample_ids, self.grid, "green", self.ratio)

    def bytes_written(self, batch: int) -> int:
        """Bytes of the masks: bool visible, int64 ids_keep and ids_restore."""
        return batch * (9 * self.n_tokens + 8 * self.n_keep)

    def words_drawn(self, batch: int) -> int:
        """The least number of 32-bit words that must be drawn for sample ids 0, 1, 2, ..."""
        if self.name == "rbn":
            n_banks = -(-batch // default_n_candidates(self.n_tokens, self.n_keep))
            return n_banks * 4 * -(-self.n_tokens // 4)
        first, *rest = noise_table(self.grid, "green", tuple(parse_sigma("green", None))).torus
        # Eight values to a block of four words, and a block for sigma.
        return batch * 4 * (-(-first // 8) * math.prod(rest) + 1)


WORKS = (
    Work("green3d", (8, 14, 14), 0.9, (16, (64, 64, 64), "green")),
    Work("rbn", (1, 64, 8), 0.8, (64, (1, 256, 128), "blue")),
)


def contenders(work: Work, batch: int, bank: smnm.NoiseBank) -> list[Contender]:
    """Functions that make masks of B samples on the bank's device."""
    device = bank.volumes.device
    sample_ids = torch.arange(batch, device=device)
    call = (batch, work.n_tokens, work.ratio, device)
    crops = partial(resident_bank_masking, bank.volumes, batch, work.grid, work.ratio)
    from_bank = partial(bank.masks, sample_ids, work.grid, work.ratio)
    return [
        Contender(RANDOM, partial(mae_random_masking, *call)),
        Contender(OURS, partial(work.masks, sample_ids), ours=True),
        Contender("rand + topk", partial(rand_topk, *call)),
        Contender(BANK, crops),
        Contender("smnm NoiseBank.masks", from_bank, ours=True),
    ]


LAUNCH, WORDS, BYTES = "an empty kernel", "torch.rand of as many words", "writing as many bytes"


def limits(work: Work, batch: int, device: torch.device) -> list[Contender]:
    """The least that a GPU needs for the launch and for the words; ``BYTES`` is computed. The words
    are also stored here, which a kernel that uses them at once need not do."""
    words = torch.empty(work.words_drawn(batch), device=device)
    if device.type == "cuda":
        empty = empty_kernel()
        launch = partial(empty[(batch,)], num_warps=8)
    else:
        launch = tuple
    return [Contender(LAUNCH, launch), Contender(WORDS, words.uniform_)]


@cache
def empty_kernel() -> object:
    import triton

    @triton.jit
    def empty():
        pass

    return empty


def rows_of(
    work: Work,
    batch: int,
    contenders: list[Contender],
    times: dict[str, Times],
    bytes_per_second: float,
) -> list[dict]:
    """A row for each contender and each limit, with its ratio to random masking. Our row also says
    how near to the limits it is."""
    made = rows(contenders, times, work=work.name, batch=batch)
    us = {row["what"]: row["us"] for row in made}
    floor = {LAUNCH: us[LAUNCH], WORDS: us[WORDS]}
    floor[BYTES] = round(1e6 * work.bytes_written(batch) / bytes_per_second, 3)
    highest = max(floor, key=floor.get)
    for row in made:
        of_bank = times[row["what"]].ratios(times[BANK])
        row["of_bank"] = round(statistics.median(q for repeat in of_bank for q in repeat), 4)
        if row["what"] == OURS:
            row |= {"limits_us": floor, "highest_limit": highest}
            row["limit_share"] = round(floor[highest] / row["us"], 3)
    return made


def copy_bandwidth(device: torch.device) -> float:
    """Bytes read and written a second by a large copy on the device."""
    n_bytes = COPY_BYTES if device.type == "cuda" else COPY_BYTES // 2**10
    source = torch.ones(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    times: dict[str, Times] = {}
    measure([Contender("copy", lambda: target.copy_(source))], times, 0.2, device)
    return 2 * n_bytes / (1e-6 * statistics.median(times["copy"].all))


def eager_row(work: Work, batch: int, call: Callable, device: torch.device) -> dict:
    """Wall time per call of calls one after another: median and quartiles."""
    wait, calls = (torch.cuda.synchronize, 200) if device.type == "cuda" else (tuple, 1)
    times = []
    for _ in range(11):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        times.append(1e6 * (time.perf_counter() - start) / calls)
    low, median, high = (round(q, 3) for q in statistics.quantiles(times[1:], n=4))
    return {
        "kind": "eager", "work": work.name, "batch": batch, "us": median,
        "us_quartiles": [low, high],
    }  # fmt: skip


def measure_all(
    seconds: float, batches: Iterable[int], device: torch.device, saved: SavedRows
) -> None:
    """Measures the missing rows. If one fails, a row says so, and the next ones are measured."""
    saved.keep([row for row in saved.rows if row["kind"] not in ("failed", "launches")])
    if not saved.have(lambda row: row["kind"] == "copy"):
        copy = {"bytes_per_second": copy_bandwidth(device), "calls_per_graph": CALLS_PER_GRAPH}
        add(saved, {"kind": "copy", **copy})
    [bytes_per_second] = (row["bytes_per_second"] for row in saved.rows if row["kind"] == "copy")
    for batch in batches:
        for work in WORKS:
            where = {"work": work.name, "batch": batch}
            if saved.have(lambda row, where=where: row | where == row):
                continue
            try:
                add(saved, *measure_work(work, batch, seconds, device, bytes_per_second))
            except Exception as error:
                add(saved, {"kind": "failed", **where, "error": f"{type(error).__name__}: {error}"})
    if device.type == "cuda":
        # Last, because a profiler may stay in the way of what is timed after it.
        for work in WORKS:
            names = device_work(partial(work.masks, torch.arange(256, device=device)))
            add(saved, {"kind": "launches", "work": work.name, "kernels": names})


def measure_work(
    work: Work, batch: int, seconds: float, device: torch.device, bytes_per_second: float
) -> list[dict]:
    group = [*contenders(work, batch, bank_of(work, device)), *limits(work, batch, device)]
    times: dict[str, Times] = {}
    measure(group, times, seconds, device)
    timed = rows_of(work, batch, group, times, bytes_per_second)
    eager = eager_row(work, batch, group[1].run, device)
    return [*({"kind": "timed", **row} for row in timed), eager]


@cache
def bank_of(work: Work, device: torch.device) -> smnm.NoiseBank:
    return smnm.NoiseBank.precompute(*work.bank).to(device)


def add(saved: SavedRows, *rows: dict) -> None:
    saved.add(*rows)
    print("\n".join(map(kernel_line, rows)), flush=True)


def is_wrong(row: dict) -> bool:
    return row["kind"] == "failed" or (row["kind"] == "launches" and len(row["kernels"]) != 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each batch size")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--once", type=int, metavar="B", help="one call of each op, for a profiler")
    parser.add_argument("--rows", type=Path, help="save the rows in this file, and go on with it")
    options = parser.parse_args()
    if options.once and options.device != "cuda":
        parser.error(f"--once is for profilers of a GPU; --device {options.device} has none")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device")
    device = torch.device(options.device)
    if options.once:
        for work in WORKS:
            work.masks(torch.arange(options.once, device=device))
        torch.cuda.synchronize()
        return
    saved = SavedRows(options.rows)
    measure_all(options.seconds, options.batches, device, saved)
    sys.exit(saved.have(is_wrong))


if __name__ == "__main__":
    main()

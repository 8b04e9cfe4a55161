"""Making masks on a GPU: smnm, what training code does without it, and the limits of the GPU.

    python bench/gpu_kernels.py [--seconds 2] [--save kernels.json]

Timed as ``smnm bench`` times: CUDA graphs of several calls, each contender once a round, ratios of
paired times.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.bench.peers import mae_random_masking, rand_topk, resident_bank_masking
from smnm_kernels.bench.profiling import device_work
from smnm_kernels.bench.timing import CALLS_PER_GRAPH, Contender, Times, measure, rows
from smnm_kernels.colors import parse_sigma
from smnm_kernels.noise_table import noise_table
from smnm_kernels.rbn_arguments import default_n_candidates

BATCHES = (64, 128, 256, 512, 1024)
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
        """visible is bool, ids_keep and ids_restore are int64."""
        return batch * (9 * self.n_tokens + 8 * self.n_keep)

    def words_drawn(self, batch: int) -> int:
        """32-bit words of Philox, at the least, for sample ids 0, 1, 2, ..."""
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
    """Masks of B samples on the bank's device; the limits of a GPU are ``limits``."""
    device = bank.volumes.device
    sample_ids = torch.arange(batch, device=device)
    calls = {
        RANDOM: partial(mae_random_masking, batch, work.n_tokens, work.ratio, device),
        OURS: partial(work.masks, sample_ids),
        "rand + topk": partial(rand_topk, batch, work.n_tokens, work.ratio, device),
        BANK: partial(resident_bank_masking, bank.volumes, batch, work.grid, work.ratio),
        "smnm NoiseBank.masks": partial(bank.masks, sample_ids, work.grid, work.ratio),
    }
    return [Contender(what, run) for what, run in calls.items()]


LAUNCH, WORDS, BYTES = "an empty kernel", "torch.rand of as many words", "writing as many bytes"


def limits(work: Work, batch: int) -> list[Contender]:
    """What the kernels are held against, besides ``BYTES``. The words are also stored here, which a
    kernel that uses them at once is spared."""
    empty = empty_kernel()
    words = torch.empty(work.words_drawn(batch), device="cuda")
    return [
        Contender(LAUNCH, lambda: empty[(batch,)](num_warps=8)),
        Contender(WORDS, words.uniform_),
    ]


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
    """A row for each contender and each limit, ``ratio`` being to random masking; ours also says
    how near the limits it is."""
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


def copy_bandwidth() -> float:
    """Bytes read and written a second by a large copy on the device."""
    source = torch.ones(COPY_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    times: dict[str, Times] = {}
    measure([Contender("copy", lambda: target.copy_(source))], times, 0.2, torch.device("cuda"))
    return 2 * COPY_BYTES / (1e-6 * statistics.median(times["copy"].all))


def eager_microseconds(call: Callable, calls: int = 200) -> list[float]:
    """Wall time per call of calls one after another: lower quartile, median, upper quartile."""
    times = []
    for _ in range(11):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start) / calls)
    return [round(q, 3) for q in statistics.quantiles(times[1:], n=4)]


def measured(seconds: float, batches: tuple[int, ...]) -> dict:
    bytes_per_second = copy_bandwidth()
    print(f"a copy moves {bytes_per_second / 1e12:.2f} TB/s", flush=True)
    made, eager, launches = [], [], {}
    for work in WORKS:
        n_volumes, shape, color = work.bank
        bank = smnm.NoiseBank.precompute(n_volumes, shape, color).to("cuda")
        for batch in batches:
            group = [*contenders(work, batch, bank), *limits(work, batch)]
            times: dict[str, Times] = {}
            measure(group, times, seconds, torch.device("cuda"))
            made += rows_of(work, batch, group, times, bytes_per_second)
            low, median, high = eager_microseconds(group[1].run)
            eager.append(
                {"work": work.name, "batch": batch, "us": median, "us_quartiles": [low, high]}
            )
            for row in made[-len(group) :]:
                print(line(row), flush=True)
        launches[work.name] = device_work(partial(work.masks, torch.arange(256, device="cuda")))
    return {
        "calls_per_graph": CALLS_PER_GRAPH,
        "copy_bytes_per_second": bytes_per_second,
        "rows": made,
        "eager": eager,
        "launches_of_a_call": launches,
    }


def line(row: dict) -> str:
    text = f"{row['work']:8} {row['batch']:5} {row['what']:32} {row['us']:9.2f} us"
    text += f" {row['ratio']:7.3f}x random {row['of_bank']:7.3f}x bank"
    if "limit_share" in row:
        text += f"  {row['limit_share']:.0%} of it: {row['highest_limit']}"
    return text if row["clock"] == "graph" else f"{text}  ({row['clock']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2, help="for each batch size")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--once", action="store_true", help="one call of each op, for a profiler")
    parser.add_argument("--save", type=Path, help="write the rows to this JSON file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    if options.once:
        for work in WORKS:
            work.masks(torch.arange(256, device="cuda"))
        torch.cuda.synchronize()
        return
    result = measured(options.seconds, tuple(options.batches))
    if options.save:
        options.save.write_text(json.dumps(result, indent=1) + "\n")
    counts = {name: len(names) for name, names in result["launches_of_a_call"].items()}
    print(f"launches of a call: {counts}")
    sys.exit(any(count != 1 for count in counts.values()))


if __name__ == "__main__":
    main()

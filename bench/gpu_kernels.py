"""Making masks on a GPU: smnm, what training code does without it, and the limits of the GPU.

    python bench/gpu_kernels.py [--rounds 40] [--save kernels.json]

Each contender is a CUDA graph of several calls, replayed between two events. Each round times every
contender once, in turn and without waiting for the host between them, so that a slow spell falls on
all; times are per call, and ratios are medians over rounds of the paired times.
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
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.bench.peers import mae_random_masking, rand_topk, resident_bank_masking
from smnm_kernels.colors import parse_sigma
from smnm_kernels.noise_table import noise_table
from smnm_kernels.rbn_arguments import default_n_candidates

BATCHES = (64, 128, 256, 512, 1024)
CALLS_PER_GRAPH = 20
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


def contenders(work: Work, batch: int, bank: smnm.NoiseBank) -> dict[str, Callable]:
    """Masks of B samples on the bank's device; the limits of a GPU are ``limits``."""
    device = bank.volumes.device
    sample_ids = torch.arange(batch, device=device)
    return {
        OURS: partial(work.masks, sample_ids),
        RANDOM: partial(mae_random_masking, batch, work.n_tokens, work.ratio, device),
        "rand + topk": partial(rand_topk, batch, work.n_tokens, work.ratio, device),
        BANK: partial(resident_bank_masking, bank.volumes, batch, work.grid, work.ratio),
        "smnm NoiseBank.masks": partial(bank.masks, sample_ids, work.grid, work.ratio),
    }


LAUNCH, WORDS, BYTES = "an empty kernel", "torch.rand of as many words", "writing as many bytes"


def limits(work: Work, batch: int) -> dict[str, Callable]:
    """What the kernels are held against, besides ``BYTES``. The words are also stored here, which a
    kernel that uses them at once is spared."""
    empty = empty_kernel()
    words = torch.empty(work.words_drawn(batch), device="cuda")
    return {LAUNCH: lambda: empty[(batch,)](num_warps=8), WORDS: words.uniform_}


@cache
def empty_kernel() -> object:
    import triton

    @triton.jit
    def empty():
        pass

    return empty


class Timed(NamedTuple):
    run: Callable[[], object]
    calls: int
    how: str


def prepared(call: Callable, calls: int = CALLS_PER_GRAPH) -> Timed:
    """A graph of several calls, or the calls themselves where they cannot be captured."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
    except RuntimeError as error:
        torch.cuda.synchronize()
        reason = str(error).splitlines()[0]
        return Timed(lambda: [call() for _ in range(calls)], calls, f"no graph: {reason}")
    return Timed(graph.replay, calls, "graph")


def timed(ready: dict[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Microseconds per call: one entry per round, the same rounds for all."""
    times: dict[str, list[float]] = {name: [] for name in ready}
    for round_ in range(rounds + 3):
        # While the device sleeps the host gets ahead, so that no event waits for a launch.
        torch.cuda._sleep(2_000_000)
        events = {}
        for name, one in ready.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            one.run()
            end.record()
            events[name] = start, end
        torch.cuda.synchronize()
        if round_ >= 3:
            for name, (start, end) in events.items():
                times[name].append(1e3 * start.elapsed_time(end) / ready[name].calls)
    return times


def quartiles(values: list[float]) -> list[float]:
    return [round(q, 3) for q in statistics.quantiles(values, n=4)]


def paired(ours: list[float], theirs: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 4)


def rows(work: Work, batch: int, times: dict, how: dict, bytes_per_second: float) -> list[dict]:
    """A row for each contender and each limit; ours also says how near the limits it is."""
    floor = {name: statistics.median(times[name]) for name in (LAUNCH, WORDS)}
    floor[BYTES] = 1e6 * work.bytes_written(batch) / bytes_per_second
    highest = max(floor, key=floor.get)
    made = []
    for name, own in times.items():
        low, median, high = quartiles(own)
        row = {"work": work.name, "batch": batch, "what": name, "us": median}
        row |= {"us_quartiles": [low, high], "timed_by": how[name]}
        row |= {"of_random": paired(own, times[RANDOM]), "of_bank": paired(own, times[BANK])}
        if name == OURS:
            row |= {"limits_us": {k: round(v, 3) for k, v in floor.items()}}
            row |= {"highest_limit": highest, "limit_share": round(floor[highest] / median, 3)}
        made.append(row)
    return made


def copy_bandwidth() -> float:
    """Bytes read and written a second by a large copy on the device."""
    source = torch.ones(COPY_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    copy = {"copy": Timed(lambda: target.copy_(source), 1, "events")}
    return 2 * COPY_BYTES / (1e-6 * statistics.median(timed(copy, 10)["copy"]))


def eager_microseconds(call: Callable, calls: int = 200) -> list[float]:
    """Quartiles of the wall time per call, the host's own work included."""
    times = []
    for _ in range(11):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        times.append(1e6 * (time.perf_counter() - start) / calls)
    return quartiles(times[1:])


def device_work(call: Callable) -> list[str]:
    """The names of the kernels, copies and fills that one call runs on the device."""
    call()
    torch.cuda.synchronize()
    # The first profile of a process may miss what starts before the profiler does.
    for _ in range(2):
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            call()
            torch.cuda.synchronize()
    return [event.name for event in seen.events() if event.device_type == DeviceType.CUDA]


def measure(rounds: int, batches: tuple[int, ...]) -> dict:
    bytes_per_second = copy_bandwidth()
    print(f"a copy moves {bytes_per_second / 1e12:.2f} TB/s", flush=True)
    made, eager, launches = [], [], {}
    for work in WORKS:
        n_volumes, shape, color = work.bank
        bank = smnm.NoiseBank.precompute(n_volumes, shape, color).to("cuda")
        for batch in batches:
            calls = {**contenders(work, batch, bank), **limits(work, batch)}
            ready = {name: prepared(call) for name, call in calls.items()}
            how = {name: one.how for name, one in ready.items()}
            made += rows(work, batch, timed(ready, rounds), how, bytes_per_second)
            low, median, high = eager_microseconds(calls[OURS])
            eager.append(
                {"work": work.name, "batch": batch, "us": median, "us_quartiles": [low, high]}
            )
            for row in made[-len(calls) :]:
                print(line(row), flush=True)
        launches[work.name] = device_work(partial(work.masks, torch.arange(256, device="cuda")))
    return {
        "calls_per_graph": CALLS_PER_GRAPH,
        "rounds": rounds,
        "copy_bytes_per_second": bytes_per_second,
        "rows": made,
        "eager": eager,
        "launches_of_a_call": launches,
    }


def line(row: dict) -> str:
    text = f"{row['work']:8} {row['batch']:5} {row['what']:32} {row['us']:9.2f} us"
    text += f" {row['of_random']:7.3f}x random {row['of_bank']:7.3f}x bank"
    if "limit_share" in row:
        text += f"  {row['limit_share']:.0%} of it: {row['highest_limit']}"
    return text if row["timed_by"] == "graph" else f"{text}  ({row['timed_by']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
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
    result = measure(options.rounds, tuple(options.batches))
    if options.save:
        options.save.write_text(json.dumps(result, indent=1) + "\n")
    counts = {name: len(names) for name, names in result["launches_of_a_call"].items()}
    print(f"launches of a call: {counts}")
    sys.exit(any(count != 1 for count in counts.values()))


if __name__ == "__main__":
    main()

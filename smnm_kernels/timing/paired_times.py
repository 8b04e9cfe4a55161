"""Paired times: every round takes each contender once, in turn, so that a slow spell of the machine
falls on all of them. Ratios are medians over rounds of the paired times.

Times are of calls again and again, which have the caches to themselves. ``measure_in_turn`` has the
other end: single calls, each after one of the first contender, as a training step has them between
other work.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

#: One measurement lasts at least so long, of as many calls as that takes.
LEAST_SECONDS = 2e-3
CALLS_PER_GRAPH = 20
#: About a millisecond: more than it takes to launch a graph of thousands of kernels.
SLEEP_CYCLES = 2_000_000
WARM_UP_ROUNDS = 2
#: What takes longer is measured once a repeat.
SLOW_SECONDS = 0.5


class Contender(NamedTuple):
    """Something to time. The first of a group is what the others are divided by."""

    what: str
    run: Callable[[], object]
    #: What a reader must know before comparing it with the others.
    note: str = ""
    #: Whether a CUDA graph may hold it: it neither waits for the host nor keeps what it computed.
    graph: bool = True


@dataclass
class Times:
    """Microseconds per call of one contender: round -> time, for each repeat of the measurement."""

    repeats: list[dict[int, float]] = field(default_factory=list)
    #: Quotients of single calls in turn with the first contender, for each repeat.
    in_turn: list[list[float]] = field(default_factory=list)
    how: str = "wall"

    @property
    def all(self) -> list[float]:
        return [t for repeat in self.repeats for t in repeat.values()]

    def ratios(self, base: Times) -> list[list[float]]:
        """Paired quotients, for each repeat."""
        return [
            [t / theirs[round_] for round_, t in own.items() if round_ in theirs]
            for own, theirs in zip(self.repeats, base.repeats, strict=True)
        ]


def measure(
    contenders: Sequence[Contender], times: dict[str, Times], seconds: float, device: torch.device
) -> None:
    """One repeat: rounds for about ``seconds``, at least three, added to ``times``.

    A contender that would take more than its share of the time sits most rounds out.
    """
    on_cuda = device.type == "cuda"
    ready = {}
    for c in contenders:
        ready[c.what] = _on_cuda(c) if on_cuda else _repeated(c.run)
    cost = {name: one.seconds for name, one in ready.items()}
    share = seconds / len(contenders)
    # In three rounds at least, in 100 at most.
    rounds = max(3, min(100, int(share / min(cost.values()))))
    every = {}
    for name, its_cost in cost.items():
        most = rounds if its_cost > SLOW_SECONDS else max(1, rounds // 3)
        # Powers of two, so that the rounds of any two contenders are nested.
        every[name] = 2 ** math.floor(
            math.log2(min(most, max(1, math.ceil(rounds * its_cost / share))))
        )
    for name, one in ready.items():
        times.setdefault(name, Times()).how = one.how
        times[name].repeats.append({})
    for round_ in range(-WARM_UP_ROUNDS, rounds):
        for name, one in ready.items():
            if round_ >= 0 and round_ % every[name] == 0:
                times[name].repeats[-1][round_] = one.microseconds()
            elif round_ < 0 and cost[name] < share / 10:
                one.microseconds()


def measure_in_turn(
    contenders: Sequence[Contender], times: dict[str, Times], seconds: float, device: torch.device
) -> None:
    """One repeat of single calls, at least three and at most 30 of each contender. On CUDA each is
    launched by the host and waited for, whether or not a graph could hold it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    first, *others = contenders
    for one in others:
        pair = [_followed(c.run, wait) for c in (first, one)]
        spent = [sum(_seconds(run) for run in pair) for _ in range(2)]
        calls = max(3, min(30, int(seconds / len(others) / min(spent))))
        quotients = []
        for _ in range(calls):
            base, own = (_seconds(run) for run in pair)
            quotients.append(own / base)
        times[one.what].in_turn.append(quotients)


def _followed(run: Callable[[], object], by: Callable[[], object] | None) -> Callable[[], object]:
    return run if by is None else lambda: (run(), by())


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass
class _Ready:
    """A contender with what one measurement of it does."""

    microseconds: Callable[[], float]
    seconds: float
    how: str


def _repeated(run: Callable[[], object]) -> _Ready:
    tries = []
    for _ in range(3):
        tries.append(_seconds(run))
        # The first call may compile.
        if len(tries) > 1 and tries[-1] > SLOW_SECONDS:
            break
    once = min(tries)
    calls = max(1, math.ceil(LEAST_SECONDS / max(once, 1e-7)))

    def microseconds() -> float:
        if calls > 1:
            run()  # brings back what the contender before has driven out of the caches
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return 1e6 * (time.perf_counter() - start) / calls

    return _Ready(microseconds, calls * once, "wall")


def _on_cuda(contender: Contender) -> _Ready:
    call_and_wait = _followed(contender.run, torch.cuda.synchronize)
    reason = "launches and a wait included"
    if contender.graph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                contender.run()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        try:
            return _captured(contender.run)
        except RuntimeError as error:
            reason += f", no graph: {str(error).splitlines()[0]}"
            torch.cuda.synchronize()
            torch.rand(1, device="cuda")  # raises where the capture left the generator broken
    ready = _repeated(call_and_wait)
    ready.how = f"wall, {reason}"
    return ready


def _captured(run: Callable[[], object]) -> _Ready:
    """A CUDA graph of several calls, replayed between two events."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_GRAPH):
            run()

    def microseconds() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # While the device sleeps the host gets ahead, so that no event waits for a launch.
        torch.cuda._sleep(SLEEP_CYCLES)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        return 1e3 * start.elapsed_time(end) / CALLS_PER_GRAPH

    return _Ready(microseconds, 1e-6 * microseconds() * CALLS_PER_GRAPH + 1.5e-3, "graph")


def rows(contenders: Sequence[Contender], times: dict[str, Times], **where: object) -> list[dict]:
    """A row for each contender: median and quartiles of its time and of its ratio to the first."""
    base, made = times[contenders[0].what], []
    for contender in contenders:
        own = times[contender.what]
        ratios = own.ratios(base)
        in_turn = [q for repeat in own.in_turn for q in repeat]
        made.append(
            {
                **where,
                "what": contender.what,
                "us": _rounded(statistics.median(own.all)),
                "us_quartiles": quartiles(own.all),
                "ratio": _rounded(statistics.median(r for repeat in ratios for r in repeat)),
                "ratio_to": contenders[0].what,
                # What a repetition of the whole measurement gives: the noise of the ratio.
                "ratio_repeats": [_rounded(statistics.median(repeat)) for repeat in ratios],
                "ratio_in_turn": _rounded(statistics.median(in_turn)) if in_turn else None,
                "ratio_in_turn_quartiles": quartiles(in_turn) if in_turn else None,
                "measurements": sum(map(len, ratios)),
                "clock": own.how,
                "note": contender.note,
            }
        )
    return made


def quartiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return 2 * [_rounded(v) for v in values]
    low, _, high = statistics.quantiles(values, n=4)
    return [_rounded(low), _rounded(high)]


def _rounded(value: float) -> float:
    """To four digits."""
    return float(f"{value:.4g}")

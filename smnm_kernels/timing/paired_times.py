"""Paired times of several contenders.

Every round measures each contender once, one after the other, so that a slow spell of the machine
hits all of them. A ratio is the median over rounds of the quotients of two times of one round.

``measure`` calls a contender many times in a row, which keeps the caches warm. ``measure_in_turn``
shows the opposite: single calls, each after a call of the first contender, as a training step makes
them between other work.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

#: One measurement makes as many calls as take at least this long.
LEAST_SECONDS = 2e-3
CALLS_PER_GRAPH = 20
#: About a millisecond, which is longer than the launch of a graph of thousands of kernels takes.
SLEEP_CYCLES = 2_000_000
WARM_UP_ROUNDS = 2
#: Contenders that take longer are measured once in each repeat.
SLOW_SECONDS = 0.5


class Contender(NamedTuple):
    """Something to time. The times of a group are divided by those of its first contender."""

    what: str
    run: Callable[[], object]
    #: What a reader must know to compare it with the others.
    note: str = ""
    #: Whether a CUDA graph can hold its calls: they neither wait for the device nor keep results.
    graph: bool = True
    #: Whether the masks are made by this package; tables and plots set these rows apart.
    ours: bool = False


@dataclass
class Times:
    """The times of one contender."""

    #: For each repeat of the measurement: round -> microseconds per call.
    repeats: list[dict[int, float]] = field(default_factory=list)
    #: For each repeat: times of single calls, divided by those of the first contender.
    in_turn: list[list[float]] = field(default_factory=list)
    #: The clock: "wall", "graph", or "wall" with what it includes.
    how: str = "wall"

    @property
    def all(self) -> list[float]:
        return [t for repeat in self.repeats for t in repeat.values()]

    def ratios(self, base: Times) -> list[list[float]]:
        """For each repeat, the quotients of times of the same round."""
        return [
            [t / theirs[round_] for round_, t in own.items() if round_ in theirs]
            for own, theirs in zip(self.repeats, base.repeats, strict=True)
        ]


def measure(
    contenders: Sequence[Contender], times: dict[str, Times], seconds: float, device: torch.device
) -> None:
    """Adds one repeat to ``times``: as many rounds as take about ``seconds``, at least three.

    A contender that would take more than its share of the time is left out of most rounds.
    """
    on_cuda = device.type == "cuda"
    ready = {}
    for c in contenders:
        ready[c.what] = _time_on_cuda(c) if on_cuda else _time_calls(c.run)
    cost = {name: one.seconds for name, one in ready.items()}
    share = seconds / len(contenders)
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
    """Adds one repeat of single calls to ``times``: 3 to 30 of each contender. On CUDA the host
    launches each call and waits for it, whether or not a graph could hold it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    first, *others = contenders
    for one in others:
        pair = [_call_both(c.run, wait) for c in (first, one)]
        spent = [sum(_seconds(run) for run in pair) for _ in range(2)]
        calls = max(3, min(30, int(seconds / len(others) / min(spent))))
        quotients = []
        for _ in range(calls):
            base, own = (_seconds(run) for run in pair)
            quotients.append(own / base)
        times[one.what].in_turn.append(quotients)


def _call_both(
    run: Callable[[], object], then: Callable[[], object] | None
) -> Callable[[], object]:
    """``run``, followed by ``then`` if there is one."""
    return run if then is None else lambda: (run(), then())


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass
class _Ready:
    """A contender that is ready to be timed."""

    #: Makes one measurement and returns microseconds per call.
    microseconds: Callable[[], float]
    #: How long one measurement takes.
    seconds: float
    how: str


def _time_calls(run: Callable[[], object]) -> _Ready:
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
            run()  # fills the caches again after the contender before
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return 1e6 * (time.perf_counter() - start) / calls

    return _Ready(microseconds, calls * once, "wall")


def _time_on_cuda(contender: Contender) -> _Ready:
    call_and_wait = _call_both(contender.run, torch.cuda.synchronize)
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
            return _time_graph(contender.run)
        except RuntimeError as error:
            reason += f", no graph: {str(error).splitlines()[0]}"
            torch.cuda.synchronize()
            torch.rand(1, device="cuda")  # raises if the capture left the generator broken
    ready = _time_calls(call_and_wait)
    ready.how = f"wall, {reason}"
    return ready


def _time_graph(run: Callable[[], object]) -> _Ready:
    """A CUDA graph of several calls, replayed between two events."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_GRAPH):
            run()

    def microseconds() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The host launches everything while the device sleeps, so that no event waits for a launch.
        torch.cuda._sleep(SLEEP_CYCLES)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        return 1e3 * start.elapsed_time(end) / CALLS_PER_GRAPH

    return _Ready(microseconds, 1e-6 * microseconds() * CALLS_PER_GRAPH + 1.5e-3, "graph")


def rows(contenders: Sequence[Contender], times: dict[str, Times], **where: object) -> list[dict]:
    """A row for each contender: median and quartiles of its time, and its ratio to the first."""
    base, made = times[contenders[0].what], []
    for contender in contenders:
        own = times[contender.what]
        ratios = own.ratios(base)
        in_turn = [q for repeat in own.in_turn for q in repeat]
        made.append(
            {
                **where,
                "what": contender.what,
                "ours": contender.ours,
                "us": round_to_4_digits(statistics.median(own.all)),
                "us_quartiles": quartiles(own.all),
                "ratio": round_to_4_digits(
                    statistics.median(r for repeat in ratios for r in repeat)
                ),
                "ratio_to": contenders[0].what,
                # Their spread is the noise of the ratio.
                "ratio_repeats": [
                    round_to_4_digits(statistics.median(repeat)) for repeat in ratios
                ],
                "ratio_in_turn": round_to_4_digits(statistics.median(in_turn)) if in_turn else None,
                "ratio_in_turn_quartiles": quartiles(in_turn) if in_turn else None,
                "measurements": sum(map(len, ratios)),
                "clock": own.how,
                "note": contender.note,
            }
        )
    return made


def quartiles(values: list[float]) -> list[float]:
    if len(values) < 2:
        return 2 * [round_to_4_digits(v) for v in values]
    low, _, high = statistics.quantiles(values, n=4)
    return [round_to_4_digits(low), round_to_4_digits(high)]


def round_to_4_digits(value: float) -> float:
    """``value`` with four significant digits."""
    return float(f"{value:.4g}")

"""Times of calls of two checkouts of the package, in pairs: is this one faster than the other?

    git worktree add ../before COMMIT && (cd ../before && python setup.py build_ext --inplace)
    python bench/paired_calls.py ../before --calls green3d rbn --batch-sizes 1 64

Each checkout has a process of its own, with the same number of threads, which stays alive. A pair
is one measurement in each, one after the other in random order, so that a slow spell of the machine
hits both. A ratio is the median over pairs of time here / time there: below 1, this checkout is the
faster one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timed_calls import CALLS

from smnm_kernels.timing.facts import busy_cores, device_name
from smnm_kernels.timing.paired_times import LEAST_SECONDS

HERE = Path(__file__).resolve().parent.parent
#: After a call, the threads of a process spin for a while. In this time the other process would
#: have to share its cores with them.
PAUSE_SECONDS = 3e-3
RESAMPLES = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout, with its library built")
    parser.add_argument("--pairs", type=positive, default=300, help="of each call and batch size")
    parser.add_argument("--batch-sizes", type=positive, nargs="+", default=[1, 64], metavar="B")
    parser.add_argument(
        "--calls", nargs="+", default=CALLS, choices=CALLS, help="what is timed; default: all"
    )
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    given = parser.parse_args()
    other = given.other.resolve()
    if not (other / "smnm_kernels" / "__init__.py").exists():
        parser.error(f"OTHER must be a checkout of the package, got {given.other}")

    about = {
        "processor": device_name(torch.device("cpu")),
        "busy_cores": busy_cores(),
        "torch": torch.__version__,
        "threads": given.threads,
    }
    with Worker(HERE, given.threads) as here, Worker(other, given.threads) as there:
        about |= {"here": commit(HERE), "there": commit(other)}
        print(
            f"{about['processor']}, {about['busy_cores']} cores busy before; "
            f"torch {about['torch']}, {about['threads']} threads"
        )
        print(f"here: commit {about['here']}, backend {here.backend}")
        print(f"there: commit {about['there']}, backend {there.backend}\n")
        print("| call | B | here | ratio, here / there | 95% interval | pairs |")
        print("|---|---|---|---|---|---|")
        order, rows = random.Random(0), []
        for call in given.calls:
            for batch in given.batch_sizes:
                rows.append(compare(call, batch, here, there, given.pairs, order))
                print(line(rows[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number


class Worker:
    """A process that imports the package from ``checkout`` and times its calls."""

    def __init__(self, checkout: Path, threads: int) -> None:
        self.checkout = checkout
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("timed_calls.py"), str(threads)],
            env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Worker:
        hello = self._answer()
        if not Path(hello["package"]).is_relative_to(self.checkout):
            raise SystemExit(f"{self.checkout}: imports {hello['package']}, not its own package")
        self.backend = hello["backend"]
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def prepare(self, call: str, batch: int) -> dict:
        """``{"seconds"}`` of a call, or ``{"missing"}``: why the checkout has no such call."""
        return self._ask(call=call, batch=batch)

    def measure(self, repetitions: int) -> float:
        """Seconds of one of so many calls."""
        time.sleep(PAUSE_SECONDS)
        return self._ask(repetitions=repetitions)["seconds"]

    def _ask(self, **question: object) -> dict:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        text = self._process.stdout.readline()
        if not text:
            code = self._process.wait()
            raise SystemExit(f"{self.checkout}: its process ended with exit code {code}, see above")
        return json.loads(text)


def compare(
    call: str, batch: int, here: Worker, there: Worker, pairs: int, order: random.Random
) -> dict:
    """The row of one call and batch size; it has ``missing`` where a checkout lacks the call."""
    row = {"call": call, "batch": batch}
    ready = {"here": here.prepare(call, batch), "there": there.prepare(call, batch)}
    missing = {place: one["missing"] for place, one in ready.items() if "missing" in one}
    if missing:
        return row | {"missing": missing}
    # As many calls in both, and long enough in the faster one.
    repetitions = math.ceil(LEAST_SECONDS / min(one["seconds"] for one in ready.values()))
    times: list[dict[Worker, float]] = []
    for _ in range(pairs):
        one_pair = order.sample((here, there), 2)
        times.append({worker: worker.measure(repetitions) for worker in one_pair})
    ratios = [pair[here] / pair[there] for pair in times]
    return row | {
        "us_here": 1e6 * statistics.median(pair[here] for pair in times),
        "us_there": 1e6 * statistics.median(pair[there] for pair in times),
        "ratio": statistics.median(ratios),
        "interval": interval(ratios),
        "pairs": pairs,
        "repetitions": repetitions,
    }


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the median, by the bootstrap."""
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(low), float(high)


def line(row: dict) -> str:
    start = f"| {row['call']} | {row['batch']} |"
    if "missing" in row:
        why = "; ".join(f"missing {place} ({text})" for place, text in row["missing"].items())
        return f"{start} {why} | | | |"
    low, high = row["interval"]
    return (
        f"{start} {row['us_here']:,.1f} us | {row['ratio']:.3f} | {low:.3f} to {high:.3f} | "
        f"{row['pairs']} |"
    )


def commit(checkout: Path) -> str:
    """With a + if files are changed; "unknown" without git."""
    command = ("git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+")
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


if __name__ == "__main__":
    main()

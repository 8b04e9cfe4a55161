"""The process of one checkout for ``paired_calls.py``: answers questions about calls, one JSON
object a line. It imports the package of its PYTHONPATH and uses public names alone, so that the
checkout may be an old one."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

import torch

VIDEO, AUDIO, IMAGE = ((8, 14, 14), 0.9), ((1, 64, 8), 0.8), ((1, 14, 14), 0.75)
#: Arguments of ``MaskSampler``; a call of the sampler is timed.
SAMPLERS = {
    "green3d": ("green3d", *VIDEO),
    "random": ("random", *VIDEO),
    "rbn": ("rbn", *AUDIO),
    "green2d": ("green2d", *IMAGE),
    "block": ("block", *IMAGE),
}
#: Arguments of functions, after the sample ids.
FUNCTIONS = {
    "noise_masks": (VIDEO[0], "green", VIDEO[1]),
    "rbn_masks": AUDIO,
}
CALLS = (*SAMPLERS, *FUNCTIONS)
#: Calls whose shortest time says how many calls a measurement needs.
TRIES = 5


def serve(threads: int) -> None:
    """Answers ``{"call", "batch"}`` by ``{"seconds"}`` of a call or ``{"missing"}``, why there is
    none; then ``{"repetitions"}`` by the ``{"seconds"}`` of one of so many calls."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    sys.stdout = sys.stderr  # what the package prints is no answer

    def answer(**content: object) -> None:
        answers.write(json.dumps(content) + "\n")

    torch.set_num_threads(threads)
    import smnm_kernels as smnm

    answer(package=smnm.__file__, backend=active_backends(smnm))
    run: Callable[[], object] | None = None  # of the last call that was asked for
    for text in sys.stdin:
        question = json.loads(text)
        if "call" in question:
            try:
                run = made(smnm, question["call"], question["batch"])
            except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
                answer(missing=f"{type(error).__name__}: {error}")
            else:
                run()
                answer(seconds=min(seconds_of_a_call(run, 1) for _ in range(TRIES)))
        else:
            if question["repetitions"] > 1:
                run()  # fills the caches again after the other process
            answer(seconds=seconds_of_a_call(run, question["repetitions"]))


def active_backends(smnm) -> str:
    if not hasattr(smnm, "backends"):
        return "unknown"
    return ", ".join(name for name, state in smnm.backends().items() if state == "active")


def made(smnm, call: str, batch: int) -> Callable[[], object]:
    if call in SAMPLERS:
        sampler = smnm.MaskSampler(*SAMPLERS[call])
        return lambda: sampler(batch)
    function, ids = getattr(smnm, call), torch.arange(batch)
    return lambda: function(ids, *FUNCTIONS[call])


def seconds_of_a_call(run: Callable[[], object], repetitions: int) -> float:
    start = time.perf_counter()
    for _ in range(repetitions):
        run()
    return (time.perf_counter() - start) / repetitions


if __name__ == "__main__":
    serve(int(sys.argv[1]))

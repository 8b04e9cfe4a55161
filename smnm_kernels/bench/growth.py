"""How time and memory grow: with the batch, the grid, sigma, and R-BN's candidates and windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.bench import peers

from .mask_making import RANDOM
from .timing import Contender, Times, measure, rows

BATCHES = (1, 4, 16, 64, 256, 1024)
#: About 196 to a million tokens, of a shape that grows evenly.
GRIDS: tuple[Grid, ...] = (
    (1, 14, 14), (4, 14, 14), (8, 14, 14), (8, 28, 28), (16, 32, 32), (16, 64, 64), (32, 64, 128),
    (64, 128, 128),
)  # fmt: skip
RBN_GRIDS: tuple[Grid, ...] = ((1, 14, 14), (1, 64, 8), (1, 64, 32), (1, 128, 64), (1, 256, 128))
SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
CANDIDATES = (2, 4, 8, 16, 32, 64)
WINDOWS = (3, 5, 9, 17, 33)


class Series(NamedTuple):
    """One curve: what is varied, over which values, and what a value's call is."""

    name: str
    over: str
    values: tuple
    call: Callable[[object], Callable[[], object]]
    #: What is on the axis for a value.
    x: Callable[[object], float] = float


def series(device: torch.device) -> list[Series]:
    def ids(n: int) -> torch.Tensor:
        return torch.arange(n, device=device)

    def green(grid: Grid, batch: int = 1, sigma: object = None) -> Callable[[], object]:
        sampler = smnm.MaskSampler("green3d", grid, 0.9, sigma=sigma).to(device)
        return partial(sampler.masks, ids(batch))

    def rbn(grid: Grid, batch: int, **more: object) -> Callable[[], object]:
        sampler = smnm.MaskSampler("rbn", grid, 0.8, **more).to(device)
        return partial(sampler.masks, ids(batch))

    def random(grid: Grid, batch: int) -> Callable[[], object]:
        return partial(peers.mae_random_masking, batch, math.prod(grid), 0.9, device)

    video, audio = (8, 14, 14), (1, 64, 8)
    return [
        Series("smnm green3d", "B", BATCHES, lambda b: green(video, b)),
        Series("smnm rbn", "B", BATCHES, lambda b: rbn(audio, b)),
        Series(RANDOM, "B", BATCHES, lambda b: random(video, b)),
        Series("smnm green3d", "N", GRIDS, green, math.prod),
        Series("smnm rbn", "N", RBN_GRIDS, lambda g: rbn(g, 5), math.prod),
        Series(RANDOM, "N", GRIDS, lambda g: random(g, 1), math.prod),
        Series("smnm red3d", "sigma", SIGMAS, lambda s: _red(video, s, ids(64))),
        # Two banks at least, one for each of two threads.
        Series("smnm rbn", "K", CANDIDATES, lambda k: rbn(audio, 128, n_candidates=k)),
        Series("smnm rbn", "window", WINDOWS, lambda w: rbn(audio, 64, windows=(w,))),
    ]


def _red(grid: Grid, sigma: float, ids: torch.Tensor) -> Callable[[], object]:
    sampler = smnm.MaskSampler("red3d", grid, 0.9, sigma=sigma).to(ids.device)
    return partial(sampler.masks, ids)


def growth(seconds: float, device: torch.device, progress: Callable[[str], None]) -> list[dict]:
    """A row for each point; ``exponent`` is that of its whole curve over B or N, fitted to the
    upper half, where what a call costs by itself no longer counts."""
    curves, made = series(device), []
    for curve in curves:
        progress(f"growth: {curve.name} over {curve.over}")
        contenders = [Contender(str(value), curve.call(value)) for value in curve.values]
        times: dict[str, Times] = {}
        measure(contenders, times, seconds / len(curves), device)
        points = rows(contenders, times, section="growth", curve=curve.name, over=curve.over)
        x = [curve.x(value) for value in curve.values]
        y = [point["us"] for point in points]
        exponent = fitted_exponent(x, y) if curve.over in ("B", "N") else None
        for point, at, contender in zip(points, x, contenders, strict=True):
            memory = {
                "output_bytes": output_bytes(contender.run),
                "peak_bytes": peak_bytes(contender.run, device),
            }
            made.append(point | {"x": at, "exponent": exponent} | memory)
    return made


def fitted_exponent(x: list[float], y: list[float]) -> float:
    """Of y = c x^e by least squares of the logarithms, over the upper half of the points."""
    half = len(x) // 2
    slope, _ = np.polyfit(np.log(x[half:]), np.log(y[half:]), 1)
    return round(float(slope), 3)


def output_bytes(run: Callable[[], object]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in run())


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """What a call allocates at most, outputs included. None on the CPU, whose allocator keeps no
    account."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before

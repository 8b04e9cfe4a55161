"""The section "growth" of `smnm bench`: how time and memory grow with the batch, the grid, sigma,
and R-BN's candidates and windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.kinds import RbnKind
from smnm_kernels.libraries import rbn_path
from smnm_kernels.timing import peers

from .mask_making import RANDOM
from .paired_times import Contender, Times, measure, rows
from .profiling import kernel_names, peak_bytes

BATCHES = (1, 4, 16, 64, 256, 1024)
#: From 196 tokens to a million.
GRIDS: tuple[Grid, ...] = (
    (1, 14, 14), (4, 14, 14), (8, 14, 14), (8, 28, 28), (16, 32, 32), (16, 64, 64), (32, 64, 128),
    (64, 128, 128),
)  # fmt: skip
RBN_GRIDS: tuple[Grid, ...] = (
    (1, 14, 14), (1, 64, 8), (1, 64, 32), (1, 128, 64), (1, 256, 128), (1, 512, 256),
    (1, 1000, 1000),
)  # fmt: skip
SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)
CANDIDATES = (2, 4, 8, 16, 32, 64)
WINDOWS = (3, 5, 9, 17, 33)


class Series(NamedTuple):
    """One curve."""

    name: str
    #: The quantity that grows along the curve.
    over: str
    #: The settings that all its points share.
    fixed: str
    values: tuple
    #: For a value, the function that is timed.
    call: Callable[[Any], Callable[[], Any]]
    #: For a value, its place on the axis.
    x: Callable[[Any], float] = float
    #: Whether the masks are made by this package.
    ours: bool = True


@dataclass(frozen=True)
class DrawMasks:
    """The call of a point of our own curves: masks of a sampler."""

    sampler: smnm.MaskSampler
    sample_ids: torch.Tensor

    def __call__(self) -> smnm.Masks:
        return self.sampler.masks(self.sample_ids)


def series(device: torch.device) -> list[Series]:
    def ours(kind: str, grid: Grid, ratio: float, batch: int, **more: Any) -> DrawMasks:
        sampler = smnm.MaskSampler(kind, grid, ratio, **more).to(device)
        return DrawMasks(sampler, torch.arange(batch, device=device))

    def random(grid: Grid, batch: int) -> Callable:
        return partial(peers.mae_random_masking, batch, math.prod(grid), 0.9, device)

    green, red, rbn = (partial(ours, kind) for kind in ("green3d", "red3d", "rbn"))
    video, audio = (8, 14, 14), (1, 64, 8)
    of_video, of_audio = "8x14x14, ratio 0.9", "1x64x8, ratio 0.8"
    one, of_a_bank = "ratio 0.9, B = 1", "ratio 0.8, B = 1 of a bank of 5"
    return [
        Series("smnm green3d", "B", of_video, BATCHES, lambda b: green(video, 0.9, b)),
        Series("smnm rbn", "B", of_audio, BATCHES, lambda b: rbn(audio, 0.8, b)),
        Series(RANDOM, "B", of_video, BATCHES, lambda b: random(video, b), ours=False),
        Series("smnm green3d", "N", one, GRIDS, lambda g: green(g, 0.9, 1), math.prod),
        Series("smnm rbn", "N", of_a_bank, RBN_GRIDS, lambda g: rbn(g, 0.8, 1), math.prod),
        Series(RANDOM, "N", one, GRIDS, lambda g: random(g, 1), math.prod, ours=False),
        Series(
            "smnm red3d", "sigma", f"{of_video}, B = 64", SIGMAS,
            lambda s: red(video, 0.9, 64, sigma=s),
        ),
        # Two banks at least, one for each of two threads.
        Series(
            "smnm rbn", "K", f"{of_audio}, B = 128", CANDIDATES,
            lambda k: rbn(audio, 0.8, 128, n_candidates=k),
        ),
        Series(
            "smnm rbn", "window", f"{of_audio}, B = 64", WINDOWS,
            lambda w: rbn(audio, 0.8, 64, windows=(w,)),
        ),
    ]  # fmt: skip


def growth(seconds: float, device: torch.device, progress: Callable[[str], None]) -> list[dict]:
    """A row for each point of each curve. ``exponent`` belongs to the whole curve, if it is over B
    or N. It is fitted to the upper half of the points, where the fixed cost of a call is small."""
    curves, made = series(device), []
    for curve in curves:
        progress(f"growth: {curve.name} over {curve.over}")
        contenders = [
            Contender(str(value), curve.call(value), ours=curve.ours) for value in curve.values
        ]
        times: dict[str, Times] = {}
        measure(contenders, times, seconds / len(curves), device)
        where = {"section": "growth", "curve": curve.name, "over": curve.over, "fixed": curve.fixed}
        points = rows(contenders, times, **where)
        x = [curve.x(value) for value in curve.values]
        y = [point["us"] for point in points]
        exponent = fit_exponent(x, y) if curve.over in ("B", "N") else None
        for point, at, contender in zip(points, x, contenders, strict=True):
            outputs, peak = output_bytes(contender.run), peak_bytes(contender.run, device)
            made.append(
                point
                | {
                    "x": at,
                    "exponent": exponent,
                    "path": path(contender.run, device),
                    "output_bytes": outputs,
                    # On the CPU the peak misses memory that the process had already.
                    "peak_bytes": None if peak is None else max(peak, outputs),
                }
            )
    return made


def fit_exponent(x: list[float], y: list[float]) -> float:
    """e of y = c x^e, by least squares of the logarithms over the upper half of the points."""
    half = len(x) // 2
    slope, _ = np.polyfit(np.log(x[half:]), np.log(y[half:]), 1)
    return round(float(slope), 3)


def path(run: Callable[[], object], device: torch.device) -> str | None:
    """Which code path our op takes for this call, if it has several; None for calls of others."""
    if not isinstance(run, DrawMasks):
        return None
    if device.type == "cuda":
        return kernel_names(run)
    kind = run.sampler.settings
    if not isinstance(kind, RbnKind) or smnm.backends()["cpu"] != "active":
        return None
    _, height, width = kind.grid
    return rbn_path(height, width, kind.n_candidates, kind.windows, kind.weights)


def output_bytes(run: Callable[[], Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in run())

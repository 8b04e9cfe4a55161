"""Runs the GPU kernels on the PTX machine next to the CPU's ops, and prints a line of JSON a call.

    python tests/ptx/every_kernel.py TARGET triton|cuda [--few]

With --few only the calls that are otherwise worth random schedules, too, and in order: they launch
every kernel. A process of its own: pytest's may interpret Triton kernels, and then compiles none.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from op_calls import (
    noise_call,
    noise_masks_call,
    rbn_bank_call,
    rbn_masks_call,
)
from triton_report import structure

from ptx_machine.cuda_launch import CudaKernels, CudaMachine
from ptx_machine.launch import LaunchReport, Schedule

STANDARD_GRIDS = ((8, 14, 14), (16, 14, 14), (1, 64, 8), (1, 14, 14))
ODD_GRIDS = ((3, 5, 7), (2, 9, 33), (1, 1, 1), (1, 31, 1), (2, 1, 1), (5, 1, 13), (1, 20, 27))
GRIDS_IN_PASSES = ((1, 64, 8), (3, 5, 7), (2, 9, 33))
#: Both beyond 32 bits.
IDS = torch.tensor([2**40 + 5, -3])
ROUNDING_KERNELS = ("draw_masks_on_chip", "fill_draw_keys", "patch_dispersion")
WEIGHTS = (0.4, 0.4, 0.1, 0.1)


class Call(NamedTuple):
    """An op of torch.ops.smnm, and what it is called with."""

    name: str
    op: str
    arguments: tuple
    #: Whether it is worth the time that random schedules take.
    random: bool = False


def masks(grid, color, *, ids=IDS[:1], n_keep=None, tube=False, seed=3, random=False) -> Call:
    n_keep = n_keep or max(1, math.prod(grid[1:]) // 10) * grid[0]
    call = noise_masks_call(ids, grid, color, None, n_keep, None, tube, False, seed)
    name = f"{color} {grid}{' tube' if tube else ''}"
    return Call(name, "noise_masks", call, random)


def noise(grid, color, *, ids=IDS[:1], seed=3, random=False) -> Call:
    return Call(f"noise {color} {grid}", "noise", noise_call(ids, grid, color, None, seed), random)


def on_chip() -> Iterator[Call]:
    for grid in STANDARD_GRIDS:
        for color in ("green", "red", "blue", "white"):
            yield masks(grid, color, random=color in ("green", "white"))
    yield masks((8, 14, 14), "green", ids=IDS)
    # Aligned to 8 bytes and no more, and a seed that is read on the device.
    yield masks((1, 14, 14), "green", ids=torch.cat([IDS, IDS])[1:2], seed=torch.tensor([9, -5])[1])
    yield masks((8, 14, 14), "green", tube=True)
    yield masks((8, 14, 14), "white", tube=True)
    yield noise((8, 14, 14), "green", seed=torch.tensor(-5))
    yield noise((1, 64, 8), "white", random=True)
    for grid in ODD_GRIDS:
        n_keep = max(1, math.prod(grid) // 3)
        for color in ("green", "white") if grid == (3, 5, 7) else ("green",):
            yield masks(grid, color, n_keep=n_keep)
    yield noise((2, 9, 33), "blue")


def in_passes() -> Iterator[Call]:
    for grid in GRIDS_IN_PASSES:
        n_keep = math.prod(grid) // 5
        for color in ("green", "red", "white"):
            if color == "green" or grid == (3, 5, 7):
                random = grid == (3, 5, 7)
                yield masks(grid, color, ids=IDS, n_keep=n_keep, random=random)
        if grid != (1, 64, 8):
            yield noise(grid, "green", seed=torch.tensor(-3))
    yield masks((3, 5, 7), "green", tube=True, n_keep=9)
    # In several chunks.
    values = torch.randint(-9, 9, (1, 300), generator=torch.Generator().manual_seed(1)).float()
    yield Call("threshold in chunks", "threshold", (values, 100), random=True)


def thresholds() -> Iterator[Call]:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        # The last one is more than a chunk.
        for n in (1, 33, 512, 1568, 20_000 // dtype.itemsize):
            values = torch.randn(2, n, generator=generator, dtype=dtype)
            values[:, ::7], values[1, ::5] = 0.0, -0.0
            values[0, n // 2], values[1, n // 3] = math.nan, math.inf
            call = (values, max(1, n // 10))
            yield Call(f"threshold {dtype} {n}", "threshold", call, random=n == 512)
        tied = torch.randint(-3, 3, (2, 1568), generator=generator).to(dtype)
        yield Call(f"threshold ties {dtype}", "threshold", (tied, 784))


def valid_rows(batch: int, n: int, n_keep: int) -> torch.Tensor:
    """bool [batch, n], True for just n_keep tokens in the first row."""
    keys = torch.rand(batch, n, generator=torch.Generator().manual_seed(n))
    return keys.argsort(1).argsort(1) < n_keep + 2 * torch.arange(batch)[:, None]


def draws(large: bool = False) -> Iterator[Call]:
    generator = torch.Generator().manual_seed(2)
    for n, rule, invert, n_swapped in (
        (196, "weights", False, 0), (512, "weights", False, 99), (37, "log2_weights", True, 5),
        (1568, "scores", False, 300), (1, "weights", False, 0),
    ):  # fmt: skip
        values = torch.randn(2, n, generator=generator).exp()
        values[:, ::5], values[1, ::7], values[0, n // 2] = 0.0, math.inf, math.nan
        n_keep = max(1, n // 5)
        arguments = (IDS, None, 3, values, rule, n_keep, invert, min(n_swapped, n_keep))
        name = f"draw {n} by {rule}{', inverted' if invert else ''}, {n_swapped} swapped"
        yield Call(name, "draw_masks", arguments, random=n in (37, 512))
        if n in (37, 512):
            padded = valid_rows(2, n, n_keep)
            yield Call(f"{name}, padded", "draw_masks", (*arguments, padded), random=n == 37)
    if large:
        return
    for shape, patch in (((1, 1, 1, 32, 32), (1, 16, 16)), ((2, 3, 2, 4, 10), (2, 4, 5))):
        data = torch.randn(shape, generator=generator)
        data[..., ::3] = math.nan
        for metric in ("mad", "variance"):
            call = (data, patch, metric)
            yield Call(f"dispersion {shape} {metric}", "dispersion", call, random=True)
    data = torch.randn((1, 3, 2, 32, 32), generator=generator)  # in two parts
    yield Call("dispersion in parts", "dispersion", (data, (2, 32, 32), "mad"))


def structures(large: bool = False) -> Iterator[Call]:
    generator = torch.Generator().manual_seed(3)
    for name, grid, some_valid in (
        ("grid", (3, 5, 7), True), ("block", (2, 9, 7), False), ("inverse_block", (2, 9, 7), True),
        ("time_frequency", (1, 16, 8), False), ("bands", (1, 12, 9), False),
        ("multi_block", (2, 9, 7), True), ("target_block", (2, 9, 7), False),
        ("frames", (5, 3, 4), True), ("frames", (1, 16, 8), False),
        ("running_cell", (4, 5, 6), False), ("multi_block", (8, 14, 14), False),
    ):  # fmt: skip
        if large and math.prod(grid) > 1000:
            continue
        kind, parameters = structure(name, grid)
        n_keep = kind.n_keep if name != "target_block" else kind.n_target
        valid = None
        if some_valid:
            valid = torch.rand(2, math.prod(grid), generator=generator) < 0.9
        arguments = (IDS, None, 3, valid, grid, name, parameters, n_keep)
        random = name in ("inverse_block", "frames")
        yield Call(f"{name} {grid}, {valid is not None}", "structure_masks", arguments, random)


def rbn(name, ids, grid, n_keep, k, ties, windows=(3, 5), random=False, seed=3) -> Call:
    call = rbn_masks_call(ids, grid, None, n_keep, k, windows, WEIGHTS, ties, False, seed)
    return Call(f"{name} {grid} keeping {n_keep}, K {k}, {ties}", "rbn_masks", call, random)


def padded(call: Call, n_keep: int) -> Call:
    ids, _, _, grid, *_ = call.arguments
    valid = valid_rows(len(ids), math.prod(grid), n_keep)
    return Call(f"{call.name}, padded", call.op, (*call.arguments, valid), call.random)


def bank(grid, n_keep, k, ties, windows=(3, 5), random=False, seed=3) -> Call:
    generator = torch.Generator().manual_seed(k)
    orders = torch.stack([torch.randperm(math.prod(grid), generator=generator) for _ in range(2)])
    call = rbn_bank_call(orders, k, n_keep, grid, windows, WEIGHTS, ties, seed)
    return Call(f"bank {grid} keeping {n_keep}, K {k}, {ties}", "rbn_bank", call, random)


def rbn_in_triton() -> Iterator[Call]:
    for ties in ("first", "random"):
        yield rbn("R-BN", IDS, (1, 7, 5), 9, 3, ties, random=True)
        # More than the masks can share: a second sweep.
        yield rbn("R-BN overfull", IDS[:1], (1, 4, 3), 8, 3, ties)
        yield padded(rbn("R-BN", IDS, (1, 4, 5), 6, 3, ties), 6)
    yield bank((1, 5, 4), 6, 3, "first")


def rbn_in_cuda() -> Iterator[Call]:
    for ties in ("first", "random"):
        one_bank = torch.arange(5) + 5 * 2**40
        yield rbn("R-BN", one_bank, (1, 64, 8), 102, 5, ties, random=ties == "first")
        yield rbn("R-BN", IDS, (1, 7, 5), 9, 3, ties, random=True, seed=torch.tensor(-1))
        yield rbn("R-BN overfull", IDS[:1], (1, 4, 3), 8, 3, ties)
        yield padded(rbn("R-BN", IDS, (1, 7, 5), 9, 3, ties, random=True), 9)
        yield rbn("R-BN", IDS[:1], (1, 6, 9), 1, 33, ties)
        yield bank((1, 14, 14), 49, 4, ties)
        yield bank((1, 7, 5), 12, 3, ties, random=True)
    yield rbn("R-BN", torch.tensor([7, 0, 8, 1, 7, 2]), (1, 9, 4), 12, 3, "first")
    yield rbn("R-BN", IDS[:1], (1, 9, 4), 12, 1, "first", windows=(1,))
    yield rbn("R-BN", IDS[:1], (1, 1, 1), 1, 2, "first", windows=(99,))
    yield rbn("R-BN", IDS[:1], (1, 4, 5), 2, 40, "random", windows=(3, 7))


def report(
    target: int, path: str, schedule: Schedule, call: Call, run: Callable, launches: list
) -> dict:
    began = time.process_time()
    launches.clear()
    ours = run(*call.arguments)
    theirs = getattr(torch.ops.smnm, call.op)(*call.arguments)
    if isinstance(ours, torch.Tensor):
        ours, theirs = (ours,), (theirs,)
    equal = all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(ours, theirs, strict=True)
    )
    return {
        "call": call.name,
        "op": call.op,
        "path": path,
        "target": target,
        "schedule": "in order" if schedule.seed is None else "random",
        "equal": equal,
        "largest_sum": max(launch.report.largest_sum for launch in launches),
        "blocks": sum(launch.report.blocks for launch in launches),
        "launches": [launch_row(launch) for launch in launches],
        "seconds": round(time.process_time() - began, 2),
    }


def launch_row(launch: LaunchReport) -> dict:
    return {
        "kernel": launch.kernel,
        "writes": launch.writes,
        "findings": [line for line in launch.report.lines() if not _is_meant(launch.kernel, line)],
    }


def _is_meant(kernel: str, finding: str) -> bool:
    """The definition of these kernels rounds integers to float32, too."""
    return kernel in ROUNDING_KERNELS and bool(re.search(r"inexact conver.*: cvt.rn.f32.", finding))


def schedules(call: Call, few: bool) -> list[Schedule]:
    if few:
        return [Schedule()] if call.random else []
    return [Schedule(), Schedule(seed=1)] if call.random else [Schedule()]


def triton_rows(target: int, few: bool) -> Iterator[dict]:
    from ptx_machine.triton_launch import running_triton
    from smnm_kernels import triton_kernels as gpu
    from smnm_kernels.triton_kernels import draw_ops, noise_ops, structure_ops, threshold_ops

    paths = [
        ("on chip", on_chip),
        ("threshold", thresholds),
        ("R-BN in Triton", rbn_in_triton),
        ("draws", draws),
        ("structures", structures),
        ("in passes", in_passes),
        ("draws in passes", lambda: draws(large=True)),
        ("structures in passes", lambda: structures(large=True)),
    ]
    for path, calls in paths:
        if path == "in passes":
            noise_ops.tile_of = lambda *_: None
            noise_ops.MAX_SCRATCH_BYTES = 2**16
            threshold_ops.MAX_CHUNK_BYTES = 2**9
            draw_ops.MAX_TOKENS_ON_CHIP = structure_ops.MAX_TOKENS_ON_CHIP = 0
        for call in calls():
            for schedule in schedules(call, few):
                with running_triton(target, schedule) as machine:
                    run = getattr(gpu, f"{call.op}_kernel")
                    yield report(target, path, schedule, call, run, machine.launches)


def cuda_rows(target: int, few: bool) -> Iterator[dict]:
    kernels = CudaKernels(target)
    for path in ("in shared memory", "in a workspace"):
        for call in rbn_in_cuda():
            for schedule in schedules(call, few):
                machine = CudaMachine(kernels, schedule)
                machine.always_workspace = path == "in a workspace"
                run = getattr(machine, call.op)
                yield report(target, path, schedule, call, run, machine.launches)


def main() -> None:
    warnings.simplefilter("ignore")
    target, language, few = int(sys.argv[1]), sys.argv[2], "--few" in sys.argv
    for row in {"triton": triton_rows, "cuda": cuda_rows}[language](target, few):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""Cycles and microseconds of the kernels by the cost model of ptx_machine, without a GPU.

    python bench/ptx_cost.py green [--grid 8 14 14] [--target 90] [--batch 256] [--warps 4]
    python bench/ptx_cost.py rbn [--grid 1 64 8] [--n-keep 102] [--candidates 5] [--ties random]

The model's error is 40%, and no GPU was held against it yet. It leaves out the order in which ptxas
puts instructions, caches and memory bandwidth; the launch enters as a constant. Microseconds are
those of an H100 (132 multiprocessors at 1.755 GHz), for sm_80 too. Ratios of two
variants of a kernel are much better than that. "In order" and "data flow" bound what becomes of the
instructions; "scheduled" is in the order that an assembler might put them in.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from cuda_report import cuda_report
from op_calls import noise_masks_call, rbn_masks_call

from ptx_machine.block import Block, Kernel
from ptx_machine.cost import RELATIVE_ERROR, Timing
from ptx_machine.cuda_launch import CudaKernels, CudaMachine
from ptx_machine.launch import Schedule
from ptx_machine.occupancy import (
    LAUNCH_MICROSECONDS,
    N_MULTIPROCESSORS,
    launch_microseconds,
    resident_blocks,
)
from ptx_machine.scheduling import scheduled
from smnm_kernels.tables.colors import COLORS

VARIANTS = ("in order", "scheduled", "data flow")


def main() -> None:
    options = parse_options()
    run = time_green if options.kernel == "green" else time_rbn
    try:
        rows = [run(options, variant) for variant in VARIANTS]
    except ValueError as error:  # of the arguments
        sys.exit(f"ptx_cost.py: {error}")
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    for row in rows:
        print_row(row, options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kernel", choices=("green", "rbn"))
    parser.add_argument("--grid", type=int, nargs=3, help="8 14 14, or 1 64 8 of R-BN")
    parser.add_argument("--target", type=int, choices=(80, 90), default=90)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--blocks", type=int, help="on a multiprocessor at once; else what fits")
    parser.add_argument("--color", choices=COLORS, default="green")
    parser.add_argument("--sample-id", type=int, default=7, help="of noise: the search differs")
    parser.add_argument("--n-keep", type=int, help="a tenth, or a fifth of R-BN, unless given")
    parser.add_argument("--warps", type=int, help="of a block of noise; else what the op takes")
    parser.add_argument("--max-registers", type=int, help="of noise, with --warps")
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--ties", choices=("first", "random"), default="first")
    parser.add_argument("--phases", action="store_true", help="a line for every phase")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each variant")
    options = parser.parse_args()
    if options.grid is None:
        options.grid = [8, 14, 14] if options.kernel == "green" else [1, 64, 8]
    if options.n_keep is None:
        options.n_keep = math.prod(options.grid) // (10 if options.kernel == "green" else 5)
    return options


class Usage(NamedTuple):
    """The resources that the compiler gave to the kernel."""

    threads: int
    registers: int
    shared_bytes: int
    stack_bytes: int

    def resident(self, options: argparse.Namespace) -> int:
        """How many blocks run on a multiprocessor at once."""
        return options.blocks or resident_blocks(
            options.target, self.threads, self.registers, self.shared_bytes
        )


def time_green(options: argparse.Namespace, variant: str) -> dict:
    """One block of the op's launch, and as many alike as the batch has samples."""
    from triton_report import usage

    from ptx_machine.triton_launch import running_triton
    from smnm_kernels import triton_kernels

    timings: list[Timing] = []
    call = noise_masks_call(
        torch.tensor([options.sample_id]),
        tuple(options.grid),
        options.color,
        None,
        options.n_keep,
        *(None, False, False, 3),
    )
    with running_triton(options.target, Schedule(checking=False)) as machine:
        machine.replace = in_order_of(variant)
        if options.warps is not None:
            machine.options = {"num_warps": options.warps, "maxnreg": options.max_registers}
        # Once to learn what was compiled, and so how many blocks share a multiprocessor.
        triton_kernels.noise_masks_kernel(*call)
        if len(machine.launches) != 1:
            raise SystemExit(f"grid {options.grid} takes several launches; those are not added up")
        compiled = usage(machine.compiled, "", options.target)
        used = Usage(
            32 * compiled.warps, compiled.registers, compiled.shared_bytes, compiled.stack_bytes
        )
        shared = min(used.resident(options), -(-options.batch // N_MULTIPROCESSORS))

        def watch(block: Block) -> None:
            timings.append(Timing.of(block, dataflow=variant == "data flow", blocks=shared))

        machine.on_block = watch
        triton_kernels.noise_masks_kernel(*call)
    return row(options, variant, timings[0].finish(), options.batch, used)


def time_rbn(options: argparse.Namespace, variant: str) -> dict:
    """The first bank's block, and as many alike as the batch has banks: blocks without one end at
    once, and are not counted."""
    call = rbn_masks_call(
        torch.arange(min(options.batch, options.candidates)),
        tuple(options.grid),
        None,
        options.n_keep,
        options.candidates,
        (3, 5),
        (0.4, 0.4, 0.1, 0.1),
        *(options.ties, False, 3),
    )
    machine = CudaMachine(CudaKernels(options.target), Schedule(checking=False))
    timings: list[Timing] = []
    machine.replace = in_order_of(variant)
    machine.on_block = lambda block: timings.append(
        Timing.of(block, dataflow=variant == "data flow")
    )
    machine.rbn_masks(*call)
    launched = machine.launches[0]
    registers, stack = kernel_usage("rbn_masks_kernel", options.target)
    used = Usage(launched.threads, registers, launched.shared_bytes, stack)
    n_banks = -(-options.batch // options.candidates)
    return row(options, variant, timings[0].finish(), n_banks, used)


def in_order_of(variant: str) -> Callable[[Kernel], Kernel]:
    if variant != "scheduled":
        return lambda kernel: kernel
    return lambda kernel: Kernel(scheduled(kernel.program))


@cache
def kernel_usage(name: str, target: int) -> tuple[int, int]:
    """Registers and bytes of stack of the usual variants, the largest of each."""
    usual = f"{name}<true, int"  # in shared memory, with pairs of 32 bits
    rows = [row for row in cuda_report((target,)) if row["kernel"].startswith(usual)]
    return max(row["registers"] for row in rows), max(row["stack"] for row in rows)


def row(
    options: argparse.Namespace, variant: str, timing: Timing, n_blocks: int, used: Usage
) -> dict:
    resident = used.resident(options)
    shared = min(resident, -(-n_blocks // N_MULTIPROCESSORS))
    return {
        "kernel": options.kernel,
        "grid": options.grid,
        "target": options.target,
        "variant": variant,
        **used._asdict(),
        "blocks": n_blocks,
        "resident": resident,
        "cycles_alone": round(timing.cycles(1)),
        "blocks_together": shared,
        "cycles": round(timing.cycles(shared)),
        "microseconds": round(timing.microseconds(shared), 2),
        "launch_microseconds": round(launch_microseconds(timing, n_blocks, resident), 2),
        "pipes": {pipe: round(cycles) for pipe, cycles in timing.pipes().items()},
        "phases": [
            {
                "cycles": round(phase.cycles(shared, timing.constants)),
                "latency": round(phase.latency),
                "throughput": round(shared * phase.throughput),
                "busiest": phase.busiest,
                "instructions": phase.instructions,
                "before_line": phase.ends_at_line,
            }
            for phase in timing.phases
        ],
    }


def print_row(row: dict, options: argparse.Namespace) -> None:
    print(
        f"{row['kernel']} {tuple(row['grid'])} sm_{row['target']}, {row['variant']}: a block of "
        f"{row['threads']} threads, {row['registers']} registers, {row['shared_bytes']} bytes of "
        f"shared memory, {row['stack_bytes']} of stack; {row['resident']} fit on a multiprocessor"
    )
    print(
        f"  one block alone {row['cycles_alone']} cycles; {row['blocks_together']} together "
        f"{row['cycles']} cycles = {row['microseconds']} us in {len(row['phases'])} phases"
    )
    print(
        f"  {row['blocks']} blocks on {N_MULTIPROCESSORS} multiprocessors, "
        f"{LAUNCH_MICROSECONDS} us of launch included: {row['launch_microseconds']} us "
        f"(error {RELATIVE_ERROR:.0%})"
    )
    print("  cycles of one block on", ", ".join(f"{k} {v}" for k, v in row["pipes"].items()))
    if options.phases:
        print("  phase cycles latency throughput busiest instructions before line")
        for number, phase in enumerate(row["phases"]):
            print("  {:>5} {:>6} {:>7} {:>10} {:>7} {:>12} {:>6}".format(number, *phase.values()))


if __name__ == "__main__":
    main()

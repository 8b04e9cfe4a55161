"""Compiles every Triton kernel ahead of time, without a GPU, and prints what each one takes.

The launches are the ops' own: Triton is given a driver that knows a target but no device, and each
launch stops once its kernel is compiled. A kernel whose registers spill has a stack (bytes of a
thread). Registers are those of a thread, on AMD the vector registers; scalar ones spill into them.

    python bench/triton_report.py [--targets 80 90 100 120 gfx942 gfx1100] [--few] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
import triton
from op_calls import noise_call, noise_masks_call, rbn_masks_call
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from ptx_machine.ptxas_faults import lost_in
from smnm_kernels import triton_kernels
from smnm_kernels.kinds.baselines import BASELINES
from smnm_kernels.kinds.multi_block import MultiBlockKind
from smnm_kernels.kinds.structures import StructureKind
from smnm_kernels.tables.constants import STRUCTURES

#: Compute capabilities times ten; architectures of AMD.
TARGETS = ("80", "90", "100", "120", "gfx942", "gfx1100")
#: These fit on the chip, one program per sample.
STANDARD_GRIDS = ((8, 14, 14), (16, 14, 14), (1, 64, 8), (1, 14, 14))
LARGE_GRIDS = ((16, 56, 56), (1, 224, 224))
#: Structures of spectrograms alone.
FLAT = ("time_frequency", "bands")


#: Bytes of stack that a kernel may use; 8 elsewhere. Before 8.0 there are no tensor cores, and a
#: call warns. Elsewhere Triton 3.9 needs none; 3.6 spills one register in the threshold of large
#: grids, and some on gfx1100.
STACK_BYTES = {"75": 2304, "gfx1100": 168}
#: Shared memory that a block may use; elsewhere 99 KiB, what Ampere's small GPUs have.
SHARED_BYTES = {"75": 2**16, "gfx942": 2**16, "gfx1100": 2**16}


class Usage(NamedTuple):
    kernel: str
    launched_for: str
    target: str
    warps: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    #: Of the machine code, as far as is known: ptx_machine.ptxas_faults.
    lost_constants: int

    def is_right(self) -> bool:
        """Whether it spills no register, a block has the shared memory it needs, and ptxas loses
        nothing."""
        return (
            self.stack_bytes <= STACK_BYTES.get(self.target, 8)
            and self.shared_bytes <= SHARED_BYTES.get(self.target, 99 * 1024)
            and not self.lost_constants
        )


def launches(few: bool = False) -> Iterator[tuple[str, Callable[[], object]]]:
    """(description of the arguments, call of the op). `few`: every kernel, and the ones that need
    the most registers on every grid."""
    ids, seed = torch.zeros(2, dtype=torch.int64), torch.zeros((), dtype=torch.int64)

    def masks(grid, color, tube=False):
        n_keep = max(1, math.prod(grid[1:]) // 10) * grid[0]
        call = noise_masks_call(ids, grid, color, None, n_keep, None, tube, False, 3)
        return partial(triton_kernels.noise_masks_kernel, *call)

    for grid in STANDARD_GRIDS + LARGE_GRIDS:
        every_color = not few or grid in (STANDARD_GRIDS[0], LARGE_GRIDS[0])
        for color in ("green", "red", "white") if every_color else ("green",):
            yield f"{color} {grid}", masks(grid, color)
        if not every_color:
            continue
        noise = partial(triton_kernels.noise_kernel, *noise_call(ids, grid, "green", None, seed))
        yield f"green {grid}, seed in a tensor", noise
    yield "green tube (8, 14, 14)", masks((8, 14, 14), "green", tube=True)
    for n_tokens in (1568, 200_000) if few else (196, 512, 1568, 200_000):
        for dtype in (torch.float32, torch.float64):
            values = torch.zeros(2, n_tokens, dtype=dtype)
            yield f"{dtype} [B, {n_tokens}]", partial(triton_kernels.threshold_kernel, values, 10)
    for n_tokens in (1568, 200_000) if few else (196, 512, 1568, 200_000):
        rules = (("weights", 5), ("scores", 0), ("weights", 0), ("log2_weights", 0))
        for rule, n_swapped in rules[:2] if few else rules:
            call = (ids, None, 3, torch.zeros(2, n_tokens), rule, 20, False, n_swapped)
            name = f"draw [B, {n_tokens}] by {rule}, {n_swapped} swapped"
            yield name, partial(triton_kernels.draw_masks_kernel, *call)
    for name in ("bands", "multi_block") if few else STRUCTURES:
        kind, parameters = structure(name, (1, 64, 8) if name in FLAT else (8, 14, 14))
        for valid in (None, torch.ones(2, math.prod(kind.grid), dtype=torch.bool)):
            call = (ids, None, 3, valid, kind.grid, name, parameters, kind.n_keep)
            description = f"{name} {kind.grid}{', some valid' if valid is not None else ''}"
            yield description, partial(triton_kernels.structure_masks_kernel, *call)
    kind, parameters = structure("multi_block", (16, 80, 80))
    for valid in (None,) if few else (None, torch.ones(2, math.prod(kind.grid), dtype=torch.bool)):
        call = (ids, None, 3, valid, kind.grid, "multi_block", parameters, kind.n_keep)
        description = f"multi_block {kind.grid}{', some valid' if valid is not None else ''}"
        yield description, partial(triton_kernels.structure_masks_kernel, *call)
    for shape, patch in (
        ((2, 1, 1, 1024, 128), (1, 16, 16)), ((2, 3, 16, 224, 224), (2, 16, 16)),
        ((2, 3, 3, 3, 5), (3, 3, 5)),
    ):  # fmt: skip
        for metric in ("mad", "variance"):
            call = (torch.zeros(1, 1, 1, 1, 1).expand(shape), patch, metric)
            yield f"dispersion {shape} {metric}", partial(triton_kernels.dispersion_kernel, *call)
    for ties in ("first", "random"):
        call = rbn_masks_call(
            ids, (1, 64, 8), 0.8, None, None, (3, 5), (0.4, 0.4, 0.1, 0.1), ties, False, 3
        )
        yield f"R-BN (1, 64, 8), {ties} of ties", partial(triton_kernels.rbn_masks_kernel, *call)


def structure(name: str, grid: Sequence[int]) -> tuple[StructureKind, tuple[int, ...]]:
    """A kind, and the parameters with which the op makes this structure."""
    if name != "target_block":
        kind = BASELINES[name](grid, 0.75)
        return kind, kind.parameters
    kind = MultiBlockKind.parse(grid, 0.75)
    return kind, (3, *kind.area, *kind.aspect)


def triton_report(targets: tuple[str, ...] = TARGETS, few: bool = False) -> Iterator[Usage]:
    for target in targets:
        with compiling_for(target) as compiled:
            for launched_for, launch in launches(few):
                launch()
                for kernel in compiled:
                    yield usage(kernel, launched_for, target)
                compiled.clear()


@contextmanager
def compiling_for(target: str | int) -> Iterator[list]:
    """Makes launches only compile their kernels, and append them to the list."""
    compiled = []
    driver = mock.Mock()
    driver.get_current_target.return_value = gpu_target(target)
    # Triton keeps what it compiled by device, so every target passes for a device of its own.
    driver.get_current_device.return_value = target
    run = JITFunction.run

    def compile_only(self, *args, **kwargs):
        compiled.append(run(self, *args, **{**kwargs, "warmup": True}))

    with (
        mock.patch.object(triton.runtime.driver, "_active", driver),
        # The version that a torch for this target has.
        mock.patch.object(torch.version, "hip", "ahead of time" if is_amd(target) else None),
        mock.patch.object(JITFunction, "run", compile_only),
    ):
        yield compiled


def parse_target(target: str) -> str:
    if not re.fullmatch(r"\d{2,3}|gfx\w+", target):
        raise argparse.ArgumentTypeError(f"{target!r} is neither like 90 nor like gfx942")
    return target


def is_amd(target: str | int) -> bool:
    return str(target).startswith("gfx")


def gpu_target(target: str | int) -> GPUTarget:
    if is_amd(target):
        return GPUTarget("hip", target, 64 if target.startswith("gfx9") else 32)
    return GPUTarget("cuda", int(target), 32)


def usage(kernel, launched_for: str, target: str) -> Usage:
    registers, stack = registers_and_stack(kernel, target)
    return Usage(
        kernel.name,
        launched_for,
        target,
        kernel.metadata.num_warps,
        registers,
        kernel.metadata.shared,
        stack,
        0 if is_amd(target) else len(lost_in(kernel.asm["ptx"])),
    )


def registers_and_stack(kernel, target: str) -> tuple[int, int]:
    if is_amd(target):
        # The metadata at the end of the assembly.
        return tuple(
            int(re.search(rf"^\s*\.{name}:\s+(\d+)", kernel.asm["amdgcn"], re.M)[1])
            for name in ("vgpr_count", "private_segment_fixed_size")
        )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        listed = subprocess.run(
            [cuobjdump(), "-res-usage", cubin.name], capture_output=True, text=True, check=True
        ).stdout
    return tuple(map(int, re.search(r"REG:(\d+) STACK:(\d+)", listed).groups()))


def cuobjdump() -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--targets",
        nargs="+",
        type=parse_target,
        default=TARGETS,
        metavar="TARGET",
        help="compute capabilities times ten (80, 90) and AMD's names (gfx942); "
        f"default: {' '.join(TARGETS)}",
    )
    parser.add_argument("--few", action="store_true", help="every kernel, but not every call")
    parser.add_argument("--json", action="store_true", help="one line of JSON per kernel")
    options = parser.parse_args()
    report = triton_report(tuple(options.targets), options.few)
    if options.json:
        for made in report:
            print(json.dumps(made._asdict()))
        return
    print(f"Triton {triton.__version__}")
    row = "{:20} {:44} {:>7} {:>5} {:>9} {:>12} {:>11} {:>14}"
    print(row.format(*Usage._fields))
    wrong = []
    for made in report:
        print(row.format(*made))
        if not made.is_right():
            wrong.append(f"{made.kernel} for {made.target}")
    if wrong:
        sys.exit(
            "kernels spill, need more shared memory than there is, or lose constants: "
            + ", ".join(wrong)
        )


if __name__ == "__main__":
    main()

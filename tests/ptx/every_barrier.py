"""Takes every barrier out of a kernel in turn and prints a line of JSON for each: what noticed it.

python tests/ptx/every_barrier.py TARGET green|threshold|rbn
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from every_kernel import IDS, masks, rbn, thresholds

from ptx_machine import Kernel, MachineError
from ptx_machine.cuda_launch import CudaKernels, CudaMachine
from ptx_machine.launch import Schedule

#: In order, then under random schedules until one notices.
SEEDS = (None, 1, 2, 3)


def main() -> None:
    warnings.simplefilter("ignore")
    target, name = int(sys.argv[1]), sys.argv[2]
    for row in {"green": green, "threshold": threshold, "rbn": rbn_in_cuda}[name](target):
        print(json.dumps({"target": target, **row}), flush=True)


def green(target: int) -> Iterator[dict]:
    from ptx_machine.triton_launch import running_triton
    from smnm_kernels import gpu

    calls = [masks((8, 14, 14), "green", seed=seed) for seed in (3, 4)]
    with running_triton(target) as machine:
        run = gpu.noise_masks_kernel
        yield from without_each("noise_masks_on_chip", machine, [(run, call) for call in calls])


def threshold(target: int) -> Iterator[dict]:
    """Of a row in one chunk, and of one in several."""
    from ptx_machine.triton_launch import running_triton
    from smnm_kernels import gpu

    calls = {call.name: call for call in thresholds()}
    for name in ("threshold torch.float32 1568", "threshold torch.float64 2500"):
        with running_triton(target) as machine:
            yield from without_each(name, machine, [(gpu.threshold_kernel, calls[name])])


def rbn_in_cuda(target: int) -> Iterator[dict]:
    machine = CudaMachine(CudaKernels(target))
    calls = [
        rbn("R-BN", torch.arange(5) + 5 * 2**40, (1, 64, 8), 102, 5, ties)
        for ties in ("first", "random")
    ]
    # Several sweeps; several rows of one bank, two banks.
    calls.append(rbn("R-BN overfull", IDS[:1], (1, 9, 4), 30, 3, "first"))
    calls.append(rbn("R-BN", torch.tensor([7, 0, 8, 1, 7, 2]), (1, 9, 4), 12, 3, "random"))
    runs = [(machine.rbn_masks, call) for call in calls]
    yield from without_each("rbn_masks_kernel", machine, runs)


def without_each(name: str, machine: object, runs: list[tuple[Callable, object]]) -> Iterator[dict]:
    kernel, executed, limits = observed(machine, runs)
    for index in kernel.program.barriers():
        statement = kernel.program.statements[index]
        without = kernel.without(index)
        noticed = None
        for seed in SEEDS if index in executed else ():
            for (run, call), limit in zip(runs, limits, strict=True):
                # One that goes round in circles has been noticed.
                machine.schedule = Schedule(seed, step_limit=limit * (4 if seed is None else 64))
                machine.replace = partial(in_place_of, kernel, without)
                noticed = noticed or wrong(machine, run, call)
            if noticed:
                noticed = f"{noticed}, {'in order' if seed is None else 'random'}"
                break
        yield {
            "kernel": name,
            "barrier": str(statement),
            "executed": index in executed,
            "noticed": noticed,
        }


def in_place_of(whole: Kernel, without: Kernel, kernel: Kernel) -> Kernel:
    return without if kernel is whole else kernel


def observed(machine: object, runs: list) -> tuple[Kernel, set[int], list[int]]:
    """The kernel that the runs launch, the statements that they execute, and their steps."""
    executed: set[int] = set()
    kernels: list[Kernel] = []

    def watch(block: object) -> None:
        kernels.append(block.kernel)
        block.observer = lambda at, threads: executed.add(at)

    machine.on_block, limits = watch, []
    for run, call in runs:
        machine.launches.clear()
        run(*call.arguments)
        limits.append(max(launch.report.steps for launch in machine.launches))
    machine.on_block = None
    assert all(kernel is kernels[0] for kernel in kernels)
    return kernels[0], executed, limits


def wrong(machine: object, run: Callable, call: object) -> str | None:
    """What is wrong with a run: a finding, an end that does not come, another result."""
    machine.launches.clear()
    try:
        ours = run(*call.arguments)
    except MachineError as error:
        return type(error).__name__
    kinds = {kind.value for launch in machine.launches for kind in launch.report.kinds()}
    if kinds:
        return " and ".join(sorted(kinds))
    theirs = getattr(torch.ops.smnm, call.op)(*call.arguments)
    equal = all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    return None if equal else "another result"


if __name__ == "__main__":
    main()

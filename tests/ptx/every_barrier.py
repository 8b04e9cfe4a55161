"""Takes every barrier out of a kernel in turn and prints a line of JSON for each: what noticed it.

python tests/ptx/every_barrier.py TARGET green|threshold|rbn
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from every_kernel import IDS, Call, masks, noise, rbn, thresholds

from ptx_machine import Block, Kernel, MachineError
from ptx_machine.cuda_launch import CudaKernels, CudaMachine
from ptx_machine.launch import Schedule

#: In order, then under a random schedule if that did not notice.
SEEDS = (None, 1)


class Run(NamedTuple):
    op: Callable
    call: Call


def main() -> None:
    warnings.simplefilter("ignore")
    target, name = int(sys.argv[1]), sys.argv[2]
    for row in {"green": green, "threshold": threshold, "rbn": rbn_in_cuda}[name](target):
        print(json.dumps({"target": target, **row}), flush=True)


def green(target: int) -> Iterator[dict]:
    from ptx_machine.triton_launch import running_triton
    from smnm_kernels import triton_kernels as gpu

    calls = [masks((8, 14, 14), "green"), with_ties((8, 14, 14), "green")]
    with running_triton(target) as machine:
        runs = [Run(gpu.noise_masks_kernel, call) for call in calls]
        yield from without_each("noise_masks_on_chip", machine, runs)


def with_ties(grid: tuple[int, int, int], color: str) -> Call:
    """Of a sample whose first token that is not visible has the value of the last one that is."""
    for sample_id in range(1000):
        ids = torch.tensor([sample_id])
        values = torch.ops.smnm.noise(*noise(grid, color, ids=ids).arguments).flatten()
        values = values.sort(descending=True).values
        tied = (values[1:] == values[:-1]).nonzero()
        if len(tied):
            return masks(grid, color, ids=ids, n_keep=int(tied[0]) + 1)
    raise AssertionError("no two values are equal")


def threshold(target: int) -> Iterator[dict]:
    """Of a row in one chunk, and of one in several."""
    from ptx_machine.triton_launch import running_triton
    from smnm_kernels import triton_kernels as gpu

    calls = {call.name: Run(gpu.threshold_kernel, call) for call in thresholds()}
    one_chunk = [calls["threshold torch.float32 1568"], calls["threshold ties torch.float32"]]
    for runs in (one_chunk, [calls["threshold torch.float64 2500"]]):
        with running_triton(target) as machine:
            yield from without_each("threshold_rows", machine, runs)


def rbn_in_cuda(target: int) -> Iterator[dict]:
    machine = CudaMachine(CudaKernels(target))
    calls = [
        rbn("R-BN", torch.arange(5) + 5 * 2**40, (1, 64, 8), 102, 5, ties)
        for ties in ("first", "random")
    ]
    # No visit in order; several sweeps; several rows of one bank, two banks.
    calls.append(rbn("R-BN of one mask", IDS[:1], (1, 9, 4), 30, 1, "first"))
    calls.append(rbn("R-BN overfull", IDS[:1], (1, 9, 4), 30, 3, "first"))
    # The kernel for any number of masks, which the one mask takes, too, but visits nothing.
    calls.append(rbn("R-BN of seven masks", IDS[:1], (1, 9, 4), 12, 7, "first"))
    calls.append(rbn("R-BN", torch.tensor([7, 0, 8, 1, 7, 2]), (1, 9, 4), 12, 3, "random"))
    runs = [Run(machine.rbn_masks, call) for call in calls]
    yield from without_each("rbn_masks_kernel", machine, runs)
    # Blocks that take several rows, one after the other.
    shared = CudaMachine(machine.kernels)
    shared.always_workspace = True
    yield from without_each("rbn_masks_kernel", shared, [Run(shared.rbn_masks, calls[-1])])


def without_each(name: str, machine: object, runs: list[Run]) -> Iterator[dict]:
    for kernel, own in by_kernel(machine, runs):
        for index in kernel.program.barriers():
            noticed = None
            without = partial(in_place_of, kernel, kernel.without(index))
            for seed in SEEDS:
                for run, executed, steps in own:
                    if index in executed and noticed is None:
                        # One that goes round in circles has been noticed.
                        limit = steps * (4 if seed is None else 64)
                        machine.schedule = Schedule(seed, step_limit=limit)
                        machine.replace = without
                        noticed = wrong(machine, run)
                if noticed:
                    noticed = f"{noticed}, {'in order' if seed is None else 'random'}"
                    break
            statement = kernel.program.statements[index]
            yield {
                "kernel": name,
                "barrier": str(statement),
                "origin": statement.origin,
                "executed": any(index in executed for _, executed, _ in own),
                "noticed": noticed,
            }


def in_place_of(whole: Kernel, without: Kernel, kernel: Kernel) -> Kernel:
    return without if kernel is whole else kernel


def by_kernel(machine: object, runs: list[Run]) -> list[tuple[Kernel, list[tuple]]]:
    """The kernels that are launched; of each, its runs, what they execute, and their steps."""
    found: dict[int, tuple[Kernel, list[tuple]]] = {}
    machine.replace, machine.schedule = (lambda kernel: kernel), Schedule()
    for run in runs:
        executed: set[int] = set()
        kernels: list[Kernel] = []

        def watch(block: Block, executed: set = executed, kernels: list = kernels) -> None:
            kernels.append(block.kernel)
            block.observer = lambda at, threads: executed.add(at)

        machine.on_block = watch
        machine.launches.clear()
        run.op(*run.call.arguments)
        steps = max(launch.report.steps for launch in machine.launches)
        _, own = found.setdefault(id(kernels[0]), (kernels[0], []))
        own.append((run, executed, steps))
    machine.on_block = None
    return list(found.values())


def wrong(machine: object, run: Run) -> str | None:
    """What is wrong with a run: a finding, an end that does not come, another result."""
    machine.launches.clear()
    try:
        ours = run.op(*run.call.arguments)
    except MachineError as error:
        return type(error).__name__
    kinds = {kind.value for launch in machine.launches for kind in launch.report.kinds()}
    if kinds:
        return " and ".join(sorted(kinds))
    theirs = getattr(torch.ops.smnm, run.call.op)(*run.call.arguments)
    equal = all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    return None if equal else "another result"


if __name__ == "__main__":
    main()

"""One launch: every block of a grid, one after the other, on the same global memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .block import DEFAULT_STEP_LIMIT, Block, Kernel
from .memory import Buffer, GlobalMemory
from .report import Report


@dataclass(frozen=True)
class Schedule:
    """How the blocks of a launch run.

    ``seed`` None is in order; a number gives random schedules of warps, a new one for each block.
    """

    seed: int | None = None
    checking: bool = True
    step_limit: int = DEFAULT_STEP_LIMIT


class WriteCounts(dict[str, tuple[int, int, int]]):
    """Name of a buffer to how many of its bytes were written never, once, and more often."""


@dataclass
class LaunchReport:
    kernel: str
    grid: tuple[int, int, int]
    threads: int
    #: Static and dynamic, in bytes.
    shared_bytes: int
    report: Report = field(default_factory=Report)
    #: Of the buffers that were written to.
    writes: WriteCounts = field(default_factory=WriteCounts)


def launch(
    kernel: Kernel,
    memory: GlobalMemory,
    parameters: np.ndarray,
    grid: tuple[int, int, int],
    *,
    n_threads: int | None = None,
    dynamic_shared_bytes: int = 0,
    schedule: Schedule = Schedule(),
    on_block: Callable[[Block], None] | None = None,
) -> LaunchReport:
    """``on_block`` is called with each block before it runs."""
    program = kernel.program
    made = LaunchReport(
        program.name,
        grid,
        n_threads or program.block_threads or 0,
        program.static_shared_bytes + dynamic_shared_bytes,
    )
    epoch = 1
    for number in range(grid[0] * grid[1] * grid[2]):
        position = (number % grid[0], number // grid[0] % grid[1], number // (grid[0] * grid[1]))
        random = None
        if schedule.seed is not None:
            random = np.random.default_rng((schedule.seed, number))
        block = Block(
            kernel,
            memory,
            parameters,
            position=position,
            grid=grid,
            n_threads=n_threads,
            dynamic_shared_bytes=dynamic_shared_bytes,
            first_epoch=epoch,
            random=random,
            checking=schedule.checking,
            step_limit=schedule.step_limit,
        )
        if on_block is not None:
            on_block(block)
        made.report.add(block.run())
        epoch = block.epoch + 1
    for buffer in memory.buffers:
        counts = _write_counts(buffer)
        if counts[1] or counts[2]:
            made.writes[buffer.name] = counts
    return made


def _write_counts(buffer: Buffer) -> tuple[int, int, int]:
    counts = buffer.write_counts[: buffer.n_bytes]
    return (
        int(np.count_nonzero(counts == 0)),
        int(np.count_nonzero(counts == 1)),
        int(np.count_nonzero(counts > 1)),
    )


def packed_parameters(kernel: Kernel, values: list[int | bytes]) -> np.ndarray:
    """uint8: the kernel's parameters, each a number (an address, an integer) or the bytes of a
    struct, as they lie in memory."""
    parameters = kernel.program.parameters
    if len(values) != len(parameters):
        raise ValueError(f"{kernel.program.name} has {len(parameters)} parameters: {len(values)}")
    raw = np.zeros(kernel.program.parameter_bytes, np.uint8)
    for parameter, value in zip(parameters, values, strict=True):
        if isinstance(value, int):
            value = (value & ((1 << 8 * parameter.size) - 1)).to_bytes(parameter.size, "little")
        if len(value) != parameter.size:
            raise ValueError(
                f"{parameter.name} has {parameter.size} bytes, and {len(value)} were given"
            )
        end = parameter.offset + parameter.size
        raw[parameter.offset : end] = np.frombuffer(value, np.uint8)
    return raw

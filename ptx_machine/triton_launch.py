"""Triton launches on CPU tensors, run as the PTX that Triton compiles for a GPU."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from .block import Block, Kernel
from .launch import LaunchReport, Schedule, launch, packed_parameters
from .memory import Buffer, GlobalMemory
from .program import parse


class TritonMachine:
    """The launches of one ``with running_triton(...)``."""

    def __init__(self, schedule: Schedule) -> None:
        #: May be changed between launches.
        self.schedule = schedule
        self.launches: list[LaunchReport] = []
        #: Called with each block before it runs.
        self.on_block: Callable[[Block], None] | None = None
        #: What runs in place of a kernel: called with each one that is launched.
        self.replace: Callable[[Kernel], Kernel] = lambda kernel: kernel
        #: Of launches (num_warps, maxnreg), in place of what the launcher asks for.
        self.options: dict[str, object] = {}
        #: What Triton compiled last.
        self.compiled: object = None

    def run(self, function: JITFunction, compiled: object, args: tuple, kwargs: dict) -> None:
        self.compiled = compiled
        kernel = self.replace(_kernel(compiled))
        memory, tensors = GlobalMemory(), []
        values: list[int | bytes] = []
        for parameter, value in _arguments(function, args, kwargs):
            if isinstance(value, torch.Tensor):
                buffer = _buffer(memory, parameter.name, value)
                tensors.append((value, buffer))
                values.append(buffer.base)
            elif isinstance(value, float):
                values.append(struct.pack("f", value))
            else:
                values.append(int(value))
        # Pointers to scratch memory that Triton adds, and that no kernel here asks for.
        values += [0] * (len(kernel.program.parameters) - len(values))
        made = launch(
            kernel,
            memory,
            packed_parameters(kernel, values),
            _grid(kwargs),
            n_threads=32 * compiled.metadata.num_warps,
            dynamic_shared_bytes=compiled.metadata.shared,
            schedule=self.schedule,
            on_block=self.on_block,
        )
        self.launches.append(made)
        for tensor, buffer in tensors:
            if buffer.write_counts.any():
                content = torch.from_numpy(buffer.content(np.uint8))
                tensor.reshape(-1).view(torch.uint8).copy_(content)


_KERNELS: dict[str, Kernel] = {}


def _kernel(compiled: object) -> Kernel:
    key = compiled.hash
    if key not in _KERNELS:
        _KERNELS[key] = Kernel(parse(compiled.asm["ptx"]))
    return _KERNELS[key]


def _arguments(function: JITFunction, args: tuple, kwargs: dict) -> Iterator[tuple]:
    """The parameters of the compiled kernel, with the values that they were launched with: Triton
    compiles constants in, None, and the number 1 where it may specialise."""
    named = dict(zip((p.name for p in function.params), args, strict=False))
    named.update(kwargs)
    for parameter in function.params:
        value = named[parameter.name]
        constant = parameter.is_constexpr or value is None
        if constant or (isinstance(value, int) and value == 1 and not parameter.do_not_specialize):
            continue
        yield parameter, value


def _grid(kwargs: dict) -> tuple[int, int, int]:
    grid = kwargs["grid"]
    grid = tuple(grid({}) if callable(grid) else grid)
    return grid + (1,) * (3 - len(grid))


def _buffer(memory: GlobalMemory, name: str, tensor: torch.Tensor) -> Buffer:
    """At an address as aligned as the tensor's, on which Triton specialises."""
    if not tensor.is_contiguous():
        raise ValueError(f"{name}: launches are given contiguous tensors here")
    content = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    misalignment = tensor.data_ptr() % 16 if tensor.numel() else 0
    return memory.add(content, name, misalignment=misalignment, cell_bytes=tensor.element_size())


@contextmanager
def running_triton(target: int, schedule: Schedule | None = None) -> Iterator[TritonMachine]:
    """Within it, Triton kernels that are launched on CPU tensors are compiled for ``target`` (a
    compute capability times ten) and run on the machine.

    Triton must have been imported without TRITON_INTERPRET.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("Triton does not compile with TRITON_INTERPRET=1")
    machine = TritonMachine(schedule or Schedule())
    driver = mock.Mock()
    driver.get_current_target.return_value = GPUTarget("cuda", target, 32)
    # Triton keeps what it compiled by device, so every target passes for a device of its own.
    driver.get_current_device.return_value = target
    run = JITFunction.run

    def run_here(self: JITFunction, *args: object, **kwargs: object) -> object:
        compiled = run(self, *args, **{**kwargs, **machine.options, "warmup": True})
        machine.run(self, compiled, args, kwargs)
        return compiled

    with (
        mock.patch.object(triton.runtime.driver, "_active", driver),
        mock.patch.object(JITFunction, "run", run_here),
    ):
        yield machine

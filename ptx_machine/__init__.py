"""Executes compiled PTX on the CPU, a thread block at a time, and reports what a GPU would not.

All threads of a block are NumPy vectors. See ``block.Block`` for how a block runs, ``report.Kind``
for what is found, ``triton_launch`` and ``cuda_launch`` for this package's kernels, and ``cost``
for a model of how long they take. Nothing here needs a GPU, or knows of the kernels' insides.
"""

from . import arithmetic, bits, conversions, matrix, memory_access, warp  # noqa: F401  (they register instructions)
from .block import Block, Kernel
from .errors import Deadlock, InvalidProgram, MachineError, StepLimit, UnknownInstruction
from .memory import Buffer, GlobalMemory
from .program import Program, kernel_names, parse
from .report import Finding, Kind, Report

__all__ = [
    "Block",
    "Buffer",
    "Deadlock",
    "Finding",
    "GlobalMemory",
    "InvalidProgram",
    "Kernel",
    "Kind",
    "MachineError",
    "Program",
    "Report",
    "StepLimit",
    "UnknownInstruction",
    "kernel_names",
    "parse",
]

"""What ends a run. What a run goes on after is a ``Finding`` of ``report.py``."""

from __future__ import annotations


class MachineError(Exception):
    """Any error of this package."""


class InvalidProgram(MachineError):
    """The text is not the PTX that it should be."""


class UnknownInstruction(MachineError):
    """An instruction, modifier, type or operand that this machine does not execute."""


class Deadlock(MachineError):
    """Threads wait for others that never come."""


class StepLimit(MachineError):
    """A block took more steps than it may: most likely an endless loop."""

"""From statements to functions: what every instruction's compiler is given, and their table.

An instruction is compiled once, when its program is loaded, to ``execute(block, threads)``. Its
compiler takes the modifiers one by one; one that is left over is unknown, so that nothing that
the machine does not model runs as if it were something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from .errors import UnknownInstruction
from .program import REMOVED, Program, Statement, split_operands
from .threads import Threads
from .types import PRED, UNSIGNED, Type, type_named

if TYPE_CHECKING:
    from .block import Block

Execute = Callable[["Block", Threads], None]
Read = Callable[["Block", Threads], np.ndarray]
Write = Callable[["Block", Threads, np.ndarray], None]

#: Special registers; those of more than one dimension of threads are left out.
SPECIAL_REGISTERS = (
    "%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%laneid",
    "%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z",
)  # fmt: skip

_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?")
_FLOAT = re.compile(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+?)\s*(?:\+\s*(-?\w+))?\s*\]")


class Control(Enum):
    """What the scheduler has to know of a statement."""

    PLAIN = "plain"
    BRANCH = "branch"
    EXIT = "exit"
    #: Of the whole block.
    BARRIER = "barrier"
    #: Threads of a warp take it together.
    TOGETHER = "together"


@dataclass(frozen=True)
class Step:
    """A statement, compiled."""

    statement: Statement
    control: Control
    execute: Execute | None = None
    #: Of the guard: bool [threads], None without one.
    guard: Read | None = None
    #: Where a branch goes.
    target: int = -1
    #: Lanes that take a TOGETHER step at once, uint32 [threads]; None: every lane of the warp.
    #: For barriers: whether it is all of them.
    lanes: Read | None = None
    whole_warp: bool = False
    barrier: int = 0


COMPILERS: dict[str, Callable[[Instruction], Execute]] = {}
#: Names of instructions that a warp's threads take together, to the operand with their mask.
MASKS: dict[str, Callable[[Instruction], Read | None]] = {}


def instruction(*names: str) -> Callable:
    """Registers the compiler of the instructions whose opcodes begin with one of ``names``."""

    def register(compiler: Callable[[Instruction], Execute]) -> Callable:
        for name in names:
            COMPILERS[name] = compiler
        return compiler

    return register


class Instruction:
    """A statement on its way to a function."""

    def __init__(self, program: Program, statement: Statement) -> None:
        self.program, self.statement = program, statement
        self.name, *self.left = statement.opcode.split(".")
        self.operands = statement.operands

    def unknown(self, what: str = "") -> UnknownInstruction:
        return UnknownInstruction(
            f"{self.statement.opcode}{': ' + what if what else ''} ({self.statement})"
        )

    # Modifiers

    def takes(self, *choices: str) -> str | None:
        """The next modifier if it is one of these."""
        return self.left.pop(0) if self.left and self.left[0] in choices else None

    def needs(self, *choices: str) -> str:
        taken = self.takes(*choices)
        if taken is None:
            raise self.unknown(f"one of .{', .'.join(choices)} was expected")
        return taken

    def type(self, *allowed: str) -> Type:
        """The next modifier as a type; one of ``allowed`` (names, or kinds as "s") if given."""
        found = type_named(self.left[0]) if self.left else None
        if found is None or (allowed and not {found.kind, self.left[0]} & set(allowed)):
            raise self.unknown(f"type .{self.left[0] if self.left else ''}")
        self.left.pop(0)
        return found

    def done(self, n_operands: int | None = None) -> None:
        if self.left:
            raise self.unknown(f"modifier .{self.left[0]}")
        if n_operands is not None and len(self.operands) != n_operands:
            raise self.unknown(f"{n_operands} operands were expected")

    # Operands

    def read(self, operand: int | str, type: Type, *, any_width: bool = False) -> Read:
        """Of an operand (its position or its text): ``type.dtype`` [threads] or [1]; packed types
        as [threads, 2]. ``any_width`` cuts wider registers off and extends narrower ones."""
        text = self.operands[operand] if isinstance(operand, int) else operand
        if type == PRED:
            return self._read_predicate(text)
        carrier = UNSIGNED[type.register_bits]
        if text in SPECIAL_REGISTERS:
            if type.register_bits != 32:
                raise self.unknown(f"{text} has 32 bits")
            return lambda block, threads: block.special[text][threads.key].view(type.dtype)
        register = self.program.registers.get(text)
        if register is None:
            value = self._constant(text, type)
            return lambda block, threads: value
        slot = register.slot
        if register.bits != type.register_bits:
            if not any_width or register.bits == 1:
                raise self.unknown(f"{text} has {register.bits} bits, not {type.register_bits}")
            return lambda block, threads: (
                block.registers[slot][threads.key].astype(carrier).view(type.dtype)
            )
        if type.elements > 1:
            return lambda block, threads: (
                np.ascontiguousarray(block.registers[slot][threads.key])
                .view(type.dtype)
                .reshape(-1, type.elements)
            )
        dtype = type.dtype
        return lambda block, threads: block.registers[slot][threads.key].view(dtype)

    def _read_predicate(self, text: str) -> Read:
        negated = text.startswith("!")
        text = text.lstrip("!")
        register = self.program.registers.get(text)
        if register is None:
            if not _INTEGER.fullmatch(text):
                raise self.unknown(f"predicate {text}")
            value = np.array([(int(text, 0) != 0) != negated])
            return lambda block, threads: value
        if register.bits != 1:
            raise self.unknown(f"{text} is not a predicate")
        slot = register.slot
        if negated:
            return lambda block, threads: ~block.registers[slot][threads.key]
        return lambda block, threads: block.registers[slot][threads.key]

    def _constant(self, text: str, type: Type) -> np.ndarray:
        bits = self.constant_bits(text, type.register_bits)
        value = np.array([bits], UNSIGNED[type.register_bits]).view(type.dtype)
        return value.reshape(-1, type.elements) if type.elements > 1 else value

    def constant_bits(self, text: str, width: int) -> int:
        floating = _FLOAT.fullmatch(text)
        if floating:
            digits = floating[1] or floating[2]
            if 4 * len(digits) != width:
                raise self.unknown(f"{text} has {4 * len(digits)} bits, not {width}")
            return int(digits, 16)
        if _INTEGER.fullmatch(text):
            return int(text.rstrip("U"), 0) & ((1 << width) - 1)
        parameter = self.program.parameter(text)
        if parameter is not None:
            return parameter.offset
        if text in self.program.shared_offsets:
            return self.program.shared_offsets[text]
        raise self.unknown(f"operand {text}")

    def integer(self, operand: int) -> int:
        """Of an operand that must be written as a number."""
        text = self.operands[operand]
        if not _INTEGER.fullmatch(text):
            raise self.unknown(f"operand {text} must be a number")
        return int(text.rstrip("U"), 0)

    def write(self, operand: int | str, type: Type) -> Write:
        """Takes values of ``type`` [threads] or [1], or unsigned ones of as many bits."""
        text = self.operands[operand] if isinstance(operand, int) else operand
        if text == "_":
            return lambda block, threads, value: None
        register = self.program.registers.get(text)
        if register is None or register.bits != (1 if type == PRED else type.register_bits):
            raise self.unknown(f"{text} does not hold a .{type}")
        slot = register.slot
        carrier = bool if type == PRED else UNSIGNED[type.register_bits]

        def write(block: Block, threads: Threads, value: np.ndarray) -> None:
            # Arrays of registers are never written to, so that views of them stay what they were.
            value = value.view(carrier)
            if threads.full:
                if len(value) != threads.count:
                    value = np.repeat(value, threads.count)
                block.registers[slot] = value
            else:
                new = block.registers[slot].copy()
                new[threads.key] = value
                block.registers[slot] = new

        if type.elements > 1:
            return lambda block, threads, value: write(
                block, threads, np.ascontiguousarray(value).view(carrier).reshape(-1)
            )
        return write

    def write_extended(self, operand: int | str, type: Type) -> Write:
        """As ``write``, into a register that may be wider than the type."""
        text = self.operands[operand] if isinstance(operand, int) else operand
        register = self.program.registers.get(text)
        if register is None or register.bits <= type.register_bits:
            return self.write(operand, type)
        wide = Type("s" if type.kind == "s" else "u", register.bits)
        write = self.write(operand, wide)
        return lambda block, threads, value: write(
            block, threads, value.view(type.dtype).astype(wide.dtype)
        )

    def vector(self, operand: int) -> list[str]:
        """The parts of ``{a, b}``, or the operand alone."""
        text = self.operands[operand]
        return list(split_operands(text[1:-1])) if text.startswith("{") else [text]

    def address(self, operand: int, bits: int) -> Read:
        """int64 [threads] or [1] of ``[register + offset]``, where registers have ``bits`` bits."""
        match = _ADDRESS.fullmatch(self.operands[operand])
        if match is None:
            raise self.unknown(f"address {self.operands[operand]}")
        offset = int(match[2], 0) if match[2] else 0
        if match[1] not in self.program.registers:
            constant = np.array([self.constant_bits(match[1], 64)]).astype(np.int64) + offset
            return lambda block, threads: constant
        read = self.read(match[1], Type("u", bits))
        return lambda block, threads: read(block, threads).astype(np.int64) + offset


def compile_program(program: Program) -> list[Step]:
    """Raises UnknownInstruction for the first statement that the machine does not execute."""
    return [_compiled(program, statement) for statement in program.statements]


def _compiled(program: Program, statement: Statement) -> Step:
    this = Instruction(program, statement)
    guard = None
    if statement.guard is not None:
        guard = this.read(("!" if statement.guard_negated else "") + statement.guard, PRED)
    if this.name == REMOVED:
        return Step(statement, Control.PLAIN, lambda block, threads: None)
    if this.name == "bra":
        this.takes("uni")
        this.done(1)
        target = program.labels[statement.operands[0]]
        return Step(statement, Control.BRANCH, guard=guard, target=target)
    if this.name in ("ret", "exit"):
        this.takes("uni")
        this.done(0)
        return Step(statement, Control.EXIT, guard=guard)
    if statement.is_barrier and "warp" not in this.left:
        return _barrier(this, guard)
    if this.name not in COMPILERS:
        raise this.unknown()
    together = this.name in MASKS
    lanes = MASKS[this.name](this) if together else None
    execute = COMPILERS[this.name](this)
    control = Control.TOGETHER if together else Control.PLAIN
    return Step(statement, control, execute, guard, lanes=lanes)


def _barrier(this: Instruction, guard: Read | None) -> Step:
    """``bar.sync`` and ``barrier.sync`` of all threads."""
    this.takes("cta")
    this.needs("sync")
    aligned = this.takes("aligned") is not None or this.name == "bar"
    this.done()
    if len(this.operands) not in (1, 2):
        raise this.unknown("operands")
    if len(this.operands) == 2 and this.integer(1) != this.program.block_threads:
        raise this.unknown("a barrier of a part of the block")
    return Step(
        this.statement, Control.BARRIER, guard=guard, barrier=this.integer(0), whole_warp=aligned
    )

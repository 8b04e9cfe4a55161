"""A model of how long a block takes: cycles by phase, from the PTX that it executes.

Each warp instruction costs issue slots and time on pipes of its quarter of a multiprocessor, and
its result is there after a latency. Phases lie between barriers of the block. A phase takes the
longer of two: the latest warp's chain of results ("latency"), and the busiest pipe
("throughput"), which all blocks of a multiprocessor share.

Two variants bound what becomes of a warp's instructions: in order as PTX has them (an instruction
waits for its operands, and the next ones wait for it), or by data flow (only operands, branches and
barriers of warps make an instruction wait). In order, but as an assembler might put them
(``scheduling``), lies between.

Accesses of shared memory cost a cycle of the multiprocessor for each word that a bank must give.
Of what ptxas makes of the PTX (SASS) the model knows some of what costs nothing (``folded``): with
that, it counts as many instructions as the SASS of green noise at 8x14x14 has on sm_90, within 5%,
and between a tenth fewer and a third more than that of other noise kernels.

No GPU was held against it. The costs are those that are published for sm_80 and sm_90; the order of
the SASS, caches and memory bandwidth, and the launch are left out. Take times as right within 40%,
and the ratio of two variants of a kernel as much better than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .block import Block
from .program import Statement
from .threads import WARP, Threads

RELATIVE_ERROR = 0.4
#: Warps of a block go to the quarters of a multiprocessor in turn.
QUARTERS = 4
PIPES = ("issue", "alu", "imad", "xu", "lsu")


@dataclass(frozen=True)
class Constants:
    """In cycles."""

    #: Of a warp on the pipe of conversions and the like.
    conversion: float = 8
    global_latency: float = 550
    #: From the last warp's arrival to the first one's next instruction.
    barrier: float = 22
    clock_ghz: float = 1.755


class Cost(NamedTuple):
    """Of one warp instruction, in cycles; ``lsu`` is shared by the quarters."""

    issue: float
    latency: float
    alu: float = 0
    imad: float = 0
    xu: float = 0
    lsu: float = 0


def cost(statement: Statement, constants: Constants) -> Cost:
    """Where PTX has no instruction of the hardware's, the cost of those that it becomes."""
    name, *parts = statement.opcode.split(".")
    type = parts[-1] if parts else ""
    wide = type.endswith("64")
    if name in ("add", "sub", "mul", "fma") and type == "f32":
        return Cost(1, 5, imad=1)
    if name in ("mul", "mad"):
        if parts[0] == "lo":
            return Cost(4, 16, imad=8) if wide else Cost(1, 5, imad=2)
        return Cost(1, 6, imad=4)
    if name == "cvt":
        return _conversion(parts, constants)
    if name in ("ld", "st"):
        return _access(name, parts, constants)
    if name in ("bar", "barrier"):
        return Cost(1, 12 if parts[0] == "warp" else 0)
    if name == "wgmma":
        return Cost(1, 40 if parts[0] == "mma_async" else 20)
    if name == "div":
        return Cost(130, 600, 160, 60, 8) if wide else Cost(20, 75, 20, 12, 8)
    if name == "popc":
        return Cost(1, 14, xu=constants.conversion)
    if name in _OTHERS:
        return _OTHERS[name]
    one, two = _INTEGER.get(name, (Cost(1, 5, alu=2), Cost(1, 5, alu=2)))
    return two if wide else one


def _conversion(parts: list[str], constants: Constants) -> Cost:
    if "f16x2" in parts:
        return Cost(1, 6, alu=2)
    if any(part[0] == "f" and part[1:].isdigit() for part in parts):
        return Cost(1, 14, xu=constants.conversion)
    return Cost(0.5, 4, alu=1)


def _access(name: str, parts: list[str], constants: Constants) -> Cost:
    if "param" in parts[0]:
        return Cost(0.3, 4)
    # What shared memory takes is seen in the addresses.
    lsu = 0 if "shared" in parts[0] else 1
    if name == "st":
        return Cost(1, 1, lsu=lsu)
    return Cost(1, constants.global_latency if lsu else 29, lsu=lsu)


#: Of 32 bits or fewer, and of 64.
_INTEGER = {
    **dict.fromkeys(("add", "sub"), (Cost(1, 5, alu=2), Cost(2, 9, alu=4))),
    **dict.fromkeys(("and", "or", "xor", "not"), (Cost(1, 5, alu=2), Cost(2, 6, alu=4))),
    **dict.fromkeys(
        ("shl", "shr", "bfe", "bfi", "prmt", "lop3", "shf"),
        (Cost(1, 5, alu=2), Cost(3, 9, alu=6)),
    ),
    **dict.fromkeys(("min", "max"), (Cost(1, 5, alu=2), Cost(4, 14, alu=8))),
    "selp": (Cost(1, 5, alu=2), Cost(2, 6, alu=4)),
    "setp": (Cost(1, 8, alu=2), Cost(2, 13, alu=4)),
}
_OTHERS = {
    "mov": Cost(0.3, 2, alu=0.5),
    "atom": Cost(1, 55, lsu=2),
    "shfl": Cost(1, 24, lsu=1),
    "redux": Cost(1, 20, xu=2),
    "ldmatrix": Cost(1, 33),
    "stmatrix": Cost(1, 33),
    "mma": Cost(1, 33),
    "bra": Cost(1, 10, alu=2),
}


FREE = Cost(0, 0)
_LOGIC = ("and.b32", "or.b32", "xor.b32", "not.b32")
_WIDE_LOGIC = ("and.b64", "or.b64", "xor.b64")


def folded(statements: list[Statement]) -> set[int]:
    """Numbers of the statements that ptxas makes no instruction of.

    A register of 64 bits is two of 32, so shifts by 32 and conversions between both widths are
    names, and of a wide operation whose upper half nobody reads the lower one remains. One
    instruction (LOP3) takes any logic of three operands.
    """
    users: dict[str, list[int]] = {}
    for number, statement in enumerate(statements):
        for register in statement.sources:
            users.setdefault(register, []).append(number)

    def all_users(number: int, opcodes: tuple[str, ...]) -> bool:
        register = statements[number].destinations[0]
        return all(statements[user].opcode in opcodes for user in users.get(register, ()))

    def is_a_name(number: int) -> bool:
        """Of half a register, or of both halves together."""
        statement = statements[number]
        opcode = statement.opcode
        return (
            opcode in ("cvt.u32.u64", "cvt.u64.u32")
            or (opcode in ("shr.u64", "shr.b64") and statement.operands[-1] == "32")
            or (opcode == "mov.b64" and "{" in statement.text)
            or (opcode in _WIDE_LOGIC and all_users(number, ("cvt.u32.u64",)))
        )

    free = {number for number in range(len(statements)) if is_a_name(number)}
    merged = set()
    for number, statement in enumerate(statements):
        if statement.opcode not in _LOGIC:
            continue
        for maker in range(max(number - _LOGIC_REACH, 0), number):
            if (
                statements[maker].opcode in _LOGIC
                and users.get(statements[maker].destinations[0]) == [number]
                and maker not in free | merged
            ):
                free.add(maker)
                merged.add(number)
                break
    return free


#: How far apart two statements of logic are at most that become one.
_LOGIC_REACH = 64


def costs_of(statements: list[Statement], constants: Constants) -> list[Cost]:
    free = folded(statements)
    return [
        FREE if number in free else cost(statement, constants)
        for number, statement in enumerate(statements)
    ]


def wavefronts(threads: Threads, addresses: np.ndarray, size: int) -> int:
    """Cycles that the banks of shared memory need: 32 of four bytes, each one word at a time.

    Accesses of 8 bytes take half of a warp at a time, those of 16 a quarter.
    """
    lanes = WARP * 4 // max(size, 4)
    parts = threads.warp * (WARP // lanes) + threads.lane // lanes
    words = addresses[:, None] // 4 + np.arange(max(size // 4, 1))
    each = np.unique(np.stack([np.repeat(parts, words.shape[1]), words.ravel()]), axis=1)
    banks, counts = np.unique(np.stack([each[0], each[1] % 32]), axis=1, return_counts=True)
    most = np.zeros(banks[0].max() + 1, int)
    np.maximum.at(most, banks[0], counts)
    return int(most.sum())


class Phase(NamedTuple):
    """Between two barriers of the block; cycles of one block."""

    latency: float
    #: Of the busiest quarter, by PIPES.
    pipes: tuple[float, ...]
    #: Instructions of the warp with the most.
    instructions: int
    #: Line of the first statement after it; 0 at the end of the block.
    ends_at_line: int

    @property
    def throughput(self) -> float:
        return max(self.pipes)

    @property
    def busiest(self) -> str:
        return PIPES[self.pipes.index(self.throughput)]

    def cycles(self, blocks: int, constants: Constants) -> float:
        """With ``blocks`` alike on the multiprocessor."""
        return max(self.latency, blocks * self.throughput) + constants.barrier


@dataclass
class Timing:
    """Of one block, filled while it runs: ``Timing.of(block)`` before, ``finish()`` after."""

    constants: Constants
    dataflow: bool
    #: How many blocks alike share the multiprocessor.
    blocks: int = 1
    phases: list[Phase] = field(default_factory=list)

    @classmethod
    def of(
        cls, block: Block, *, dataflow: bool, blocks: int = 1, constants: Constants | None = None
    ) -> Timing:
        timing = cls(constants or Constants(), dataflow, blocks)
        timing._begin(block)
        block.observer = timing._observe
        block.shared.observer = timing._observe_shared
        return timing

    def _begin(self, block: Block) -> None:
        self._block, self._epoch = block, block.epoch
        statements = block.kernel.program.statements
        self._statements = statements
        self._costs = costs_of(statements, self.constants)
        #: By register: when each warp has it. Phases start at 0.
        self._ready: dict[str, np.ndarray] = {}
        #: By warp: when it issues next, and what branches and barriers of warps hold back.
        self._issued = np.zeros(block.n_warps)
        self._held = np.zeros(block.n_warps)
        self._end, self._started = 0.0, 0.0
        self._pipes = np.zeros((QUARTERS, len(PIPES)))
        self._counts = np.zeros(block.n_warps, int)

    def _observe(self, at: int, threads: Threads) -> None:
        if self._block.epoch != self._epoch:
            self._close(self._statements[at].line)
            self._epoch = self._block.epoch
        if threads.count == 0:
            return
        statement, costs, warps = self._statements[at], self._costs[at], threads.warps
        start = (self._held if self.dataflow else self._issued)[warps]
        # What a guard leaves out keeps its value, so that the old one is waited for too.
        kept = statement.destinations if statement.guard is not None else ()
        for register in (*statement.sources, *kept):
            if register in self._ready:
                start = np.maximum(start, self._ready[register][warps])
        if self.dataflow:
            self._issued[warps] += costs.issue
        else:
            self._issued[warps] = np.maximum(self._issued[warps], start) + costs.issue
        done = start + costs.latency
        for register in statement.destinations:
            if register not in self._ready:
                self._ready[register] = np.zeros(self._block.n_warps)
            self._ready[register][warps] = done
        if statement.opcode.startswith(("bra", "bar.warp")):
            self._held[warps] = np.maximum(self._held[warps], done)
            self._issued[warps] = np.maximum(self._issued[warps], done)
        self._end = max(self._end, float((start + costs.issue).max()))
        on_quarter = np.array([costs.issue, costs.alu, costs.imad, costs.xu, 0])
        np.add.at(self._pipes, warps % QUARTERS, on_quarter)
        self._pipes[:, -1] += costs.lsu * len(warps)
        self._counts[warps] += 1

    def _observe_shared(self, threads: Threads, addresses: np.ndarray, size: int) -> None:
        self._pipes[:, -1] += wavefronts(threads, addresses, size)

    def _close(self, line: int) -> None:
        waiting = self._held if self.dataflow else np.maximum(self._issued, self._held)
        latency = max(self._end, float(waiting.max())) - self._started
        pipes = tuple(float(pipe) for pipe in self._pipes.max(0))
        phase = Phase(latency, pipes, int(self._counts.max()), line)
        self.phases.append(phase)
        # What is still on its way across a barrier arrives when it would have.
        self._started += phase.cycles(self.blocks, self.constants)
        self._issued[:] = self._held[:] = self._end = self._started
        self._pipes[:] = 0
        self._counts[:] = 0

    def finish(self) -> Timing:
        self._close(0)
        return self

    # Sums

    def cycles(self, blocks: int | None = None) -> float:
        """Of ``blocks`` blocks alike that share a multiprocessor (``self.blocks`` unless given)."""
        blocks = blocks or self.blocks
        return sum(phase.cycles(blocks, self.constants) for phase in self.phases)

    def microseconds(self, blocks: int | None = None) -> float:
        return self.cycles(blocks) / self.constants.clock_ghz / 1e3

    def pipes(self) -> dict[str, float]:
        """Cycles of one block on each pipe."""
        sums = np.sum([phase.pipes for phase in self.phases], axis=0)
        return dict(zip(PIPES, sums.tolist(), strict=True))

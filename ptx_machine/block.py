"""One thread block at work: its registers, and who executes what next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .errors import Deadlock, InvalidProgram, StepLimit
from .instructions import Control, Step, compile_program
from .memory import GlobalMemory
from .program import Program, Statement
from .report import Finding, Kind, Report
from .shared import SharedMemory
from .threads import WARP, Threads
from .types import UNSIGNED, type_named

DEFAULT_STEP_LIMIT = 5_000_000
#: A random schedule stays with a warp for 1 to 2**MAX_BURST_BITS steps.
MAX_BURST_BITS = 7
#: How often it parts the lanes of that warp.
PART_A_WARP = 1 / 16


class Kernel:
    """A program that is ready to run."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.steps = compile_program(program)
        opcodes = [statement.opcode for statement in program.statements]
        self.asynchronous = any(o.startswith(("cp.async", "wgmma")) for o in opcodes)
        self.shared_cell_bytes = min(map(_shared_access_bytes, opcodes), default=16)

    def without(self, index: int) -> Kernel:
        """The kernel with one statement taken out."""
        return Kernel(self.program.without(index))


def _shared_access_bytes(opcode: str) -> int:
    """Of one element of an access, 16 where the instruction does not access shared memory."""
    parts = opcode.replace("shared::cta", "shared").split(".")
    if parts[0] in ("ldmatrix", "stmatrix", "wgmma"):
        return 2
    if parts[0] == "cp" or "shared" not in parts:
        return 16
    type = type_named(parts[-1])
    return type.bytes if type else 1


@dataclass(eq=False)
class Group:
    """Threads that take the same statement next."""

    at: int
    threads: Threads


class Block:
    """Runs in order (the earliest statement first, for all threads that wait for it), or with a
    random number generator: a random warp, or some of its lanes, for a random number of steps at
    a time, and atomics of one instruction in random order.
    """

    def __init__(
        self,
        kernel: Kernel,
        global_memory: GlobalMemory,
        parameters: np.ndarray,
        *,
        position: tuple[int, int, int] = (0, 0, 0),
        grid: tuple[int, int, int] = (1, 1, 1),
        n_threads: int | None = None,
        dynamic_shared_bytes: int = 0,
        first_epoch: int = 1,
        random: np.random.Generator | None = None,
        checking: bool = True,
        step_limit: int = DEFAULT_STEP_LIMIT,
    ) -> None:
        """``parameters`` uint8: as the kernel's parameters lie in memory.

        ``first_epoch`` is beyond the epochs of the blocks that ran on the same global memory.
        ``checking`` off leaves findings about memory out.
        """
        program = kernel.program
        n_threads = n_threads or program.block_threads
        if n_threads is None or n_threads % WARP != 0:
            raise InvalidProgram(f"blocks are whole warps here, not {n_threads} threads")
        if len(parameters) < program.parameter_bytes:
            raise InvalidProgram(
                f"{program.name} has {program.parameter_bytes} bytes of parameters, "
                f"got {len(parameters)}"
            )
        self.kernel, self.steps = kernel, kernel.steps
        self.n_threads, self.n_warps = n_threads, n_threads // WARP
        self.number = position[0] + grid[0] * (position[1] + grid[1] * position[2])
        self.all_threads = Threads.all_of(n_threads)
        self.registers = [
            np.zeros(n_threads, bool if register.bits == 1 else UNSIGNED[register.bits])
            for register in program.registers.values()
        ]
        self.special = self._special_registers(position, grid)
        self.parameters = parameters
        self.global_memory = global_memory
        self.shared = SharedMemory(
            program.static_shared_bytes + dynamic_shared_bytes,
            kernel.shared_cell_bytes,
            asynchronous=kernel.asynchronous,
        )
        self.random, self.checking, self.step_limit = random, checking, step_limit
        self.report = Report(blocks=1)
        #: Called with a statement's number and the threads that execute it, before they do.
        self.observer: Callable[[int, Threads], None] | None = None
        #: The statement that is executed.
        self.at = 0
        #: Counts barriers of the block; of each warp, those of its own.
        self.epoch = first_epoch
        self.warp_epochs = np.zeros(self.n_warps, np.int32)
        self.exited = np.zeros(n_threads, bool)
        self.ready: list[Group] = []
        #: By number of the barrier.
        self.at_barrier: dict[int, list[Group]] = {}
        #: Lanes that wait for others of their warp, by statement.
        self.together: dict[int, Threads] = {}
        #: State of instructions that finish later, by the module that executes them.
        self.pending: dict[str, object] = {}
        #: Called before a statement is executed while anything is pending.
        self.watchers: list[Callable[[Block, Statement, Threads], None]] = []

    def _special_registers(self, position: tuple, grid: tuple) -> dict[str, np.ndarray]:
        thread = np.arange(self.n_threads, dtype=np.uint32)
        special = {"%tid.x": thread, "%laneid": thread % WARP}
        constants = {"%tid.y": 0, "%tid.z": 0, "%ntid.y": 1, "%ntid.z": 1, "%ntid.x": len(thread)}
        for axis, at, extent in zip("xyz", position, grid, strict=True):
            constants[f"%ctaid.{axis}"], constants[f"%nctaid.{axis}"] = at, extent
        for name, value in constants.items():
            special[name] = np.full(self.n_threads, value, np.uint32)
        return special

    def statement(self, index: int) -> Statement:
        return self.kernel.program.statements[index]

    def found(self, kind: Kind, count: int = 1, detail: str = "", other: int | None = None) -> None:
        """Something is wrong with the statement that is executed."""
        earlier = "" if other is None else str(self.statement(other))
        finding = Finding(kind, str(self.statement(self.at)), detail, earlier)
        self.report.findings[finding] += int(count)

    # Scheduling

    def run(self) -> Report:
        """Raises Deadlock or StepLimit where the block would not end."""
        if self.random is None:
            self.ready = [Group(0, self.all_threads)]
        else:
            self.ready = [
                Group(0, self.all_threads.where(self.all_threads.warp == warp))
                for warp in range(self.n_warps)
            ]
        with np.errstate(all="ignore"):
            while self.ready:
                if self.random is None:
                    group, stop = self._take(min(group.at for group in self.ready), self.ready)
                    self._advance(group, stop, self.step_limit)
                else:
                    self._advance(*self._take_at_random())
        if not self.exited.all():
            raise Deadlock(f"{self.kernel.program.name}: {'; '.join(self._waiting())}")
        return self.report

    def _waiting(self) -> list[str]:
        barriers = [g for groups in self.at_barrier.values() for g in groups]
        lines = [f"{g.threads} wait at {self.statement(g.at - 1)}" for g in barriers]
        for at, threads in self.together.items():
            lines.append(f"{threads} wait for lanes of their warps at {self.statement(at)}")
        if self.exited.any():
            lines.append(f"{Threads(np.flatnonzero(self.exited), self.n_threads)} have exited")
        return lines

    def _take(self, at: int, groups: list[Group]) -> tuple[Group, int]:
        """Those of ``groups`` that are at a statement, joined, and the next statement at which
        some other one waits."""
        stop = len(self.steps)
        taken = None
        for group in list(groups):
            if group.at == at:
                self.ready.remove(group)
                taken = group.threads if taken is None else taken.union(group.threads)
            elif group.at > at:
                stop = min(stop, group.at)
        return Group(at, taken), stop

    def _take_at_random(self) -> tuple[Group, int, int]:
        """A group of one warp, where it may meet another one of its warp, and for how many steps.

        Now and then it is parted: nothing but barriers and what a warp does together keeps lanes
        side by side.
        """
        chosen = self.ready[self.random.integers(len(self.ready))]
        warp = chosen.threads.warp[0]
        of_warp = [group for group in self.ready if group.threads.warp[0] == warp]
        group, stop = self._take(chosen.at, of_warp)
        if self.random.random() < PART_A_WARP and group.threads.count > 1:
            first = self.random.random(group.threads.count) < 0.5
            if first.any() and not first.all():
                self.ready.append(Group(group.at, group.threads.where(~first)))
                group = Group(group.at, group.threads.where(first))
        bits = self.random.integers(0, MAX_BURST_BITS, endpoint=True)
        return group, stop, int(self.random.integers(1, 2**bits, endpoint=True))

    def _advance(self, group: Group, stop: int, budget: int) -> None:
        """Executes the group's statements until it parts, waits, ends, meets the group that is at
        ``stop``, or has taken ``budget`` steps."""
        at, threads, steps, report = group.at, group.threads, self.steps, self.report
        end = len(steps)
        while True:
            if at >= stop or budget == 0:
                if at >= end:
                    self._exit(threads)
                else:
                    self.ready.append(Group(at, threads))
                return
            step = steps[at]
            report.steps += 1
            budget -= 1
            if report.steps > self.step_limit:
                self.at = at
                raise StepLimit(
                    f"{self.kernel.program.name}: more than {self.step_limit} steps, at "
                    f"{step.statement}"
                )
            self.at = at
            active, others = threads, None
            if step.guard is not None:
                taken = step.guard(self, threads)
                if not taken.all():
                    if len(taken) != threads.count:
                        taken = np.repeat(taken, threads.count)
                    active = threads.where(taken)
                    others = ~taken
            if step.control is Control.PLAIN:
                if self.observer is not None:
                    self.observer(at, active)
                if active.count:
                    if self.watchers:
                        self._watch(step.statement, active)
                    step.execute(self, active)
                at += 1
            elif step.control is Control.BRANCH:
                if self.observer is not None:
                    self.observer(at, threads)
                if others is None:
                    at = step.target
                elif active.count == 0:
                    at += 1
                else:
                    self.ready.append(Group(step.target, active))
                    self.ready.append(Group(at + 1, threads.where(others)))
                    return
            else:
                if self.observer is not None:
                    self.observer(at, active)
                if others is not None:
                    self.ready.append(Group(at + 1, threads.where(others)))
                    stop = min(stop, at + 1)
                if active.count == 0:
                    return
                threads = self._meet(step, at, active)
                if threads is None:
                    return
                at += 1

    def _meet(self, step: Step, at: int, threads: Threads) -> Threads | None:
        """Those who go on at the next statement."""
        if step.control is Control.EXIT:
            self._exit(threads)
            return None
        if step.control is Control.TOGETHER or step.whole_warp:
            threads = self._gather(step, at, threads)
            if threads is None:
                return None
        if step.control is Control.TOGETHER:
            if self.watchers:
                self._watch(step.statement, threads)
            step.execute(self, threads)
            return threads
        if threads.full:
            self.epoch += 1
            return threads
        self.at_barrier.setdefault(step.barrier, []).append(Group(at + 1, threads))
        self._release_barriers()
        return None

    def _gather(self, step: Step, at: int, threads: Threads) -> Threads | None:
        """The threads whose warps are complete here; the others wait."""
        if at in self.together:
            threads = threads.union(self.together.pop(at))
        if threads.full:
            return threads
        here = np.zeros(self.n_threads, bool)
        here[threads.index] = True
        lane_bits = np.uint32(1) << np.arange(WARP, dtype=np.uint32)
        present = (here.reshape(-1, WARP) * lane_bits).sum(1, dtype=np.uint32)
        alive = (~self.exited.reshape(-1, WARP) * lane_bits).sum(1, dtype=np.uint32)
        named = np.uint32(0xFFFFFFFF) if step.lanes is None else step.lanes(self, threads)
        complete = (named & alive[threads.warp] & ~present[threads.warp]) == 0
        if complete.all():
            return threads
        # A warp goes on as a whole or not at all.
        incomplete = np.zeros(self.n_warps, bool)
        incomplete[threads.warp[~complete]] = True
        complete = ~incomplete[threads.warp]
        self.together[at] = threads.where(~complete)
        return threads.where(complete) if complete.any() else None

    def _exit(self, threads: Threads) -> None:
        self.exited[threads.index] = True
        # Those who waited for these lanes need not any more.
        for at, waiting in list(self.together.items()):
            self.ready.append(Group(at, waiting))
            del self.together[at]
        if self.random is not None:
            self._split_by_warp()
        self._release_barriers()

    def _release_barriers(self) -> None:
        """A barrier opens once every thread that has not exited waits at it."""
        alive = self.n_threads - np.count_nonzero(self.exited)
        for number, groups in list(self.at_barrier.items()):
            if sum(group.threads.count for group in groups) == alive:
                self.epoch += 1
                self.ready.extend(groups)
                del self.at_barrier[number]
                if self.random is not None:
                    self._split_by_warp()

    def _split_by_warp(self) -> None:
        self.ready = [
            Group(group.at, group.threads.where(group.threads.warp == warp))
            for group in self.ready
            for warp in group.threads.warps
        ]

    def _watch(self, statement: Statement, threads: Threads) -> None:
        for watcher in list(self.watchers):
            watcher(self, statement, threads)

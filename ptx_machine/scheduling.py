"""The statements of each basic block in the order of their longest path, as an assembler puts them.

PTX has the order of the source. What a program computes stays the same: its registers' values pass
from statement to statement as before, and accesses of memory that could meet keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from .cost import Constants, Cost, costs_of
from .program import Program, Statement

#: After these, or before, nothing is moved.
_ENDS = ("bra", "bar", "barrier", "ret", "exit")
#: Keep their order among themselves, and are fences for accesses of shared memory.
_OF_WARPS = ("shfl", "vote", "redux", "match", "activemask", "fence", "membar")
_MATRIX_MEMORY = ("ldmatrix", "stmatrix", "wgmma", "cp")
#: Cycles between a statement and one that must come later, but waits for no result of it.
_NEXT = 0.3


def scheduled(program: Program, constants: Constants | None = None) -> Program:
    """The program in another order; latencies are those of the cost model."""
    statements = program.statements
    costs = costs_of(statements, constants or Constants())
    starts = {0, len(statements), *program.labels.values()}
    for at, statement in enumerate(statements):
        if _name(statement) in _ENDS:
            starts |= {at, at + 1}
    bounds = sorted(start for start in starts if start <= len(statements))
    made: list[Statement] = []
    for first, end in pairwise(bounds):
        made += _by_longest_path(statements[first:end], costs[first:end])
    return replace(program, statements=made)


def _name(statement: Statement) -> str:
    return statement.opcode.split(".")[0]


@dataclass
class _Node:
    cost: Cost
    #: Later statements, and after how many cycles they can be issued.
    later: dict[int, float] = field(default_factory=dict)
    n_earlier: int = 0
    #: Cycles from here to the end of the block.
    height: float = 0.0
    at: float = 0.0


def _by_longest_path(statements: list[Statement], costs: list[Cost]) -> list[Statement]:
    nodes = _dependencies(statements, costs)
    for node in reversed(nodes):
        heights = (nodes[i].height + delay for i, delay in node.later.items())
        node.height = max(heights, default=0.0)
    ready = [i for i, node in enumerate(nodes) if node.n_earlier == 0]
    now, order = 0.0, []
    while ready:
        can = [i for i in ready if nodes[i].at <= now]
        if can:
            chosen = max(can, key=lambda i: (nodes[i].height, -i))
        else:
            chosen = min(ready, key=lambda i: (nodes[i].at, -nodes[i].height, i))
        ready.remove(chosen)
        order.append(chosen)
        start = max(now, nodes[chosen].at)
        now = start + nodes[chosen].cost.issue
        for i, delay in nodes[chosen].later.items():
            nodes[i].at = max(nodes[i].at, start + delay)
            nodes[i].n_earlier -= 1
            if nodes[i].n_earlier == 0:
                ready.append(i)
    return [statements[i] for i in order]


def _dependencies(statements: list[Statement], costs: list[Cost]) -> list[_Node]:
    nodes = [_Node(cost) for cost in costs]

    def after(i: int, earlier: int | None, delay: float = _NEXT) -> None:
        if earlier is None or earlier == i:
            return
        later = nodes[earlier].later
        nodes[i].n_earlier += i not in later
        later[i] = max(later.get(i, 0.0), delay)

    wrote: dict[str, int] = {}
    reads: dict[str, list[int]] = {}
    stored: dict[str, int] = {}
    loaded: dict[str, list[int]] = {}
    of_warp = None
    for i, statement in enumerate(statements):
        # What a guard leaves out keeps its value, so the old one is waited for.
        kept = statement.destinations if statement.guard is not None else ()
        for register in (*statement.sources, *kept):
            if register in wrote:
                after(i, wrote[register], nodes[wrote[register]].cost.latency)
        for register in statement.destinations:
            after(i, wrote.get(register))
            for reader in reads.get(register, ()):
                after(i, reader)
        spaces, writes = _accesses(statement)
        for space in spaces:
            after(i, stored.get(space))
            if writes:
                for reader in loaded.pop(space, ()):
                    after(i, reader)
                stored[space] = i
            else:
                loaded.setdefault(space, []).append(i)
        if _name(statement) in (*_OF_WARPS, *_MATRIX_MEMORY):
            after(i, of_warp)
            of_warp = i
        if _name(statement) in _ENDS:
            for earlier in range(i):
                after(i, earlier)
        for register in statement.sources:
            reads.setdefault(register, []).append(i)
        for register in statement.destinations:
            wrote[register], reads[register] = i, []
    return nodes


def _accesses(statement: Statement) -> tuple[tuple[str, ...], bool]:
    """The memories that a statement accesses or fences, and whether what is there may change."""
    name, *parts = statement.opcode.split(".")
    if name in (*_OF_WARPS, *_MATRIX_MEMORY):
        return ("shared", "global"), name != "ldmatrix"
    if name not in ("ld", "st", "atom", "red") or "param" in parts:
        return (), False
    space = "shared" if any(part.startswith("shared") for part in parts) else "global"
    return (space,), name != "ld"

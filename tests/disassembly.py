"""The loops of compiled functions, as objdump shows them, and what in them costs time that a source
does not show: single elements moved in and out of vectors, calls, and values kept on the stack."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from kernel_program import inlined_functions, output

#: Elements put into vectors and taken out of them, calls, vectors kept on the stack, and what else
#: is kept there. Whole lines of objdump, for x86-64.
KINDS = ("inserts", "extracts", "calls", "spills", "reloads")
VECTOR, GENERAL = r"%[xyz]mm\d+", r"%[er]\w+"
INSERTS = re.compile(
    rf"v?pinsr|v?insertps|vinsert[fi]|v?mov[dq] {GENERAL},{VECTOR}|vpbroadcast[bwdq] {GENERAL},"
)
EXTRACTS = re.compile(rf"v?pextr|v?extractps|vextract[fi]|v?mov[dq] {VECTOR},{GENERAL}")
#: Names of functions, and patterns of how compilers write them.
Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Instruction:
    address: int
    text: str
    #: Names of the functions that it was inlined from, the innermost first.
    functions: tuple[str, ...]

    @property
    def target(self) -> int | None:
        """Where a jump leads."""
        found = re.match(r"j\w+ ([0-9a-f]+)", self.text)
        return int(found[1], 16) if found else None

    @property
    def ends_block(self) -> bool:
        return self.text.startswith(("j", "ret"))


@dataclass(frozen=True)
class Loop:
    #: In the order of their addresses.
    body: tuple[Instruction, ...]
    #: Whether no other loop lies in it.
    innermost: bool
    #: Whether rbp points to the function's own memory.
    has_frame: bool

    def function(self, names: Names) -> str | None:
        """The one that most of its instructions belong to, or None where that is none of them."""
        found = Counter(belongs_to(i.functions, names) for i in self.body)
        return found.most_common(1)[0][0]

    def costly(self) -> dict[str, list[str]]:
        """The costly instructions of each kind."""
        return {
            kind: [i.text for i in self.body if is_costly(i.text, kind, self.has_frame)]
            for kind in KINDS
        }


@cache
def belongs_to(functions: tuple[str, ...], names: Names) -> str | None:
    """The name of the innermost function that has one."""
    for function in functions:
        for name, pattern in names:
            if re.search(pattern, function):
                return name
    return None


def is_costly(text: str, kind: str, has_frame: bool) -> bool:
    if kind == "inserts":
        return bool(INSERTS.match(text))
    if kind == "extracts":
        return bool(EXTRACTS.match(text))
    if kind == "calls":
        return text.startswith("call")
    registers = "[er]sp|rbp" if has_frame else "[er]sp"
    on_stack = not text.startswith("lea") and re.search(rf"\((?:%{registers})[,)]", text)
    return bool(on_stack) and (kind == "spills") == bool(re.search(VECTOR, text))


def functions_of(made: Path) -> dict[str, list[Instruction]]:
    """The functions of an object file that was compiled with -g; those in sections of their own,
    which other objects may share, are left out."""
    listed = output("objdump", "-d", "-C", "--no-show-raw-insn", "-j", ".text", made)
    functions: dict[str, list[tuple[int, str]]] = {}
    for line in listed.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            functions[start[1]] = current = []
        elif code := re.match(r"\s+([0-9a-f]+):\t(.*)", line):
            current.append((int(code[1], 16), re.sub(r"\s+", " ", code[2]).strip()))
    addresses = [address for code in functions.values() for address, _ in code]
    inlined = inlined_functions(made, addresses, "-j", ".text")
    return {
        name: [Instruction(address, text, inlined[address]) for address, text in code]
        for name, code in functions.items()
    }


def loops(function: list[Instruction]) -> list[Loop]:
    """Those of a function, outer ones too. Compilers place a loop's rare parts behind it and code
    that is none of it in between, so that only the graph of jumps tells what belongs to it."""
    blocks = basic_blocks(function)
    has_frame = any(instruction.text == "mov %rsp,%rbp" for instruction in function)
    found = []

    def look(edges: Graph) -> None:
        for part in cycles(edges):
            entered = {to for start in set(edges) - part for to in edges[start] if to in part}
            head = min(entered or part)
            inner = {start: (edges[start] & part) - {head} for start in part}
            body = tuple(i for start in sorted(part) for i in blocks[start][0])
            found.append(Loop(body, not cycles(inner), has_frame))
            look(inner)

    look({start: following for start, (_, following) in blocks.items()})
    return found


Graph = dict[int, set[int]]


def basic_blocks(function: list[Instruction]) -> dict[int, tuple[list[Instruction], set[int]]]:
    """By address: instructions that run one after the other, and the blocks that may follow."""
    addresses = {instruction.address for instruction in function}
    starts = {function[0].address} | ({i.target for i in function} & addresses)
    starts |= {after.address for i, after in pairwise(function) if i.ends_block}
    blocks = {start: ([], set()) for start in sorted(starts)}
    code, following = blocks[function[0].address]
    for instruction, after in zip(function, [*function[1:], None], strict=True):
        code, following = blocks.get(instruction.address, (code, following))
        code.append(instruction)
        if instruction.target in addresses:
            following.add(instruction.target)
        runs_on = not re.match(r"jmp|ret", instruction.text)
        if runs_on and after is not None and after.address in starts:
            following.add(after.address)
    return blocks


def cycles(edges: Graph) -> list[set[int]]:
    """The strongly connected parts of a graph that have an edge."""
    order, seen = [], set()
    for first in edges:
        stack = [(first, iter(edges[first]))] if first not in seen else []
        seen.add(first)
        while stack:
            node, rest = stack[-1]
            following = next((to for to in rest if to not in seen), None)
            if following is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(edges[following])))
    backwards: Graph = {node: set() for node in edges}
    for node, following in edges.items():
        for to in following:
            backwards[to].add(node)
    parts, placed = [], set()
    for first in reversed(order):
        part, stack = set(), [first]
        while stack:
            node = stack.pop()
            if node not in placed:
                placed.add(node)
                part.add(node)
                stack += backwards[node]
        if len(part) > 1 or any(node in edges[node] for node in part):
            parts.append(part)
    return parts

"""Loads, stores, atomics, asynchronous copies and fences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from .block import Block
from .instructions import Execute, Instruction, Read, instruction
from .memory import POISON, GlobalMemory
from .report import Kind
from .shared import SharedMemory
from .threads import Threads
from .types import U32, Type

Space = Callable[[Block], "GlobalMemory | SharedMemory"]


def _space(this: Instruction) -> tuple[Space, int]:
    """The memory, and how many bits its addresses have."""
    spaces: dict[str, tuple[Space, int]] = {
        "global": (lambda block: block.global_memory, 64),
        "shared": (lambda block: block.shared, 32),
        "shared::cta": (lambda block: block.shared, 32),
    }
    taken = this.takes(*spaces)
    if taken is None:
        raise this.unknown("only global, shared and parameter memory are known")
    return spaces[taken]


def _cache_hints(this: Instruction) -> None:
    """They change no value."""
    this.takes("nc")
    while this.takes(
        "ca", "cg", "cs", "lu", "cv", "wb", "wt",
        "L1::evict_first", "L1::evict_last", "L1::no_allocate", "L1::evict_normal",
        "L2::evict_first", "L2::evict_last", "L2::evict_normal",
    ):  # fmt: skip
        pass


def _vector_of_type(this: Instruction, n_parts: int) -> Type:
    """The type of each of ``n_parts`` elements."""
    extent = this.takes("v2", "v4")
    if (int(extent[1]) if extent else 1) != n_parts:
        raise this.unknown(f"{n_parts} registers")
    return this.type("b", "s", "u", "f")


def _per_thread(value: np.ndarray, threads: Threads) -> np.ndarray:
    return value if len(value) == threads.count else np.repeat(value, threads.count)


@instruction("ld")
def _ld(this: Instruction) -> Execute:
    if this.takes("param"):
        return _ld_param(this)
    this.takes("weak", "volatile", "relaxed")
    space, address_bits = _space(this)
    _cache_hints(this)
    into = this.vector(0)
    type = _vector_of_type(this, len(into))
    this.done(2)
    address = this.address(1, address_bits)
    writes = [this.write_extended(text, type) for text in into]

    def execute(block: Block, threads: Threads) -> None:
        places = _per_thread(address(block, threads), threads)
        values = space(block).load(block, threads, places, type.bytes, len(writes))
        for write, value in zip(writes, values.T, strict=True):
            write(block, threads, value)

    return execute


def _ld_param(this: Instruction) -> Execute:
    into = this.vector(0)
    type = _vector_of_type(this, len(into))
    this.done(2)
    address = this.address(1, 64)
    writes = [this.write_extended(text, type) for text in into]
    size = type.bytes * len(into)
    parameter_bytes = this.program.parameter_bytes

    def execute(block: Block, threads: Threads) -> None:
        places = address(block, threads)
        outside = (places < 0) | (places > parameter_bytes - size)
        misaligned = places % size != 0
        for wrong, kind in ((outside, Kind.OUT_OF_BOUNDS), (misaligned, Kind.MISALIGNED)):
            if wrong.any():
                block.found(kind, np.count_nonzero(wrong), "parameters")
        places = np.where(outside, 0, places)
        raw = block.parameters[places[:, None] + np.arange(size)]
        raw[outside] = POISON
        values = np.ascontiguousarray(raw).view(type.unsigned)
        for write, value in zip(writes, values.T, strict=True):
            write(block, threads, value)

    return execute


@instruction("st")
def _st(this: Instruction) -> Execute:
    this.takes("weak", "volatile", "relaxed")
    space, address_bits = _space(this)
    _cache_hints(this)
    source = this.vector(1)
    type = _vector_of_type(this, len(source))
    this.done(2)
    address = this.address(0, address_bits)
    reads = [this.read(text, type, any_width=True) for text in source]

    def execute(block: Block, threads: Threads) -> None:
        places = _per_thread(address(block, threads), threads)
        values = np.empty((threads.count, len(reads)), type.unsigned)
        for i, read in enumerate(reads):
            values[:, i] = read(block, threads).view(type.unsigned)
        space(block).store(block, threads, places, values)

    return execute


# Atomics

Change = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

_ELEMENTWISE = {
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
}


def _one_after_another(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Change:
    """Threads that meet at a place take turns in the order that they are given."""

    def change(cells: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        before = np.empty_like(values)
        left = np.arange(len(places))
        while len(left):
            _, first = np.unique(places[left], return_index=True)
            turn = left[first]
            before[turn] = cells[places[turn]]
            cells[places[turn]] = function(before[turn], values[turn])
            left = np.delete(left, first)
        return before

    return change


def _sum(cells: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """As taking turns with +, at once: integers wrap around alike in any order."""
    order = np.argsort(places, kind="stable")
    sorted_places, sorted_values = places[order], values[order]
    through = np.cumsum(sorted_values, dtype=values.dtype)
    starts = np.flatnonzero(np.r_[True, sorted_places[1:] != sorted_places[:-1]])
    lengths = np.diff(np.r_[starts, len(places)])
    earlier = np.repeat(through[starts] - sorted_values[starts], lengths)
    before = np.empty_like(values)
    before[order] = cells[sorted_places] + (through - sorted_values - earlier)
    last = starts + lengths - 1
    cells[sorted_places[last]] += through[last] - earlier[last]
    return before


@instruction("atom", "red")
def _atom(this: Instruction) -> Execute:
    this.takes("relaxed", "acq_rel", "acquire", "release")
    this.takes("cta", "gpu", "sys")
    space, address_bits = _space(this)
    this.takes("cta", "gpu", "sys")
    name = this.needs("add", *_ELEMENTWISE)
    type = this.type("b", "s", "u")
    returns = this.name == "atom"
    this.done(3 if returns else 2)
    address = this.address(1 if returns else 0, address_bits)
    read = this.read(2 if returns else 1, type)
    write = this.write(0, type) if returns else None
    change = _sum if name == "add" else _one_after_another(_ELEMENTWISE[name])

    def execute(block: Block, threads: Threads) -> None:
        places = _per_thread(address(block, threads), threads)
        values = _per_thread(read(block, threads), threads)
        if block.random is None:
            before = space(block).update(block, threads, places, values, change)
        else:
            before = space(block).update(block, threads, places, values, _shuffled(block, change))
        if write is not None:
            write(block, threads, before)

    return execute


def _shuffled(block: Block, change: Change) -> Change:
    def shuffled(cells: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        order = block.random.permutation(len(places))
        before = np.empty_like(values)
        before[order] = change(cells, places[order], values[order])
        return before

    return shuffled


# Copies from global to shared memory, which land when they are waited for


class _Copy:
    """Of one instruction: threads [n], where to, and the bytes [n, size]."""

    def __init__(self, threads: Threads, addresses: np.ndarray, values: np.ndarray) -> None:
        self.threads, self.addresses, self.values = threads, addresses, values

    def land(self, block: Block) -> None:
        block.shared.land(block, self.threads, self.addresses, self.values)


class _Copies:
    """Groups of copies. Each warp has its own, since it commits and waits as one."""

    def __init__(self, n_warps: int) -> None:
        self.open: list[list[_Copy]] = [[] for _ in range(n_warps)]
        self.committed: list[deque[list[_Copy]]] = [deque() for _ in range(n_warps)]


def _copies(block: Block) -> _Copies:
    return block.pending.setdefault("copies", _Copies(block.n_warps))


def _whole_warps(this: Instruction, block: Block, threads: Threads) -> None:
    alive = np.count_nonzero(~block.exited.reshape(block.n_warps, -1)[threads.warps])
    if threads.count != alive:
        raise this.unknown("for a part of a warp")


@instruction("cp")
def _cp(this: Instruction) -> Execute:
    this.needs("async")
    kind = this.needs("ca", "cg", "commit_group", "wait_group", "wait_all")
    if kind == "commit_group":
        this.done(0)
        return lambda block, threads: _commit(this, block, threads)
    if kind == "wait_group":
        this.done(1)
        left = this.integer(0)
        return lambda block, threads: _wait(this, block, threads, left)
    if kind == "wait_all":
        this.done(0)

        def wait_all(block: Block, threads: Threads) -> None:
            _commit(this, block, threads)
            _wait(this, block, threads, 0)

        return wait_all
    return _copy(this)


def _copy(this: Instruction) -> Execute:
    this.needs("shared", "shared::cta")
    this.needs("global")
    this.takes("L2::64B", "L2::128B", "L2::256B")
    this.done()
    if len(this.operands) not in (3, 4):
        raise this.unknown("operands")
    size = this.integer(2)
    if size not in (4, 8, 16):
        raise this.unknown(f"{size} bytes")
    to, source = this.address(0, 32), this.address(1, 64)
    read_size: Read | None = this.read(3, U32) if len(this.operands) == 4 else None

    def execute(block: Block, threads: Threads) -> None:
        places = _per_thread(to(block, threads), threads)
        origin = _per_thread(source(block, threads), threads)
        values = np.zeros((threads.count, size), np.uint8)
        wanted = np.full(threads.count, size)
        if read_size is not None:
            wanted = _per_thread(read_size(block, threads), threads).astype(np.int64)
        if not np.isin(wanted, (0, size)).all():
            raise this.unknown("a part of the bytes is zero")
        read = wanted > 0
        if read.any():
            part = threads.where(read)
            raw = block.global_memory.load(block, part, origin[read], 4, size // 4)
            values[read] = np.ascontiguousarray(raw).view(np.uint8)
        lands = block.shared.announce(block, threads, places, size)
        for warp in threads.warps:
            chosen = lands & (threads.warp == warp)
            if chosen.any():
                copy = _Copy(threads.where(chosen), places[chosen], values[chosen])
                _copies(block).open[warp].append(copy)

    return execute


def _commit(this: Instruction, block: Block, threads: Threads) -> None:
    _whole_warps(this, block, threads)
    copies = _copies(block)
    for warp in threads.warps:
        copies.committed[warp].append(copies.open[warp])
        copies.open[warp] = []


def _wait(this: Instruction, block: Block, threads: Threads, left: int) -> None:
    """All but the last ``left`` groups land."""
    _whole_warps(this, block, threads)
    copies = _copies(block)
    for warp in threads.warps:
        while len(copies.committed[warp]) > left:
            for copy in copies.committed[warp].popleft():
                copy.land(block)


# Fences


@instruction("fence")
def _fence(this: Instruction) -> Execute:
    """Within a block only barriers order what is checked here; the proxy fence is of its own."""
    if this.takes("proxy"):
        this.needs("async")
        this.takes("shared::cta", "shared")
        this.done(0)
        return lambda block, threads: block.shared.fence(block, threads)
    this.takes("acq_rel", "sc")
    this.needs("cta", "gpu", "sys")
    this.done(0)
    return lambda block, threads: None


@instruction("membar")
def _membar(this: Instruction) -> Execute:
    this.needs("cta", "gl", "sys")
    this.done(0)
    return lambda block, threads: None

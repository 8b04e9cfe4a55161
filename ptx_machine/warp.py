"""Instructions in which the threads of a warp work together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .block import Block
from .instructions import MASKS, Execute, Instruction, Read, instruction
from .report import Kind
from .threads import WARP, Threads
from .types import PRED, U32


def _mask_operand(operand: int) -> Callable[[Instruction], Read | None]:
    return lambda this: this.read(operand, U32)


MASKS["shfl"] = _mask_operand(-1)
MASKS["redux"] = _mask_operand(-1)
MASKS["vote"] = _mask_operand(-1)
MASKS["match"] = _mask_operand(-1)
MASKS["bar"] = MASKS["barrier"] = _mask_operand(-1)

_LANE_BITS = np.uint32(1) << np.arange(WARP, dtype=np.uint32)


def _present(block: Block, threads: Threads) -> np.ndarray:
    """uint32 [warps of the block]: which lanes are among ``threads``."""
    here = np.zeros(block.n_threads, bool)
    here[threads.index] = True
    return (here.reshape(-1, WARP) * _LANE_BITS).sum(1, dtype=np.uint32)


def _check_mask(block: Block, threads: Threads, mask: np.ndarray) -> None:
    """Every lane names itself, only lanes that are there, and the same ones as the others."""
    if threads.full and len(mask) == 1 and mask[0] == np.uint32(0xFFFFFFFF):
        return
    mask = np.broadcast_to(mask, (threads.count,))
    absent = (mask & ~_present(block, threads)[threads.warp]) != 0
    if absent.any():
        block.found(Kind.INACTIVE_LANE, np.count_nonzero(absent), "the mask names it")
    unnamed = (mask >> threads.lane.astype(np.uint32)) & np.uint32(1) == 0
    if unnamed.any():
        block.found(Kind.INACTIVE_LANE, np.count_nonzero(unnamed), "not in its own mask")
    leader = np.zeros((block.n_threads,), np.uint32)
    leader[threads.index] = mask
    for lane in range(WARP):
        named = (mask >> np.uint32(lane)) & np.uint32(1) != 0
        other = leader[threads.warp * WARP + lane]
        differs = named & ~absent & (other != mask)
        if differs.any():
            block.found(Kind.INACTIVE_LANE, np.count_nonzero(differs), "masks differ")
            return


@instruction("shfl")
def _shfl(this: Instruction) -> Execute:
    this.needs("sync")
    mode = this.needs("up", "down", "bfly", "idx")
    this.type("b32")
    this.done(5)
    into, _, valid = this.operands[0].partition("|")
    write = this.write(into.strip(), U32)
    write_valid = this.write(valid.strip(), PRED) if valid else None
    source, distance, bounds = (this.read(i, U32) for i in (1, 2, 3))
    mask = this.read(4, U32)

    def execute(block: Block, threads: Threads) -> None:
        _check_mask(block, threads, mask(block, threads))
        lane = threads.lane
        step = distance(block, threads).astype(np.int64) & 31
        bound = bounds(block, threads).astype(np.int64)
        segment, clamp = bound >> 8 & 31, bound & 31
        first, last = lane & segment, (lane & segment) | (clamp & ~segment)
        if mode == "up":
            wanted = lane - step
            inside = wanted >= last
        else:
            wanted = {
                "down": lane + step,
                "bfly": lane ^ step,
                "idx": first | (step & ~segment),
            }[mode]
            inside = wanted <= last
        wanted = np.where(inside, wanted, lane)
        values = np.zeros(block.n_threads, np.uint32)
        values[threads.key] = source(block, threads)
        if not threads.full:
            here = np.zeros(block.n_threads, bool)
            here[threads.index] = True
            absent = ~here[threads.warp * WARP + wanted]
            if absent.any():
                block.found(Kind.INACTIVE_LANE, np.count_nonzero(absent), "shuffle from it")
        write(block, threads, values[threads.warp * WARP + wanted])
        if write_valid is not None:
            write_valid(block, threads, inside)

    return execute


def _over_warps(
    threads: Threads, mask: np.ndarray, reduce: Callable[[np.ndarray], object], dtype: object
) -> np.ndarray:
    """``reduce`` (of thread positions) for each set of lanes with the same mask, to all of them."""
    result = np.empty(threads.count, dtype)
    mask = np.broadcast_to(mask, (threads.count,))
    for warp in threads.warps:
        in_warp = threads.warp == warp
        for value in np.unique(mask[in_warp]):
            chosen = np.flatnonzero(in_warp & (mask == value))
            result[chosen] = reduce(chosen)
    return result


_REDUCTIONS = {
    "add": np.add, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


@instruction("redux")
def _redux(this: Instruction) -> Execute:
    this.needs("sync")
    function = _REDUCTIONS[this.needs(*_REDUCTIONS)]
    type = this.type("s32", "u32", "b32")
    this.done(3)
    write, read, mask = this.write(0, type), this.read(1, type), this.read(2, U32)

    def execute(block: Block, threads: Threads) -> None:
        lanes = mask(block, threads)
        _check_mask(block, threads, lanes)
        values = np.broadcast_to(read(block, threads), (threads.count,))
        if threads.whole_warps and len(lanes) == 1:
            of_warps = function.reduce(values.reshape(-1, WARP), axis=1, dtype=type.dtype)
            write(block, threads, np.repeat(of_warps, WARP))
            return
        result = _over_warps(
            threads,
            lanes,
            lambda chosen: function.reduce(values[chosen], dtype=type.dtype),
            type.dtype,
        )
        write(block, threads, result)

    return execute


@instruction("vote")
def _vote(this: Instruction) -> Execute:
    this.needs("sync")
    mode = this.needs("ballot", "any", "all", "uni")
    ballot = mode == "ballot"
    result = this.type("b32") if ballot else this.type("pred")
    this.done(3)
    write = this.write(0, U32 if ballot else result)
    read, mask = this.read(1, PRED), this.read(2, U32)
    functions = {
        "any": np.any,
        "all": np.all,
        "uni": lambda p: p.all() or not p.any(),
    }

    def execute(block: Block, threads: Threads) -> None:
        lanes = mask(block, threads)
        _check_mask(block, threads, lanes)
        predicate = np.broadcast_to(read(block, threads), (threads.count,))
        if ballot:
            bits = np.where(predicate, _LANE_BITS[threads.lane], np.uint32(0))
            function = lambda chosen: np.bitwise_or.reduce(bits[chosen])  # noqa: E731
        else:
            function = lambda chosen: functions[mode](predicate[chosen])  # noqa: E731
        write(block, threads, _over_warps(threads, lanes, function, np.uint32 if ballot else bool))

    return execute


@instruction("match")
def _match(this: Instruction) -> Execute:
    """The lanes of the mask that hold the same value."""
    this.needs("any")
    this.needs("sync")
    type = this.type("b32", "b64")
    this.done(3)
    write, read, mask = this.write(0, U32), this.read(1, type), this.read(2, U32)

    def execute(block: Block, threads: Threads) -> None:
        lanes = mask(block, threads)
        _check_mask(block, threads, lanes)
        values = np.broadcast_to(read(block, threads), (threads.count,))
        result = np.empty(threads.count, np.uint32)
        for warp in threads.warps:
            chosen = threads.warp == warp
            equal = values[chosen][:, None] == values[chosen][None, :]
            bits = _LANE_BITS[threads.lane[chosen]]
            result[chosen] = np.where(equal, bits, np.uint32(0)).sum(1, dtype=np.uint32)
        write(block, threads, result & lanes)

    return execute


@instruction("activemask")
def _activemask(this: Instruction) -> Execute:
    this.type("b32")
    this.done(1)
    write = this.write(0, U32)
    return lambda block, threads: write(block, threads, _present(block, threads)[threads.warp])


@instruction("bar", "barrier")
def _bar_warp(this: Instruction) -> Execute:
    """``bar.warp.sync``: what these lanes did comes before what they do next."""
    this.needs("warp")
    this.needs("sync")
    this.done(1)
    mask = this.read(0, U32)

    def execute(block: Block, threads: Threads) -> None:
        _check_mask(block, threads, mask(block, threads))
        alive = ~block.exited.reshape(block.n_warps, WARP)[threads.warps]
        if threads.count != np.count_nonzero(alive):
            raise this.unknown("a barrier of a part of a warp")
        block.warp_epochs[threads.warps] += 1

    return execute

"""Instructions on the bits of registers, each thread for itself."""

from __future__ import annotations

import numpy as np

from .arithmetic import applied
from .block import Block
from .instructions import Execute, Instruction, instruction
from .threads import Threads
from .types import U32


@instruction("and", "or", "xor")
def _logic(this: Instruction) -> Execute:
    type = this.type("b", "pred")
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[this.name]
    return applied(this, function, type, type, type)


@instruction("not")
def _not(this: Instruction) -> Execute:
    type = this.type("b", "pred")
    return applied(this, np.invert, type, type)


@instruction("shl")
def _shl(this: Instruction) -> Execute:
    type = this.type("b")
    most = type.bits - 1

    def function(a: np.ndarray, n: np.ndarray) -> np.ndarray:
        shifted = a << np.minimum(n, most).astype(a.dtype)
        return np.where(n > most, a.dtype.type(0), shifted)

    return applied(this, function, type, type, U32)


@instruction("shr")
def _shr(this: Instruction) -> Execute:
    type = this.type("b", "s", "u")
    most = type.bits - 1

    def function(a: np.ndarray, n: np.ndarray) -> np.ndarray:
        shifted = a >> np.minimum(n, most).astype(a.dtype)
        return shifted if type.kind == "s" else np.where(n > most, a.dtype.type(0), shifted)

    return applied(this, function, type, type, U32)


@instruction("shf")
def _shf(this: Instruction) -> Execute:
    left = this.needs("l", "r") == "l"
    wrap = this.needs("wrap", "clamp") == "wrap"
    this.type("b32")

    def function(low: np.ndarray, high: np.ndarray, n: np.ndarray) -> np.ndarray:
        n = (n & np.uint32(31) if wrap else np.minimum(n, 32)).astype(np.uint64)
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        both = (both << n) >> np.uint64(32) if left else both >> n
        return both.astype(np.uint32)

    return applied(this, function, U32, U32, U32, U32)


def _is_number(text: str) -> bool:
    return text.lstrip("-")[:1].isdigit()


@instruction("bfe")
def _bfe(this: Instruction) -> Execute:
    type = this.type("s", "u")
    bits = type.bits
    if all(map(_is_number, this.operands[2:])) and 0 < this.integer(3) <= bits - this.integer(2):
        start, length = this.integer(2), this.integer(3)
        up, down = type.dtype(bits - start - length), type.dtype(bits - length)
        return applied(this, lambda a, *_: (a << up) >> down, type, type, U32, U32)

    def function(a: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        start, length = start & np.uint32(255), length & np.uint32(255)
        place = np.arange(bits, dtype=np.uint32)
        unsigned = a.view(type.unsigned)[:, None]
        source = start[:, None] + place
        # Beyond the field, and beyond the operand, comes its sign.
        last = np.minimum(start + length - np.uint32(1), bits - 1)
        one = type.unsigned(1)
        taken = (unsigned >> np.minimum(source, bits - 1).astype(type.unsigned)) & one
        sign = (unsigned >> last[:, None].astype(type.unsigned)) & one
        if type.kind == "u":
            sign = np.zeros_like(sign)
        inside = (place < length[:, None]) & (source < bits)
        chosen = np.where(inside, taken, np.where(length[:, None] == 0, type.unsigned(0), sign))
        return (chosen << place.astype(type.unsigned)).sum(1, dtype=type.unsigned)

    return applied(this, function, type, type, U32, U32)


@instruction("bfi")
def _bfi(this: Instruction) -> Execute:
    type = this.type("b32", "b64")
    unsigned = type.unsigned
    if all(map(_is_number, this.operands[3:])) and this.integer(3) + this.integer(4) <= type.bits:
        start, length = this.integer(3), this.integer(4)
        mask = unsigned(((1 << length) - 1) << start)
        return applied(
            this,
            lambda field, into, *_: ((field << unsigned(start)) & mask) | (into & ~mask),
            *(type, type, type, U32, U32),
        )

    def function(
        field: np.ndarray, into: np.ndarray, start: np.ndarray, length: np.ndarray
    ) -> np.ndarray:
        start, length = start & np.uint32(255), length & np.uint32(255)
        place = np.arange(type.bits, dtype=np.uint32)
        inside = (place >= start[:, None]) & (place < (start + length)[:, None])
        one = unsigned(1)
        source = np.minimum(place - np.minimum(start[:, None], place), type.bits - 1)
        new = (field[:, None] >> source.astype(unsigned)) & one
        old = (into[:, None] >> place.astype(unsigned)) & one
        bits = np.where(inside, new, old) << place.astype(unsigned)
        return bits.sum(1, dtype=unsigned)

    return applied(this, function, type, type, type, U32, U32)


@instruction("prmt")
def _prmt(this: Instruction) -> Execute:
    this.type("b32")

    def function(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
        both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
        result = np.uint32(0)
        for i in range(4):
            choice = (selector >> np.uint32(4 * i)) & np.uint32(15)
            byte = (both >> (np.uint64(8) * (choice & np.uint32(7)))).astype(np.uint32)
            byte &= np.uint32(0xFF)
            sign = np.where(byte & np.uint32(0x80), np.uint32(0xFF), np.uint32(0))
            byte = np.where(choice & np.uint32(8), sign, byte)
            result = result | (byte << np.uint32(8 * i))
        return result

    return applied(this, function, U32, U32, U32, U32)


@instruction("lop3")
def _lop3(this: Instruction) -> Execute:
    this.type("b32")
    this.done(5)
    table = this.integer(4)
    write = this.write(0, U32)
    reads = [this.read(i, U32) for i in (1, 2, 3)]

    def execute(block: Block, threads: Threads) -> None:
        a, b, c = (read(block, threads) for read in reads)
        result = np.zeros(threads.count, np.uint32)
        for row in range(8):
            if table >> row & 1:
                left = a if row & 4 else ~a
                result |= left & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        write(block, threads, result)

    return execute


@instruction("popc")
def _popc(this: Instruction) -> Execute:
    type = this.type("b32", "b64")
    return applied(this, lambda a: np.bitwise_count(a).astype(np.uint32), U32, type)


def _bit_length(a: np.ndarray) -> np.ndarray:
    """uint32: the place of the highest bit set, counted from 1."""
    length = np.zeros(len(a), np.uint32)
    for shift in (32, 16, 8, 4, 2, 1):
        if shift < 8 * a.dtype.itemsize:
            high = a >> a.dtype.type(shift)
            length += np.where(high != 0, np.uint32(shift), np.uint32(0))
            a = np.where(high != 0, high, a)
    return length + (a != 0)


@instruction("clz")
def _clz(this: Instruction) -> Execute:
    type = this.type("b32", "b64")
    return applied(this, lambda a: np.uint32(type.bits) - _bit_length(a), U32, type)


@instruction("bfind")
def _bfind(this: Instruction) -> Execute:
    shift = this.takes("shiftamt") is not None
    type = this.type("u32", "u64")

    def function(a: np.ndarray) -> np.ndarray:
        length = _bit_length(a)
        found = np.uint32(type.bits) - length if shift else length - np.uint32(1)
        return np.where(length == 0, np.uint32(0xFFFFFFFF), found)

    return applied(this, function, U32, type)


@instruction("brev")
def _brev(this: Instruction) -> Execute:
    type = this.type("b32", "b64")
    unsigned = type.unsigned

    def function(a: np.ndarray) -> np.ndarray:
        place = np.arange(type.bits, dtype=unsigned)
        bits = (a[:, None] >> place) & unsigned(1)
        return (bits << place[::-1]).sum(1, dtype=unsigned)

    return applied(this, function, type, type)

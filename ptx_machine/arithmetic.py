"""Instructions that compute registers from registers, each thread for itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .block import Block
from .instructions import Execute, Instruction, instruction
from .threads import Threads
from .types import PRED, UNSIGNED, Type

Function = Callable[..., np.ndarray]


def applied(this: Instruction, function: Function, result: Type, *operands: Type) -> Execute:
    """Operand 0 becomes ``function`` of the operands after it, which have these types."""
    this.done(1 + len(operands))
    write = this.write(0, result)
    reads = [this.read(1 + i, type) for i, type in enumerate(operands)]
    if len(reads) == 1:
        (one,) = reads
        return lambda block, threads: write(block, threads, function(one(block, threads)))
    if len(reads) == 2:
        left, right = reads
        return lambda block, threads: write(
            block, threads, function(left(block, threads), right(block, threads))
        )
    return lambda block, threads: write(
        block, threads, function(*(read(block, threads) for read in reads))
    )


# Sums and products


@instruction("add", "sub")
def _add(this: Instruction) -> Execute:
    this.takes("rn")
    type = this.type("s", "u", "f")
    function = np.add if this.name == "add" else np.subtract
    return applied(this, function, type, type, type)


@instruction("min", "max")
def _min(this: Instruction) -> Execute:
    type = this.type("s", "u", "f")
    if type.kind == "f":
        # The number where the other operand is NaN.
        function = np.fmin if this.name == "min" else np.fmax
    else:
        function = np.minimum if this.name == "min" else np.maximum
    return applied(this, function, type, type, type)


@instruction("neg")
def _neg(this: Instruction) -> Execute:
    type = this.type("s", "f")
    return applied(this, np.negative, type, type)


@instruction("abs")
def _abs(this: Instruction) -> Execute:
    type = this.type("s", "f")
    return applied(this, np.abs, type, type)


def _widened(type: Type) -> Type:
    return Type(type.kind, 2 * type.bits)


@instruction("mul")
def _mul(this: Instruction) -> Execute:
    half = this.takes("lo", "hi", "wide")
    if half is None:
        this.takes("rn")
        type = this.type("f", "f32x2")
        return applied(this, np.multiply, type, type, type)
    type = this.type("s", "u")
    if half == "lo":
        return applied(this, np.multiply, type, type, type)
    if type.bits == 64:
        if half == "wide":
            raise this.unknown("products of 128 bits")
        return applied(this, _high_product_64(type), type, type, type)
    wide = _widened(type).dtype
    if half == "wide":
        return applied(this, lambda a, b: a.astype(wide) * b, _widened(type), type, type)
    return applied(
        this,
        lambda a, b: ((a.astype(wide) * b) >> wide(type.bits)).astype(type.dtype),
        type,
        type,
        type,
    )


def _high_product_64(type: Type) -> Function:
    def high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        products = a.astype(object) * b.astype(object) >> 64
        return (products & (2**64 - 1)).astype(np.uint64)

    return high


@instruction("mad")
def _mad(this: Instruction) -> Execute:
    half = this.needs("lo", "wide")
    type = this.type("s", "u")
    if half == "lo":
        return applied(this, lambda a, b, c: a * b + c, type, type, type, type)
    wide = _widened(type)
    return applied(this, lambda a, b, c: a.astype(wide.dtype) * b + c, wide, type, type, wide)


@instruction("fma")
def _fma(this: Instruction) -> Execute:
    this.needs("rn")
    type = this.type("f32")
    return applied(this, fused_multiply_add, type, type, type, type)


def fused_multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of float32, rounded once: the float64 sum is rounded to odd where it is not exact."""
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    even = total.view(np.int64) & 1 == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    odd = (error != 0) & even & np.isfinite(total)
    return np.where(odd, np.nextafter(total, towards), total).astype(np.float32)


@instruction("div", "rem")
def _div(this: Instruction) -> Execute:
    if this.name == "div" and this.takes("full", "rn"):
        # Rounded to nearest. A GPU may be off by two units in the last place with .full, so no
        # result may depend on them.
        type = this.type("f32")
        return applied(this, np.divide, type, type, type)
    type = this.type("s", "u")
    divide = this.name == "div"

    def function(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # PTX leaves division by zero open; a machine gives all ones, and the dividend.
        safe = np.where(b == 0, type.dtype(1), b)
        rest = np.fmod(a, safe)
        if divide:
            return np.where(b == 0, type.dtype(0) - type.dtype(1), (a - rest) // safe)
        return np.where(b == 0, a, rest)

    return applied(this, function, type, type, type)


# Moves, choices, comparisons


@instruction("mov")
def _mov(this: Instruction) -> Execute:
    type = this.type()
    this.done(2)
    into, source = this.vector(0), this.vector(1)
    if len(into) > 1:
        return _unpack(this, type, into)
    if len(source) > 1:
        return _pack(this, type, source)
    return applied(this, lambda a: a, type, type)


def _part(this: Instruction, type: Type, parts: list[str]) -> Type:
    if type.bits % len(parts) or type.bits // len(parts) not in UNSIGNED:
        raise this.unknown(f"{len(parts)} parts")
    return Type("b", type.bits // len(parts))


def _unpack(this: Instruction, type: Type, into: list[str]) -> Execute:
    part = _part(this, type, into)
    read = this.read(1, type)
    writes = [this.write(text, part) for text in into]

    def execute(block: Block, threads: Threads) -> None:
        value = np.ascontiguousarray(read(block, threads)).view(part.dtype)
        for write, column in zip(writes, value.reshape(-1, len(into)).T, strict=True):
            write(block, threads, column)

    return execute


def _pack(this: Instruction, type: Type, source: list[str]) -> Execute:
    part = _part(this, type, source)
    reads = [this.read(text, part) for text in source]
    write = this.write(0, type)

    def execute(block: Block, threads: Threads) -> None:
        value = np.empty((threads.count, len(source)), part.dtype)
        for i, read in enumerate(reads):
            value[:, i] = read(block, threads)
        write(block, threads, value.view(type.unsigned)[:, 0])

    return execute


@instruction("cvta")
def _cvta(this: Instruction) -> Execute:
    """Addresses are those of their own spaces here, and generic loads are not known."""
    this.needs("to")
    this.needs("global", "shared")
    type = this.type("u64")
    return applied(this, lambda a: a, type, type)


@instruction("selp")
def _selp(this: Instruction) -> Execute:
    type = this.type("b", "s", "u", "f")
    return applied(this, lambda a, b, p: np.where(p, a, b), type, type, type, PRED)


_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
_UNSIGNED_COMPARE = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


def _comparison(this: Instruction) -> tuple[Function, Function | None]:
    """The function of a comparison's name, and that of the logic after it."""
    name = this.left.pop(0) if this.left else ""
    logic = this.takes("and", "or", "xor")
    combine = {
        "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, None: None,
    }[logic]  # fmt: skip
    floating = bool(this.left) and this.left[-1].startswith("f")
    if name in _COMPARE:
        compare = _COMPARE[name]
        if name == "ne" and floating:
            # Ordered: false where an operand is NaN.
            return (lambda a, b: (a < b) | (a > b)), combine
        return compare, combine
    if name in _UNSIGNED_COMPARE and not floating:
        return _COMPARE[_UNSIGNED_COMPARE[name]], combine
    if floating and name in ("nan", "num"):
        nan = name == "nan"
        return (lambda a, b: (np.isnan(a) | np.isnan(b)) == nan), combine
    if floating and name[:-1] in _COMPARE and name.endswith("u"):
        compare = _COMPARE[name[:-1]]
        return (lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)), combine
    raise this.unknown(f"comparison .{name}")


@instruction("setp")
def _setp(this: Instruction) -> Execute:
    compare, combine = _comparison(this)
    type = this.type("b", "s", "u", "f")
    this.done(3 if combine is None else 4)
    into, _, complement = this.operands[0].partition("|")
    write = this.write(into.strip(), PRED)
    write_complement = this.write(complement.strip(), PRED) if complement else None
    left, right = this.read(1, type), this.read(2, type)
    other = None if combine is None else this.read(3, PRED)

    def execute(block: Block, threads: Threads) -> None:
        result = compare(left(block, threads), right(block, threads))
        inverse = ~result
        if combine is not None:
            predicate = other(block, threads)
            result, inverse = combine(result, predicate), combine(inverse, predicate)
        write(block, threads, result)
        if write_complement is not None:
            write_complement(block, threads, inverse)

    return execute

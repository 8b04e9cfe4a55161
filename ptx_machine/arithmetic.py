"""Instructions that compute registers from registers, each thread for itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .block import Block
from .instructions import Execute, Instruction, instruction
from .report import Kind
from .threads import Threads
from .types import F32, PRED, SIGNED, U32, UNSIGNED, Type

Function = Callable[..., np.ndarray]


def _apply(this: Instruction, function: Function, result: Type, *operands: Type) -> Execute:
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
    return _apply(this, function, type, type, type)


@instruction("min", "max")
def _min(this: Instruction) -> Execute:
    type = this.type("s", "u", "f")
    if type.kind == "f":
        # The number where the other operand is NaN.
        function = np.fmin if this.name == "min" else np.fmax
    else:
        function = np.minimum if this.name == "min" else np.maximum
    return _apply(this, function, type, type, type)


@instruction("neg")
def _neg(this: Instruction) -> Execute:
    type = this.type("s", "f")
    return _apply(this, np.negative, type, type)


@instruction("abs")
def _abs(this: Instruction) -> Execute:
    type = this.type("s", "f")
    return _apply(this, np.abs, type, type)


def _widened(type: Type) -> Type:
    return Type(type.kind, 2 * type.bits)


@instruction("mul")
def _mul(this: Instruction) -> Execute:
    half = this.takes("lo", "hi", "wide")
    if half is None:
        this.takes("rn")
        type = this.type("f")
        return _apply(this, np.multiply, type, type, type)
    type = this.type("s", "u")
    if half == "lo":
        return _apply(this, np.multiply, type, type, type)
    if type.bits == 64:
        if half == "wide":
            raise this.unknown("products of 128 bits")
        return _apply(this, _high_product_64(type), type, type, type)
    wide = _widened(type).dtype
    if half == "wide":
        return _apply(this, lambda a, b: a.astype(wide) * b, _widened(type), type, type)
    return _apply(
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
        return _apply(this, lambda a, b, c: a * b + c, type, type, type, type)
    wide = _widened(type)
    return _apply(this, lambda a, b, c: a.astype(wide.dtype) * b + c, wide, type, type, wide)


@instruction("fma")
def _fma(this: Instruction) -> Execute:
    this.needs("rn")
    type = this.type("f32")
    return _apply(this, fused_multiply_add, type, type, type, type)


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
        return _apply(this, np.divide, type, type, type)
    type = this.type("s", "u")
    divide = this.name == "div"

    def function(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # PTX leaves division by zero open; a machine gives all ones, and the dividend.
        safe = np.where(b == 0, type.dtype(1), b)
        rest = np.fmod(a, safe)
        if divide:
            return np.where(b == 0, type.dtype(0) - type.dtype(1), (a - rest) // safe)
        return np.where(b == 0, a, rest)

    return _apply(this, function, type, type, type)


# Bits


@instruction("and", "or", "xor")
def _logic(this: Instruction) -> Execute:
    type = this.type("b", "pred")
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[this.name]
    return _apply(this, function, type, type, type)


@instruction("not")
def _not(this: Instruction) -> Execute:
    type = this.type("b", "pred")
    return _apply(this, np.invert, type, type)


@instruction("shl")
def _shl(this: Instruction) -> Execute:
    type = this.type("b")
    most = type.bits - 1

    def function(a: np.ndarray, n: np.ndarray) -> np.ndarray:
        shifted = a << np.minimum(n, most).astype(a.dtype)
        return np.where(n > most, a.dtype.type(0), shifted)

    return _apply(this, function, type, type, U32)


@instruction("shr")
def _shr(this: Instruction) -> Execute:
    type = this.type("b", "s", "u")
    most = type.bits - 1

    def function(a: np.ndarray, n: np.ndarray) -> np.ndarray:
        shifted = a >> np.minimum(n, most).astype(a.dtype)
        return shifted if type.kind == "s" else np.where(n > most, a.dtype.type(0), shifted)

    return _apply(this, function, type, type, U32)


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

    return _apply(this, function, U32, U32, U32, U32)


def _is_number(text: str) -> bool:
    return text.lstrip("-")[:1].isdigit()


@instruction("bfe")
def _bfe(this: Instruction) -> Execute:
    type = this.type("s", "u")
    bits = type.bits
    if all(map(_is_number, this.operands[2:])) and 0 < this.integer(3) <= bits - this.integer(2):
        start, length = this.integer(2), this.integer(3)
        up, down = type.dtype(bits - start - length), type.dtype(bits - length)
        return _apply(this, lambda a, *_: (a << up) >> down, type, type, U32, U32)

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

    return _apply(this, function, type, type, U32, U32)


@instruction("bfi")
def _bfi(this: Instruction) -> Execute:
    type = this.type("b32", "b64")
    unsigned = type.unsigned
    if all(map(_is_number, this.operands[3:])) and this.integer(3) + this.integer(4) <= type.bits:
        start, length = this.integer(3), this.integer(4)
        mask = unsigned(((1 << length) - 1) << start)
        return _apply(
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

    return _apply(this, function, type, type, type, U32, U32)


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

    return _apply(this, function, U32, U32, U32, U32)


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
    return _apply(this, lambda a: np.bitwise_count(a).astype(np.uint32), U32, type)


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
    return _apply(this, lambda a: np.uint32(type.bits) - _bit_length(a), U32, type)


@instruction("bfind")
def _bfind(this: Instruction) -> Execute:
    shift = this.takes("shiftamt") is not None
    type = this.type("u32", "u64")

    def function(a: np.ndarray) -> np.ndarray:
        length = _bit_length(a)
        found = np.uint32(type.bits) - length if shift else length - np.uint32(1)
        return np.where(length == 0, np.uint32(0xFFFFFFFF), found)

    return _apply(this, function, U32, type)


@instruction("brev")
def _brev(this: Instruction) -> Execute:
    type = this.type("b32", "b64")
    unsigned = type.unsigned

    def function(a: np.ndarray) -> np.ndarray:
        place = np.arange(type.bits, dtype=unsigned)
        bits = (a[:, None] >> place) & unsigned(1)
        return (bits << place[::-1]).sum(1, dtype=unsigned)

    return _apply(this, function, type, type)


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
    return _apply(this, lambda a: a, type, type)


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
    return _apply(this, lambda a: a, type, type)


@instruction("selp")
def _selp(this: Instruction) -> Execute:
    type = this.type("b", "s", "u", "f")
    return _apply(this, lambda a, b, p: np.where(p, a, b), type, type, type, PRED)


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


# Conversions


@instruction("cvt")
def _cvt(this: Instruction) -> Execute:
    rounding = this.takes("rn", "rz", "rzi", "rni", "rmi", "rpi")
    result = this.type()
    if result == Type("f", 16, 2):
        return _cvt_pair(this, rounding)
    source = this.type()
    this.done(2)
    if "pred" in (result.kind, source.kind) or "b" in (result.kind, source.kind):
        raise this.unknown()
    read = this.read(1, source, any_width=True)
    write = this.write_extended(0, result)
    convert = _conversion(this, rounding, result, source)
    exact_expected = result.kind == "f" and (source.kind != "f" or source.bits > result.bits)

    def execute(block: Block, threads: Threads) -> None:
        value = read(block, threads)
        converted = convert(value)
        if exact_expected:
            _check_exact(block, value, converted)
        write(block, threads, converted)

    return execute


def _conversion(this: Instruction, rounding: str | None, result: Type, source: Type) -> Function:
    if source.kind != "f" and result.kind != "f":
        if rounding is not None:
            raise this.unknown()
        # Of the source's sign on the way to more bits.
        carrier = (SIGNED if source.kind == "s" else UNSIGNED)[result.bits]
        return lambda a: a.astype(carrier)
    if source.kind == "f" and result.kind == "f":
        if source.bits > result.bits and rounding != "rn":
            raise this.unknown()
        if source.bits <= result.bits and rounding is not None:
            raise this.unknown()
        return lambda a: a.astype(result.dtype)
    if result.kind == "f":
        if rounding != "rn":
            raise this.unknown()
        return _integer_to_float(result)
    whole = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}.get(rounding)
    if whole is None:
        raise this.unknown()
    if result.bits == 64:
        raise this.unknown("clamping to 64 bits")
    low, high = np.iinfo(result.dtype).min, np.iinfo(result.dtype).max

    def to_integer(a: np.ndarray) -> np.ndarray:
        clamped = np.clip(whole(a.astype(np.float64)), low, high)
        return np.where(np.isnan(a), 0, clamped).astype(result.dtype)

    return to_integer


def _integer_to_float(result: Type) -> Function:
    def convert(a: np.ndarray) -> np.ndarray:
        if result.bits == 16:
            # NumPy goes by way of float32 or float64, which rounds twice where these are inexact.
            return np.clip(a.astype(np.float64), -1e6, 1e6).astype(np.float16)
        return a.astype(result.dtype)

    return convert


def _check_exact(block: Block, value: np.ndarray, converted: np.ndarray) -> None:
    if value.dtype.kind == "f":
        wrong = (converted.astype(value.dtype) != value) & ~np.isnan(value)
    else:
        # Python's integers compare with floats exactly; float64 holds what fits 53 bits.
        back = converted.astype(np.float64)
        wrong = back != value.astype(np.float64)
        if value.dtype.itemsize == 8:
            wrong |= np.abs(back) > 2.0**53
    if wrong.any():
        block.found(Kind.INEXACT_CONVERSION, np.count_nonzero(wrong))


def _cvt_pair(this: Instruction, rounding: str | None) -> Execute:
    """Two float32 to float16, the first operand in the upper half."""
    this.type("f32")
    this.done(3)
    if rounding != "rn":
        raise this.unknown()
    high, low = this.read(1, F32), this.read(2, F32)
    write = this.write(0, Type("f", 16, 2))

    def execute(block: Block, threads: Threads) -> None:
        pair = np.empty((threads.count, 2), np.float32)
        pair[:, 0], pair[:, 1] = low(block, threads), high(block, threads)
        halves = pair.astype(np.float16)
        _check_exact(block, pair, halves)
        write(block, threads, halves)

    return execute

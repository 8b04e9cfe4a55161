"""Conversions between types, and a finding where one should be exact and is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .block import Block
from .instructions import Execute, Instruction, instruction
from .report import Kind
from .threads import Threads
from .types import F32, SIGNED, UNSIGNED, Type

Function = Callable[..., np.ndarray]
_WHOLE = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


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
            if source.bits < result.bits or rounding not in _WHOLE:
                raise this.unknown()
            return _WHOLE[rounding]
        return lambda a: a.astype(result.dtype)
    if result.kind == "f":
        if rounding != "rn":
            raise this.unknown()
        return _integer_to_float(result)
    if rounding not in _WHOLE:
        raise this.unknown()
    whole = _WHOLE[rounding]
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

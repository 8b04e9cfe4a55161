"""PTX types and the NumPy types that carry them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT = {16: np.float16, 32: np.float32, 64: np.float64}


class Type(NamedTuple):
    """``s32``, ``f16x2``, ``pred``: kind "s", "u", "b", "f" or "pred"; bits of one element."""

    kind: str
    bits: int
    #: 2 for the packed types such as f16x2.
    elements: int = 1

    def __str__(self) -> str:
        if self.kind == "pred":
            return "pred"
        return f"{self.kind}{self.bits}" + (f"x{self.elements}" if self.elements > 1 else "")

    @property
    def dtype(self) -> type[np.generic]:
        """Of one element."""
        return {"f": FLOAT, "s": SIGNED}.get(self.kind, UNSIGNED)[self.bits]

    @property
    def unsigned(self) -> type[np.generic]:
        """Of one element."""
        return UNSIGNED[self.bits]

    @property
    def bytes(self) -> int:
        return self.bits * self.elements // 8

    @property
    def register_bits(self) -> int:
        return self.bits * self.elements


PRED = Type("pred", 1)
U16, U32, U64 = Type("u", 16), Type("u", 32), Type("u", 64)
F32 = Type("f", 32)


@cache
def type_named(name: str) -> Type | None:
    """None where PTX knows no such type, or this machine does not."""
    if name == "pred":
        return PRED
    scalar, _, elements = name.partition("x")
    kind, bits = scalar[:1], scalar[1:]
    table = {"f": FLOAT, "s": SIGNED, "u": UNSIGNED, "b": UNSIGNED}.get(kind, {})
    if not bits.isdigit() or int(bits) not in table or elements not in ("", "2"):
        return None
    if elements and bits != "16" and scalar != "f32":
        return None
    return Type(kind, int(bits), int(elements or 1))

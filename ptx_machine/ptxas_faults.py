"""What ptxas is known to translate wrongly, and what therefore does not show in PTX that runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .program import Statement, parse

_VERSION = re.compile(r"^\.version (\d+)\.(\d+)", re.MULTILINE)
_CONSTANT = re.compile(r"mov\.b32 (%\w+), -?\d+$")


def lost_constants(statements: Iterable[Statement]) -> list[Statement]:
    """Additions of pairs of 16 bits, one of them a constant. Where only half of the sum is used,
    and in some cases where all is, ptxas for sm_90 adds 0 instead (seen of CUDA 12.8, 12.9 and
    13.0; 13.4 is right). An H100 read value 6 for value 96 that way, in a kernel of Triton 3.6.
    """
    constants: set[str] = set()
    lost = []
    for statement in statements:
        if found := _CONSTANT.match(statement.text):
            constants.add(found[1])
        elif statement.opcode == "add.s16x2" and constants & set(statement.sources):
            lost.append(statement)
    return lost


def lost_in(text: str) -> list[Statement]:
    """Those that are lost in PTX as Triton writes it: of the version that its ptxas has, which is
    9.4 for CUDA 13.4."""
    version = _VERSION.search(text)
    assert version
    right = (int(version[1]), int(version[2])) >= (9, 4)
    return [] if right else lost_constants(parse(text).statements)

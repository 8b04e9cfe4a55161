"""Patterns with braces, as shells and WebDataset expand them: "shards-{000..010}.tar"."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from smnm_kernels.errors import UsageError

_BRACES = re.compile(r"(\{(?:-?\d+\.\.-?\d+|[^{}]*,[^{}]*)\})")
_MOST = 1_000_000


def is_pattern(path: Path) -> bool:
    """Whether it holds braces that stand for something, and is no name of a file itself."""
    return _BRACES.search(str(path)) is not None and not os.path.lexists(path)


def expanded(pattern: str) -> Iterator[str]:
    """Every name that a pattern stands for, in order; itself where it holds no braces.

    {000..010} counts, forwards or backwards, with the zeros that one of its ends begins with; {a,b}
    is each of the words. There are no braces within braces. UsageError beyond a million names.
    """
    parts = [_choices(part) for part in _BRACES.split(pattern)]
    count = 1
    for part in parts:
        count *= len(part)
    if count > _MOST:
        raise UsageError(f"{pattern}: stands for {count} names, at most {_MOST} are possible")
    return map("".join, product(*parts))


def _choices(part: str) -> list[str]:
    if not _BRACES.fullmatch(part):
        return [part]
    first, dots, last = part[1:-1].partition("..")
    if not dots or "," in part:
        return part[1:-1].split(",")
    padded = any(re.match(r"-?0\d", end) for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    begin, end = int(first), int(last)
    step = 1 if begin <= end else -1
    if abs(end - begin) >= _MOST:
        raise UsageError(f"{part}: stands for more than {_MOST} names")
    return [f"{number:0{width}}" for number in range(begin, end + step, step)]

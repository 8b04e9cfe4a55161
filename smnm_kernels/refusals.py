"""What is wrong with a command line, in one line in place of tyro's boxes."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from typing import Any, TypeVar

import tyro

from .errors import UsageError

_T = TypeVar("_T")

_WIDE = "4000"  # columns, so that nothing is wrapped
#: What options take, by how help names it.
_KINDS = {"N": "a whole number", "INT": "a whole number", "X": "a number", "FLOAT": "a number"}


def parsed(options_type: type[_T], prog: str, arguments: Sequence[str]) -> _T:
    """`tyro.cli`, with UsageError in place of a box and exit code 2."""
    try:
        with redirect_stderr(io.StringIO()):
            return _cli(options_type, prog, arguments)
    except SystemExit as ended:
        if ended.code in (None, 0):
            raise  # --help
    # Lines of a box, which are looked for, are drawn where the output can show them.
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with _columns(_WIDE), redirect_stdout(output), redirect_stderr(io.StringIO()) as said:
        try:
            return _cli(options_type, prog, arguments)
        except SystemExit:
            pass
    raise UsageError(f"{in_one_line(said.getvalue()).rstrip('.')} ({prog} --help)")


def _cli(options_type: Any, prog: str, arguments: Sequence[str]) -> Any:
    return tyro.cli(options_type, prog=prog, args=arguments)


@contextmanager
def _columns(width: str) -> Any:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = width
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def in_one_line(box: str) -> str:
    """What a box of tyro's says first; what it supposes was meant, or wants, shortly."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in box.splitlines()]
    lines = [line.strip("│").rstrip() for line in lines if line.strip() and line[0] not in "╭╰"]
    rule = next((i for i, line in enumerate(lines) if set(line.strip()) == {"─"}), len(lines))
    first = " ".join(line.strip() for line in lines[:rule])
    # Options and their help are told apart by how far they are indented.
    named = [line.strip() for line in lines if re.match(r" {5}(?!smnm )\S", line)]
    return _of_value(first, named) or _of_choice(first) or _of_missing(first, named) or first


def _of_value(first: str, named: list[str]) -> str:
    found = re.match(r"Error parsing (\S+): .*?(?: from \[(.*?)\]|: ('.*?')$)", first)
    if not found:
        return ""
    kind = named[0].partition(" ")[2].removeprefix("{None}|") if named else ""
    wanted = f", {_KINDS.get(kind, kind)} is needed" if kind else ""
    return f"{found[1]}: got {found[2] or found[3] or 'nothing'}{wanted}"


def _of_choice(first: str) -> str:
    found = re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", first)
    if not found:
        return ""
    given, argument, choices = found.groups()
    names = re.findall(r"'([^']*)'", choices)
    if "None" in names:  # of an option that need not be given; tyro has the others in any order
        names = sorted({*names} - {"None"})
    near = get_close_matches(given, names, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{argument} {given}: is none of {', '.join(names)}{meant}"


def _of_missing(first: str, named: list[str]) -> str:
    words = [line.split()[0] for line in named]
    if first.startswith("Missing from "):
        return f"{' and '.join(dict.fromkeys(words))} must be given"
    if first.startswith("Missing value for argument"):
        return first.split(". ")[0].replace("Missing value for argument", "there is no value after")
    if not first.startswith("Unrecognized options: "):
        return ""
    unknown = first.removeprefix("Unrecognized options: ").split(",")[0]
    if not unknown.startswith("-"):
        return f"{unknown}: is one argument too many"
    meant = f"; did you mean {' or '.join(dict.fromkeys(words[:2]))}?" if words else ""
    return f"there is no option {unknown}{meant}"

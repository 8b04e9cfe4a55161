"""Errors of the command line that are not faults of the program."""

from __future__ import annotations


class UsageError(Exception):
    """What was asked for cannot be done. Shown as one line, exit code 2, before any work."""


class RunError(Exception):
    """A run cannot go on. What it saved last is intact. Shown as one line, exit code 1."""


class Unusable(Exception):
    """One data file cannot be used; the message says why, in words for the person who owns it."""


def printable(name: str) -> str:
    """A file name that can be printed anywhere, in one line, also when it is not valid UTF-8."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

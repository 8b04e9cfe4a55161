"""Errors of the command line that are not faults of the program."""

from __future__ import annotations


class UsageError(Exception):
    """What was asked for cannot be done. Shown as one line, exit code 2, before any work."""


class RunError(Exception):
    """A run cannot go on. What it saved last is intact. Shown as one line, exit code 1."""


class Unusable(Exception):
    """One data file cannot be used; the message says why, in words for the person who owns it."""


def printable(name: str) -> str:
    """A file name that can be printed anywhere, also when it is not valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")

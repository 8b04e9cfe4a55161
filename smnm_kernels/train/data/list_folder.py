"""From which folder the paths of a list are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from smnm_kernels.errors import UsageError, printable

from . import lists

_LOOKED_AT = 50  # lines of a list, to see where its files lie


def folder_of_paths(
    path: Path, is_wanted: Callable[[str], bool], path_column: str | None, advice: str
) -> tuple[Path, list[str]]:
    """(the list's own folder, where it has any of the first files; else the only one below it,
    above it or beside it that has, as ESC-50's meta/esc50.csv names files of audio/; a remark in
    that case). Of several the nearest counts, in this order.

    is_wanted, path_column: as for `lists.listed`.
    advice: what to do where several folders have some of the files, which raises UsageError.
    """
    own = path.parent
    first = list(
        islice(
            lists.listed(
                path,
                is_wanted,
                lambda name: os.path.isfile(own / name),
                lambda stem: None,
                path_column=path_column,
            ),
            _LOOKED_AT,
        )
    )
    names = [line.missing for line in first if line.missing is not None]
    if not names or any(line.name is not None for line in first):
        return own, []
    has_some: list[Path] = []
    for folders in _folders_around(own):
        has_some = [f for f in folders if any(os.path.isfile(f / name) for name in names)]
        if has_some:
            break
    if len(has_some) > 1:
        shown = ", ".join(printable(str(folder)) for folder in has_some[:3])
        raise UsageError(
            f"{printable(str(path))}: names files that are in several folders ({shown}); {advice}"
        )
    if not has_some:
        return own, []
    said = f"files of {printable(path.name)} are those in {printable(str(has_some[0]))}"
    return has_some[0], [said]


def _folders_around(own: Path) -> Iterator[list[Path]]:
    """The nearest first: those below the list's folder, the one above it, those beside it."""
    own = Path(os.path.abspath(own))
    yield _below(own)
    yield [own.parent]
    yield [folder for folder in _below(own.parent) if folder != own]


def _below(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []

"""What options of all commands that have presets share: choosing one, and putting what was given in
place of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from tyro.conf import arg

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Treatment
from smnm_kernels.train.data.view import PixelAspect

PixelAspectOption = Annotated[
    PixelAspect | None, arg(metavar="{apply,ignore}", help_behavior_hint="")
]
PaddingOption = Annotated[Treatment | None, arg(metavar="{hide,see}", help_behavior_hint="")]

_T = TypeVar("_T")


def chosen(presets: Mapping[str, Mapping[str, _T]], modality: str, name: str) -> _T:
    """The preset of this name; UsageError, which says whose it is, where the modality has none."""
    table = presets[modality]
    if name not in table:
        others = [other for other, its in presets.items() if name in its]
        of = f"is of {' and '.join(others)}" if others else "there is none of that name"
        raise UsageError(f"--preset {name}: {of}; {modality} has {', '.join(table)}")
    return table[name]


def overridden(settings: _T, **given: Any) -> _T:
    """A dataclass with the values that were given; None stands for the preset's own."""
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **changed)  # type: ignore[type-var]

"""What options of all commands that have presets share: choosing one, and putting what was given in
place of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, TypeVar

from tyro.conf import arg

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Treatment
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.view import PixelAspect

PixelAspectOption = Annotated[
    PixelAspect | None, arg(metavar="{apply,ignore}", help_behavior_hint="")
]
PaddingOption = Annotated[Treatment | None, arg(metavar="{hide,see}", help_behavior_hint="")]

_T = TypeVar("_T")


def names_of(presets: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Of the presets of all modalities, each once."""
    return tuple(dict.fromkeys(name for table in presets.values() for name in table))


def check_modality(presets: Mapping[str, Mapping[str, Any]], modality: str) -> None:
    """From Python it need not be one of them."""
    if modality not in presets:
        raise UsageError(f"modality must be one of {', '.join(presets)}, got {modality!r}")


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


def settings_of(clip: Modality) -> set[str]:
    """Names of a modality's settings, those of the modalities that it is made of included."""
    found = set()
    for field in fields(clip):
        value = getattr(clip, field.name)
        found |= settings_of(value) if _is_modality(value) else {field.name}
    return found


def with_settings(clip: _T, **given: Any) -> _T:
    """`overridden`, of a modality, and of those that it is made of: each setting goes to all that
    have it."""
    changed: dict[str, Any] = {}
    for field in fields(clip):  # type: ignore[arg-type]
        value = getattr(clip, field.name)
        if _is_modality(value):
            changed[field.name] = with_settings(value, **given)
        elif field.name in given:
            changed[field.name] = given[field.name]
    return overridden(clip, **changed)


def _is_modality(value: Any) -> bool:
    return is_dataclass(value) and hasattr(value, "inputs")

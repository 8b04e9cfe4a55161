"""Tables of a TOML file as dataclasses: every key known, every value of its type."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from smnm_kernels.errors import UsageError, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def parsed(content: bytes) -> dict[str, Any]:
    """A TOML file's tables; ValueError where it is none."""
    return tomllib.loads(content.decode())


class Wrong(UsageError):
    """A key or value that a file must not have; the message begins with its place there."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{printable(place)}: {why}")


def from_table(cls: type[_T], table: Any, place: str, **more: Any) -> _T:
    """The dataclass that a table describes, key by key.

    place: of the table, for errors, such as "PLAN.toml: runs.tube".
    more: fields that the table does not set.

    Raises Wrong where a key is unknown or missing, or a value is not of its field's type. Lists
    become tuples, and numbers floats, where the field wants them.
    """
    assert is_dataclass(cls)
    if not isinstance(table, dict):
        raise Wrong(place, f"must be a table, got {table!r}")
    hints = get_type_hints(cls)
    own = {f.name: f for f in fields(cls) if f.name not in more}
    refuse_unknown(table, own, place)
    values = {key: typed(value, hints[key], f"{place}.{key}") for key, value in table.items()}
    for name, field in own.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise Wrong(place, f"needs {name}")
    return cls(**values, **more)


def refuse_unknown(table: dict[str, Any], allowed: Any, place: str) -> None:
    for key in table:
        if key not in allowed:
            near = get_close_matches(key, list(allowed), 1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(allowed)}"
            raise Wrong(f"{place}.{key}", f"there is no such key{meant}")


def refuse_twice(values: Sequence[Any], place: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise Wrong(place, f"{value!r} is there {values.count(value)} times")


def typed(value: Any, hint: Any, place: str) -> Any:
    """A value of this type; raises Wrong, which names the place, where it is none.

    hint: int, float, bool, str, Path, Literal, tuple[X, ...], dict[str, X], a dataclass, Any, or a
    union of such with None.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if value not in inner or isinstance(value, bool):
            raise Wrong(place, f"must be one of {', '.join(map(str, inner))}, got {value!r}")
        return value
    if origin in (Union, types.UnionType):
        (wanted,) = (one for one in inner if one is not type(None))
        return typed(value, wanted, place)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise Wrong(place, f"must be a list, got {value!r}")
        return tuple(typed(one, inner[0], f"{place}[{i}]") for i, one in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise Wrong(place, f"must be a table, got {value!r}")
        return {key: typed(one, inner[1], f"{place}.{key}") for key, one in value.items()}
    if is_dataclass(hint):
        return from_table(hint, value, place)  # type: ignore[arg-type]
    if hint is Path:
        return Path(typed(value, str, place))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise Wrong(place, f"must be {_WORDS[hint]}, got {value!r}")
    return value

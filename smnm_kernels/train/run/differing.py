"""How the settings that are asked for differ from those that a run was begun with, in few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of settings within groups, such as each number of a model.
_MOST_INNER = 3
_LONGEST = 60  # characters of a value


def differing(asked: Mapping[str, Any], held: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """As "lr is 0.1 there, 0.2 was asked for; ..."; "" where nothing differs.

    A setting whose value is a dict is a group. Of settings that stand alone each is told, of those
    in groups the first few. Where a group is another thing altogether, by its "name", only that is
    told of it, in the `words` of the command line, and nothing of settings that became groups or
    ceased to be; where the modality is, nothing else.

    asked, held: as JSON holds them. What `held` lacks counts as None.
    """
    if asked.get("modality") != held.get("modality"):
        return _told("modality", held.get("modality"), asked.get("modality"))
    things, reshaped, alone = list[str](), list[str](), list[str]()
    inner = list[tuple[str, str]]()  # group, what is told
    for name, value in asked.items():
        there = held.get(name)
        if not (isinstance(value, dict) and isinstance(there, dict)):
            if there != value:
                is_reshaped = isinstance(value, dict) or isinstance(there, dict)
                (reshaped if is_reshaped else alone).append(_told(name, there, value))
        elif there.get("name") != value.get("name"):
            names = [str(one.get("name")) for one in (there, value)]
            things.append(_told(name, *(words.get(one, one) for one in names)))
        else:
            inner += [(name, told) for told in _within(f"{name}.", value, there)]
    found = (things or reshaped) + alone + [told for _, told in inner[:_MOST_INNER]]
    more = [group for group, _ in inner[_MOST_INNER:]]
    if more:
        found.append(f"{len(more)} more in {' and '.join(dict.fromkeys(more))}")
    return "; ".join(found)


def _within(group: str, asked: dict[str, Any], held: dict[str, Any]) -> list[str]:
    """Of either's names: parameters of masks are there only where they were given."""
    found = []
    for name in dict.fromkeys([*asked, *held]):
        value, there = asked.get(name), held.get(name)
        if isinstance(value, dict) and isinstance(there, dict):
            found += _within(f"{group}{name}.", value, there)
        elif there != value:
            found.append(_told(group + name, there, value))
    return found


def _told(name: str, there: Any, asked: Any) -> str:
    return f"{name} is {_shown(there)} there, {_shown(asked)} was asked for"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

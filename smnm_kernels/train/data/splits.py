"""Splits of labelled files: how they are spelled, and which files are split off where none are."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

from .labels import Split

SPELLINGS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "eval": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
ORDER: tuple[Split, ...] = ("train", "val", "test")

_PREFIX = re.compile(rf"({'|'.join(sorted(SPELLINGS, key=len, reverse=True))})(?![a-z])", re.I)


def split_of(name: str) -> Split | None:
    """What a folder, a list or a value of this name means."""
    return SPELLINGS.get(name.strip().lower())


def meant(name: str) -> str | None:
    """The spelling of a split that a name is one slip of the pen away from: a letter too many or
    too few, another one, or two that changed places."""
    name = name.strip().lower()
    return next((spelling for spelling in SPELLINGS if _is_a_slip(name, spelling)), None)


def _is_a_slip(name: str, spelling: str) -> bool:
    for i in range(len(spelling) + 1):
        head, tail = spelling[:i], spelling[i:]
        if not name.startswith(head):
            return False
        rest = name[i:]
        if name != spelling and (
            rest in (tail[1:], tail[1:2] + tail[:1] + tail[2:])
            or rest[1:] == tail
            or (tail and len(rest) == len(tail) and rest[1:] == tail[1:])
        ):
            return True
    return False


def split_of_shard(name: str) -> Split | None:
    """As `split_of`, of a name such as train-000.tar."""
    match = _PREFIX.match(name)
    return split_of(match[1]) if match else None


def split_off(
    names: Sequence[str],
    strata: Sequence[Hashable],
    groups: Sequence[str] | None,
    share: float,
) -> set[int]:
    """Which of n files a share is, for validation: their places.

    names: of the files [n]. The lowest hashes of names (or of groups) are taken, so nothing depends
        on the order of the files, and an added one moves at most one other of its stratum.
    strata: what should be in both parts in the same shares, such as the class [n].
    groups: of each file what must not be torn apart, such as an episode; None: nothing.

    Of each stratum round(share n) files are taken, at least one of two or more, and never all. With
    groups, one after the other is taken whose files bring the strata closer to that, and none that
    would leave a stratum without a file. Empty where nothing can be taken so.
    """
    sizes = Counter(strata)
    goals = {key: _goal(size, share) for key, size in sizes.items()}
    if groups is None:
        by_stratum = defaultdict(list)
        for place, key in enumerate(strata):
            by_stratum[key].append(place)
        return {
            place
            for key, places in by_stratum.items()
            for place in sorted(places, key=lambda i: (_hash(names[i]), names[i]))[: goals[key]]
        }
    members = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    taken: Counter[Hashable] = Counter()
    chosen: set[int] = set()
    order = sorted(members, key=lambda group: (_hash(group), group))
    fitting = []
    for group in order:
        counts = Counter(strata[i] for i in members[group])
        if any(taken[key] + count >= sizes[key] for key, count in counts.items()):
            continue  # nothing of this stratum would be left to train on
        gain = sum(
            abs(goals[key] - taken[key]) - abs(goals[key] - taken[key] - count)
            for key, count in counts.items()
        )
        if gain > 0:
            taken += counts
            chosen.update(members[group])
        fitting.append(group)
    if not chosen and fitting:  # where every group is larger than the share
        smallest = min(fitting, key=lambda group: len(members[group]))
        chosen.update(members[smallest])
    return chosen


def _goal(size: int, share: float) -> int:
    return min(max(round(share * size), 1), size - 1)


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()

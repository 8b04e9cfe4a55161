"""Whether the usable files of DATA suffice for its labels, and what is odd about them."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from smnm_kernels.errors import UsageError, printable

from .classes import Classes, remarks_on
from .entries import Entry, Found
from .labels import Labels, Split, of_fold
from .modality import Record
from .splits import ORDER

_MOST_NAMED = 3
_ALIKE = 0.7  # of difflib's 0 to 1, from which on a name may be a misspelled one


@dataclass(frozen=True, kw_only=True)
class LabelledFound(Found):
    """Files that were found, all with labels."""

    labels: Labels
    shown: str  # DATA
    said: list[str]  # of the labels, as they are written
    #: Splits that somebody has made, and that must not be empty.
    made: set[Split] = field(default_factory=set)

    def judged(self, usable: Sequence[Record]) -> list[str]:
        if self.labels.kind == "class":
            self._need_files_of_classes(usable)
        elif self.labels.kind == "classes":
            self._need_something_to_tell_apart(usable)
        parts = Counter(map(self._part, usable))
        self._need_parts(parts)
        names = [f"fold {fold}" for fold in self.labels.folds] or list(ORDER)
        shown = ", ".join(f"{part} {parts[part]}" for part in names if parts[part])
        if self.labels.kind == "number":
            values = [record["label"] for record in usable]
            what = f"numbers from {min(values):.15g} to {max(values):.15g}"
        else:
            what = f"{len(self.labels.names)} classes"
        found = [f"labels: {what}; files: {shown}", *self.said, *self._alike(usable)]
        if self.labels.folds and parts[None]:
            found.append(f"{count(parts[None], 'file', 'files')} of the split test are in no fold")
        return found + (self._remarks_on_classes(usable) if self.labels.names else [])

    def _part(self, record: Record) -> str | None:
        """The split of a file; or its fold, where each is val in turn; None where it has none."""
        if not self.labels.folds:
            return str(record["split"])
        return None if record["split"] == "test" else f"fold {record['fold']}"

    def _need_parts(self, parts: Counter[str | None]) -> None:
        for fold in self.labels.folds:
            if not parts[f"fold {fold}"]:
                raise UsageError(f"DATA {self.shown}: fold {printable(fold)} has no usable file")
        for split in () if self.labels.folds else ORDER:
            if not parts[split] and (split == "train" or split in self.made):
                raise UsageError(f"DATA {self.shown}: the split {split} has no usable file")

    def _need_files_of_classes(self, usable: Sequence[Record]) -> None:
        names = self.labels.names
        listed = Counter(labelled.label for labelled in self.labels.of.values())
        there = {record["label"] for record in usable}
        unusable = [label for label in listed if label not in there]
        if unusable:
            first = unusable[0]
            assert isinstance(first, int)
            raise UsageError(
                f"DATA {self.shown}: {counted(unusable, 'class has', 'classes have')} no usable "
                f"file: {self._classes(unusable)}. What was wrong with the {listed[first]} of "
                f"{printable(names[first])!r} is said above; mend them, or leave the class out"
            )
        if len(there) < 2:
            (only,) = there
            raise UsageError(
                f"DATA {self.shown}: has one class altogether, {printable(names[only])!r}; "
                f"there is nothing to tell apart{self._folders_below(names[only])}"
            )
        if not self.labels.folds:
            self._need_training([(r["label"], r["split"]) for r in usable], "")
        for fold in self.labels.folds:
            splits = of_fold(usable, fold)
            labelled = [(r["label"], split) for r, split in zip(usable, splits, strict=True)]
            self._need_training(
                [(label, split) for label, split in labelled if split != "test"],
                f"fold {printable(fold)}: ",
            )

    def _folders_below(self, only: str) -> str:
        """That the classes may lie one folder deeper."""
        below: dict[str, None] = {}
        for entry in self.entries:
            top, *folders = entry.name.split("/")[:-1] or [""]
            if entry.shard or top != only or not folders:
                return ""
            below[folders[0]] = None
        if len(below) < 2:
            return ""
        return (
            f". Its folder holds the folders {some(below)}: if these are the classes, give "
            f"{printable(str(self.base / only))}"
        )

    def _need_training(self, labelled: Iterable[tuple[int, str]], where: str) -> None:
        by_class: dict[int, set[str]] = defaultdict(set)
        for label, split in labelled:
            by_class[label].add(split)
        untrained = [label for label, splits in by_class.items() if "train" not in splits]
        if untrained:
            trained = [self.labels.names[label] for label in by_class if label not in untrained]
            alike = difflib.get_close_matches(
                self.labels.names[untrained[0]], trained, n=1, cutoff=_ALIKE
            )
            hint = f" (did you mean {printable(alike[0])}?)" if alike else ""
            there = "/".join(split for split in ORDER if split in by_class[untrained[0]])
            raise UsageError(
                f"DATA {self.shown}: {where}{counted(untrained, 'class has', 'classes have')} "
                f"usable files in {there} and none in train: {self._classes(untrained)}{hint}"
            )

    def _need_something_to_tell_apart(self, usable: Sequence[Record]) -> None:
        total = Counter(label for record in usable for label in record["label"])
        if not total:
            raise UsageError(f"DATA {self.shown}: no file has a label")
        if all(number == len(usable) for number in total.values()):
            raise UsageError(
                f"DATA {self.shown}: there is no class that some files have and others have not; "
                "there is nothing to tell apart"
            )

    def _remarks_on_classes(self, usable: Sequence[Record]) -> list[str]:
        names = self.labels.names
        found = remarks_on(Classes(names, {}))
        by_part: dict[str | None, Counter[int]] = defaultdict(Counter)
        without = 0
        for record in usable:
            label = record["label"]
            labels = [label] if isinstance(label, int) else label
            by_part[self._part(record)].update(labels)
            without += not labels
        total = sum(by_part.values(), Counter[int]())
        if without:
            found.append(f"{without} files have no label: in them is none of the classes")
        numbers = range(len(names))
        for what, chosen in (
            ("no usable file", [i for i in numbers if not total[i]]),
            ("one usable file only", [i for i in numbers if total[i] == 1]),
        ):
            if chosen:
                found.append(
                    f"{counted(chosen, 'class has', 'classes have')} {what}: "
                    f"{self._classes(chosen)}"
                )
        by_name = {part: counts for part, counts in by_part.items() if part is not None}
        for part, counts in sorted(by_name.items()):
            missing = [i for i in numbers if total[i] and not counts[i]]
            if missing:
                found.append(
                    f"{counted(missing, 'class has', 'classes have')} no file in "
                    f"{printable(part)}: {self._classes(missing)}"
                )
        return found

    def _alike(self, usable: Sequence[Record]) -> Iterator[str]:
        """Files that are trained on and, under another name, are not."""
        are_folds = bool(self.labels.folds)
        first: dict[tuple[Any, int], dict[str, str]] = defaultdict(dict)
        for record in usable:
            part = self._part(record)
            if part is not None and "digest" in record and (are_folds or part == "train"):
                of_content = first[record["digest"], record["size"]]
                of_content.setdefault(part, Entry.of(record).shown)
        same: dict[str, list[str]] = defaultdict(list)
        for record in usable:
            own = self._part(record)
            if own is None or "digest" not in record or own == "train":
                continue
            of_content = first.get((record["digest"], record["size"]), {})
            other = next((name for part, name in of_content.items() if part != own), None)
            if other is not None:
                same["" if are_folds else own].append(f"{Entry.of(record).shown} and {other}")
        for part, pairs in same.items():
            where = "files in another fold" if are_folds else "files in train"
            yield (
                f"{counted(pairs, 'file', 'files')}{part and f' in {part}'} "
                f"{'is' if len(pairs) == 1 else 'are'} like {where} (size, beginning and end): "
                f"{some(pairs)}"
            )

    def _classes(self, numbers: Sequence[Any]) -> str:
        return some(self.labels.names[i] for i in numbers)


def counted(items: Sequence[object], one: str, many: str) -> str:
    return count(len(items), one, many)


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def some(names: Iterable[str]) -> str:
    """The first of them, for a message."""
    shown = [printable(name) for name in names]
    return ", ".join(shown[:_MOST_NAMED]) + ", …" * (len(shown) > _MOST_NAMED)

"""What files are labelled with, and into which split each of them falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .entries import Entry
from .modality import Record

#: One class a file; any number of classes a file; a number a file.
LabelKind = Literal["class", "classes", "number"]
Split = Literal["train", "val", "test"]
Label = int | list[int] | float  # number of the class, numbers of the classes, or the number itself


class Labelled(NamedTuple):
    label: Label
    split: Split
    group: str | None = None  # what it shares with files that are like it: an episode, a voice
    fold: str | None = None  # where folds are asked for


@dataclass(frozen=True)
class Labels:
    """Those of all files that were found.

    A scan writes each file's into its record, as "label", "split" and, where it has them, "group"
    and "fold".
    """

    kind: LabelKind
    names: tuple[str, ...] = ()  # of the classes, by their numbers; none of numbers
    of: dict[str, Labelled] = field(default_factory=dict, repr=False)  # by `Entry.shown`
    #: Where each fold is to be val in turn (`of_fold`); splits are then train, but for test.
    folds: tuple[str, ...] = ()

    def attached(self, record: Record) -> Record:
        """The record with its label, split, group and fold."""
        held = self.of[Entry.of(record).shown]
        found = {**record, "label": held.label, "split": held.split}
        for name, value in (("group", held.group), ("fold", held.fold)):
            if value is not None:
                found[name] = value
        return found

    def targets(self, records: Sequence[Record]) -> Tensor:
        """Of records that have labels: int64 [n] of one class each, float32 [n, classes] of zeros
        and ones of several, float64 [n] of numbers."""
        found = [record["label"] for record in records]
        if self.kind == "class":
            return torch.tensor(found, dtype=torch.int64)
        if self.kind == "number":
            return torch.tensor(found, dtype=torch.float64)
        targets = torch.zeros(len(found), len(self.names))
        for row, classes in zip(targets, found, strict=True):
            row[classes] = 1
        return targets


def of_fold(records: Sequence[Record], fold: str) -> list[Split]:
    """The splits of records where this fold is val and the others are train; test stays test."""
    return [
        "test" if record["split"] == "test" else "val" if record["fold"] == fold else "train"
        for record in records
    ]


def in_split(records: Sequence[Record], split: Split) -> list[int]:
    """The places of the records of a split."""
    return [i for i, record in enumerate(records) if record["split"] == split]

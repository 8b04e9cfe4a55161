"""A plan: which encoders are trained on which data, what is measured on each, and what is claimed.

plan_file.py reads one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from smnm_kernels.errors import UsageError
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain_setup import Setup, set_up

from .inputs import Visible, visible_of
from .reading import Wrong


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Where files are, and which of them are trained on."""

    path: str | None = None
    make: str = ""  # a command that makes the set, for the reader
    list: str = ""  # the list below the path that names the files; "": the path itself
    labels: dict[str, Any] = field(default_factory=dict)  # options of labelled data
    held_out: Literal["val", "test"] = "test"  # the split that losses are measured on
    #: Of files without labels: the share that is held out, by the hashes of names.
    held_out_share: float | None = None
    pretrain: dict[str, Any] = field(default_factory=dict)  # how its files are read
    train: bool = True  # false: encoders are only measured on it


@dataclass(frozen=True, kw_only=True)
class Run:
    """One way to get an encoder, for each seed and data set."""

    name: str
    untrained: bool
    on: tuple[str, ...]  # data sets
    seeds: tuple[int, ...]
    options: dict[str, Any]  # of smnm pretrain, those of the plan among them

    def pretrain(self, modality: str, data: Path, out: Path, **ours: Any) -> Pretrain:
        """The options of smnm pretrain; `ours` take the place of the run's."""
        return Pretrain(modality=modality, data=data, out=out, **(self.options | ours))


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured on every encoder."""

    name: str
    command: str  # of plan_file.COMMANDS
    on: tuple[str, ...]  # encoders of these data sets
    runs: tuple[str, ...]  # and of these runs
    at: tuple[int, ...]  # steps whose encoders are measured, too
    of: str  # the data set that is measured on; "": the encoder's own
    list: str  # below its path
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows and columns of a report."""

    title: str
    rows: tuple[str, ...]  # runs
    columns: tuple[str, ...]  # values, "MEASURE" or "MEASURE.PART"
    reference: str = ""  # a run: differences from it are shown, too
    source: str = ""  # of the published figures, in paper.toml
    paper: dict[str, str] = field(default_factory=dict)  # by column, which of them
    unequal_n_keep: bool = False
    each_seed: bool = False  # a row of each seed, below that of all
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """A claim about the order of runs in one value."""

    claim: str
    value: str
    ascending: tuple[str, ...] = ()  # runs, the lowest first
    highest: str = ""  # a run, above each `of`
    lowest: str = ""
    of: tuple[str, ...] = ()
    source: str = ""
    unequal_n_keep: bool = False

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(lower, higher): what is claimed."""
        if self.ascending:
            return list(pairwise(self.ascending))
        if self.highest:
            return [(other, self.highest) for other in self.of]
        return [(self.lowest, other) for other in self.of]

    @property
    def runs(self) -> tuple[str, ...]:
        return self.ascending or (self.highest or self.lowest, *self.of)


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    name: str
    file: str  # its name
    about: str
    modality: str
    #: What a cell takes where none is finished yet, as far as the plan says.
    hours_a_cell: float | None
    data: dict[str, DataSet]
    runs: dict[str, Run]
    measures: dict[str, Measure]
    tables: tuple[Table, ...]
    orderings: tuple[Ordering, ...]
    text: bytes  # of the file

    @cached_property
    def setups(self) -> dict[str, Setup]:
        """What each run's options mean; Wrong where they are not those of a run."""
        found, wrong = dict[str, Setup](), dict[str, str]()
        for name, run in self.runs.items():
            try:
                found[name] = self.set_up(run)
            except UsageError as error:
                wrong[name] = str(error)
        # What is wrong with all in the same way stands in none of them.
        if len(wrong) == len(self.runs) > 1 and len({*wrong.values()}) == 1:
            raise Wrong(f"{self.file}.runs", f"all of them: {wrong.popitem()[1]}")
        for name, why in wrong.items():
            raise Wrong(f"{self.file}.runs.{name}", why)
        return found

    def set_up(self, run: Run, **more: Any) -> Setup:
        """What the run's options mean, and `more` in place of them; UsageError where nothing."""
        ours = {"device": "cpu"} | more
        return set_up(run.pretrain(self.modality, Path("DATA"), Path("OUT"), **ours))

    def visible(self, run: str) -> dict[str, Visible]:
        """Patches of each masked input that the run's masks show."""
        return visible_of(self.setups[run])

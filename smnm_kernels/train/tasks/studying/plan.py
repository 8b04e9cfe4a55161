"""A plan: which encoders are trained on which data, what is measured on each, and what is claimed.

docs/studies.md describes the file. Here everything about it is checked that can be checked without
data: keys, types, names, options of the commands, and that kinds are compared at equal n_keep.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_type_hints

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.tasks.finetune_options import Finetune
from smnm_kernels.train.tasks.label_options import LabelOptions
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain_setup import Setup, set_up
from smnm_kernels.train.tasks.probe_options import Probe
from smnm_kernels.train.tasks.retrieve import Retrieve
from smnm_kernels.train.tasks.segment import Segment

from .heldout_loss import HeldOutLoss, common_masks
from .inputs import Visible, in_words, visible_of
from .reading import Wrong, from_table, refuse_unknown, typed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLANS = Path(__file__).parent / "plans"
MODALITIES = tuple(PRESETS)
#: What measures on an encoder, by the name that plans call it.
COMMANDS = {
    "loss": HeldOutLoss,
    "probe": Probe,
    "finetune": Finetune,
    "segment": Segment,
    "retrieve": Retrieve,
}
#: Those that clips with sound do not have, and those that nothing else has.
_NOT_JOINT, _JOINT = ("probe", "segment"), ("retrieve",)
#: Options of the commands that the study sets, or that change no number.
_OURS = {
    *("modality", "data", "out", "seed", "encoder", "against", "cache", "device", "workers"),
    *("threads", "stall_limit", "scan_of", "keep_every", "checkpoint_every", "init"),
}
#: Of smnm pretrain alone: paths in the lists that the study writes need none.
_OURS_OF_PRETRAIN = {"files_from"}
#: Options of smnm pretrain that may differ between data sets: how their files are read.
_OF_DATA = ("stride", "flip", "pixel_aspect", "padding")
_NAME = re.compile(r"[\w+-]+")


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
    pretrain: dict[str, Any] = field(default_factory=dict)  # options of its own, see _OF_DATA
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
    command: str  # of COMMANDS
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
        found = {}
        for name, run in self.runs.items():
            place = f"{self.file}.runs.{name}"
            try:
                options = run.pretrain(self.modality, Path("DATA"), Path("OUT"), device="cpu")
                found[name] = set_up(options)
            except UsageError as error:
                raise Wrong(place, str(error)) from error
        return found

    def visible(self, run: str) -> dict[str, Visible]:
        """Patches of each masked input that the run's masks show."""
        return visible_of(self.setups[run])


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys of a plan."""

    title: str = ""
    about: str = ""
    modality: str
    hours_a_cell: float | None = None
    n_keep: int | None = None  # for all runs that say nothing else
    seeds: Any = 1
    pretrain: dict[str, Any] = field(default_factory=dict)
    data: dict[str, DataSet]
    runs: dict[str, dict[str, Any]]
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    orderings: tuple[Ordering, ...] = ()


def find_plan(given: str) -> Path:
    """A file, or one of the plans of the package."""
    path = Path(given)
    if path.is_file():
        return path
    own = PLANS / f"{given}.toml"
    if own.is_file():
        return own
    names = ", ".join(sorted(p.stem for p in PLANS.glob("*.toml")))
    raise UsageError(f"PLAN {printable(given)}: is no file, and no plan of ours: {names}")


def load_plan(path: Path) -> StudyPlan:
    """Raises UsageError, which names the place in the file, where anything in it is wrong."""
    try:
        text = path.read_bytes()
        content = tomllib.loads(text.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"PLAN {printable(str(path))}: cannot be read ({error})") from error
    place = path.name
    given = from_table(_File, content, place)
    if given.modality not in MODALITIES:
        raise Wrong(f"{place}.modality", f"must be one of {', '.join(MODALITIES)}")
    for kind, names in (("data", given.data), ("runs", given.runs), ("measures", given.measures)):
        if not names and kind != "measures":
            raise Wrong(f"{place}.{kind}", "there is none")
        for name in names:
            if not _NAME.fullmatch(name):
                raise Wrong(f"{place}.{kind}.{name}", "a name has letters, digits and _+- only")
    for name, data in given.data.items():
        options_of(LabelOptions, data.labels, f"{place}.data.{name}.labels")
        own = f"{place}.data.{name}.pretrain"
        refuse_unknown(data.pretrain, _OF_DATA, own)
        options_of(Pretrain, data.pretrain, own)
        share = data.held_out_share
        if share is not None and not 0 < share < 1:
            raise Wrong(f"{place}.data.{name}.held_out_share", f"must be in (0, 1), got {share}")
    plan = StudyPlan(
        name=given.title or path.stem,
        file=place,
        about=given.about.strip(),
        modality=given.modality,
        hours_a_cell=given.hours_a_cell,
        data=given.data,
        runs={name: _run(given, name, place) for name in given.runs},
        measures={name: _measure(given, name, place) for name in given.measures},
        tables=given.tables,
        orderings=given.orderings,
        text=text,
    )
    _check_steps(plan, place)
    _check_measures(plan, place)
    _check_comparisons(plan, place)
    return plan


def _run(given: _File, name: str, place: str) -> Run:
    place, table = f"{place}.runs.{name}", dict(given.runs[name])
    untrained = typed(table.pop("untrained", False), bool, f"{place}.untrained")
    on = _some(table.pop("on", None), given.data, f"{place}.on")
    seeds = _seeds(table.pop("seeds", given.seeds), f"{place}.seeds")
    counts = {} if given.n_keep is None else {"n_keep": given.n_keep}
    if "mask_ratio" in table:
        counts = {}
    options = options_of(Pretrain, given.pretrain | counts | table, place)
    return Run(name=name, untrained=untrained, on=on, seeds=seeds, options=options)


def _measure(given: _File, name: str, place: str) -> Measure:
    place, table = f"{place}.measures.{name}", dict(given.measures[name])
    if "with" not in table:
        raise Wrong(place, f"needs with, one of {', '.join(COMMANDS)}")
    command = typed(table.pop("with"), Literal[tuple(COMMANDS)], f"{place}.with")
    joint = given.modality == AudioVideo.name
    if command in (_NOT_JOINT if joint else _JOINT):
        raise Wrong(f"{place}.with", f"{command} is not for {given.modality}")
    at = typed(table.pop("at", []), tuple[int, ...], f"{place}.at")
    if at and command == "loss":
        raise Wrong(f"{place}.at", "encoders of earlier steps are kept without their decoders")
    of = typed(table.pop("of", ""), str, f"{place}.of")
    if of and of not in given.data:
        raise Wrong(f"{place}.of", f"there is no {of!r}; there are {', '.join(given.data)}")
    if min(at, default=1) < 1:
        raise Wrong(f"{place}.at", f"steps count from 1, got {min(at)}")
    return Measure(
        name=name,
        command=command,
        on=_some(table.pop("on", None), given.data, f"{place}.on"),
        runs=_runs(table.pop("runs", None), given, f"{place}.runs"),
        at=at,
        of=of,
        list=typed(table.pop("list", ""), str, f"{place}.list"),
        options=options_of(COMMANDS[command], table, place),
    )


def options_of(command: type, table: dict[str, Any], place: str) -> dict[str, Any]:
    """Options of a command, by the names of its fields."""
    hints = get_type_hints(command)
    ours = _OURS | (_OURS_OF_PRETRAIN if command is Pretrain else set())
    allowed = [f.name for f in fields(command) if f.name not in ours]
    refuse_unknown(table, allowed, place)
    return {key: typed(value, hints[key], f"{place}.{key}") for key, value in table.items()}


def _some(given: Any, names: dict[str, DataSet], place: str) -> tuple[str, ...]:
    """Of data sets; None: all that are trained on."""
    if given is None:
        return tuple(name for name, data in names.items() if data.train)
    found = typed(given, tuple[str, ...], place)
    for name in found:
        if name not in names:
            raise Wrong(place, f"there is no {name!r}; there are {', '.join(names)}")
    return found


def _runs(wanted: Any, given: _File, place: str) -> tuple[str, ...]:
    """None: all."""
    found = typed([*given.runs] if wanted is None else wanted, tuple[str, ...], place)
    for name in found:
        if name not in given.runs:
            raise Wrong(place, f"there is no run {name!r}; there are {', '.join(given.runs)}")
    return found


def _seeds(given: Any, place: str) -> tuple[int, ...]:
    """A number of seeds, from 0 on; or the seeds."""
    found = tuple(range(given)) if isinstance(given, int) else typed(given, tuple[int, ...], place)
    if isinstance(given, bool) or not found or len(set(found)) < len(found) or min(found) < 0:
        raise Wrong(
            place, f"must be a number of seeds, or a list of them, each once; got {given!r}"
        )
    return found


def _check_measures(plan: StudyPlan, place: str) -> None:
    for measure in plan.measures.values():
        at = f"{place}.measures.{measure.name}"
        if measure.command != "loss":
            continue
        settings = HeldOutLoss(**measure.options)
        for name in ("clips", "masks", "compared"):
            if getattr(settings, name) < 1:
                raise Wrong(f"{at}.{name}", "must be at least 1")
        for setup in plan.setups.values():
            try:
                common_masks(setup, settings)
            except UsageError as error:
                raise Wrong(at, str(error)) from error


def _check_steps(plan: StudyPlan, place: str) -> None:
    """That encoders of the steps that are measured are kept."""
    for name, setup in plan.setups.items():
        steps = setup.preset.optimisation.steps
        for measure in plan.measures.values():
            late = [step for step in measure.at if steps is None or step > steps]
            if late and name in measure.runs and not plan.runs[name].untrained:
                why = f"run {name} has {steps or 'no number of'} steps"
                raise Wrong(f"{place}.measures.{measure.name}.at", f"step {late[0]}: {why}")


def _check_comparisons(plan: StudyPlan, place: str) -> None:
    for number, table in enumerate(plan.tables):
        at = f"{place}.tables[{number}]"
        _check_names(plan, (*table.rows, *filter(None, [table.reference])), table.columns, at)
        _check_equal(plan, table.rows, table.unequal_n_keep, at)
        for column in table.paper:
            if column not in table.columns:
                raise Wrong(f"{at}.paper.{column}", "is no column of the table")
    for number, ordering in enumerate(plan.orderings):
        at = f"{place}.orderings[{number}]"
        forms = [bool(ordering.ascending), bool(ordering.highest), bool(ordering.lowest)]
        if sum(forms) != 1 or bool(ordering.of) == forms[0] or not ordering.pairs:
            raise Wrong(
                at, "needs ascending, a list; or highest or lowest, a run, with `of`, a list"
            )
        _check_names(plan, ordering.runs, (ordering.value,), at)
        _check_equal(plan, ordering.runs, ordering.unequal_n_keep, at)


def _check_names(
    plan: StudyPlan, runs: tuple[str, ...], values: tuple[str, ...], place: str
) -> None:
    for run in runs:
        if run not in plan.runs:
            raise Wrong(place, f"there is no run {run!r}; there are {', '.join(plan.runs)}")
    for value in values:
        measure = value.split(".")[0].split("@")[0]
        if measure not in ("train", *plan.measures):
            known = ", ".join(["train", *plan.measures])
            raise Wrong(place, f"value {value!r} is of no measure; there are {known}")


def _check_equal(plan: StudyPlan, runs: tuple[str, ...], unequal: bool, place: str) -> None:
    """Fewer visible patches raise the loss: kinds are compared at equal numbers."""
    found = {run: plan.visible(run) for run in runs if not plan.runs[run].untrained}
    if unequal or all(one == other for one, other in pairwise(found.values())):
        return
    words = ", ".join(f"{run} {in_words(visible)}" for run, visible in found.items())
    raise Wrong(
        place,
        f"runs show unequal numbers of patches ({words}); give all the same n_keep, or "
        "unequal_n_keep = true where that is what is compared",
    )

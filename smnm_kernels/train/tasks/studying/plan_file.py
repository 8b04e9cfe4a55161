"""Reading a plan's file; docs/studies.md describes it.

What can be checked without data is checked here and in plan_checks.py: keys, types, names, options
of the commands, and that kinds are compared at equal n_keep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.tasks.finetune_options import Finetune
from smnm_kernels.train.tasks.label_options import LabelOptions
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.probe_options import Probe
from smnm_kernels.train.tasks.retrieve import Retrieve
from smnm_kernels.train.tasks.segment import Segment

from .folders import LINK, RUN
from .heldout_loss import HeldOutLoss
from .plan import DataSet, Measure, Ordering, Run, StudyPlan, Table
from .plan_checks import check
from .reading import Wrong, from_table, parsed, refuse_twice, refuse_unknown, typed

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
_OF_DATA = ("stride", "flip", "pixel_aspect", "padding", "mean", "std")
_LAST_SEED = 2**32 - 1  # of scikit-learn's clusters
_NAME = re.compile(r"[\w+-]+")
#: What a cell's folder holds beside its measures, and the first of its parts.
_NO_MEASURES = {"train", "features", RUN, LINK}


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
    except OSError as error:
        raise UsageError(f"PLAN {printable(str(path))}: cannot be read ({error})") from error
    return plan_of(text, path)


def plan_of(text: bytes, path: Path) -> StudyPlan:
    """A plan from its text; `path` is where that was, for its name and for errors."""
    try:
        content = parsed(text)
    except ValueError as error:
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
            if kind == "measures" and name in _NO_MEASURES:
                taken = ", ".join(sorted(_NO_MEASURES))
                raise Wrong(f"{place}.{kind}.{name}", f"must be none of {taken}, which cells have")
    if given.hours_a_cell is not None and not given.hours_a_cell > 0:
        raise Wrong(f"{place}.hours_a_cell", f"must be above 0, got {given.hours_a_cell:g}")
    options_of(Pretrain, given.pretrain, f"{place}.pretrain")
    _seeds(given.seeds, f"{place}.seeds")
    for name, data in given.data.items():
        options_of(LabelOptions, data.labels, f"{place}.data.{name}.labels")
        own = f"{place}.data.{name}.pretrain"
        refuse_unknown(data.pretrain, _OF_DATA, own)
        options_of(Pretrain, data.pretrain, own)
        share = data.held_out_share
        if share is not None and not 0 < share < 1:
            raise Wrong(f"{place}.data.{name}.held_out_share", f"must be in (0, 1), got {share}")
        if share is not None and "held_out" in content["data"][name]:
            raise Wrong(f"{place}.data.{name}.held_out_share", "goes without held_out")
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
    check(plan)
    return plan


def _run(given: _File, name: str, place: str) -> Run:
    place, table = f"{place}.runs.{name}", dict(given.runs[name])
    if "seed" in table:
        raise Wrong(f"{place}.seed", f"a run has several: write seeds = [{table['seed']}]")
    untrained = typed(table.pop("untrained", False), bool, f"{place}.untrained")
    on = _some(table.pop("on", None), given.data, f"{place}.on")
    seeds = _seeds(table.pop("seeds", given.seeds), f"{place}.seeds")
    counts = {} if given.n_keep is None else {"n_keep": given.n_keep}
    if "mask_ratio" in table:
        counts = {}
    for data in on:
        both = sorted(table.keys() & given.data[data].pretrain.keys())
        if both:
            raise Wrong(
                f"{place}.{both[0]}", f"is of the files of {data}, whose pretrain has it, too"
            )
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
    refuse_twice(at, f"{place}.at")
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
    if not found:
        raise Wrong(place, "names no data set; without it, it is all that are trained on")
    for name in found:
        if name not in names:
            raise Wrong(place, f"there is no {name!r}; there are {', '.join(names)}")
        if not names[name].train:
            raise Wrong(place, f"{name} has train = false: no encoder is trained on it")
    refuse_twice(found, place)
    return found


def _runs(wanted: Any, given: _File, place: str) -> tuple[str, ...]:
    """None: all."""
    found = typed([*given.runs] if wanted is None else wanted, tuple[str, ...], place)
    for name in found:
        if name not in given.runs:
            raise Wrong(place, f"there is no run {name!r}; there are {', '.join(given.runs)}")
    refuse_twice(found, place)
    return found


def _seeds(given: Any, place: str) -> tuple[int, ...]:
    """A number of seeds, from 0 on; or the seeds."""
    wrong = Wrong(place, f"must be a number of seeds, or a list of them, each once; got {given!r}")
    if isinstance(given, bool) or not isinstance(given, (int, list)):
        raise wrong
    found = tuple(range(given)) if isinstance(given, int) else typed(given, tuple[int, ...], place)
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise wrong
    if max(found) > _LAST_SEED:
        raise Wrong(place, f"must be at most {_LAST_SEED}, got {max(found)}")
    return found

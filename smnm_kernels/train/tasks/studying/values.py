"""Names of values: what makes them, and which cells have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from smnm_kernels.train.data.labels import LabelKind
from smnm_kernels.train.metrics.measures import MAIN
from smnm_kernels.train.metrics.retrieval import RECALLS
from smnm_kernels.train.tasks.label_options import LabelOptions
from smnm_kernels.train.tasks.probe_options import Probe
from smnm_kernels.train.tasks.retrieve import DIRECTIONS

from .plan import Measure, StudyPlan
from .reading import Wrong

_LOSSES, _WAYS = ("own", "common"), ("clustering", "overclustering")
#: Measures beside the main one, by the kind of labels.
_BESIDE: dict[LabelKind, tuple[str, ...]] = {
    "class": ("top5", "mean_class"), "classes": (), "number": ("r2",),
}  # fmt: skip
_POSSIBLE = {"top5": (0.0, 1.0), "mean_class": (0.0, 1.0), "r2": (-math.inf, 1.0)}
#: Of probes those that are also fitted to a few files of each class.
_FEW = ("linear", "knn")


def check_value(plan: StudyPlan, value: str, place: str) -> None:
    """Raises Wrong where no measure makes it."""
    name, at, step = value.partition("@")
    measure = name.split(".")[0]
    if measure == "train":
        if name != "train.loss" or at:
            raise Wrong(place, f"value {value!r}: of training there is train.loss alone")
        return
    if measure not in plan.measures:
        known = ", ".join(["train", *plan.measures])
        raise Wrong(place, f"value {value!r} is of no measure; there are {known}")
    found = plan.measures[measure]
    if at and step not in map(str, found.at):
        steps = f"those of {', '.join(map(str, found.at))}" if found.at else "the last one's"
        raise Wrong(place, f"value {value!r}: of measure {measure} encoders are {steps}")
    made = [*dict.fromkeys(one for data in found.on for one in _made(plan, found, data))]
    if name not in made:
        raise Wrong(place, f"value {value!r}: measure {measure} makes {', '.join(made)}")


def end_of(part: str) -> str:
    """Of the name of what an objective reports: nothing for the loss, ".video" for "loss_video"."""
    return "" if part == "loss" else f".{part.removeprefix('loss_')}"


def has_value(plan: StudyPlan, value: str, run: str, data: str) -> bool:
    """Whether cells of this run and data set have it, once they are finished."""
    name, at, _ = value.partition("@")
    of, measure = plan.runs[run], name.split(".")[0]
    if data not in of.on:
        return False
    if measure == "train":
        return not of.untrained
    found = plan.measures[measure]
    if data not in found.on or run not in found.runs or (at and of.untrained):
        return False
    return name in _made(plan, found, data)


def data_with(plan: StudyPlan, value: str, runs: Sequence[str]) -> list[str]:
    """Data sets on which all these runs have it."""
    return [data for data in plan.data if all(has_value(plan, value, run, data) for run in runs)]


def possible_of(plan: StudyPlan, value: str, data: str) -> tuple[float, float]:
    """The lowest and the highest that a value on this data set can be."""
    name = value.partition("@")[0]
    found, last = plan.measures.get(name.split(".")[0]), name.split(".")[-1]
    if found is None or found.command == "loss" or last == "median_rank":
        return -math.inf, math.inf
    if found.command in ("segment", "retrieve"):
        return 0.0, 1.0
    if last in _POSSIBLE:
        return _POSSIBLE[last]
    return MAIN[_kind(plan, found, data)].possible


def _made(plan: StudyPlan, measure: Measure, data: str) -> list[str]:
    """Names of all values of encoders of this data set, without steps."""
    name, options = measure.name, measure.options
    if measure.command == "loss":
        objectives = [plan.setups[run].preset.objective for run in measure.runs]
        reported = dict.fromkeys(part for one in objectives for part in ("loss", *one.reported))
        return [f"{name}.{masks}{end_of(part)}" for masks in _LOSSES for part in reported]
    if measure.command == "segment":
        return [f"{name}.{way}" for way in _WAYS]
    if measure.command == "retrieve":
        parts = [*(f"recall-{k}" for k in RECALLS), "median_rank"]
        return [f"{name}.{direction}.{part}" for direction in DIRECTIONS for part in parts]
    kind = _kind(plan, measure, data)
    if measure.command == "finetune":
        return [name, *(f"{name}.{part}" for part in _BESIDE[kind])]
    shots = options.get("few_shot", Probe.few_shot) if kind == "class" else ()
    layers, made = options.get("layer", Probe.layer), []
    for probe in options.get("probes", Probe.probes):
        few = [f"{n}-shot" for n in shots if probe in _FEW]
        for layer in layers if len(layers) > 1 else [None]:
            of = f"{name}.{probe}" if layer is None else f"{name}.{probe}.layer-{layer}"
            made += [of, *(f"{of}.{part}" for part in [*_BESIDE[kind], *few])]
    return made


def _kind(plan: StudyPlan, measure: Measure, data: str) -> LabelKind:
    """Of the labels that are measured."""
    own = {} if measure.list else plan.data[measure.of or data].labels
    found: LabelKind = (own | measure.options).get("labels", LabelOptions.labels)
    return found

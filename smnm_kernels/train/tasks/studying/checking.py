"""Whether a study's data suffices, before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import reason
from smnm_kernels.train.data.entries import base_of
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.left_out import no_file
from smnm_kernels.train.tasks.label_options import LabelOptions, finder_of
from smnm_kernels.train.tasks.segmenting.davis import find_videos

from .cells import Cell, measures_of
from .plan import Measure, StudyPlan
from .splitting import labelled, split


def check_files(plan: StudyPlan, cells: Sequence[Cell]) -> None:
    """Raises UsageError, which names the data set or the measure, where files of a set cannot be
    split, where a measure finds none of its files, and where one is tested on files that are
    trained on."""
    trained_on: dict[tuple[str, frozenset[str]], set[str]] = {}
    seen = set()
    for cell in cells:
        suffixes = plan.setups[cell.run.name].preset.clip.suffixes
        of_data = cell.data, suffixes
        if of_data not in trained_on:
            with _named(f"data {cell.data}"):
                found = split(plan.data[cell.data], cell.paths[cell.data], suffixes)
            trained_on[of_data] = {os.path.realpath(found.base / name) for name in found.train}
        for measure in measures_of(plan, cell.run.name, cell.data):
            if (of_data, measure.name) not in seen:
                seen.add((of_data, measure.name))
                with _named(f"measure {measure.name}"):
                    _check_measure(plan, cell, measure, suffixes, trained_on[of_data])


def _check_measure(
    plan: StudyPlan, cell: Cell, measure: Measure, suffixes: frozenset[str], trained_on: set[str]
) -> None:
    if measure.command == "segment":
        name = measure.of or cell.data
        find_videos(cell.paths[name] / measure.list, measure.options.get("set"))
    elif measure.command == "retrieve":
        _check_retrieved(plan, cell, measure, suffixes, trained_on)
    elif measure.command != "loss":
        _check_tested(plan, cell, measure, suffixes, trained_on)


def _check_tested(
    plan: StudyPlan, cell: Cell, measure: Measure, suffixes: frozenset[str], trained_on: set[str]
) -> None:
    """Files of the split test are tested on; of val, where there is no test; with folds, all."""
    data, options = labelled(plan, cell, measure)
    of_labels = {f.name: options[f.name] for f in fields(LabelOptions) if f.name in options}
    found = finder_of(LabelOptions(**of_labels), data, all_folds=True).find(
        suffixes, None, lambda: None
    )
    if not found.entries:
        raise UsageError(no_file(data, suffixes, found.left_out))
    splits = {name: labelled.split for name, labelled in found.labels.of.items()}
    tested = {"test"} if "test" in splits.values() else {"val"}
    if found.labels.folds:
        tested = {"train", "test"}
    of_test = [entry.name for entry in found.entries if splits[entry.shown] in tested]
    _refuse_trained_on(base_of(data), of_test, trained_on)


def _check_retrieved(
    plan: StudyPlan, cell: Cell, measure: Measure, suffixes: frozenset[str], trained_on: set[str]
) -> None:
    """Of another list or set than the files that are held out."""
    if measure.of or measure.list:
        of = measure.of or cell.data
        found = find(cell.paths[of] / (measure.list or plan.data[of].list), suffixes)
        _refuse_trained_on(found.base, [entry.name for entry in found.entries], trained_on)


def _refuse_trained_on(base: Path, names: Sequence[str], trained_on: set[str]) -> None:
    both = [name for name in names if os.path.realpath(base / name) in trained_on]
    if both:
        raise UsageError(
            f"of the files that it is tested on, {len(both)} are trained on ({printable(both[0])}, "
            "...); the splits of its list and of the data set must be the same"
        )


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from error
    except OSError as error:
        shown = printable(str(error.filename))
        raise UsageError(f"{what}: {shown}: cannot be read ({reason(error)})") from error

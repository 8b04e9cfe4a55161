"""What is wrong with a plan as a whole: steps, values and runs that do not go together."""

from __future__ import annotations

from itertools import pairwise

from smnm_kernels.errors import UsageError

from .inputs import in_words
from .measure_checks import check_measures
from .paper import published_tables
from .plan import Ordering, StudyPlan, Table
from .reading import Wrong, refuse_twice
from .values import check_value, data_with, has_value


def check(plan: StudyPlan) -> None:
    """Raises Wrong, with the place in the plan's file."""
    _check_steps(plan, plan.file)
    _check_data(plan, plan.file)
    check_measures(plan)
    _check_comparisons(plan, plan.file)


def _check_data(plan: StudyPlan, place: str) -> None:
    """That runs go with what a data set says of its files."""
    for run in plan.runs.values():
        for name in run.on:
            try:
                plan.set_up(run, **plan.data[name].pretrain)
            except UsageError as error:
                at = f"{place}.data.{name}.pretrain"
                raise Wrong(at, f"{error}, in run {run.name}") from error


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
        runs = tuple(dict.fromkeys((*table.rows, *filter(None, [table.reference]))))
        _check_names(plan, runs, table.columns, at)
        _check_equal(plan, runs, table.unequal_n_keep, at)
        for column in table.columns:
            if not any(data_with(plan, column, [run]) for run in table.rows):
                raise Wrong(at, f"value {column!r}: no row has it, on no data set")
        refuse_twice(table.rows, f"{at}.rows")
        refuse_twice(table.columns, f"{at}.columns")
        _check_paper(table, at)
    for number, ordering in enumerate(plan.orderings):
        at = f"{place}.orderings[{number}]"
        forms = [bool(ordering.ascending), bool(ordering.highest), bool(ordering.lowest)]
        if sum(forms) != 1 or bool(ordering.of) == forms[0] or not ordering.pairs:
            raise Wrong(
                at, "needs ascending, a list; or highest or lowest, a run, with `of`, a list"
            )
        refuse_twice(ordering.runs, at)
        _check_names(plan, ordering.runs, (ordering.value,), at)
        _check_equal(plan, ordering.runs, ordering.unequal_n_keep, at)
        _check_decidable(plan, ordering, at)


def _check_paper(table: Table, place: str) -> None:
    """That the paper has what is to stand beside the columns."""
    of_paper = published_tables()
    if table.paper and table.source not in of_paper:
        there = ", ".join(of_paper)
        raise Wrong(f"{place}.source", f"must be one of {there}, got {table.source!r}")
    for column, name in table.paper.items():
        if column not in table.columns:
            raise Wrong(f"{place}.paper.{column}", "is no column of the table")
        if name not in of_paper[table.source]:
            there = ", ".join(of_paper[table.source])
            raise Wrong(f"{place}.paper.{column}", f"must be one of {there}, got {name!r}")


def _check_decidable(plan: StudyPlan, ordering: Ordering, place: str) -> None:
    """That there will be rows of all its pairs."""
    if not data_with(plan, ordering.value, ordering.runs):
        on = {
            run: [data for data in plan.data if has_value(plan, ordering.value, run, data)]
            for run in ordering.runs
        }
        words = "; ".join(f"{run} on {', '.join(of) or 'none'}" for run, of in on.items())
        raise Wrong(place, f"value {ordering.value!r}: on no data set all runs have it ({words})")
    for lower, higher in ordering.pairs:
        if not set(plan.runs[lower].seeds) & set(plan.runs[higher].seeds):
            raise Wrong(place, f"runs {lower} and {higher} have no seed in common")
        one, other = plan.runs[lower], plan.runs[higher]
        if (one.untrained, one.options) == (other.untrained, other.options):
            raise Wrong(place, f"runs {lower} and {higher} are the same")


def _check_names(
    plan: StudyPlan, runs: tuple[str, ...], values: tuple[str, ...], place: str
) -> None:
    for run in runs:
        if run not in plan.runs:
            raise Wrong(place, f"there is no run {run!r}; there are {', '.join(plan.runs)}")
    for value in values:
        check_value(plan, value, place)


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

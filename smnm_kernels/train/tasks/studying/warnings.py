"""Why the cells of a report may not be comparable: other data, other devices, other code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from smnm_kernels.errors import printable

from .plan import StudyPlan
from .rows import Result
from .values import has_value


def warnings_of(plan: StudyPlan, results: Sequence[Result]) -> list[str]:
    """Sentences; none where all is alike."""
    return [
        *_of_data(results),
        *_of_failures(results),
        *_of_lacking(plan, results),
        *_of_making(plan, results),
    ]


def trained_on(results: Sequence[Result]) -> dict[str, set[str]]:
    """Fingerprints of the files that were trained on, by the data set's name: one each, where cells
    can be compared."""
    found: dict[str, set[str]] = {}
    for one in results:
        if (print_of := one["about"].get("data_fingerprint")) is not None:
            found.setdefault(one["data"], set()).add(print_of)
    return found


def _of_data(results: Sequence[Result]) -> list[str]:
    found = {f"Cells on {data} read": prints for data, prints in trained_on(results).items()}
    for one in results:
        prints = {}
        for name, of in one["settings"]["data"].items():
            prints[f"Cells were made with data {name} of"] = of["fingerprint"]
        for measure, of in one.get("data_fingerprints", {}).items():
            # Of one seed: a seed may decide which files a command takes for validation.
            place = f"Measure {measure} of cells on {one['data']}, seed {one['seed']}, read"
            prints[place] = of
        for words, of in prints.items():
            if of is not None:
                found.setdefault(words, set()).add(of)
    return [
        f"{words} different files ({', '.join(sorted(of))})"
        for words, of in found.items()
        if len(of) > 1
    ]


def _of_failures(results: Sequence[Result]) -> list[str]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for one in results:
        for measure, files in one.get("failed", {}).items():
            found.setdefault((measure, one["data"]), {}).update(files)
    words = []
    for (measure, data), files in found.items():
        name, why = next(iter(files.items()))
        more = f", and {len(files) - 1} more" if len(files) > 1 else ""
        of = f"Measure {measure} of cells on {data}"
        words.append(f"{of} left out {printable(name)}, which {why}{more}")
    return words


def _of_lacking(plan: StudyPlan, results: Sequence[Result]) -> list[str]:
    """Values that are asked for, and no finished cell of a data set has: few files, for example."""
    asked = [value for table in plan.tables for value in table.columns]
    asked += [ordering.value for ordering in plan.orderings]
    words = []
    for data in plan.data:
        for value in dict.fromkeys(asked):
            of = [
                one["values"].get(value)
                for one in results
                if one["data"] == data and has_value(plan, value, one["run"], data)
            ]
            if of and all(number is None for number in of):
                words.append(
                    f"{value} on {data}: none of the {len(of)} finished cells has it, and their "
                    "log.txt says why"
                )
    return words


def _of_making(plan: StudyPlan, results: Sequence[Result]) -> list[str]:
    """Of pairs that are compared: cells of the same seed that were made otherwise."""
    ways: dict[str, Callable[[Result], str]] = {
        "ran on different devices or in different precision": _devices,
        "ran on different processors or with different versions of torch": _machines,
        "were made by different code of the package": _sources,
    }
    found = []
    for words, way in ways.items():
        made: dict[tuple[str, str], dict[int, str]] = {}
        for one in results:
            made.setdefault((one["data"], one["run"]), {})[one["seed"]] = way(one)
        for data in plan.data:
            for run, other in _compared(plan):
                ours, theirs = made.get((data, run), {}), made.get((data, other), {})
                seeds = [s for s in sorted(ours) if s in theirs and ours[s] != theirs[s]]
                if seeds:
                    kinds = sorted({of[seed] for of in (ours, theirs) for seed in seeds})
                    found.append(
                        f"{run} and {other} on {data}, seeds {', '.join(map(str, seeds))}, {words} "
                        f"({'; '.join(kinds)}): their differences may not be of the runs alone"
                    )
    return found


def environments_of(result: Result) -> list[dict[str, Any]]:
    """All that a cell was made in, that of its training first, each once."""
    found = [result["environment"], *result.get("environments", {}).values()]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def _devices(result: Result) -> str:
    given = result["settings"]["pretrain"].get("precision", "auto")
    words = []
    for one in environments_of(result):
        device = one.get("device")
        auto = "float32" if device == "cpu" else "bfloat16"
        words.append(f"{device}, {auto if given == 'auto' else given}")
    return " and ".join(dict.fromkeys(words))


def _machines(result: Result) -> str:
    found = environments_of(result)
    words = [
        f"{one.get('processor')}, torch {one.get('versions', {}).get('torch')}" for one in found
    ]
    return " and ".join(dict.fromkeys(words))


def _sources(result: Result) -> str:
    return f"sources {result['settings']['code'].get('sources')}"


def _compared(plan: StudyPlan) -> Iterable[tuple[str, str]]:
    pairs = [pair for one in plan.orderings for pair in one.pairs]
    pairs += [
        (table.reference, run) for table in plan.tables if table.reference for run in table.rows
    ]
    return list({frozenset(pair): pair for pair in pairs if pair[0] != pair[1]}.values())

"""Why the cells of a report may not be comparable: other data, other devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .plan import StudyPlan
from .rows import Result


def warnings_of(plan: StudyPlan, results: Sequence[Result]) -> list[str]:
    """Sentences; none where all is alike."""
    return [*_of_data(results), *_of_devices(plan, results)]


def _of_data(results: Sequence[Result]) -> list[str]:
    found: dict[str, set[str]] = {}
    for one in results:
        prints = {f"Cells on {one['data']} read": one["about"].get("data_fingerprint")}
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


def _of_devices(plan: StudyPlan, results: Sequence[Result]) -> list[str]:
    """Of pairs that are compared."""
    made: dict[tuple[str, str], dict[int, str]] = {}
    for one in results:
        device = one["environment"].get("device")
        given = one["settings"]["pretrain"].get("precision", "auto")
        auto = "float32" if device == "cpu" else "bfloat16"
        words = f"{device}, {auto if given == 'auto' else given}"
        made.setdefault((one["data"], one["run"]), {})[one["seed"]] = words
    found = []
    for data in plan.data:
        for run, other in _compared(plan):
            ours, theirs = made.get((data, run), {}), made.get((data, other), {})
            seeds = [s for s in sorted(ours) if s in theirs and ours[s] != theirs[s]]
            if seeds:
                kinds = sorted({of[seed] for of in (ours, theirs) for seed in seeds})
                found.append(
                    f"{run} and {other} on {data}, seeds {', '.join(map(str, seeds))}, ran on "
                    f"different devices or in different precision ({'; '.join(kinds)}): their "
                    "differences are not of the runs alone"
                )
    return found


def _compared(plan: StudyPlan) -> Iterable[tuple[str, str]]:
    pairs = [pair for one in plan.orderings for pair in one.pairs]
    pairs += [
        (table.reference, run) for table in plan.tables if table.reference for run in table.rows
    ]
    return list({frozenset(pair): pair for pair in pairs if pair[0] != pair[1]}.values())

"""How sure a measure is: intervals over files, groups of files, and seeds.

judged = judge("class", logits, targets)
print(bootstrap(judged, groups=episodes)["top1"])     # 0.812 [0.780, 0.843]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from smnm_kernels.train.data.labels import LabelKind

from .measures import COUNTS, Judged

DRAWS = 2000
_FEWEST_DRAWS = 200
_MOST_WORK = 2 * 10**9  # scores that all draws go over: a minute or two


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its interval; bounds are nan where the data allow none."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_row(self) -> dict[str, Any]:
        """For JSON, which has no nan: None in its place."""
        values = {"value": self.value, "low": self.low, "high": self.high, "level": self.level}
        return {name: None if math.isnan(x) else x for name, x in values.items()}


def affordable_draws(kind: LabelKind, files: int, classes: int) -> int:
    """How many draws a bootstrap makes: 2000, and of large sets fewer, but 200. A draw of mAP goes
    over the scores of all classes, one of another measure over the files alone."""
    work = files * (max(1, classes) if kind == "classes" else 1)
    return min(DRAWS, max(_FEWEST_DRAWS, _MOST_WORK // work))


def bootstrap(
    judged: Judged,
    groups: Sequence[Hashable] | None = None,
    draws: int | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The percentile intervals of all measures over files, or over groups of files, by their names.

    judged: as `measures.judge` makes it of n files.
    groups: of each file what it shares with others, such as an episode or a voice; groups are then
        drawn whole, because files of one are alike.
    draws: default 2000.

    What is drawn is a pure function of the seed and the groups, and the same for all measures.
    Where there is only one file or group, the bounds are nan. A measure at its best in every draw
    (all files right) has an interval of no width: files that were not seen may still fail.
    """
    return _percentiles(judged.measures, len(judged), groups, draws, seed, level)


def bootstrap_difference(
    ours: Judged,
    theirs: Judged,
    groups: Sequence[Hashable] | None = None,
    draws: int | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """As `bootstrap`, of ours minus theirs, two predictors on the same files in the same order:
    each draw takes the same files of both, so that what makes files hard for both cancels."""
    if len(ours) != len(theirs):
        raise ValueError(f"the predictors are of {len(ours)} and {len(theirs)} files")

    def difference(counts: np.ndarray | None) -> dict[str, float]:
        other = theirs.measures(counts)
        return {name: value - other[name] for name, value in ours.measures(counts).items()}

    return _percentiles(difference, len(ours), groups, draws, seed, level)


def _percentiles(
    measures: Callable[[np.ndarray | None], dict[str, float]],
    n: int,
    groups: Sequence[Hashable] | None,
    draws: int | None,
    seed: int,
    level: float,
) -> dict[str, Interval]:
    _check_level(level)
    draws = DRAWS if draws is None else draws
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if groups is None:
        unit_of = np.arange(n)
    else:
        if len(groups) != n:
            raise ValueError(f"{len(groups)} groups were given for {n} files")
        numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        unit_of = np.array([numbers[group] for group in groups])
    units = int(unit_of.max()) + 1
    values = measures(None)
    if units < 2:
        return {name: Interval(x, math.nan, math.nan, level) for name, x in values.items()}
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [
        measures(np.bincount(generator.integers(0, units, units), minlength=units)[unit_of])
        for _ in range(draws)
    ]
    found = {}
    for name, value in values.items():
        of_draws = [] if name in COUNTS else [one[name] for one in drawn]
        found[name] = _interval(value, np.array(of_draws), level)
    return found


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]  # a draw of equal targets has no R2
    if not len(drawn):
        return Interval(value, math.nan, math.nan, level)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def t_interval(
    values: Sequence[float],
    level: float = 0.95,
    possible: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Student's interval of the mean of independent values, such as a measure for several seeds;
    of one value the bounds are nan.

    possible: what such a mean can be, (0, 1) of a share; the bounds are cut there.
    """
    _check_level(level)
    if not len(values):
        raise ValueError("there are no values")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan, level)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return Interval(mean, max(mean - half, possible[0]), min(mean + half, possible[1]), level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")

"""What rows say about a claimed order: paired differences, their intervals, verdicts, power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from smnm_kernels.train.metrics.intervals import Interval, t_interval

POWER, LEVEL = 0.8, 0.95
MOST_SEEDS = 10_000
_ROUNDING = 1e-9  # of differences
Word = Literal["reproduced", "contradicted", "not decided at this scale", "no rows"]


@dataclass(frozen=True)
class Verdict:
    """On one pair: that `lower` is below `higher`."""

    lower: str
    higher: str
    word: Word
    difference: Interval  # higher - lower
    seeds: int  # pairs that it is of
    p: float  # two-sided, of the paired t-test; nan where there is none
    #: Seeds that would decide it; None: already decided, no rows, or more than MOST_SEEDS.
    needed: int | None


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """ours - theirs of the keys (seeds) that both have."""
    return [ours[key] - theirs[key] for key in ours if key in theirs]


def verdict(lower: str, higher: str, values: Mapping[str, Mapping[int, float]]) -> Verdict:
    """Whether the mean of higher - lower, of the same seeds, lies above zero.

    values: of each run, by seed.

    The interval is `interval_of` the paired differences. It lies above zero: reproduced; below:
    contradicted; else, or where it has no bounds, not decided. Where the two do not differ, a pair
    is called reproduced or contradicted in at most 5% of studies, in half of them each.
    """
    found = paired(values.get(higher, {}), values.get(lower, {}))
    if not found:
        nothing = Interval(math.nan, math.nan, math.nan, LEVEL)
        return Verdict(lower, higher, "no rows", nothing, 0, math.nan, None)
    interval = interval_of(found)
    word: Word = "not decided at this scale"
    if interval.low > 0:
        word = "reproduced"
    elif interval.high < 0:
        word = "contradicted"
    needed = seeds_needed(found) if word.startswith("not") else None
    return Verdict(lower, higher, word, interval, len(found), p_of(found), needed)


def interval_of(differences: Sequence[float]) -> Interval:
    """Student's at 95%, two-sided. It has no bounds (nan) where there is one difference, or all are
    the same, as those of accuracies of few files may be: they say nothing of their spread."""
    found = t_interval(differences, LEVEL)
    if not _mean_and_deviation(differences)[1]:
        return Interval(found.value, math.nan, math.nan, LEVEL)
    return found


def p_of(differences: Sequence[float]) -> float:
    """Two-sided, of Student's test that their mean is zero; nan for fewer than two, and where all
    are the same."""
    mean, deviation = _mean_and_deviation(differences)
    if not deviation:
        return math.nan
    t = math.sqrt(len(differences)) * abs(mean) / deviation
    return 2 * float(stats.t.sf(t, len(differences) - 1))


def overall(verdicts: Sequence[Verdict]) -> Word:
    """Of a claim: reproduced where all of its pairs are, contradicted where one of its k pairs is
    with p < 0.05 / k (Bonferroni; our choice).

    Where runs do not differ either happens in at most 2.5% of studies: to be reproduced, all pairs
    must be, and each is in 2.5%.
    """
    most = (1 - LEVEL) / len(verdicts)
    if any(one.word == "contradicted" and one.p < most for one in verdicts):
        return "contradicted"
    if any(one.word == "no rows" for one in verdicts):
        return "no rows"
    if all(one.word == "reproduced" for one in verdicts):
        return "reproduced"
    return "not decided at this scale"


def seeds_needed(differences: Sequence[float], power: float = POWER) -> int | None:
    """The fewest seeds with which a study like this one would decide, with probability `power`.

    The smallest n for which P(|T| > t) >= power, where t is the two-sided critical value of
    Student's t with n - 1 degrees of freedom and T has the noncentral t distribution with
    noncentrality sqrt(n) |mean| / sd, mean and sd (n - 1 in its denominator) being those of the
    observed differences (Cohen 1988, chapter 2, for pairs). The effect is the observed one, so the
    number is as unsure as that. None: of one difference, of several that are the same, without
    an effect, or more than 10,000.
    """
    mean, deviation = _mean_and_deviation(differences)
    if not deviation:
        return None
    effect = abs(mean) / deviation
    if power_of(MOST_SEEDS, effect) < power:
        return None
    low, high = 1, MOST_SEEDS  # power grows with n: `low` has too little of it, `high` enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle, effect) >= power else (middle, high)
    return high


def _mean_and_deviation(differences: Sequence[float]) -> tuple[float, float]:
    """The deviation is 0 for fewer than two, and for what differs by rounding alone."""
    mean = float(np.mean(differences))
    deviation = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    return mean, 0.0 if deviation <= _ROUNDING * abs(mean) else deviation


def power_of(n: int, effect: float) -> float:
    """Of the two-sided paired t-test at 5% with n pairs, for a mean of `effect` deviations."""
    if n < 2:
        return 0.0
    critical = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    shift = math.sqrt(n) * effect
    # Far out scipy's distribution is nan; what lies there is nothing, or all.
    above, below = stats.nct.sf(critical, n - 1, shift), stats.nct.cdf(-critical, n - 1, shift)
    above = float(shift > critical) if math.isnan(above) else float(above)
    return above + (0.0 if math.isnan(below) else float(below))

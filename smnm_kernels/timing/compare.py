"""What changed between two runs of `smnm bench`."""

from __future__ import annotations

import json
from pathlib import Path

from smnm_kernels.errors import UsageError

#: Facts that must be the same in two runs for their times to be compared.
SAME = ("device", "threads", "torch", "backend")
#: A smaller relative change of a ratio is not reported.
LEAST_CHANGE = 0.05


def read_rows(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare {path}: not the rows of a run ({error})") from None
    if not rows or not all(isinstance(row, dict) and "section" in row for row in rows):
        raise UsageError(f"--compare {path}: not the rows of a run of smnm bench")
    return rows


def compare_runs(before: list[dict], after: list[dict]) -> str:
    """A text with a line for each row of the two runs: ratios if they were measured repeatedly,
    else times. A ratio is FASTER or SLOWER if the gap between the repetitions of the two runs is
    larger than the spread of either run's, and the medians differ by more than 5%."""
    lines = [
        f"{name}: {before[0].get(name)} -> {after[0].get(name)}"
        for name in ("commit", *SAME)
        if before[0].get(name) != after[0].get(name)
    ]
    if any(before[0].get(name) != after[0].get(name) for name in SAME):
        lines.append("The runs differ in more than the commit: ratios carry over, times do not.")
    # The row that others are divided by has ratio 1 in both runs, and is left out.
    old, new = (
        {
            _key(row): row
            for row in rows
            if "loaded_us" in row or ("us" in row and row["what"] != row.get("ratio_to"))
        }
        for rows in (before, after)
    )
    groups: dict[tuple, list[tuple]] = {}
    for key in {**new, **old}:
        groups.setdefault(key[:-1], []).append(key)
    for group, keys in groups.items():
        lines.append(", ".join(str(part) for part in group if part is not None))
        if not any(key in new for key in keys) or not any(key in old for key in keys):
            lines.append(f"  only in the {'first' if keys[0] in old else 'second'} run")
        else:
            lines += [f"  {key[-1]}: {_change(old.get(key), new.get(key))}" for key in keys]
    return "\n".join(lines)


def _key(row: dict) -> tuple:
    place = row.get("shape") or row.get("curve")
    batch = row.get("batch")
    return row["section"], place, f"B = {batch}" if batch else row.get("over"), row["what"]


def _change(was: dict | None, now: dict | None) -> str:
    if was is None or now is None:
        return "new" if was is None else "gone"
    if "loaded_us" in now:
        return f"{_under_load(was)} -> {_under_load(now)}, measured once: no verdict"
    if len(was.get("ratio_repeats", ())) < 2 or len(now.get("ratio_repeats", ())) < 2:
        return f"{was['us']:.3g} us -> {now['us']:.3g} us, measured once: no verdict"
    return f"{was['ratio']:.3g} -> {now['ratio']:.3g}  {_verdict(was, now)}"


def _under_load(row: dict) -> str:
    return f"{row['times_quiet']:.3g} (95th percentile {row['times_quiet_p95']:.3g}) times quiet"


def _verdict(was: dict, now: dict) -> str:
    change = now["ratio"] / was["ratio"] - 1
    lower, higher = sorted((was["ratio_repeats"], now["ratio_repeats"]), key=min)
    gap = min(higher) - max(lower)
    spread = max(max(ratios) - min(ratios) for ratios in (lower, higher))
    if gap > spread and abs(change) > LEAST_CHANGE:
        return f"{'FASTER' if change < 0 else 'SLOWER'} by {abs(change):.0%}"
    return "same within the noise"

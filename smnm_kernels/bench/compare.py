"""What changed between two runs, with a verdict only where it is outside the noise."""

from __future__ import annotations

import json
from pathlib import Path

from smnm_kernels.errors import UsageError

#: Facts that make two runs comparable at all.
SAME = ("device", "threads", "torch", "backend")
#: Less than this is no change, however quiet the machine was.
LEAST_CHANGE = 0.05


def read_rows(path: Path) -> list[dict]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare {path}: not the rows of a run ({error})") from None
    if not rows or not all(isinstance(row, dict) and "section" in row for row in rows):
        raise UsageError(f"--compare {path}: not the rows of a run of smnm bench")
    return rows


def compared(before: list[dict], after: list[dict]) -> str:
    """Both runs' ratios, line by line. A ratio is said to have changed where all repetitions of one
    run lie on one side of all of the other's, and the medians differ by more than 5%."""
    lines = [
        f"{name}: {before[0].get(name)} -> {after[0].get(name)}"
        for name in ("commit", *SAME)
        if before[0].get(name) != after[0].get(name)
    ]
    if any(before[0].get(name) != after[0].get(name) for name in SAME):
        lines.append("The runs differ in more than the commit: ratios carry over, times do not.")
    old = {_key(row): row for row in before if _repeated(row)}
    missing = set(old)
    for row in after:
        if not _repeated(row) or row["what"] == row["ratio_to"]:
            missing.discard(_key(row))
            continue
        was = old.get(_key(row))
        missing.discard(_key(row))
        name = ", ".join(str(part) for part in _key(row)[1:] if part is not None)
        if was is None:
            lines.append(f"  {name}: {row['ratio']:.3g}, new")
            continue
        change = row["ratio"] / was["ratio"] - 1
        lines.append(
            f"  {name}: {was['ratio']:.3g} -> {row['ratio']:.3g}  {_verdict(was, row, change)}"
        )
    lines += [f"  {', '.join(map(str, key[1:]))}: gone" for key in sorted(missing, key=str)]
    return "\n".join(lines)


def _repeated(row: dict) -> bool:
    """Whether the row's ratio was measured more than once: what noise there is, is known then."""
    return len(row.get("ratio_repeats", ())) > 1


def _key(row: dict) -> tuple:
    return tuple(row.get(name) for name in ("section", "shape", "curve", "over", "batch", "what"))


def _verdict(was: dict, now: dict, change: float) -> str:
    before, after = was["ratio_repeats"], now["ratio_repeats"]
    apart = max(after) < min(before) or min(after) > max(before)
    if apart and abs(change) > LEAST_CHANGE:
        return f"{'FASTER' if change < 0 else 'SLOWER'} by {abs(change):.0%}"
    return "same within the noise"

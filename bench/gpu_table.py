"""The result of ``gpu_check.py`` as text."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from gpu_result import ENDED, SKIPPED, read

LINES_OF_A_FAILURE = 6


def show(path: Path) -> int:
    """Prints the table; 1 if something failed or is not done yet, else 0."""
    result = read(path)
    if result is None:
        print(f"{path}: no result of a GPU check")
        return 2
    print(table(result))
    return bool(failed_steps(result) or unfinished_steps(result))


def failed_steps(result: dict) -> list[str]:
    steps = result["steps"]
    return [name for name, one in steps.items() if one["state"] == ENDED and one["exit"]]


def unfinished_steps(result: dict) -> list[str]:
    steps = result["steps"]
    return [name for name, one in steps.items() if one["state"] not in (ENDED, SKIPPED)]


def table(result: dict) -> str:
    rows = result["rows"]
    of_steps = [line for name, one in result["steps"].items() for line in step_lines(name, one)]
    parts = [
        [", ".join(f"{key} {value}" for key, value in result["about"].items())],
        [f"{key}: {value}" for key, value in result["facts"].items()],
        [f"call of {call['began']}, stages {call['stages']}: {call['ended']}"
         for call in result["calls"]],
        of_steps,
        equality_lines(rows.get("equality", [])),
        [kernel_line(row) for row in rows.get("kernels", [])],
        profile_lines(result["steps"].get("ncu_details", {})),
        *(test_lines(name, rows.get(name, [])) for name in ("device_tests", "tests")),
        *(section_lines(rows.get(name, [])) for name in ("training", "masks")),
        *(report_lines(name, rows.get(name, [])) for name in ("triton_report", "cuda_report")),
        verdict(result),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def verdict(result: dict) -> list[str]:
    lines = []
    if failed_steps(result):
        lines.append(f"failed: {', '.join(failed_steps(result))}")
    if unfinished_steps(result):
        lines.append(f"not ended: {', '.join(unfinished_steps(result))}")
    return lines or [f"{len(result['steps'])} steps, none failed"]


def step_lines(name: str, one: dict) -> list[str]:
    code = f" {one['exit']}" if one["state"] == ENDED else ""
    why = f": {one['why']}" if "why" in one else ""
    lines = [f"{one['stage']} {name:16} {one.get('seconds', ''):>6} s  {one['state']}{code}{why}"]
    said = one.get("log_tail", "")
    if one["state"] == ENDED and one["exit"]:
        lines += [f"    {text}" for text in said.splitlines()[-LINES_OF_A_FAILURE:]]
    # What compute-sanitizer found.
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", said)
    return [*lines, *(f"    {text}" for text in found)]


def equality_lines(rows: list[dict]) -> list[str]:
    if not rows:
        return []
    found, compared = differences(rows), sum(row["compared"] for row in rows)
    lines = [f"equality: {compared} settings in {len(rows)} groups, {len(found)} differ"]
    return lines + [f"  {json.dumps(one)}" for one in found[:10]]


def differences(rows: list[dict]) -> list[dict]:
    """The first of each group that has one, in the order of the settings."""
    found = [row["difference"] for row in rows if row["difference"]]
    return sorted(found, key=lambda difference: difference["index"])


def section_lines(rows: list[dict]) -> list[str]:
    return [section_line(row) for row in rows if "ended" not in row]


def report_lines(name: str, rows: list[dict]) -> list[str]:
    return [f"{name}: " + ", ".join(f"{k} {v}" for k, v in row.items()) for row in rows]


def profile_lines(step: dict) -> list[str]:
    """The lines of the profiler's pages that name the kernels and what bounds them."""
    wanted = (
        r"^  \S.*\bContext \d+.*|^ +(?:Duration|Registers Per Thread|Achieved Occupancy|"
        r"Theoretical Occupancy|(?:Compute \(SM\)|Memory|DRAM|L1/TEX Cache) Throughput|"
        r"Executed Ipc Active|No Eligible|Grid Size|Block Size|"
        r"(?:Static|Dynamic) Shared Memory Per Block) .*"
    )
    return re.findall(wanted, step.get("log_tail", ""), re.M)


def test_lines(name: str, rows: list[dict]) -> list[str]:
    if not rows:
        return []
    of_tests, of_files = outcomes(rows), [row for row in rows if "file" in row]
    counts = Counter(row["outcome"] for row in of_tests.values())
    lines = [f"{name}: " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))]
    lines += [f"  file {row['outcome']}: {row['file']}: {gist(row['why'])}" for row in of_files]
    for row in of_tests.values():
        if row["outcome"] == "failed":
            lines.append(f"  failed {row['process']}: {row['test']}: {gist(row['why'])}")
    reasons = Counter(row["why"] for row in of_tests.values() if row["outcome"] == "skipped")
    lines += [f"  {n} skipped: {reason}" for reason, n in reasons.most_common()]
    slowest = sorted(of_tests.values(), key=lambda row: -row["seconds"])[:5]
    return lines + [f"  {row['seconds']:6.1f} s: {row['test']}" for row in slowest]


def outcomes(rows: list[dict]) -> dict[str, dict]:
    """A row for each test: its failure, if it has one in setup, call or teardown."""
    of_tests: dict[str, dict] = {}
    for row in rows:
        if "test" in row and of_tests.get(row["test"], {}).get("outcome") != "failed":
            of_tests[row["test"]] = row
    return of_tests


def gist(text: str) -> str:
    """The error that pytest marks, or else the last line."""
    error = re.search(r"^E +(.*)", text, re.M)
    return error[1] if error else text.strip().rpartition("\n")[2]


def kernel_line(row: dict) -> str:
    if row["kind"] == "copy":
        return f"a copy moves {row['bytes_per_second'] / 1e12:.2f} TB/s"
    if row["kind"] == "launches":
        return f"{row['work']:8} launches of a call: {len(row['kernels'])} {row['kernels']}"
    text = f"{row['work']:8} {row['batch']:5} "
    if row["kind"] == "failed":
        return f"{text}failed: {row['error']}"
    if row["kind"] == "eager":
        return f"{text}{'smnm, eager':32} {row['us']:9.2f} us"
    text += f"{row['what']:32} {row['us']:9.2f} us"
    text += f" {row['ratio']:7.3f}x random {row['of_bank']:7.3f}x bank"
    if "limit_share" in row:
        text += f"  {row['limit_share']:.0%} of it: {row['highest_limit']}"
    return text if row["clock"] == "graph" else f"{text}  ({row['clock']})"


def section_line(row: dict) -> str:
    if "error" in row:
        return f"{row['part']} failed: {row['error']}"
    if "us" not in row:
        return f"{row['part']}: {row['what']}, {row['peak_memory_gb']} GB at most"
    text = f"{row['shape']:32} {row['batch']:5} {row['what']:42} {row['us'] / 1e3:10.4f} ms"
    text += f" {row['ratio']:.3f}x"
    if "waits" in row:
        text += f"  waits {row['waits']}, copies to the device {row['copies_to_device']}"
    return text

"""What ``gpu_check.sh`` found, as one JSON file and as a table.

    python bench/gpu_result.py facts FOLDER             the machine and the versions
    python bench/gpu_result.py left_out FOLDER          pytest's arguments, without what cannot run
    python bench/gpu_result.py merge FOLDER RESULT      all of FOLDER in one file
    python bench/gpu_result.py show RESULT              the table; fails if a step did

A step leaves ``NAME.step`` (seconds and exit code), ``NAME.log`` and what it saves, ``NAME.json``;
one that could not run leaves ``NAME.skipped``, the reason.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEPS = (
    "build", "facts", "tests", "memcheck", "racecheck", "equality", "triton_report", "cuda_report",
    "kernels", "training", "ncu",
)  # fmt: skip
LOG_TAIL = 3000
DRIVER_QUERY = ("--query-gpu=driver_version", "--format=csv,noheader")


def facts() -> dict:
    import torch

    import smnm_kernels as smnm
    from smnm_kernels.bench import facts

    gpu = torch.cuda.is_available()
    return facts.facts(torch.device("cuda" if gpu else "cpu")) | {
        "driver": output("nvidia-smi", "-i", "0", *DRIVER_QUERY),
        "cuda": torch.version.cuda,
        "nvcc": (re.findall(r"release ([\d.]+)", output("nvcc", "--version") or "") or [None])[0],
        "backends": smnm.backends(),
    }


def output(*command: str) -> str | None:
    """What the command prints, or None where it fails or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def left_out() -> dict[str, str]:
    """Path under tests: why it cannot run here."""
    trainer = [*(ROOT / "smnm_kernels/train").glob("*.py"), *(ROOT / "tests/train").glob("*.py")]
    needed_by = {"tests/train": trainer}
    needed_by |= {f"tests/{p.name}": [p] for p in sorted((ROOT / "tests").glob("test_*.py"))}
    missing = {path: missing_packages(files) for path, files in needed_by.items()}
    return {path: f"needs {', '.join(names)}" for path, names in missing.items() if names}


def missing_packages(files: Iterable[Path]) -> list[str]:
    """What the files import, at their top or in a function, and is not installed."""
    imported = set()
    for file in files:
        tree = ast.parse(file.read_text())
        # A test module may ask for a package inside of a test, and skip that test alone.
        nodes = tree.body if file.name.startswith("test_") else ast.walk(tree)
        for node in nodes:
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    ours = {
        p.stem for folder in ("tests", "tests/train", "bench") for p in (ROOT / folder).iterdir()
    }
    return sorted(
        name for name in imported - ours - {"smnm_kernels"} if not importlib.util.find_spec(name)
    )


def junit_counts(report: Path) -> dict:
    root = ElementTree.parse(report).getroot()
    suites = [root] if root.tag == "testsuite" else root.findall("testsuite")
    total = {
        key: sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "failures", "errors", "skipped")
    }
    cases = [(case, {child.tag for child in case}) for s in suites for case in s.iter("testcase")]
    slowest = sorted((c for c, _ in cases), key=lambda c: -float(c.get("time", 0)))[:10]
    skips = [child.get("message", "") for case, _ in cases for child in case.findall("skipped")]
    return {
        "passed": total["tests"] - total["failures"] - total["errors"] - total["skipped"],
        "failed": total["failures"] + total["errors"],
        "skipped": total["skipped"],
        "failed_names": [named(c) for c, tags in cases if tags & {"failure", "error"}],
        "skip_reasons": {reason: skips.count(reason) for reason in sorted(set(skips))},
        "slowest": {named(c): round(float(c.get("time", 0)), 1) for c in slowest},
    }


def named(case: ElementTree.Element) -> str:
    return f"{case.get('classname')}::{case.get('name')}"


def step(folder: Path, name: str) -> dict:
    skipped = folder / f"{name}.skipped"
    if skipped.exists():
        return {"step": name, "skipped": skipped.read_text().strip()}
    if not (folder / f"{name}.step").exists():
        return {"step": name, "skipped": "not reached"}
    seconds, code = map(int, (folder / f"{name}.step").read_text().split())
    made = {"step": name, "seconds": seconds, "exit": code}
    # A build that lacks a part succeeds, and says what is wrong.
    if code or "warning: building smnm_kernels without" in log(folder, name):
        made["log_tail"] = log(folder, name)[-LOG_TAIL:]
    return made


def log(folder: Path, name: str) -> str:
    path = folder / f"{name}.log"
    return (
        path.read_text(errors="replace").replace(f"{ROOT.resolve()}/", "") if path.exists() else ""
    )


def saved(folder: Path, name: str) -> object:
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() and path.stat().st_size else None


def report_rows(folder: Path, name: str) -> list[dict]:
    """A report prints a line of JSON for each kernel."""
    lines = log(folder, name).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def merged(folder: Path) -> dict:
    junit = folder / "tests.xml"
    summaries = {
        tool: re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*|\d+ passed.*", log(folder, tool))
        for tool in ("memcheck", "racecheck")
    }
    return {
        **(saved(folder, "facts") or {}),
        "steps": [step(folder, name) for name in STEPS],
        "tests": junit_counts(junit) if junit.exists() else None,
        "tests_left_out": saved(folder, "left_out"),
        "sanitizer": summaries,
        "equality": saved(folder, "equality"),
        "kernels": saved(folder, "kernels"),
        "training": saved(folder, "training"),
        "ncu": [x.rstrip() for x in log(folder, "ncu").splitlines() if not x.startswith("==")],
        "triton_report": report_rows(folder, "triton_report"),
        "cuda_report": report_rows(folder, "cuda_report"),
    }


def failed_steps(result: dict) -> list[str]:
    return [
        s["step"] for s in result["steps"] if s.get("exit") or s.get("skipped") == "not reached"
    ]


def table(result: dict) -> str:
    versions = ("device", "driver", "cuda", "torch", "triton", "python", "commit", "date")
    lines = [", ".join(f"{key} {result.get(key)}" for key in versions), ""]
    for one in result["steps"]:
        state = f"skipped: {one['skipped']}" if "skipped" in one else f"exit {one['exit']}"
        lines.append(f"{one['step']:14} {one.get('seconds', ''):>4} s  {state}")
    if result["tests"]:
        counts = ", ".join(
            f"{result['tests'][key]} {key}" for key in ("passed", "failed", "skipped")
        )
        lines += ["", f"tests: {counts}", *result["tests"]["failed_names"][:20]]
    lines += [f"left out: {path} ({why})" for path, why in (result["tests_left_out"] or {}).items()]
    lines += [f"{tool}: {'; '.join(came)}" for tool, came in result["sanitizer"].items() if came]
    if result["equality"]:
        same = result["equality"]
        lines.append(f"equality: {same['compared']} of {same['settings']} settings, {same['what']}")
        if same["first_difference"]:
            lines.append(f"  first difference: {same['first_difference']}")
    if result["kernels"]:
        from gpu_kernels import line

        lines += ["", *map(line, result["kernels"]["rows"])]
        for row in result["kernels"]["eager"]:
            lines.append(f"{row['work']:8} {row['batch']:5} smnm, eager {row['us']:30.2f} us")
        launches = result["kernels"]["launches_of_a_call"]
        lines.append(f"launches of a call: {launches}")
    if result["training"]:
        from gpu_training import step_line

        lines += ["", *(step_line(row) for row in result["training"] if "us" in row)]
    failed = failed_steps(result)
    return "\n".join([*lines, "", f"failed: {', '.join(failed)}" if failed else "all passed"])


def write(path: Path, made: object) -> None:
    """At once or not at all, and without the package, which may be what is broken."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(made, indent=1) + "\n")
    temporary.replace(path)


def main(what: str, *paths: str) -> None:
    first = Path(paths[0])
    if what == "facts":
        write(first / "facts.json", facts())
    elif what == "left_out":
        paths_left_out = left_out()
        write(first / "left_out.json", paths_left_out)
        for path in paths_left_out:
            print(f"--ignore={path}")
    elif what == "merge":
        write(Path(paths[1]), merged(first))
    elif what == "show":
        result = json.loads(first.read_text())
        print(table(result))
        sys.exit(bool(failed_steps(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])

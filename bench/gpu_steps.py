"""The steps of ``gpu_check.py``: what is run, in which stage, for how long at the most."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent

#: The most valuable first.
STAGES = {
    1: "build, equality of settings, kernel timings, profile",
    2: "tests, sanitizers, compilers' reports",
    3: "training steps, mask making beside what training code does without it",
}
#: A dry run does without these: no kernel needs them, and many a machine with a GPU lacks them.
HIDDEN_IN_DRY_RUN = (
    "tyro", "av", "kaldi_native_fbank", "docstring_parser", "typeguard",
    "pydantic", "pydantic_core", "annotated_types",
)  # fmt: skip
SECONDS_OF_A_TEST = 120


class Step(NamedTuple):
    name: str
    stage: int
    #: Seconds at the most, and at the least: with less time left it is not begun.
    limit: int
    least: int
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    #: Runs beside the steps after it, for which the stage waits.
    beside: bool = False
    #: Why it cannot run here.
    missing: str = ""
    #: Text in the output of a failed step which says that this machine cannot run the step.
    refused: str = ""
    #: Text in the output which says that the step failed, whatever its exit code.
    wrong: str = ""
    #: Run in every call, since another machine has none of it.
    always: bool = False
    #: Goes on with the rows of an earlier call.
    goes_on: bool = False
    #: Prints its rows instead of saving them.
    prints_rows: bool = False
    #: Scripts whose output it reads.
    reads: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The files and folders whose change makes an earlier result void."""
        if "pytest" in self.command:
            return ("setup.py", "csrc", "smnm_kernels", "bench", "ptx_machine", "tests")
        scripts = [word for word in (*self.command, *self.reads) if word.startswith("bench/")]
        return ("setup.py", "csrc", *_with_imports(["smnm_kernels", *scripts]))


def _with_imports(paths: Iterable[str]) -> Iterable[str]:
    """These paths, and all modules of bench/ and packages that they import, directly or not."""
    found: set[str] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if (ROOT / path).is_file():
            text = (ROOT / path).read_text()
            names = re.findall(r"^ *(?:from|import) (\w+)", text, re.M)
            waiting += (
                f"bench/{name}.py" for name in names if (ROOT / f"bench/{name}.py").exists()
            )
            waiting += (name for name in names if (ROOT / name / "__init__.py").exists())
    return sorted(found)


def steps(folder: Path, dry_run: bool, capability: str | None) -> list[Step]:
    """``folder`` takes what steps save: ``NAME.jsonl``, rows. ``capability`` is that of the GPU."""
    python, target = sys.executable, (capability or "9.0").replace(".", "")
    without_gpu = "a dry run has no GPU" if dry_run else ""

    def measure_with(
        name: str, script: str, *arguments: str, instead: str = "cpu"
    ) -> tuple[str, ...]:
        device = ("--device", instead) if dry_run else ()
        rows = ("--rows", str(folder / f"{name}.jsonl"))
        return (python, f"bench/{script}.py", *arguments, *rows, *device)

    def tests(name: str, *arguments: str) -> tuple[str, ...]:
        return (
            *(python, "-m", "pytest", "-p", "pytest_rows", "-p", "no:cacheprovider", *arguments),
            # In one word each: pytest takes a path that stands alone for what it is to collect.
            f"--rows={folder / name}.jsonl",
            f"--without-tests={folder / name}.done",
            f"--junitxml={folder / name}.xml",
            # The check does not check itself, and compiled code is run without a GPU elsewhere.
            "--ignore=tests/test_gpu_dry_run.py",
            "--ignore=tests/ptx",
            "--continue-on-collection-errors",
            *(a_few if dry_run else _workers_and_timeouts()),
        )

    def sanitizer(name: str, tool: str, kernels: str, *command: str) -> Step:
        check = ("compute-sanitizer", "--tool", tool, "--kernel-regex", f"kns={kernels}")
        check += ("--report-api-errors", "no", "--error-exitcode", "9")
        return Step(
            name, 2, limit=240, least=40, beside=True, command=(*check, python, *command),
            # Memory as it comes from the driver, so that a write beyond a tensor does not land in
            # another one.
            environment=(("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),),
            missing=without_gpu or _missing_program("compute-sanitizer"),
            refused="Device not supported",
        )  # fmt: skip

    some = ("threshold", "baselines", "golden", "errors", "filters")
    files = " or ".join(f"test_{name}.py" for name in some)
    a_few = ("-p", "no:xdist", "--first-of-each-file", "-k", files)
    small_rbn = ("-m", "pytest", "tests/test_cuda.py", "-k", "small_rbn", "-p", "no:cacheprovider")
    once = ("bench/gpu_kernels.py", "--once")
    settings = ("--settings", "40", "--most-tokens", "40") if dry_run else ()
    batches = ("--batches", "2", "--seconds", "0.1") if dry_run else ()
    quick = ("--quick", "--seconds", "0.5") if dry_run else ()
    reports = ("--json", "--targets", target)
    told = capability is None or "TORCH_CUDA_ARCH_LIST" in os.environ
    built_for = () if told else (("TORCH_CUDA_ARCH_LIST", capability),)
    return [
        Step(
            "build", 1, limit=200, least=20, always=True,
            command=(python, "bench/build_in_place.py"),
            environment=built_for,
            wrong="warning: building smnm_kernels without",
        ),
        Step(
            "facts", 1, limit=60, least=10, always=True,
            command=(python, "bench/gpu_result.py", str(folder / "facts.jsonl")),
        ),
        Step(
            "equality", 1, limit=240, least=30, goes_on=True,
            command=measure_with("equality", "gpu_equality", *settings, instead="ptx"),
        ),
        Step(
            "kernels", 1, limit=150, least=30, goes_on=True,
            command=measure_with("kernels", "gpu_kernels", *batches),
        ),
        Step(
            "ncu", 1, limit=90, least=30,
            command=(
                *("ncu", "--set", "full", "--clock-control", "none"),
                *("--kernel-name", "regex:noise|rbn", "--export", str(folder / "ncu")),
                *("--force-overwrite", python, *once, "256"),
            ),
            missing=without_gpu or _missing_program("ncu"), refused="==ERROR==.*",
        ),
        Step(
            "ncu_details", 1, limit=30, least=5,
            command=("ncu", "--import", str(folder / "ncu.ncu-rep"), "--page", "details"),
            reads=once[:1],
            missing=without_gpu or _missing_program("ncu"), refused="==ERROR==.*",
        ),
        sanitizer("memcheck", "memcheck", "rbn", *small_rbn),
        sanitizer("racecheck", "racecheck", "rbn", *small_rbn),
        # Few programs: every access of shared memory is looked at.
        sanitizer("racecheck_noise", "racecheck", "noise", *once, "4"),
        Step(
            "device_tests", 2, limit=330, least=40, goes_on=True,
            command=tests("device_tests", "--device-tests", "only"),
        ),
        Step(
            "tests", 2, limit=330, least=40, goes_on=True,
            command=tests("tests", "--device-tests", "none"),
        ),
        Step(
            "triton_report", 2, limit=120, least=40, prints_rows=True, missing=without_gpu,
            command=(python, "bench/triton_report.py", *reports),
        ),
        Step(
            "cuda_report", 2, limit=120, least=40, prints_rows=True,
            missing=without_gpu or _missing_program("nvcc"),
            command=(python, "bench/cuda_report.py", *reports),
        ),
        Step(
            "training", 3, limit=330, least=60, goes_on=True,
            command=measure_with("training", "gpu_sections", "training", *quick),
        ),
        Step(
            "masks", 3, limit=200, least=60, goes_on=True,
            command=measure_with("masks", "gpu_sections", "masks", *quick),
        ),
    ]  # fmt: skip


def _missing_program(name: str) -> str:
    return "" if shutil.which(name) else f"{name} is not there"


def _workers_and_timeouts() -> Iterable[str]:
    """A command of pytest, with the plugins that are installed."""
    if importlib.util.find_spec("xdist"):
        # A process that hangs or whose CUDA context is broken is replaced.
        workers = min(12, os.cpu_count() or 1)
        yield from ("-n", str(workers), "--dist", "worksteal", "--max-worker-restart", "50")
    if importlib.util.find_spec("pytest_timeout"):
        # A thread also ends what hangs in CUDA.
        yield from ("--timeout", str(SECONDS_OF_A_TEST), "--timeout-method", "thread")
    else:
        yield from ("-o", f"faulthandler_timeout={SECONDS_OF_A_TEST}")

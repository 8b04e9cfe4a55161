"""Facts that every row of a benchmark contains: machine, threads, versions, commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import smnm_kernels as smnm


def facts(device: torch.device) -> dict[str, Any]:
    return {
        "device": device_name(device),
        "cores": os.cpu_count(),
        "busy_cores": busy_cores(),
        "threads": torch.get_num_threads(),
        "smnm_kernels": _version("smnm_kernels"),
        "commit": _commit(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "triton": _version("triton"),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "backend": _backend(device),
        "built_with": smnm.build_info(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def busy_cores(seconds: float = 0.5) -> float | None:
    """How many cores other processes keep busy, measured while this one sleeps; None if the system
    does not tell."""
    try:
        total_before, idle_before = _processor_times()
        time.sleep(seconds)
        total, idle = _processor_times()
        share = 1 - (idle - idle_before) / (total - total_before)
        return round((os.cpu_count() or 1) * share, 2)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _processor_times() -> tuple[int, int]:
    """(all time, idle time) of all cores since the machine started, in ticks."""
    _, *ticks = Path("/proc/stat").read_text().splitlines()[0].split()
    return sum(map(int, ticks)), int(ticks[3]) + int(ticks[4])


def _backend(device: torch.device) -> str:
    """The backends that run tensors of this device."""
    states = smnm.backends()
    if device.type == "cuda":
        return ", ".join(f"{name} {states[name]}" for name in ("triton", "cuda"))
    return next(name for name, state in states.items() if state == "active")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line for line in lines if line.startswith("model name"))
        return name.partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that runs, with a + if files are changed. Without git, the value
    of the environment variable COMMIT."""
    root = Path(smnm.__file__).parent.parent
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None  # the package is installed inside another repository
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        # Results are written over earlier ones.
        changed = _git(
            root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("COMMIT")
    return head + "+" * bool(changed)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ("git", *arguments), cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()

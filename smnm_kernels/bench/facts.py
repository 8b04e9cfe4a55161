"""What every row of a benchmark carries: machine, threads, versions, commit."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import smnm_kernels as smnm


def facts(device: torch.device) -> dict[str, object]:
    return {
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "smnm_kernels": _version("smnm_kernels"),
        "commit": _commit(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "triton": _version("triton"),
        "python": platform.python_version(),
        "backend": next(name for name, state in smnm.backends().items() if state == "active"),
        "built_with": smnm.build_info(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line for line in lines if line.startswith("model name"))
        return f"{name.partition(':')[2].strip()}, {os.cpu_count()} cores"
    except (OSError, StopIteration):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout that runs, with + where files are changed; None where there is no git."""
    folder = Path(__file__).parent
    commands = (
        ("git", "rev-parse", "--short=12", "HEAD"),
        ("git", "status", "--porcelain", "--untracked-files=no"),
    )
    try:
        head, changed = (
            subprocess.run(c, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)

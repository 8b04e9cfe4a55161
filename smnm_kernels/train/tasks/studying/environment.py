"""What a result was made with."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import smnm_kernels
from smnm_kernels.train.run.machine import cores, find_device, versions


@dataclass(frozen=True)
class Machine:
    """What a cell may use."""

    device: str = "auto"
    threads: int | None = None
    workers: int | None = None


def environment(device: str, threads: int | None) -> dict[str, Any]:
    """Versions, processor, threads and commit, for a row of results."""
    found = find_device(device)
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": cores(),
        "threads": threads or torch.get_num_threads(),
        "device": torch.cuda.get_device_name(found) if found.type == "cuda" else "cpu",
    }


@cache
def commit() -> str | None:
    """Of the checkout that the package runs from, "+" behind it where files differ; None where it
    is installed."""
    root = Path(smnm_kernels.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found, changed = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "smnm_kernels"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found + "+" * bool(changed)


@cache
def processor() -> str:
    """Its name, as far as the system says."""
    if os.path.exists("/proc/cpuinfo"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

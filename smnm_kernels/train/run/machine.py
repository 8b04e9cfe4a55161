"""What a run takes from the machine it is on: device, number format, threads, processes,
memory and versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from smnm_kernels.errors import UsageError

from . import ranks

_PACKAGES = ("smnm_kernels", "numpy", "scipy", "scikit-learn", "av", "kaldi-native-fbank", "pillow")


def find_device(name: str) -> torch.device:
    """The device that --device names; refused where it is not there."""
    name = named_device(name)
    if name == "cuda":
        name = f"cuda:{ranks.local_rank()}"
        torch.cuda.set_device(name)
    return torch.device(name)


def named_device(name: str) -> str:
    """What --device names, auto too; refused where it is not there. Nothing is begun on it."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    allowed = ["cpu"] + (["cuda"] + [f"cuda:{i}" for i in range(count)] if count else [])
    if name not in allowed:
        raise UsageError(
            f"--device {name}: not there; allowed on this machine with torch {torch.__version__}: "
            f"auto, {', '.join(allowed)}"
        )
    return name


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What matrix products run in, from --precision; None is float32 throughout."""
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def default_threads() -> int:
    """torch's own number, but one core stays free for the loader.

    OpenMP's threads wait for each other by spinning: with one thread more than there are free
    cores, a step on two busy cores took five times as long. The number of workers has no part in
    this, because it must never change a result.
    """
    return max(1, min(torch.get_num_threads(), cores() - 1))


def default_workers() -> int:
    """One process less than there are cores, so that the model has one; at least one."""
    return max(1, min(8, cores() - 1))


def cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Of all that has a part in numbers: losses, features and measures."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def available_memory() -> int | None:
    """Bytes of the host's memory that can be had without swapping, what it keeps of files among
    them; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None

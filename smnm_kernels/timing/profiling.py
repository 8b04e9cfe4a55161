"""What a call does: its kernels on the device, its waits, its copies and its memory."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def device_work(run: Callable[[], object]) -> list[str]:
    """The names of the kernels, copies and fills that one call runs on a CUDA device."""
    run()
    torch.cuda.synchronize()
    # The first profile of a process may miss what starts before the profiler does.
    for _ in range(2):
        seen = _record(run)
    return [event.name for event in seen.events() if event.device_type == DeviceType.CUDA]


def kernel_names(run: Callable[[], object]) -> str:
    """The different kernels of one call."""
    return ", ".join(sorted({bare_name(name) for name in device_work(run)}))


def bare_name(kernel: str) -> str:
    """Without return type, namespaces and arguments."""
    kernel = kernel.replace("(anonymous namespace)::", "")
    return re.sub(r"^void |\(.*$", "", kernel).split("::")[-1]


def waits_and_copies(run: Callable[[], object]) -> tuple[int, int]:
    """How often the host waits for the device, and copies to it, within one call."""
    _record(lambda: None)  # the first profile of a process may miss something
    waits, copies = _waits_and_copies(run)
    of_the_profiler, _ = _waits_and_copies(lambda: None)
    return waits - of_the_profiler, copies


def _waits_and_copies(run: Callable[[], object]) -> tuple[int, int]:
    names = [event.name for event in _record(run).events()]
    return sum("Synchronize" in name for name in names), sum("Memcpy HtoD" in n for n in names)


def _record(run: Callable[[], object]) -> profile:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    return seen


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that a call takes, outputs included. On the CPU this is from the system's
    count of resident pages, accurate to about 100 KB; None if the system has no such count."""
    run()
    if device.type != "cuda":
        return _peak_bytes_of_host(run)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _peak_bytes_of_host(run: Callable[[], object]) -> int | None:
    try:
        # Returns free memory to the system and resets the highest count.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident_bytes("VmRSS")
        run()
        return max(0, _resident_bytes("VmHWM") - before)
    except (OSError, AttributeError, StopIteration):
        return None


def _resident_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])

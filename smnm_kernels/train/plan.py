"""What a run is going to do, settled before the first step: settings, files, lengths."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from smnm_kernels.errors import UsageError, printable

from . import scan
from .data import scan_folder
from .options import Pretrain
from .presets import Preset
from .run import SKIPPED, RunFolder
from .video import usable_stride

_MOST_NAMED = 50  # skipped files on the screen; skipped.json has them all


@dataclass(frozen=True)
class Plan:
    lr: float  # peak
    warmup_steps: int
    schedule_steps: int
    steps: int  # train until so many are done
    threads: int
    files: list[scan.Record]
    skipped: dict[str, str]  # name -> reason
    resumed: bool


def learning_rate(step: int, plan: Plan, min_lr: float) -> float:
    """Of the step after `step` done ones: linear warmup, a cosine down to min_lr, then min_lr.

    During the warmup it does not depend on the schedule's length.
    """
    if step < plan.warmup_steps:
        return plan.lr * (step + 1) / plan.warmup_steps
    if step >= plan.schedule_steps:
        return min_lr
    share = (step - plan.warmup_steps) / (plan.schedule_steps - plan.warmup_steps)
    return min_lr + (plan.lr - min_lr) * 0.5 * (1 + math.cos(math.pi * share))


def make_plan(folder: RunFolder, options: Pretrain, preset: Preset, device: torch.device) -> Plan:
    """Compare with what RUN holds, scan the data, write config, files and skipped files."""
    settings = _settings(options, preset)
    before = folder.read_config()
    if before:
        # Lengths that came from the number of files or the first --steps stay what they were.
        for name in ("schedule_steps", "warmup_steps"):
            asked = getattr(options, name)
            settings[name] = before["run"].get(name) if asked is None else asked
        folder.check_config(settings, before["run"])

    listing = _scan(folder, options, preset, before)
    if before:
        found = scan.differences(listing.usable, folder.read_files()["usable"])
        if found:
            raise UsageError(
                f"DATA {options.data}: not the files that the run in {folder.path} was begun with: "
                f"{'; '.join(found)}. Give the same files, or another --out"
            )
    runtime = before["runtime"] if before else {}
    steps = options.steps or runtime.get("steps") or preset.steps
    if steps is None:
        steps = math.ceil(preset.epochs * len(listing.usable) / preset.batch_size)
    if not before:
        settings["schedule_steps"] = options.schedule_steps or steps
        if preset.warmup_steps is None:
            share = preset.warmup_epochs / preset.epochs
            settings["warmup_steps"] = round(settings["schedule_steps"] * share)
    # The number of threads moves the last bits of sums, so a resumed run keeps what it had.
    threads = options.threads or runtime.get("threads") or default_threads()

    folder.write_files(listing)
    skipped = {r["name"]: r["reason"] for r in listing.skipped}
    folder.write_skipped(skipped)
    runtime = {
        "data": str(options.data.resolve()),
        "usable_files": len(listing.usable),
        "steps": steps,
        "checkpoint_every": preset.checkpoint_every,
        "workers": options.workers,
        "threads": threads,
        "device": str(device),
        "versions": _versions(),
    }
    folder.write_config(settings, runtime)
    return Plan(
        lr=settings["lr"],
        warmup_steps=settings["warmup_steps"],
        schedule_steps=settings["schedule_steps"],
        steps=steps,
        threads=threads,
        files=listing.usable,
        skipped=skipped,
        resumed=before is not None,
    )


def _settings(options: Pretrain, preset: Preset) -> dict[str, Any]:
    """Everything that decides the losses, the data aside."""
    table = asdict(preset)
    for name in ("steps", "checkpoint_every", "epochs", "warmup_epochs", "base_lr"):
        del table[name]
    if options.modality == "audio":
        del table["stride"]
    lr = preset.base_lr * preset.batch_size / 256 if options.lr is None else options.lr
    return {
        "modality": options.modality,
        "preset": options.preset,
        "grid": list(preset.grid(options.modality)),
        "seed": options.seed,
        **({"flip": options.flip} if options.modality == "video" else {}),
        "lr": lr,
        **table,
        "schedule_steps": None,
    }


def _scan(
    folder: RunFolder, options: Pretrain, preset: Preset, before: dict[str, Any] | None
) -> scan.Listing:
    known: dict[str, scan.Record] = {}
    if before and before["runtime"].get("data") == str(options.data.resolve()):
        held = folder.read_files()
        known = {r["name"]: r for r in held["usable"] + held["skipped"]}
    threads = min(32, _cores())
    listing = scan_folder(options.data, options.modality, preset, known, threads)
    total = len(listing.usable) + len(listing.skipped)
    print(f"{len(listing.usable)} of {total} {options.modality} files are usable", flush=True)
    for record in listing.skipped[:_MOST_NAMED]:
        print(f"  skipped {printable(record['name'])}: {record['reason']}")
    if len(listing.skipped) > _MOST_NAMED:
        print(f"  skipped {len(listing.skipped) - _MOST_NAMED} more: {folder.path / SKIPPED}")
    if not listing.usable:
        raise UsageError(
            f"DATA {options.data}: no usable file: all {total} were skipped, see above"
        )
    if options.modality == "video":
        strides = Counter(
            usable_stride(r["frames"], preset.frames, preset.stride) for r in listing.usable
        )
        for stride, count in sorted(strides.items()):
            if stride < preset.stride:
                print(f"  {count} short files are read with a stride of {stride} frames, "
                      f"not {preset.stride}")  # fmt: skip
    return listing


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("smnm_kernels", "numpy", "av", "soundfile", "kaldi-native-fbank"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def default_threads() -> int:
    """torch's own number, but one core stays free for the loader.

    OpenMP's threads wait for each other by spinning: with one thread more than there are free
    cores, a step on two busy cores took five times as long. The number of workers has no part in
    this, because it must never change a result.
    """
    return max(1, min(torch.get_num_threads(), _cores() - 1))


def default_workers() -> int:
    """One process less than there are cores, so that the model has one; at least one."""
    return max(1, min(8, _cores() - 1))


def _cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

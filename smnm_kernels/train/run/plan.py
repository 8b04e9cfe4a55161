"""What a run is going to do, settled before the first step: settings, files, lengths."""

from __future__ import annotations

import platform
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.modality import Modality, Record
from smnm_kernels.train.data.records import Journal, Known, read_files
from smnm_kernels.train.data.scan import (
    Listing,
    ScanStopped,
    by_reason,
    differences,
    scan,
    shown_name,
)

from . import ranks
from .folder import (
    FILES,
    SCAN,
    SKIPPED,
    RunFolder,
    before_any_work,
    check_config,
    read_config,
    steps_done,
)
from .machine import autocast_dtype, cores, default_threads, default_workers
from .optimisation import Optimisation
from .options import RunOptions, check_batch_size
from .schedule import Schedule
from .signals import StoppedBySignal, StopSignal
from .stalled import bounded

_MOST_NAMED = 50  # skipped files on the screen; skipped.json has them all


@dataclass(frozen=True)
class Recipe:
    """What a task settles before anything is read: with the seed and the files it decides the
    losses."""

    modality: Modality
    optimisation: Optimisation
    lr: float  # peak
    settings: dict[str, Any]  # what else decides the losses, by name, for config.json
    # Is told the usable files; raises UsageError where the settings do not suit them.
    look_at: Callable[[Sequence[Record]], None] = lambda files: None


@dataclass(frozen=True)
class Plan:
    schedule: Schedule
    steps: int  # train until so many are done
    batch_size: int
    accumulate: int
    checkpoint_every: int
    keep_every: int | None
    autocast: torch.dtype | None
    compile: bool
    threads: int
    workers: int
    stall_limit: int  # seconds
    files: Sequence[Record]
    skipped: dict[str, str]  # name -> reason
    resumed: bool


def begin(
    options: RunOptions, recipe: Recipe, data: Path, out: Path, device: torch.device
) -> tuple[Plan, RunFolder | None]:
    """Make or find RUN and settle the plan; the folder is the first process's alone."""
    folder = None

    def prepare() -> Plan:
        nonlocal folder
        folder = RunFolder(out)
        try:
            with before_any_work(out):
                return make_plan(folder, options, recipe, data, device)
        except UsageError:
            folder.remove_if_unused()
            raise

    return ranks.on_main(prepare), folder


def make_plan(
    folder: RunFolder, options: RunOptions, recipe: Recipe, data: Path, device: torch.device
) -> Plan:
    """Compare with what RUN holds, scan the data, write config, files and skipped files."""
    optimisation = recipe.optimisation
    settings, before = find_run(options, recipe, folder.path)
    known = _known_files(folder, recipe.modality, data, before, options.scan_of)
    listing = _scan(folder, recipe.modality, data, known, options.stall_limit)
    recipe.look_at(listing.usable)
    if before:
        found = differences(listing.usable, folder.read_files()[0])
        if found:
            raise UsageError(
                f"DATA {data}: not the files that the run in {folder.path} was begun with: "
                f"{'; '.join(found)}. Give the same files, or another --out"
            )
    runtime = before["runtime"] if before else {}
    steps = options.steps or runtime.get("steps") or optimisation.total_steps(len(listing.usable))
    if not before:
        settings["schedule_steps"] = options.schedule_steps or steps
        settings["warmup_steps"] = optimisation.warmup_of(settings["schedule_steps"])
    if settings["warmup_steps"] >= settings["schedule_steps"]:
        print(
            f"the learning rate only rises: {settings['warmup_steps']} warmup steps in a schedule "
            f"of {settings['schedule_steps']}; --warmup-steps sets them",
            flush=True,
        )
    elif steps > settings["schedule_steps"]:
        print(
            f"steps after {settings['schedule_steps']} keep the lowest learning rate, "
            f"{settings['min_lr']:g}: --schedule-steps, or else the first --steps, fixes the "
            "schedule when a run begins",
            flush=True,
        )
    # Both move the last bits of sums, so a resumed run keeps what it had.
    threads = options.threads or runtime.get("threads") or default_threads()
    accumulate = options.accumulate or runtime.get("accumulate") or 1
    check_batch_size(optimisation.batch_size, accumulate)
    workers = default_workers() if options.workers is None else options.workers

    skipped = listing.reasons()
    with bounded(folder.path, options.stall_limit):
        folder.write_files(listing)
        (folder.path / SCAN).unlink()
        folder.write_skipped(skipped)
    if steps < runtime.get("steps", 0) and steps <= steps_done(folder.path):
        kept_steps = runtime["steps"]  # nothing will be done
    else:
        kept_steps = steps
    runtime = {
        "data": str(data.resolve()),
        "usable_files": len(listing.usable),
        "steps": kept_steps,
        "checkpoint_every": optimisation.checkpoint_every,
        "keep_every": options.keep_every,
        "accumulate": accumulate,
        "precision": options.precision,
        "compile": options.compile,
        "checkpoint_activations": options.checkpoint_activations,
        "workers": workers,
        "stall_limit": options.stall_limit,
        "threads": threads,
        "device": str(device),
        "versions": _versions(),
    }
    with bounded(folder.path, options.stall_limit):
        folder.write_config(settings, runtime)
    return Plan(
        schedule=Schedule(
            peak=settings["lr"],
            lowest=settings["min_lr"],
            warmup_steps=settings["warmup_steps"],
            length=settings["schedule_steps"],
        ),
        steps=steps,
        batch_size=optimisation.batch_size,
        accumulate=accumulate,
        checkpoint_every=optimisation.checkpoint_every,
        keep_every=options.keep_every,
        autocast=autocast_dtype(options.precision, device),
        compile=options.compile,
        threads=threads,
        workers=workers,
        stall_limit=options.stall_limit,
        files=listing.usable,
        skipped=skipped,
        resumed=before is not None,
    )


def find_run(
    options: RunOptions, recipe: Recipe, out: Path
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(the settings that decide the losses, config.json of the run that OUT holds or None).

    Writes nothing. Raises UsageError where OUT holds anything but a run of these settings.
    """
    settings = _settings(options, recipe)
    before = read_config(out)
    if before:
        # Lengths that came from the number of files or the first --steps stay what they were.
        if options.schedule_steps is None:
            settings["schedule_steps"] = before["run"].get("schedule_steps")
        if options.warmup_steps is None:
            settings["warmup_steps"] = before["run"].get("warmup_steps")
        check_config(out, settings, before["run"])
    return settings, before


def _settings(options: RunOptions, recipe: Recipe) -> dict[str, Any]:
    """Everything that decides the losses, the data aside."""
    optimisation = recipe.optimisation
    return {
        "modality": recipe.modality.name,
        **recipe.settings,
        "clip": asdict(recipe.modality),
        "seed": options.seed,
        "batch_size": optimisation.batch_size,
        "lr": recipe.lr,
        "min_lr": min(optimisation.min_lr, recipe.lr),
        "weight_decay": optimisation.weight_decay,
        "betas": optimisation.betas,
        "warmup_steps": optimisation.warmup_steps,
        "schedule_steps": options.schedule_steps,
    }


def _known_files(
    folder: RunFolder,
    modality: Modality,
    data: Path,
    before: dict[str, Any] | None,
    scan_of: Path | None,
) -> Known:
    """What was found of the files when this run began, or another one."""
    where = str(data.resolve())
    known = Known()
    if scan_of is not None:
        asked = f"--scan-of {scan_of}"
        try:
            other = read_config(scan_of)
        except UsageError as error:
            raise UsageError(f"{asked}: {error}") from error
        if other is None or not (scan_of / FILES).exists():
            raise UsageError(f"{asked}: holds no run")
        if other["runtime"].get("data") != where:
            raise UsageError(f"{asked}: is a run of {other['runtime'].get('data')}, not of {where}")
        wanted = {"modality": modality.name, **modality.probed}
        found = {"modality": other["run"].get("modality"), **other["run"].get("clip", {})}
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        if differing:
            there = ", ".join(f"{name} {found.get(name)!r}" for name in differing)
            here = ", ".join(f"{name} {wanted[name]!r}" for name in differing)
            raise UsageError(f"{asked}: looked at files for {there}, and this run is for {here}")
        for records in read_files(scan_of / FILES):
            known.add(records.lines())
    if before and before["runtime"].get("data") == where:
        for records in folder.read_files():
            known.add(records.lines())
    return known


def _scan(
    folder: RunFolder, modality: Modality, data: Path, known: Known, stall_limit: float
) -> Listing:
    where = str(data.resolve())
    of = {"scan of": where, "modality": modality.name, "clip": asdict(modality)}
    journal = Journal(folder.path / SCAN, of)
    with StopSignal() as stop:
        try:
            listing = scan(
                data,
                modality,
                known,
                threads=min(32, cores()),
                besides=folder.path,  # a run may lie among its data, and has pictures of its own
                journal=journal,
                stopping=lambda: stop.number is not None,
                stall_limit=stall_limit,
            )
        except ScanStopped as stopped:
            assert stop.number is not None
            kept = f"what was found in {stopped.done} of {stopped.total} files is kept"
            print(
                f"stopped by {signal.Signals(stop.number).name} before the first step; "
                f"{kept if stopped.total else 'files were still searched for'}; "
                "give the same command again to go on",
                flush=True,
            )
            raise StoppedBySignal(stop.number) from stopped
        except UsageError:
            journal.remove()
            raise
    _say_what_was_found(listing, modality, folder.path / SKIPPED)
    if not listing.usable:
        journal.remove()
        total = len(listing.skipped)
        reasons = by_reason(record["reason"] for record in listing.skipped)
        raise UsageError(
            f"DATA {data}: no usable file: all {total} were skipped, see above: {reasons}"
        )
    return listing


def _say_what_was_found(listing: Listing, modality: Modality, all_of_them: Path) -> None:
    total = len(listing.usable) + len(listing.skipped)
    print(f"{len(listing.usable)} of {total} {modality.name} files are usable", flush=True)
    for remark in listing.remarks:
        print(f"  {remark}")
    skipped = chain(
        ((shown_name(record), record["reason"]) for record in listing.skipped),
        listing.left_out.named.items(),
    )
    for name, reason in islice(skipped, _MOST_NAMED):
        print(f"  skipped {name}: {printable(reason)}")
    more = by_reason(reason for _, reason in skipped)
    if more:
        print(f"  skipped more: {more}; {all_of_them} names them all")
    for counted in listing.left_out.counts():
        print(f"  not looked at: {counted}")
    for remark in modality.remarks(listing.usable) if listing.usable else []:
        print(f"  {remark}")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("smnm_kernels", "numpy", "av", "kaldi-native-fbank", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

"""What a run is going to do, settled before the first step: settings, files, lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.finder import Files, Finder
from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.data.modality import Modality, Record
from smnm_kernels.train.data.scan import Listing, differences

from . import ranks
from .folder import (
    SCAN,
    RunFolder,
    before_any_work,
    check_config,
    read_config,
    steps_done,
)
from .listing import known_of, label_differences, read_labels, scan_and_tell, write_labels
from .machine import autocast_dtype, default_threads, default_workers, versions
from .optimisation import Optimisation
from .options import RunOptions, check_batch_size
from .schedule import Schedule
from .stalled import bounded


@dataclass(frozen=True)
class Recipe:
    """What a task settles before anything is read: with the seed and the files it decides the
    losses."""

    modality: Modality
    optimisation: Optimisation
    lr: float  # peak
    settings: dict[str, Any]  # what else decides the losses, by name, for config.json
    # What config.json tells beside: it may be another when the run goes on.
    notes: dict[str, Any] = field(default_factory=dict)
    # Is told what was found; raises UsageError where the settings do not suit it.
    check_found: Callable[[Listing], None] = lambda listing: None
    # What finds the files, with their labels; None: all that DATA names or holds, without.
    finder: Finder | None = None
    # The places of those usable files that are trained on: passes over the files are over these.
    trained_on: Callable[[Sequence[Record]], Sequence[int]] = lambda files: range(len(files))
    # What is measured in the files before the first step (with so many processes that read), kept
    # in config.json for all that comes after: as JSON holds it.
    measure: Callable[[Listing, int], dict[str, Any]] | None = None
    # What the command line calls things that go by another name in `settings`.
    words: Mapping[str, str] = field(default_factory=dict)


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
    trained_on: Sequence[int]  # places in `files`
    labels: Labels | None  # what the records' labels mean; without a file's own
    measured: dict[str, Any] | None  # as the recipe measures


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
    known = known_of(options.scan_of, recipe.modality, data)
    if before and before["runtime"].get("data") == str(data.resolve()):
        for records in folder.read_files():
            known.add(records.lines())
    finder = recipe.finder or Files(data)
    listing = scan_and_tell(folder.path, recipe.modality, finder, known, options.stall_limit)
    try:
        recipe.check_found(listing)
        if before:
            _refuse_other_files(folder, data, listing)
    except UsageError:
        if before:  # a run stays as it was; a new one need not look at its files again
            (folder.path / SCAN).unlink(missing_ok=True)
        raise
    trained_on = recipe.trained_on(listing.usable)
    runtime = before["runtime"] if before else {}
    steps = options.steps or runtime.get("steps") or optimisation.total_steps(len(trained_on))
    if not before:
        settings["schedule_steps"] = options.schedule_steps or steps
        settings["warmup_steps"] = optimisation.warmup_of(settings["schedule_steps"])
    warmup, length = settings["warmup_steps"], settings["schedule_steps"]
    schedule = Schedule(settings["lr"], settings["min_lr"], warmup, length, optimisation.halvings)
    if warmup >= length:
        print(
            f"the learning rate only rises: {warmup} warmup steps in a schedule of {length}; "
            "--warmup-steps sets them",
            flush=True,
        )
    elif 2 * warmup >= length:
        print(
            f"the learning rate rises for most of the schedule: {warmup} warmup steps of {length}; "
            "--warmup-steps sets them",
            flush=True,
        )
    if warmup < length < steps:
        print(
            f"steps after {length} keep the lowest learning rate, "
            f"{schedule.last:g}: --schedule-steps, or else the first --steps, fixes the "
            "schedule when a run begins",
            flush=True,
        )
    # Both move the last bits of sums, so a resumed run keeps what it had.
    threads = options.threads or runtime.get("threads") or default_threads()
    accumulate = options.accumulate or runtime.get("accumulate") or 1
    check_batch_size(optimisation.batch_size, accumulate)
    workers = default_workers() if options.workers is None else options.workers
    if recipe.measure is not None and not before:
        settings["measured"] = recipe.measure(listing, workers)

    skipped = listing.reasons()
    with bounded(folder.path, options.stall_limit):
        folder.write_files(listing)
        if listing.labels is not None:
            with before_any_work(folder.path):
                write_labels(folder.path, listing.labels)
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
        "versions": versions(),
        **recipe.notes,
    }
    with bounded(folder.path, options.stall_limit):
        folder.write_config(settings, runtime)
    return Plan(
        schedule=schedule,
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
        trained_on=trained_on,
        labels=listing.labels and replace(listing.labels, of={}),
        measured=settings["measured"],
    )


def _refuse_other_files(folder: RunFolder, data: Path, listing: Listing) -> None:
    """Classes first: where one has come or gone, the numbers of others in the records move."""
    begun_with = f"the run in {folder.path} was begun with"
    found = label_differences(listing.labels, read_labels(folder.path))
    if found:
        raise UsageError(
            f"DATA {data}: not the labels that {begun_with}: {'; '.join(found)}. "
            "Give the same labels, or another --out"
        )
    found = differences(listing.usable, folder.read_files()[0])
    if found:
        raise UsageError(
            f"DATA {data}: not the files that {begun_with}: {'; '.join(found)}. "
            "Give the same files, or another --out"
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
        if recipe.measure is not None:
            settings["measured"] = before["run"].get("measured")
        check_config(out, settings, before["run"], recipe.words)
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
        # None as usual, as runs have it that were begun before there was a choice.
        "optimizer": None if optimisation.optimizer == "adamw" else optimisation.optimizer,
        "halvings": optimisation.halvings or None,
        "clip_norm": optimisation.clip_norm,
        "measured": None,
        "warmup_steps": optimisation.warmup_steps,
        "schedule_steps": options.schedule_steps,
    }

"""Looking at DATA's files before any work: going on where a scan was stopped, telling what was
found, keeping it in a folder."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.finder import Finder
from smnm_kernels.train.data.label_checks import counted, some
from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.data.left_out import by_reason
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.records import Journal, Known, read_files, write_files
from smnm_kernels.train.data.scan import (
    Listing,
    ScanStopped,
    scan,
    shown_name,
)

from .folder import FILES, LABELS, SCAN, SKIPPED, before_any_work, read_config, write_json
from .machine import cores
from .signals import StoppedBySignal, StopSignal
from .stalled import bounded

#: In a folder that is no run: what files.json is a listing of.
DATA = "data.json"

_MOST_NAMED = 50  # skipped files on the screen; skipped.json has them all


def scan_and_tell(
    folder: Path, modality: Modality, finder: Finder, known: Known, stall_limit: float
) -> Listing:
    """Look at DATA's files and print what was found.

    folder: which is there; its scan.jsonl holds what was found so far, until who called has written
        files.json and removes it. Files in it are no data.
    known: files that have not changed since are not looked at again.

    Raises UsageError where no file is of use, StoppedBySignal after Ctrl-C or SIGTERM.
    """
    where = str(finder.data.resolve())
    of = {"scan of": where, "modality": modality.name, "clip": asdict(modality)}
    journal = Journal(folder / SCAN, of)
    with StopSignal() as stop:
        try:
            listing = scan(
                finder,
                modality,
                known,
                threads=min(32, cores()),
                besides=folder,  # a run may lie among its data, and has pictures of its own
                journal=journal,
                stopping=lambda: stop.number is not None,
                stall_limit=stall_limit,
            )
        except ScanStopped as stopped:
            assert stop.number is not None
            raise _stopped(stop.number, stopped.done, stopped.total) from stopped
        except UsageError:
            journal.remove()
            raise
        if stop.number is not None:  # a signal behind the scan's last look at it
            total = len(listing.usable) + len(listing.skipped)
            raise _stopped(stop.number, total, total)
    _say_what_was_found(listing, modality, folder / SKIPPED)
    try:
        if not listing.usable:
            total = len(listing.skipped)
            reasons = by_reason(record["reason"] for record in listing.skipped)
            raise UsageError(
                f"DATA {printable(str(finder.data))}: no usable file: all {total} were skipped, "
                f"see above: {reasons}"
            )
        for remark in listing.found.judged(listing.usable):
            print(f"  {remark}", flush=True)
    except UsageError:
        journal.remove()
        raise
    return listing


def _stopped(number: int, done: int, total: int) -> StoppedBySignal:
    """Says what is kept."""
    kept = f"what was found in {done} of {total} files is kept"
    print(
        f"stopped by {signal.Signals(number).name} before the first step; "
        f"{kept if total else 'files were still searched for'}; "
        "give the same command again to go on",
        flush=True,
    )
    return StoppedBySignal(number)


def scan_into(
    folder: Path,
    modality: Modality,
    finder: Finder,
    scan_of: Path | None,
    stall_limit: float,
) -> Listing:
    """As `scan_and_tell`, for a command that trains no run: its folder, made where it is not there,
    gets files.json, skipped.json and labels.json, and what files.json holds of the same DATA
    is not looked at again."""
    with before_any_work(folder):
        folder.mkdir(parents=True, exist_ok=True)
    of = {"data": str(finder.data.resolve()), "modality": modality.name, "probed": modality.probed}
    known = known_of(scan_of, modality, finder.data)
    if _is_listing_of(folder, of):
        for records in read_files(folder / FILES):
            known.add(records.lines())
    listing = scan_and_tell(folder, modality, finder, known, stall_limit)
    with bounded(folder, stall_limit), before_any_work(folder):
        with replacing(folder / FILES) as file:
            write_files(file, listing.usable, listing.skipped)
        write_json(folder / DATA, of)
        write_json(folder / SKIPPED, listing.reasons())
        if listing.labels is not None:
            write_labels(folder, listing.labels)
        (folder / SCAN).unlink()
    return listing


def _is_listing_of(folder: Path, of: dict[str, Any]) -> bool:
    try:
        held = json.loads((folder / DATA).read_text())
    except (OSError, ValueError):
        return False
    return (folder / FILES).exists() and held == json.loads(json.dumps(of))


def known_of(scan_of: Path | None, modality: Modality, data: Path) -> Known:
    """What a run (`--scan-of`), or a folder that `scan_into` wrote, has found of DATA's files;
    nothing where none is given."""
    known = Known()
    if scan_of is None:
        return known
    asked = f"--scan-of {printable(str(scan_of))}"
    found, its_data = _settings_and_data(scan_of, asked)
    where = str(data.resolve())
    if its_data != where:
        raise UsageError(f"{asked}: is a run of {its_data}, not of {where}")
    wanted = {"modality": modality.name, **modality.probed}
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        there = ", ".join(f"{name} {found.get(name)!r}" for name in differing)
        here = ", ".join(f"{name} {wanted[name]!r}" for name in differing)
        raise UsageError(f"{asked}: looked at files for {there}, and this run is for {here}")
    for records in read_files(scan_of / FILES):
        known.add(records.lines())
    return known


def _settings_and_data(folder: Path, asked: str) -> tuple[dict[str, Any], Any]:
    """(the settings with which a folder's files were looked at, the DATA that they are of)"""
    try:
        other = read_config(folder)
    except UsageError as error:
        raise UsageError(f"{asked}: {error}") from error
    if other is not None and (folder / FILES).exists():
        settings = {"modality": other["run"].get("modality"), **other["run"].get("clip", {})}
        return settings, other["runtime"].get("data")
    try:
        held = json.loads((folder / DATA).read_text())
        settings = {"modality": held["modality"], **held["probed"]}
    except (OSError, ValueError, TypeError, KeyError):
        held = None
    if held is None or not (folder / FILES).exists():
        raise UsageError(f"{asked}: holds no run")
    return settings, held["data"]


def write_labels(folder: Path, labels: Labels) -> None:
    """labels.json: what kind they are of, and the names of the classes by their numbers."""
    write_json(folder / LABELS, {"kind": labels.kind, "names": list(labels.names)})


def read_labels(folder: Path) -> Labels | None:
    """Those of labels.json, without files; None where the folder has none."""
    try:
        held = json.loads((folder / LABELS).read_text())
        return Labels(held["kind"], tuple(held["names"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{folder / LABELS}: is no list of labels ({error})") from error


def label_differences(ours: Labels | None, theirs: Labels | None) -> list[str]:
    """How the kind and the classes of a run's labels (`theirs`) and DATA's (`ours`) differ."""
    if ours is None or theirs is None:
        return [] if ours is theirs else ["labelled " + ("then" if theirs else "now") + " only"]
    if ours.kind != theirs.kind:
        return [f"labels are of kind {ours.kind!r} now, {theirs.kind!r} then"]
    found = []
    for what, here, there in (("new", ours, theirs), ("gone", theirs, ours)):
        names = sorted(set(here.names) - set(there.names))
        if names:
            found.append(f"{counted(names, 'class', 'classes')} {what} ({some(names)})")
    if not found and ours.names != theirs.names:
        found.append("the classes are in another order")
    return found


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
    for line in listing.left_out.counts():
        print(f"  not looked at: {line}")
    for remark in modality.remarks(listing.usable) if listing.usable else []:
        print(f"  {remark}")

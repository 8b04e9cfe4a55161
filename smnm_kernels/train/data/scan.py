"""Looking at every data file once and sorting out, by name and reason, those of no use."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from smnm_kernels.errors import RunError, Unusable, UsageError, printable

from .bars import bar
from .entries import Entry, Found
from .finder import Files, Finder
from .labels import Labels
from .left_out import LeftOut, no_file, unreadable
from .modality import Modality, Record
from .records import Journal, Known, Records, to_line
from .source import Source
from .waiting import (
    DEFAULT_STALL_LIMIT_S,
    TICK_S,
    Background,
    Diary,
    Stopped,
    Watch,
    wait_for,
)

_DIGEST_BYTES = 1 << 16  # from either end of the file
_MOST_AT_ONCE = 32  # files that a thread takes in one go
_AHEAD = 16  # times that each thread may do so before an earlier file is done
_PATIENCE_S = 2.0  # for files that are being looked at when a scan is stopped
# What says nothing of the file itself, which is looked at again next time.
_OF_THE_MOMENT = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM}
_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclass(frozen=True)
class Listing:
    """What DATA holds, both lists in the order of the names: the order samples refer to."""

    found: Found
    usable: Records
    skipped: Records  # with "reason"

    @property
    def left_out(self) -> LeftOut:
        return self.found.left_out

    @property
    def labels(self) -> Labels | None:
        return self.found.labels

    @property
    def remarks(self) -> list[str]:
        """To print."""
        return self.found.remarks()

    def reasons(self) -> dict[str, str]:
        """Everything that is left out by its printable name, for skipped.json."""
        return self.left_out.reasons() | {shown_name(r): r["reason"] for r in self.skipped}


class ScanStopped(Exception):
    """A scan was stopped from outside. `done` of `total` files are in its journal."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(done, total)
        self.done, self.total = done, total


def shown_name(record: Record) -> str:
    return printable(Entry.of(record).shown)


def scan(
    data: Path | Finder,
    modality: Modality,
    known: Known | None,
    threads: int,
    besides: Path | None = None,
    journal: Journal | None = None,
    stopping: Callable[[], bool] = lambda: False,
    stall_limit: float = DEFAULT_STALL_LIMIT_S,
) -> Listing:
    """Probe every data file of `data`, but for those in the folder `besides`.

    data: the path whose files are looked at, or what finds them and knows their labels.

    Files keep their records in `known` and in the journal where size and time of change are the
    same; the journal gets the others as they are made. Raises ScanStopped once `stopping()` is
    true, UsageError where no file is found, and RunError with its name where a file or the search
    shows no sign of life for `stall_limit` seconds.
    """
    finder = Files(data) if isinstance(data, Path) else data
    found = _find(finder, modality.suffixes, besides, stopping, stall_limit)
    if not found.entries:
        raise UsageError(f"DATA {no_file(finder.data, modality.suffixes, found.left_out)}")
    known = known or Known()
    if journal is not None:
        known.add(journal.read())
        journal.open()
    listing = Listing(found, Records(), Records())
    examine = partial(_examine, found.base, modality, known, journal)
    # A long film may take many minutes of work.
    watch = Watch(
        stall_limit,
        lambda i: printable(found.entries[i].shown),
        _say,
        stopping,
        busy_factor=math.inf,
    )
    # FFmpeg and the other decoders work outside the interpreter's lock, so threads do run in
    # parallel.
    with (
        closing(journal) if journal else nullcontext(),
        bar("scanning", len(found.entries)) as shown,
        closing(_in_order(examine, found.entries, threads, watch, stopping)) as work,
    ):
        try:
            for is_usable, line in work:
                if found.labels is not None:
                    line = to_line(found.attached(json.loads(line)))
                (listing.usable if is_usable else listing.skipped).append_line(line)
                shown.update()
        except Stopped:
            raise ScanStopped(shown.n, len(found.entries)) from None
        except RunError as error:
            kept = f". What was found in {shown.n} of {len(found.entries)} files is kept"
            raise RunError(f"{error}{kept if journal else ''}") from error
    return listing


def _say(text: str) -> None:
    tqdm.write(text)


def _find(
    finder: Finder,
    suffixes: frozenset[str],
    besides: Path | None,
    stopping: Callable[[], bool],
    stall_limit: float,
) -> Found:
    """In a thread, since a file system that does not answer keeps whoever asks it."""
    shown = printable(str(finder.data))
    with bar("searching") as seen:

        def search(diary: Diary) -> Found:
            def tick() -> None:
                diary.begin(0)
                seen.update()
                if stopping():
                    raise Stopped

            return finder.find(suffixes, besides, tick)

        watch = Watch(stall_limit, lambda _: shown, _say, stopping)
        try:
            return wait_for(Background(f"the search for files in {shown}", search), watch)
        except Stopped:
            raise ScanStopped(0, 0) from None
        except UsageError as error:
            raise UsageError(f"DATA {error}") from error


class _Looker:
    """A thread that looks at files, as who waits for it sees it."""

    name = "the scan"

    def __init__(self) -> None:
        self.diary = Diary(bytearray(Diary.SIZE))
        self.task = f"/proc/self/task/{threading.get_native_id()}"


def _in_order(
    work: Callable[[_T], _U],
    items: list[_T],
    threads: int,
    watch: Watch,
    stopping: Callable[[], bool],
) -> Generator[_U]:
    """work(item) for every item, in their order, by so many threads. Raises Stopped, and what
    `watch` raises of the thread that is waited for.

    An executor would hold a future for each of millions of items, and would keep the process until
    the files that are being read are done, which on a stalled file system they never are.
    """
    # One at a time where there are few. Of many, to take turns would cost as much as a short look.
    share = max(1, min(_MOST_AT_ONCE, len(items) // (64 * threads)))
    starts = range(0, len(items), share)
    turn = threading.Condition()
    done: dict[int, list[_U] | BaseException] = {}
    at: dict[int, _Looker] = {}  # share -> who looks at it
    begun = taken = 0  # shares
    over = False

    def serve() -> None:
        nonlocal begun
        looker = _Looker()
        while True:
            with turn:
                while not over and begun >= taken + _AHEAD * threads:
                    turn.wait()
                if over or begun == len(starts):
                    return
                number, begun = begun, begun + 1
                at[number] = looker
            first = starts[number]
            results: list[_U] = []
            failure = None
            try:
                for i, item in enumerate(items[first : first + share], first):
                    if over:
                        return
                    looker.diary.begin(i)
                    results.append(work(item))
            except BaseException as error:
                failure = error
            with turn:
                done[number] = failure or results
                if number == taken:
                    turn.notify_all()

    pool = [threading.Thread(target=serve, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    try:
        while taken < len(starts):
            with turn:
                watch.begin()
                while taken not in done:
                    turn.wait(TICK_S)
                    if taken not in done and taken in at:  # what is done is told of
                        watch.tick(at[taken])
                results = done.pop(taken)
                at.pop(taken)
                taken += 1
                turn.notify_all()
            if isinstance(results, BaseException):
                raise results
            yield from results
            if taken % 64 == 0 and stopping():  # also where no result is waited for
                raise Stopped
    finally:
        with turn:
            over = True
            turn.notify_all()
        until = time.monotonic() + _PATIENCE_S
        for thread in pool:
            thread.join(max(0, until - time.monotonic()))


def _examine(
    base: Path, modality: Modality, known: Known, journal: Journal | None, entry: Entry
) -> tuple[bool, bytes]:
    """(whether it is usable, its record)"""
    source = entry.source(base)
    record: Record = {"name": entry.name}
    try:
        stat = os.stat(source.path)
        record |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if entry.shard:
            record |= {"size": entry.size, "shard": entry.shard, "start": entry.start}
        line = known.line(entry.name, entry.shard)
        before = json.loads(line) if line else {}
        if line and all(before.get(k) == record[k] for k in record):
            return "reason" not in before, line
        digest = {"digest": _digest(source, record["size"])}
        record |= digest | _probe(modality, source)
        line = to_line(record)
    except OSError as error:
        # Without a digest: it is looked at again next time.
        return False, to_line(record | {"reason": unreadable(error)})
    if journal is not None:
        journal.add(line)
    return "reason" not in record, line


def _probe(modality: Modality, source: Source) -> dict[str, Any]:
    try:
        return modality.probe(source)
    except Unusable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _OF_THE_MOMENT:
            raise cause from None
        return {"reason": str(error)}
    except MemoryError as error:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
    except OSError:
        raise
    except Exception as error:  # a decoder that met what it was not made for ends no scan
        return {"reason": f"makes its decoder fail ({type(error).__name__}: {error})"}


def _digest(source: Source, size: int) -> str:
    """Tells two files of one name apart without reading either of them whole."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with source.path.open("rb") as file:
        file.seek(source.start)
        digest.update(file.read(min(size, _DIGEST_BYTES)))
        if size > _DIGEST_BYTES:
            rest = min(_DIGEST_BYTES, size - _DIGEST_BYTES)
            file.seek(source.start + size - rest)
            digest.update(file.read(rest))
    return digest.hexdigest()


def differences(ours: Iterable[Record], theirs: Iterable[Record]) -> list[str]:
    """How a run's usable files (`theirs`) and the folder's (`ours`) differ; empty if not.

    Both in the order of the names. Labels count as much as what is in the files. In which shard a
    member lies makes no difference, as long as members of one name stay in their order.
    """
    found = {
        what: _Names()
        for what in ("gone", "new", "changed", "labelled otherwise", "in other splits")
    }
    now, then = _by_name(ours), _by_name(theirs)
    one, other = next(now, None), next(then, None)
    while one or other:
        if one and (not other or one[0] < other[0]):
            found["new"].add(one[0])
            one = next(now, None)
        elif other and (not one or other[0] < one[0]):
            found["gone"].add(other[0])
            other = next(then, None)
        elif one and other:
            for what, key in (
                ("changed", "digest"),
                ("labelled otherwise", "label"),
                ("in other splits", "split"),
            ):
                if [r.get(key) for r in one[1]] != [r.get(key) for r in other[1]]:
                    found[what].add(one[0])
                    break
            one, other = next(now, None), next(then, None)
    return [f"{names.count} {what} ({names})" for what, names in found.items() if names.count]


def _by_name(records: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    for name, group in groupby(records, key=lambda record: record["name"]):
        yield name, list(group)


class _Names:
    """How many there are, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(printable(name))

    def __str__(self) -> str:
        return ", ".join(self.first) + (", …" if self.count > len(self.first) else "")

"""Finding the data files below a folder and sorting out, by name and reason, those of no use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from smnm_kernels.errors import Unusable, UsageError

from .modality import Modality, Record
from .source import Source

_DIGEST_BYTES = 1 << 16  # from either end of the file


@dataclass(frozen=True)
class Listing:
    """What a folder holds, both lists in the order of the names: the order samples refer to."""

    usable: list[Record]
    skipped: list[Record]  # with "reason"


def find_files(folder: Path, suffixes: frozenset[str], besides: Path | None = None) -> list[str]:
    """Names relative to `folder`, with forward slashes, sorted; follows links, not hidden names,
    and does not enter the folder `besides`."""
    seen = set() if besides is None else {os.path.realpath(besides)}
    return sorted(name for name in _walk(folder, seen) if Path(name).suffix.lower() in suffixes)


def _walk(folder: Path, seen: set[str], prefix: str = "") -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in seen:  # also by a link that leads back up
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), seen, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield prefix + entry.name


def scan(
    folder: Path,
    modality: Modality,
    known: dict[str, Record],
    threads: int,
    besides: Path | None = None,
) -> Listing:
    """Probe every data file below `folder`, but for those in the folder `besides`; unchanged files
    keep their records in `known`."""
    try:
        names = find_files(folder, modality.suffixes, besides)
    except OSError as error:
        where = error.filename or folder
        raise UsageError(
            f"DATA {folder}: {where} cannot be read ({error.strerror}); every folder below DATA "
            "must be readable"
        ) from error
    if not names:
        raise UsageError(
            f"DATA {folder}: no usable file: there is none below it that ends in "
            f"{' '.join(sorted(modality.suffixes))}"
        )
    # FFmpeg and libsndfile work outside the interpreter's lock, so threads do run in parallel.
    with ThreadPoolExecutor(threads) as pool:
        work = pool.map(partial(_examine, folder, modality, known), names)
        try:
            records = list(tqdm(work, "scanning", len(names), unit=" files", leave=False))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    usable = [r for r in records if "reason" not in r]
    return Listing(usable, [r for r in records if "reason" in r])


def _examine(
    folder: Path,
    modality: Modality,
    known: dict[str, Record],
    name: str,
) -> Record:
    path = folder / name
    record: Record = {"name": name}
    try:
        stat = path.stat()
        record |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        before = known.get(name)
        if before and all(before.get(k) == record[k] for k in ("size", "mtime_ns")):
            return before
        return record | {"digest": _digest(path, stat.st_size)} | modality.probe(Source(path))
    except Unusable as error:
        return record | {"reason": str(error)}
    except OSError as error:
        return record | {"reason": f"cannot be read ({error.strerror})"}


def _digest(path: Path, size: int) -> str:
    """Tells two files of one name apart without reading either of them whole."""
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_DIGEST_BYTES))
        if size > _DIGEST_BYTES:
            file.seek(max(_DIGEST_BYTES, size - _DIGEST_BYTES))
            digest.update(file.read(_DIGEST_BYTES))
    return digest.hexdigest()


def differences(ours: list[Record], theirs: list[Record]) -> list[str]:
    """How a run's usable files (`theirs`) and the folder's (`ours`) differ; empty if not."""
    now = {r["name"]: r["digest"] for r in ours}
    then = {r["name"]: r["digest"] for r in theirs}
    groups = {
        "gone": sorted(then.keys() - now.keys()),
        "new": sorted(now.keys() - then.keys()),
        "changed": sorted(n for n in now.keys() & then.keys() if now[n] != then[n]),
    }
    return [f"{len(names)} {what} ({_some(names)})" for what, names in groups.items() if names]


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")

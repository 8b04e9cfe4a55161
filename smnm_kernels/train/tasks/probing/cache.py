"""Features on disk: one folder for each way of computing them, in it shards that are written as
the work goes on.

Rows are found by the content of their file, so a file that changed is computed alone and one that
was renamed is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smnm_kernels.errors import UsageError
from smnm_kernels.files import reason, replacing
from smnm_kernels.train.data.source import Source

_FORMAT = "smnm-features-2"
# A write takes seconds; what is older was left by a process that was killed. No process is asked
# for: a cache may be shared by machines that do not see each other's.
_LEFT_BEHIND_S = 3600
_AT_ONCE = 1 << 20  # bytes of a file

Row = dict[str, Tensor]  # by "pooled.LAYER" [dim] and "tokens.LAYER" [n, dim]


def key_of(said: Any) -> str:
    """16 bytes in hexadecimal digits of what JSON can hold."""
    text = json.dumps(said, sort_keys=True).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def content_key(source: Source) -> str:
    """Of every byte that a file holds, whatever it is called. OSError where it cannot be read.

    The digest in a record is of both ends of a file alone, and recordings that begin and end in
    silence share it.
    """
    digest = hashlib.blake2b(digest_size=16)
    with source.path.open("rb") as file:
        file.seek(source.start)
        left = source.size
        while left is None or left > 0:
            part = file.read(_AT_ONCE if left is None else min(left, _AT_ONCE))
            if not part:
                break
            digest.update(part)
            left = None if left is None else left - len(part)
    return digest.hexdigest()


class FeatureCache:
    """The features that were computed in one way, which `of` says."""

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        self.path = folder / key_of({"format": _FORMAT, **of})
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_what_was_left()
            with replacing(self.path / "settings.json") as file:
                file.write(json.dumps({"format": _FORMAT, **of}, indent=1).encode() + b"\n")
        except OSError as error:
            raise UsageError(f"--cache {folder}: cannot be written ({reason(error)})") from error

    def _remove_what_was_left(self) -> None:
        """By processes that were killed while they wrote; others may be writing now."""
        for path in self.path.glob(".*.tmp"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                    path.unlink()

    def keys(self) -> set[str]:
        return {key for _, keys in self._shards() for key in keys}

    def add(self, rows: dict[str, Row]) -> None:
        """Write them as one shard, whole or not at all."""
        if not rows:
            return
        tensors = {f"{key}/{name}": x for key, row in rows.items() for name, x in row.items()}
        name = f"shard-{key_of(sorted(rows))}.safetensors"
        with replacing(self.path / name) as file:
            file.write(safetensors.torch.save(tensors, {"keys": json.dumps(list(rows))}))

    def rows(self, wanted: Iterable[str]) -> dict[str, Row]:
        """Those of the rows that are there."""
        left = set(wanted)
        found: dict[str, Row] = {}
        for path, keys in self._shards():
            here = left.intersection(keys)
            if not here:
                continue
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    key, _, what = name.partition("/")
                    if key in here:
                        found.setdefault(key, {})[what] = file.get_tensor(name)
            left -= here
        return found

    def _shards(self) -> list[tuple[Path, list[str]]]:
        shards = []
        for path in sorted(self.path.glob("shard-*.safetensors")):
            try:
                with safe_open(str(path), framework="pt") as file:
                    shards.append((path, json.loads((file.metadata() or {})["keys"])))
            except (SafetensorError, KeyError, ValueError, OSError) as error:
                raise UsageError(f"--cache: {path} is damaged ({error}); remove it") from error
        return shards


def bytes_of(row: Row) -> int:
    return sum(x.numel() * x.element_size() for x in row.values())


def averaged(views: list[Row]) -> Row:
    """Of the views of a file: vectors are averaged, tokens stand one behind the other."""
    row = {}
    for name in views[0]:
        parts = [view[name] for view in views]
        row[name] = torch.cat(parts) if name.startswith("tokens.") else torch.stack(parts).mean(0)
    return row

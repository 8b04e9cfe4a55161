"""smnm export: a trained model as a folder that other codebases load."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor
from tyro.conf import Positional, arg
from tyro.extras import literal_type_from_choices

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import reason, sync, sync_folder
from smnm_kernels.train.models.formats.files import read_json
from smnm_kernels.train.models.formats.folders import FORMATS, SAFETENSORS, Folder, as_json
from smnm_kernels.train.models.formats.told import EXPORT, EXPORT_FORMAT
from smnm_kernels.train.models.formats.weights import Weights
from smnm_kernels.train.models.pretrained import read_weights

from .model_card import model_card

CARD = "README.md"

if TYPE_CHECKING:
    Format = str
else:
    Format = literal_type_from_choices(FORMATS)


@dataclass(kw_only=True)
class Export:
    """Write a trained model as a folder that other codebases load, with a model card.

    hf-videomae: transformers' VideoMAEModel, VideoMAEForPreTraining (with the decoder, of a
    pretraining run) or VideoMAEForVideoClassification (of a fine-tuning run). hf-vitmae:
    transformers' ViTMAEModel and ViTMAEForPreTraining, or ViTForImageClassification. timm: a
    VisionTransformer of pictures or spectrograms. mae: a checkpoint in the names of VideoMAE's,
    MAE's or AudioMAE's own code.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of a run, or whatever --encoder takes: an encoder.safetensors, a folder of
    transformers or timm, a checkpoint of VideoMAE, MAE or AudioMAE."""
    to: Format
    """Whose format."""
    out: Path
    """Folder to make. One that smnm export made, and nobody changed since, is replaced."""

    def __post_init__(self) -> None:
        self.run, self.out = Path(self.run), Path(self.out)


def export(options: Export) -> int:
    """Write the folder. Raises UsageError, before anything is written, where it cannot be."""
    asked = f"RUN {printable(str(options.run))}"
    _check_out(options.out)
    if options.to not in FORMATS:
        raise UsageError(f"--to must be one of {', '.join(FORMATS)}, got {options.to!r}")
    try:
        given = read_weights(options.run, whole=True)
    except ValueError as error:
        raise UsageError(f"{asked}: {printable(str(error))}") from error
    try:
        folder = FORMATS[options.to](given)
    except ValueError as error:
        raise UsageError(f"--to {options.to}: {error} ({asked})") from error
    for remark in (*given.remarks, *folder.remarks):
        print(f"note: {remark}")
    try:
        card = model_card(options.run, options.to, given, folder)
        with _replacing_folder(options.out) as made:
            _write(made, given, folder, card)
    except OSError as error:
        name = error.filename or options.out
        raise UsageError(f"--out {options.out}: {name}: {reason(error)}") from error
    decoder = any("decoder" in name for name in folder.tensors)
    parts = ["encoder"] + ["decoder"] * decoder + ["head"] * bool(given.head)
    print(
        f"{options.out}: {' and '.join(parts)}, {len(folder.tensors)} tensors in {folder.weights}"
        f"; {CARD} says what they are: choose a licence there",
        flush=True,
    )
    return 0


def _write(out: Path, given: Weights, folder: Folder, card: str) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in folder.tensors.items()}
    with _file(out / folder.weights) as file:
        if folder.weights == SAFETENSORS:
            file.write(safetensors_bytes(tensors, {"format": "pt"}))
        else:
            torch.save({"model": _apart(tensors)}, file)
    for name, content in folder.files.items():
        with _file(out / name) as file:
            file.write(_json(content))
    with _file(out / CARD) as file:
        file.write(card.encode())
    about = {
        "format": EXPORT_FORMAT,
        "told": as_json(folder.told),
        "modality": given.modality,
        "mean": given.mean,
        "scale": given.scale,
        "clip": given.clip,
        "step": given.step,
        "files": {file.name: _digest(file) for file in sorted(out.iterdir())},
    }
    with _file(out / EXPORT) as file:
        file.write(_json(about))


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With memory of their own: torch.save writes the whole of what a view looks at."""
    return {name: t.clone() for name, t in tensors.items()}


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


@contextmanager
def _file(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        yield file
        file.flush()
        sync(file.fileno())


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _check_out(out: Path) -> None:
    """Refuses a place that holds anything but what `smnm export` left there."""
    asked = f"--out {printable(str(out))}"
    if not os.path.lexists(out):
        return
    if not out.is_dir() or out.is_symlink():
        raise UsageError(f"{asked}: is there and no folder")
    names = {entry.name for entry in out.iterdir()}
    if not names:
        return
    if EXPORT not in names:
        raise UsageError(f"{asked}: holds files that are not of smnm export; give another folder")
    try:
        files = read_json(out / EXPORT)["files"]
        changed = sorted(names - set(files) - {EXPORT})
        changed += sorted(n for n, d in files.items() if n in names and _digest(out / n) != d)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{asked}: its {EXPORT} cannot be read; give another folder") from error
    if changed:
        raise UsageError(
            f"{asked}: is an export, but {', '.join(map(printable, changed))} came or changed "
            "since; give another folder"
        )


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill. When the block ends without an error it takes the place of `path`,
    whole; otherwise that stays as it was. What killed processes left beside it is removed, but a
    folder that one was replacing, which may be the only one, not before the new one is there."""
    path = path.resolve()  # "." and ".." have no name
    path.parent.mkdir(parents=True, exist_ok=True)
    new, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    _remove_leftovers(path, "tmp")
    move: Callable[[Path, Path], None] = os.rename
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        sync_folder(new)
        if path.exists():
            move(path, old)
        try:
            move(new, path)
        except OSError:
            if old.exists():
                move(old, path)
            raise
        sync_folder(path.parent)
        _remove_leftovers(path, "old")
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(path: Path, kind: str) -> None:
    """Folders beside `path` of processes that are no more."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.{kind}")
    for beside in path.parent.iterdir():
        found = name.fullmatch(beside.name)
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(beside, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True

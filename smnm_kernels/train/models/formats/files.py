"""Tensors in files and folders of other people: read whole, without running what is in them.

A file is what its content says: safetensors, or what torch.save wrote. Of the latter only tensors
and plain values are loaded, and `argparse.Namespace`, in which MAE's, AudioMAE's and VideoMAE's
checkpoints keep their options.
"""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smnm_kernels.files import reason

from .state import State

# In the order in which a folder is searched; those of transformers and timm.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
# Where checkpoints keep the model: VideoMAE's DeepSpeed ones in "module", most others in "model".
_WRAPPERS = ("model", "module", "state_dict", "model_state_dict")
# What stands before every name: data-parallel training, torch.compile, models around a backbone.
_PREFIXES = ("module.", "_orig_mod.", "backbone.")


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights: one, or the shards that an index names.

    Raises:
        ValueError: where there are none, or several that might be meant.
    """
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
    for name in _INDICES:
        if (folder / name).is_file():
            return _shards(folder / name)
    found = sorted(f for f in folder.iterdir() if f.suffix in _SUFFIXES and f.is_file())
    if len(found) == 1:
        return found
    if found:
        raise ValueError(f"holds several files of weights: {', '.join(f.name for f in found)}")
    raise ValueError(f"holds no weights: none of {', '.join((*_WEIGHTS, *_INDICES))}")


def _shards(index: Path) -> list[Path]:
    held = read_json(index)
    names = held.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index.name}: has no weight_map")
    files = [index.parent / str(name) for name in sorted(set(map(str, names.values())))]
    for file in files:
        if file.parent.resolve() != index.parent.resolve():
            raise ValueError(f"{index.name}: names a file outside the folder, {file.name}")
        if not file.is_file():
            raise ValueError(f"{index.name}: names {file.name}, which is not there")
    return files


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON; ValueError, which names the file, where it is none."""
    try:
        held = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({reason(error)})") from error
    except ValueError as error:
        raise ValueError(f"{path.name}: is no JSON ({error})") from error
    if not isinstance(held, dict):
        raise ValueError(f"{path.name}: must hold an object of JSON, got {type(held).__name__}")
    return held


def read_tensors(path: Path) -> State:
    """Name -> tensor of one file, floating-point ones in float32.

    Raises:
        ValueError: which says why it is no file of weights.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({reason(error)})") from error
    if not begin:
        raise ValueError(f"{path.name}: is empty")
    if begin[:2] in (b"PK", b"\x80\x02"):
        held = _unpickled(path)
    elif begin[8:9] == b"{":
        held = _safetensors(path)
    else:
        raise ValueError(f"{path.name}: is neither a safetensors file nor a torch checkpoint")
    state = {name: _plain(t) for name, t in _named(held).items()}
    if not state:
        raise ValueError(f"{path.name}: holds no tensors")
    for name, t in state.items():
        if t.is_floating_point() and not t.isfinite().all():
            raise ValueError(f"{path.name}: {name} holds values that are not finite")
    return state


def _safetensors(path: Path) -> State:
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name}: is a cut or damaged safetensors file ({error})") from error


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, so that an optimiser beside the model is not read; old files cannot be.
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # Which error it is depends on where the file is cut, and on torch's version.
        named = re.search(r"(?:GLOBAL|global:?|Unsupported class) (\w+(?:\.\w+)+)", str(error))
        if named:
            raise ValueError(
                f"{path.name}: is not loaded, for it holds more than weights: {named[1]}, which "
                "could run code"
            ) from error
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path.name}: is a cut or damaged torch checkpoint ({first})") from error


def _named(held: Any) -> State:
    """The tensors of a checkpoint, without wrappers and their prefixes."""
    while isinstance(held, Mapping):
        tensors = {str(name): t for name, t in held.items() if isinstance(t, Tensor)}
        inner = next((held[w] for w in _WRAPPERS if isinstance(held.get(w), Mapping)), None)
        if inner is None:
            break
        held = inner
    else:
        return {}
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


def _plain(t: Tensor) -> Tensor:
    t = t.detach()
    return t.float() if t.is_floating_point() else t

"""The cells of a study: one encoder each, with all that is measured on it, named by its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import smnm_kernels
from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.label_rows import LIST_SUFFIXES

from .plan import DataSet, Measure, Run, StudyPlan

#: A set's generator notes there what it ran with; that makes no other files. But a plan may name it
#: as a list.
_NOT_DATA = ("manifest.json",)


@dataclass(frozen=True)
class Cell:
    """An encoder of one run, seed and data set."""

    run: Run
    data: str
    seed: int
    settings: dict[str, Any]  # all that decides its numbers
    paths: Mapping[str, Path]  # of the data sets it reads; without those that are not there

    @property
    def name(self) -> str:
        return f"{self.data} {self.run.name} seed {self.seed}"

    @property
    def has_data(self) -> bool:
        return all(one["fingerprint"] is not None for one in self.settings["data"].values())

    @property
    def id(self) -> str:
        """16 hexadecimal digits of everything that decides its numbers, code among it."""
        return _digest(self.settings)

    @property
    def id_of_any_code(self) -> str:
        """Of all but the code."""
        return _digest({k: v for k, v in self.settings.items() if k != "code"})


def cells_of(plan: StudyPlan, given: Mapping[str, Path]) -> list[Cell]:
    """All cells, those of the first seed first. `given`: paths of data sets that take the place of
    the plan's."""
    paths = {
        name: given.get(name, Path(data.path) if data.path else None)
        for name, data in plan.data.items()
    }
    there = {name: path for name, path in paths.items() if path is not None and path.exists()}
    prints = {name: fingerprint(path, _lists(plan, name)) for name, path in there.items()}
    cells = [
        Cell(run, data, seed, _settings(plan, run, data, seed, prints), there)
        for run in plan.runs.values()
        for data in run.on
        for seed in run.seeds
    ]
    order = {name: place for place, name in enumerate(plan.runs)}
    return sorted(cells, key=lambda cell: (cell.run.seeds.index(cell.seed), order[cell.run.name]))


def measures_of(plan: StudyPlan, run: str, data: str) -> list[Measure]:
    """What is measured on the encoders of a run on a data set."""
    return [one for one in plan.measures.values() if data in one.on and run in one.runs]


def need_data(plan: StudyPlan, cells: Sequence[Cell]) -> None:
    """Raises UsageError, which says how to get it, where a data set that is read is not there."""
    for cell in cells:
        for name, one in cell.settings["data"].items():
            if one["fingerprint"] is None:
                make = plan.data[name].make
                how = f"; it is made by: {make}" if make else ""
                raise UsageError(
                    f"data {name} of the plan is not there: give --data {name}=PATH{how}"
                )


def _settings(
    plan: StudyPlan, run: Run, data: str, seed: int, prints: Mapping[str, str]
) -> dict[str, Any]:
    measures = {m.name: asdict(m) for m in measures_of(plan, run.name, data)}
    for measure in measures.values():
        del measure["name"], measure["on"], measure["runs"]
    names = dict.fromkeys([data, *(m["of"] for m in measures.values() if m["of"])])
    content = {
        "modality": plan.modality,
        "data": {name: _of_data(plan.data[name], prints.get(name)) for name in names},
        "trained_on": data,
        "untrained": run.untrained,
        "pretrain": _by_content(run.options | plan.data[data].pretrain) | {"seed": seed},
        "measures": measures,
        "code": {"smnm_kernels": version("smnm_kernels"), "sources": source_digest()},
    }
    return json.loads(json.dumps(content, default=str))


def _by_content(options: dict[str, Any]) -> dict[str, Any]:
    """Options of smnm pretrain, files among them by what is in them, wherever they lie."""
    return {k: file_digest(v) if isinstance(v, Path) else v for k, v in options.items()}


@cache
def file_digest(path: Path) -> str:
    """Of a file, or of all below a folder."""
    found = hashlib.sha256()
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    for file in files:
        found.update(f"{file.relative_to(path).as_posix()} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            for part in iter(lambda: content.read(1 << 20), b""):
                found.update(part)
    return found.hexdigest()[:16]


def _of_data(data: DataSet, print_of: str | None) -> dict[str, Any]:
    kept = {k: v for k, v in asdict(data).items() if k not in ("path", "make", "train", "pretrain")}
    return kept | {"fingerprint": print_of}


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def source_digest() -> str:
    """Of the package's Python sources, Triton's kernels among them. Kernels in C++ draw what the
    reference does, bit for bit, and their compiled form is each machine's own."""
    root, found = Path(smnm_kernels.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return found.hexdigest()[:16]


def _lists(plan: StudyPlan, data: str) -> frozenset[str]:
    """Files of a data set that the plan names, below its path or elsewhere."""
    measures = [m for m in plan.measures.values() if m.of == data or (not m.of and data in m.on)]
    options = [plan.data[data].labels, *(m.options for m in measures)]
    named = [str(v) for one in options for v in one.values() if isinstance(v, str | Path)]
    return frozenset(filter(None, [plan.data[data].list, *(m.list for m in measures), *named]))


@cache
def fingerprint(path: Path, lists: frozenset[str] = frozenset()) -> str:
    """Of a data set, quickly: names and sizes of its files, and what its lists say. Files that
    change and keep their size are not seen; what training reads has its own fingerprint in the
    results. lists: those that are read, by their names from `path`, whatever they are called and
    wherever they lie."""
    found = hashlib.sha256()
    named = {os.path.realpath(path / one) for one in lists}
    names = {os.path.basename(one) for one in named}

    def is_named(file: Path) -> bool:  # of few of many files it is worth asking
        return file.name in names and os.path.realpath(file) in named

    if path.is_file():
        files = [path]
    else:
        files = sorted(
            Path(folder, name)
            for folder, names in _folders(path)
            for name in names
            if not name.startswith(".")
        )
        files = [file for file in files if file.name not in _NOT_DATA or is_named(file)]
    below = {os.path.realpath(file) for file in files if file.name in names}
    files += [Path(one) for one in sorted(named - below) if os.path.isfile(one)]
    for file in files:
        inside = file != path and file.is_relative_to(path)
        name = file.relative_to(path).as_posix() if inside else file.name
        try:
            found.update(f"{name} {file.stat().st_size}\n".encode("utf-8", "replace"))
            if file.suffix.lower() in LIST_SUFFIXES or is_named(file):
                found.update(file.read_bytes())
        except OSError as error:
            raise UsageError(f"DATA {printable(str(file))}: {error.strerror}") from error
    return found.hexdigest()[:16]


def _folders(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders that training would look into, with the names of their files: behind links, too, but
    none that is hidden."""
    met = set()
    for folder, below, names in os.walk(top, followlinks=True):
        if (real := os.path.realpath(folder)) in met:
            below.clear()
            continue
        met.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield folder, names

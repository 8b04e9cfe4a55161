"""What one test body needs to run on every device."""

import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch
from filelock import FileLock

ROOT = Path(__file__).parent.parent
COLORS = ["white", "red", "blue", "green"]
#: Those of VideoMAE, with 16 and with 32 frames, of AudioMAE and of MAE.
STANDARD_GRIDS = [(8, 14, 14), (16, 14, 14), (1, 64, 8), (1, 14, 14)]
#: Ids of every kind, those beyond 32 bits among them.
IDS_TENSOR = torch.tensor([0, 1, 2**32 - 1, 2**32, 2**40, 2**62 + 3, -1, -(2**62)])
#: All that Triton compiles for our ops.
TRITON_KERNELS = {
    "noise_masks_on_chip",
    "noise_on_chip",
    "pass_along_w",
    "pass_along_h",
    "last_pass",
    "white_pass",
    "threshold_rows",
    "draw_masks_on_chip",
    "fill_draw_keys",
    "fill_swap_keys",
    "structure_masks_on_chip",
    "fill_structure_keys",
    "patch_dispersion",
    "order_words",
    "rbn_in_order",
}


def devices() -> list[str]:
    """What to run on: "cpu", and "cuda" where there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def assert_same(ours, theirs) -> None:
    """Equal tensors, or tuples of tensors such as Masks: dtype, shape and every bit."""
    if not isinstance(ours, torch.Tensor):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
        return
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert torch.equal(ours.cpu(), theirs.cpu())


def triton_kernels() -> ModuleType:
    """The ops in Triton; without Triton the test is skipped."""
    require(importlib.util.find_spec("triton"), "Triton")
    return importlib.import_module("smnm_kernels.triton_kernels")


def require(found: object, what: str) -> None:
    """Skips the test where ``what`` is missing, but fails it in CI, which has everything."""
    if not found and os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    if not found:
        pytest.skip(f"needs {what}")


def need_packages(*names: str) -> None:
    """At the top of a test module, of a conftest or of a test: skips it where a package is missing,
    but fails it in CI, which has everything."""
    __tracebackhide__ = True
    for name in names:
        if os.environ.get("CI"):
            importlib.import_module(name)
        else:
            pytest.importorskip(name)


def need_biases_of_videomae() -> None:
    """Skips a test under transformers 5.5 to 5.17, which leave the biases of queries and values of
    every file of a VideoMAE at zero."""
    need_packages("transformers")
    version = tuple(map(int, metadata.version("transformers").split(".")[:2]))
    if (5, 5) <= version < (5, 18):
        pytest.skip("transformers 5.5 to 5.17 read no biases of a VideoMAE")


def with_path(*folders: Path) -> dict[str, str]:
    """This process's environment, for one that imports from these folders too."""
    path = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def rows_printed_by(script: Path | str, *arguments: object) -> list[dict]:
    """The lines of JSON that a script (or "-c") prints, in a process whose Triton compiles for
    real: this one may interpret kernels, and then does not compile any."""
    environment = with_path(ROOT, ROOT / "bench", ROOT / "tests")
    environment.pop("TRITON_INTERPRET", None)
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def made_once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that ``make(folder)`` has filled, once for all processes of a run of the tests."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, unfinished = base / name, base / f"{name}.unfinished"
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            unfinished.mkdir(exist_ok=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def kept(name: str, settings: object, make: Callable[[Path], object]) -> Path:
    """As made_once, and kept in build/ for all later runs, until a C++ source or `settings`
    change."""
    state = hashlib.sha256(repr((settings, torch.__version__)).encode())
    for folder in ("csrc", "tests/cpp"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            state.update(path.read_bytes())
    folder = ROOT / "build/tests" / f"{name}-{state.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                unfinished = Path(work) / "made"
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
    return folder


def version_of(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


def compiled(source: Path, program: Path, *flags: str, what: str = "a C++ compiler") -> Path:
    """``program``, made of a C++ source; skips the test without ``what``, but fails in CI."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or "c++"
    command = [compiler, "-std=c++17", *flags, str(source), "-o", str(program)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs {what} ({error})")
    return program

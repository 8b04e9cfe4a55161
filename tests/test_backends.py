"""SMNM_BACKEND forces a path, all paths make the same masks, and nothing falls back in silence."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mask_hashes import CALLS, mask_hashes
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels import dispatch

#: A call of every op, of those that the interpreter is done with soon.
QUICK_CALLS = [
    *("white noise", "red noise", "small masks", "rbn overfull bank", "small rbn", "threshold"),
]
SCRIPT = str(Path(__file__).with_name("mask_hashes.py"))
WITHOUT_EXTENSION = f"""
import runpy, torch
def refuse(path):
    raise OSError("hidden by a test")
torch.ops.load_library = refuse
runpy.run_path({SCRIPT!r}, run_name="__main__")
"""


def run(*command, **environment):
    """The finished process; variables set to None are removed."""
    merged = {**os.environ, **environment}
    merged = {name: value for name, value in merged.items() if value is not None}
    return subprocess.run(
        [sys.executable, *command], env=merged, capture_output=True, text=True, check=False
    )


def output(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reference", "cpu", "triton"])
def test_forced_backend_makes_the_same_masks_or_says_why_it_cannot(name, exhaustive):
    interpreted = {"TRITON_INTERPRET": "1"} if name == "triton" else {}
    # All calls take the interpreter minutes.
    names = QUICK_CALLS if name == "triton" and not exhaustive else list(CALLS)
    arguments = ("-W", "error::UserWarning", SCRIPT, *names)
    process = run(*arguments, SMNM_BACKEND=name, **interpreted)
    if smnm.backends()[name] in ("active", "available"):
        came = output(process)
        assert came["backends"][name] == "active"
        assert came["hashes"] == mask_hashes(names)
    else:
        assert process.returncode != 0
        last = process.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: SMNM_BACKEND={name} cannot be used: ")
        assert last.endswith(smnm.backends()[name])


def test_triton_on_cpu_tensors_needs_its_interpreter(monkeypatch):
    monkeypatch.setenv("SMNM_BACKEND", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ImportError, match=r"^SMNM_BACKEND=triton cannot be used: ") as refused:
        dispatch._choose_backend()
    said = str(refused.value)
    assert "TRITON_INTERPRET=1" in said or smnm.backends()["triton"] in said


def test_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("SMNM_BACKEND", "nonsense")
    with pytest.raises(ValueError, match=r"^SMNM_BACKEND must be one of ") as refused:
        dispatch._choose_backend()
    for part in ("reference", "cpu", "triton", "'nonsense'"):
        assert part in str(refused.value)


def test_backends_tells_which_are_there_and_why_not():
    states = smnm.backends()
    assert set(states) == {"reference", "cpu", "triton", "cuda"}
    assert list(states.values()).count("active") >= 1
    assert states["reference"] in ("active", "available")
    assert all(isinstance(state, str) and state for state in states.values())
    states.clear()
    assert smnm.backends()


@pytest.mark.skipif(
    "SMNM_BACKEND" in os.environ or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="no C++ compiler, or a backend is forced",
)
def test_where_there_is_a_compiler_the_extension_is_built():
    """Else every test here compares the reference with itself."""
    assert smnm.backends()["cpu"] == "active"


@pytest.mark.slow
def test_without_the_extension_one_warning_and_the_same_masks():
    process = run("-W", "always", "-c", WITHOUT_EXTENSION, SMNM_BACKEND=None)
    came = output(process)
    assert came["backends"]["reference"] == "active"
    assert came["backends"]["cpu"] not in ("active", "available", "")
    assert came["hashes"] == mask_hashes()
    assert process.stderr.count("UserWarning") == 1
    for part in ("reference", "slower", "C++ compiler", came["backends"]["cpu"]):
        assert part in process.stderr
    forced = run("-c", WITHOUT_EXTENSION, SMNM_BACKEND="cpu")
    assert forced.returncode != 0
    assert "ImportError: SMNM_BACKEND=cpu cannot be used" in forced.stderr


def test_what_runs_cuda_tensors_warns_once_where_it_is_slow(monkeypatch):
    """Played through on CPU tensors."""
    from op_calls import noise_masks_call, rbn_masks_call

    from smnm_kernels import libraries

    monkeypatch.setattr(dispatch, "_cuda_ops", dispatch._cuda_ops.__wrapped__)
    ids = torch.arange(3)
    noise = noise_masks_call(ids, (2, 3, 4), "red", 0.5, None, None, False, False, 1)
    rule = (None, (3, 5), (0.4, 0.4, 0.1, 0.1), "first", False, torch.tensor(1))
    rbn = rbn_masks_call(ids, (1, 3, 4), 0.5, None, *rule)
    monkeypatch.setattr(dispatch, "_triton_problem", lambda: "Triton is tired")

    def twice():
        for _ in range(2):
            made = dispatch._on_cuda("rbn_masks", *rbn)
            assert_same(tuple(made), torch.ops.smnm.rbn_masks(*rbn))
            made = dispatch._on_cuda("noise_masks", *noise)
            assert_same(tuple(made), torch.ops.smnm.noise_masks(*noise))

    with pytest.warns(UserWarning, match="made on the CPU and copied.*Triton is tired") as caught:
        twice()
    assert len(caught) == 1

    pytest.importorskip("triton")
    if torch.cuda.is_available():
        return  # then Triton does not interpret
    monkeypatch.setattr(dispatch, "_triton_problem", lambda: None)
    monkeypatch.setattr(libraries, "cuda_problem", lambda: "no library")
    with pytest.warns(UserWarning, match="one position at a time: no library.*nvcc") as caught:
        twice()
    assert len(caught) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("byte", "threads"), [pytest.param("165", "1", marks=pytest.mark.exhaustive), ("255", "3")]
)
def test_dirty_memory_and_other_threads_make_the_same_masks(byte, threads):
    """glibc fills every block it hands out, those inside C++ too, with the complement of a byte."""
    process = run(SCRIPT, MALLOC_PERTURB_=byte, OMP_NUM_THREADS=threads)
    assert output(process)["hashes"] == mask_hashes()

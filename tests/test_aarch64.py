"""The CPU kernels on 64-bit ARM make the same masks: cross-compiled, and run by QEMU."""

import shutil

import pytest
from golden_hashes import GOLDEN
from kernel_calls import (
    assert_banks_are_those_of_the_reference,
    assert_noise_is_that_of_the_reference,
    built,
    of_banks,
    of_noise,
)
from kernel_program import Program
from mask_hashes import CALLS, IDS, hashed

from smnm_kernels import ops

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
#: What the program cannot make: kinds without kernels in C++, and ops that need torch.
OTHERS = (
    *("grid", "block", "inverse", "time", "bands", "multi", "frames", "running", "threshold"),
    *("weighted", "guided", "highest", "dispersion", "motion", "activity", "padded"),
)
GOLDEN_CALLS = [name for name in CALLS if not name.startswith(OTHERS)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program():
    for command, package in ((COMPILER, "g++-aarch64-linux-gnu"), (EMULATOR, "qemu-user")):
        if shutil.which(command) is None:
            pytest.skip(f"needs {command}: Debian's package {package}")
    # Static, so that QEMU finds everything in the program.
    return Program((EMULATOR, built(COMPILER, "-static") / "program"))


@of_noise
def test_noise_is_that_of_the_reference(program, grid, color, sigma):
    assert_noise_is_that_of_the_reference(program, grid, color, sigma)


@of_banks
def test_banks_are_those_of_the_reference(program, call):
    assert_banks_are_those_of_the_reference(program, call)


@pytest.mark.parametrize("name", GOLDEN_CALLS)
def test_masks_are_the_same_as_ever(program, monkeypatch, name):
    calls = []

    def of_program(op):
        return lambda *call: calls.append(op) or getattr(program, op)(*call)

    for op in ("noise", "noise_masks", "rbn_masks", "rbn_bank"):
        monkeypatch.setattr(ops, f"_{op}", of_program(op))
    monkeypatch.setattr(ops, "noise_masks_on_cpu", None)  # or the op would not be called
    assert hashed(CALLS[name](IDS)) == GOLDEN[name]
    assert calls

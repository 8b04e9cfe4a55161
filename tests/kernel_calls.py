"""The kernels of the CPU library in programs: how tests build these, and what they are asked."""

import random
import shutil
from functools import cache

import kernel_program
import pytest
import torch
from kernel_program import Program
from testing import assert_same, kept, version_of

import smnm_kernels as smnm
from smnm_kernels.tables.colors import parse_sigma

IDS = torch.tensor([0, 1, -7, 2**40])
BANK_IDS = torch.tensor([0, 5, -1, 2**40])
NOISE_CALLS = [
    ((8, 14, 14), "green", None),
    ((3, 5, 7), "red", (0.2, 8.0)),
    ((1, 64, 8), "blue", (0.35, 2.0)),
    ((2, 3, 70), "green", ((0.2, 4.0), (2.0, 8.0))),
    ((1, 1, 1), "red", 0.2),
    ((4, 9, 17), "white", None),
]
#: One of them in every run.
COMPILERS = ["g++", pytest.param("clang++", marks=pytest.mark.exhaustive)]


def built(compiler, *flags):
    """A folder with an object for each source and the program that they make."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    how = (kernel_program.FLAGS, flags, version_of(compiler))
    return kept(
        f"kernels-{compiler}", how, lambda folder: kernel_program.build(compiler, folder, *flags)
    )


def assert_noise_is_that_of_the_reference(program: Program, grid, color, sigma):
    n_keep = -(-torch.Size(grid).numel() // 4)
    call = (IDS, None, 11, grid, color, tuple(parse_sigma(color, sigma)))
    assert_same(program.noise_masks(*call, n_keep, False), expected_noise_masks(*call, n_keep))
    # A field's integers show what a mask may hide.
    assert_same(program.noise(*call), smnm.reference.noise_kernel(*call))


@cache
def expected_noise_masks(*call):
    return smnm.reference.noise_masks_kernel(*call, False)


def assert_banks_are_those_of_the_reference(program: Program, call):
    made = program.rbn_masks(BANK_IDS, None, -3, *call)
    assert_same(made, expected_rbn_masks(call))


@cache
def expected_rbn_masks(call):
    return smnm.reference.rbn_masks_kernel(BANK_IDS, None, -3, *call)


def rbn_calls(n: int):
    """(grid, n_keep, n_candidates, windows, weights, random_ties) of R-BN: corners, and n random
    ones of up to 12 masks."""
    yield (1, 1, 23), 4, 3, (3, 7), (1000, 300, 0, 50), True
    yield (1, 19, 1), 5, 4, (5,), (0, 1000, 100, 0), False
    yield (1, 6, 11), 7, 5, (3, 41), (1000, 0, 700, 100), True
    yield (1, 3, 40), 9, 2, (3, 41), (500, 500, 250, 250), False
    drawn = random.Random(5)
    for i in range(n):
        height, width, n_candidates = drawn.randint(2, 9), drawn.randint(2, 9), i % 12 + 1
        windows = tuple(drawn.sample((3, 5, 7, 9), drawn.randint(1, 3)))
        weights = tuple(drawn.choice((0, 50, 700, 1000)) for _ in range(4))
        n_keep = drawn.randint(1, height * width)
        yield (1, height, width), n_keep, n_candidates, windows, weights, i % 2 == 0


of_noise = pytest.mark.parametrize(("grid", "color", "sigma"), NOISE_CALLS)
#: Each takes a process; the exhaustive tier has more.
of_banks = pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=() if i < 16 else pytest.mark.exhaustive)
        for i, call in enumerate(rbn_calls(48))
    ],
)

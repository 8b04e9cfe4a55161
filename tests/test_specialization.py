"""Triton compiles once for what a training loop calls: no value, size or alignment that changes
between steps makes another kernel, in the middle of training or of a graph's capture."""

import importlib.util
from pathlib import Path

import pytest
from testing import TRITON_KERNELS, require, rows_printed_by

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", ["90", pytest.param("gfx942", marks=pytest.mark.exhaustive)])
def test_nothing_that_changes_between_steps_makes_another_kernel(target):
    require(importlib.util.find_spec("triton"), "Triton")
    rows = rows_printed_by(Path(__file__).with_name("cache_keys.py"), target)
    assert {row["kernel"] for row in rows} == TRITON_KERNELS
    assert [row for row in rows if row["keys"] != 1] == []

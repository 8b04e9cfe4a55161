"""Every Triton kernel compiles for every target, and no register spills; no GPU is needed."""

import importlib.util

import pytest
from testing import ROOT, TRITON_KERNELS, require, rows_printed_by

#: Most of a minute each where Triton's cache has none of it. CI makes the report for nearly all.
TARGETS = ("75", "80", "90", "100", "120", "gfx942", "gfx1100")

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_without_spills(target):
    require(importlib.util.find_spec("triton"), "Triton")
    from triton_report import Usage

    rows = rows_printed_by(ROOT / "bench" / "triton_report.py", "--json", "--targets", target)
    assert {row["kernel"] for row in rows} == TRITON_KERNELS
    assert [row for row in rows if not Usage(**row).fits()] == []

"""Every Triton kernel compiles for every target, and no register spills; no GPU is needed."""

import importlib.util

import pytest
from testing import ROOT, TRITON_KERNELS, require, rows_printed_by

#: All calls take a minute each where Triton's cache has none of it. CI has all of one target and
#: few of some others.
TARGETS = ("75", "80", "90", "100", "120", "gfx942", "gfx1100")

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("calls", ["few", "all"])
@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_without_spills(target, calls):
    require(importlib.util.find_spec("triton"), "Triton")
    from triton_report import Usage

    few = ["--few"] if calls == "few" else []
    rows = rows_printed_by(ROOT / "bench" / "triton_report.py", "--json", "--targets", target, *few)
    assert {row["kernel"] for row in rows} == TRITON_KERNELS
    assert [row for row in rows if not Usage(**row).is_right()] == []

"""Every Triton kernel compiles for every target, and no register spills; no GPU is needed."""

import importlib.util

import pytest
from testing import ROOT, TRITON_KERNELS, require, rows_printed_by

#: Shared memory that a block may have, elsewhere 99 KiB as on Ampere's small GPUs.
SHARED_BYTES = {"75": 2**16, "gfx942": 2**16, "gfx1100": 2**16}
#: Before 8.0 there are no tensor cores, and a call warns. Elsewhere Triton 3.9 needs none; 3.6
#: spills one register in the threshold of large grids, and some on gfx1100.
STACK_BYTES = {"75": 2304, "gfx1100": 168}

#: Most of a minute each where Triton's cache has none of it.
TARGETS = ("90", "gfx942")
MORE_TARGETS = ("75", "80", "100", "120", "gfx1100")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "target", [*TARGETS, *(pytest.param(t, marks=pytest.mark.exhaustive) for t in MORE_TARGETS)]
)
def test_kernels_compile_without_spills(target):
    require(importlib.util.find_spec("triton"), "Triton")
    rows = rows_printed_by(ROOT / "bench" / "triton_report.py", "--json", "--targets", target)
    assert {row["kernel"] for row in rows} == TRITON_KERNELS
    assert [row for row in rows if row["stack_bytes"] > STACK_BYTES.get(target, 8)] == []
    shared_bytes = SHARED_BYTES.get(target, 99 * 1024)
    assert [row for row in rows if row["shared_bytes"] > shared_bytes] == []

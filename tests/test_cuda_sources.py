"""The CUDA sources compile for every target, with everything in registers; no GPU is needed."""

import pytest
from cuda_report import TARGETS, cuda_report, nvcc
from testing import require

#: Candidates and ties that rbn_masks is compiled for, and for any others.
VARIANTS = [(k, ties) for k in (2, 3, 4, 5, 6, 10) for ties in ("false", "true")] + [(0, "false")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [t if t == 90 else pytest.param(t, marks=pytest.mark.exhaustive) for t in TARGETS]
)
def test_the_kernels_compile_without_spills(target):
    require(nvcc(), "nvcc")
    rows = cuda_report((target,))
    # In shared memory or in a workspace; pairs of 32 bits or of 64.
    expected = {f"rbn_bank_kernel<{s}, {p}>" for s in ("true", "false") for p in ("int", "long")}
    expected |= {f"rbn_masks_kernel<true, int, {k}, {ties}>" for k, ties in VARIANTS}
    expected |= {
        f"rbn_masks_kernel<{memory}, 0, false>"
        for memory in ("false, int", "true, long", "false, long")
    }
    assert {(row["kernel"], row["arch"]) for row in rows} == {
        (name, f"sm_{target}") for name in expected
    }
    for row in rows:
        assert row["stack"] == row["spill_stores"] == row["spill_loads"] == 0, row
        # A block is 512 threads, and two of them fit in a multiprocessor's 65,536 registers where
        # banks are in shared memory, their pairs of 32 bits.
        assert row["registers"] <= (64 if "<true, int" in row["kernel"] else 128), row

"""The CUDA sources compile for every target, with everything in registers; no GPU is needed."""

from cuda_report import cuda_report, nvcc
from testing import require


def test_the_kernels_compile_without_spills():
    require(nvcc(), "nvcc")
    rows = cuda_report()
    for kernel in ("rbn_masks_kernel", "rbn_bank_kernel"):
        compiled = {
            (row["kernel"], row["arch"]) for row in rows if row["kernel"].startswith(kernel)
        }
        state = ("true", "false")  # in shared memory, in a workspace
        expected = {(f"{kernel}<{s}>", f"sm_{arch}") for s in state for arch in (80, 90, 100)}
        assert compiled == expected
    for row in rows:
        assert row["stack"] == row["spill_stores"] == row["spill_loads"] == 0, row
        # A block is 512 threads, and two of them fit in a multiprocessor's 65,536 registers where
        # banks are in shared memory.
        assert row["registers"] <= (64 if "<true>" in row["kernel"] else 128), row

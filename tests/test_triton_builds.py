"""Every Triton kernel compiles for every target, and no register spills; no GPU is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from testing import require

REPORT = Path(__file__).parent.parent / "bench" / "triton_report.py"
KERNELS = {
    "noise_masks_on_chip",
    "noise_on_chip",
    "pass_along_w",
    "pass_along_h",
    "last_pass",
    "white_pass",
    "threshold_rows",
    "order_words",
    "rbn_in_order",
}
#: Shared memory that a block may have, elsewhere 99 KiB as on Ampere's small GPUs.
SHARED_BYTES = {"75": 2**16, "gfx942": 2**16, "gfx1100": 2**16}
#: Before 8.0 there are no tensor cores, and a call warns. Elsewhere Triton 3.9 needs none; 3.6
#: spills one register in the threshold of large grids, and some on gfx1100.
STACK_BYTES = {"75": 2304, "gfx1100": 168}


TARGETS = ("75", "80", "90", "100", "120", "gfx942", "gfx1100")


@pytest.fixture(scope="module")
def reports():
    """Of each target: the report's process, some day."""
    require(importlib.util.find_spec("triton"), "Triton")
    # This process may interpret its kernels, and then does not compile any.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}

    def report(target):
        return subprocess.run(
            [sys.executable, str(REPORT), "--json", "--targets", target],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as pool:
        yield {target: pool.submit(report, target) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_without_spills(reports, target):
    done = reports[target].result()
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == KERNELS
    assert [row for row in rows if row["stack_bytes"] > STACK_BYTES.get(target, 8)] == []
    shared_bytes = SHARED_BYTES.get(target, 99 * 1024)
    assert [row for row in rows if row["shared_bytes"] > shared_bytes] == []

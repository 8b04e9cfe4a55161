"""Every barrier of the GPU kernels is needed: without it, the PTX machine notices.

Minutes long: pytest --exhaustive tests/ptx/test_mutations.py
"""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from cuda_report import nvcc
from testing import ROOT, require, rows_printed_by

#: Barriers that order nothing: the source line that they come from, by kernel and target.
REDUNDANT = {
    # Triton puts one before the rows of a product go to shared memory. What they overwrite was
    # last read before the barrier before it: the product between the two reads another buffer.
    # Addresses here depend on threads alone, so what one run shows holds for every input.
    ("green", 90): {"return tl.dot(tl.permute(planes, (1, 2, 0)), along_t, total)"},
}

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("kernel", ["green", "threshold", "rbn"])
def test_every_barrier_is_missed(kernel, target, capsys):
    require(importlib.util.find_spec("triton"), "Triton")
    require(nvcc(), "nvcc")
    rows = rows_printed_by(Path(__file__).with_name("every_barrier.py"), target, kernel)
    unnoticed = [row for row in rows if not row["noticed"]]
    with capsys.disabled():
        print(f"\n{kernel} sm_{target}: {len(rows) - len(unnoticed)} of {len(rows)} noticed, by")
        for what, count in Counter(row["noticed"] for row in rows).most_common():
            print(f"  {count} {what}")
        for row in unnoticed:
            print(f"  {row['kernel']}, {row['barrier']}, executed: {row['executed']}")
    assert rows
    assert [row for row in rows if not row["executed"]] == []
    if kernel == "rbn":
        # Instances of one template have the same barriers; one that a small grid can do without is
        # noticed on a larger one.
        noticed = {tuple(row["origin"]) for row in rows if row["noticed"]}
        unnoticed = [row for row in unnoticed if tuple(row["origin"]) not in noticed]
    redundant = REDUNDANT.get((kernel, target), set())
    assert {source_line(row["origin"][0]) for row in unnoticed} == redundant
    assert len(unnoticed) == len(redundant)


def source_line(place):
    """Of "file:line", where the file is one of the Triton kernels."""
    name, number = place.split(":")
    lines = (ROOT / "smnm_kernels/triton_kernels" / name).read_text().splitlines()
    return lines[int(number) - 1].strip()

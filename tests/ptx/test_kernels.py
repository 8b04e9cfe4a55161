"""The PTX of every GPU kernel, executed: equal to the CPU bit by bit, and nothing found wrong."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from cuda_report import nvcc
from testing import TRITON_KERNELS, made_once, require, rows_printed_by

CUDA_KERNELS = {
    f"{kernel} {memory}"
    for kernel in ("rbn_masks_kernel", "rbn_bank_kernel")
    for memory in ("shared", "workspace")
}
#: Buffers that are not written once everywhere: (kernel, buffer).
IN_PLACE = {
    # Scores are raised where they are, in memory that was zeroed before; of the masks, zeroed too,
    # only what is visible is written.
    ("rbn_in_order", "scores"),
    ("rbn_in_order", "visible"),
    # A bank's state, of which a block uses what it needs, as often as it needs.
    ("rbn_masks_kernel workspace", "workspace"),
    ("rbn_bank_kernel workspace", "workspace"),
}
#: What is found and does no harm: (kernel, finding).
HARMLESS = {
    # A tile of fewer than 32 elements lies in a warp several times. All copies read a score; one
    # lane writes it. A copy that reads late changes nothing: of the scores here, every lane has
    # its own in hand before the reductions that decide who writes; the raised sum of a copy is
    # stored by no one. A barrier of the warp ends the step.
    ("rbn_in_order", "scores memory, write after read"),
}


@pytest.fixture
def rows(tmp_path_factory, target, language, calls):
    """What ``every_kernel.py`` prints."""
    require(importlib.util.find_spec("triton"), "Triton")
    require(nvcc(), "nvcc")
    script = Path(__file__).with_name("every_kernel.py")

    def run(folder):
        rows = rows_printed_by(script, target, language, *(["--few"] if calls == "few" else []))
        (folder / "rows.json").write_text(json.dumps(rows))

    folder = made_once(tmp_path_factory, f"{language}-{target}-{calls}", run)
    return json.loads((folder / "rows.json").read_text())


#: Few calls launch every Triton kernel, too, and all run in CI.
for_every_run = pytest.mark.parametrize(
    ("target", "language", "calls"),
    [
        (90, "triton", "few"),
        *(
            pytest.param(target, language, "all", marks=pytest.mark.exhaustive)
            for language in ("triton", "cuda")
            for target in (80, 90)
        ),
    ],
)


def launches(rows):
    for row in rows:
        for launch in row["launches"]:
            yield row, kernel_name(launch["kernel"]), launch


def kernel_name(mangled):
    cuda = re.search(r"\d(rbn_[a-z]+_kernel)ILb([01])E", mangled)
    return f"{cuda[1]} {['workspace', 'shared'][int(cuda[2])]}" if cuda else mangled


pytestmark = pytest.mark.slow


@for_every_run
def test_every_kernel_ran(rows, language, target, calls, capsys):
    kernels = {name for _, name, _ in launches(rows)}
    assert kernels == (TRITON_KERNELS if language == "triton" else CUDA_KERNELS)
    schedules = {row["schedule"] for row in rows}
    assert schedules == ({"in order"} if calls == "few" else {"in order", "random"})
    random = sum(row["schedule"] == "random" for row in rows)
    with capsys.disabled():
        print(
            f"\n{language} sm_{target}: {len(rows)} calls ({random} under random schedules), "
            f"{sum(len(row['launches']) for row in rows)} launches, "
            f"{sum(row['blocks'] for row in rows)} blocks, "
            f"{sum(row['seconds'] for row in rows):.0f} s"
        )


@for_every_run
def test_results_equal_those_of_the_cpu(rows):
    assert [row for row in rows if not row["equal"]] == []


@for_every_run
def test_nothing_is_found_wrong(rows):
    """No race, no read of what was never written, nothing out of bounds, no sum that rounds."""
    found = [
        (row["call"], row["schedule"], name, finding)
        for row, name, launch in launches(rows)
        for finding in launch["findings"]
        if not any(name == kernel and text in finding for kernel, text in HARMLESS)
    ]
    assert found == []
    assert 10**6 < max(row["largest_sum"] for row in rows) < 2**24 or not any(
        "noise" in row["op"] for row in rows
    )


@for_every_run
def test_every_byte_of_an_output_is_written_once(rows):
    for row, name, launch in launches(rows):
        for buffer, (never, _, more) in launch["writes"].items():
            if (name, buffer) not in IN_PLACE:
                assert (never, more) == (0, 0), (row["call"], name, buffer)

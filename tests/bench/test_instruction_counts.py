"""The script that counts the instructions of the CPU kernels."""

import shutil

import pytest
from instruction_counts import CASES, OTHER, PHASES, Costs, costs, parsed, phase_of, ratios, table
from kernel_calls import built

RBN = "rbn 1x64x8, K = 5"
CALLGRIND = """\
positions: instr
events: Ir
ob=/tmp/program
fn=main
0x401000 2
cob=/lib/libc.so.6
cfn=malloc
calls=2 0x5000
0x401004 300
calls=1 0x401100
0x401008 70
0x40100c 1
fn=smnm::write_masks(bool const*)
0x401100 70
ob=/lib/libc.so.6
fn=malloc
0x5000 300
cob=/tmp/program
calls=1 0x401000
0x5004 373
"""


def test_callgrind_counts_each_instruction_once():
    """Calls of other libraries count where they are made, calls within the program only inside."""
    at = parsed(CALLGRIND, "/tmp/program")
    assert at == {0x401000: 2, 0x401004: 300, 0x40100C: 1, 0x401100: 70}


def test_an_instruction_belongs_to_the_innermost_function_of_a_phase():
    functions = (
        "load<short>",
        "add_products",
        "filter_rows",
        "smnm::FieldFilter::run(short const*)",
    )
    assert phase_of(functions, PHASES["noise"]) == "pass along w"
    assert phase_of(("PairedTaps", *functions), PHASES["noise"]) == "taps"
    assert phase_of(("memcpy",), PHASES["noise"]) == OTHER


def test_tables():
    made = table(RBN, {"baseline": Costs({"sweep": 1000.0, "words": 22.4}, 77)}, 4)
    assert "| sweep | 1,000 | 102 visits; 1,632 scores raised |" in made
    assert "| a sample | 1,022 | |" in made
    assert "| set-up of a call | 77 | |" in made
    before = {RBN: {"baseline": Costs({"sweep": 2044.8}, 0)}}
    now = {RBN: {"baseline": Costs({"sweep": 1000.0, "words": 22.4}, 0)}}
    assert ratios(before, now).endswith(f"| {RBN} | 0.500 |")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_counts_are_the_same_every_time(tmp_path_factory):
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind")
    program = built("g++", tmp_path_factory) / "program"
    made = {case: costs(program, "baseline", case, 1) for case in ("random 8x14x14", RBN)}
    assert costs(program, "baseline", RBN, 1) == made[RBN]
    for case, (phases, _) in made.items():
        assert phases.keys() <= {*dict(PHASES[CASES[case].op]), OTHER}
        assert phases["words"] > 1000
        # Nearly every instruction has a phase.
        assert phases[OTHER] < 100

"""The cost model against cycles worked out by hand, and its command."""

import importlib.util

import numpy as np
import pytest
from testing import ROOT, require, rows_printed_by

from ptx_machine import Block, GlobalMemory, Kernel, parse
from ptx_machine.cost import Constants, Timing, cost
from ptx_machine.occupancy import LAUNCH_MICROSECONDS, launch_microseconds, resident_blocks

BARRIER = Constants().barrier
TEXT = """.target sm_90
.entry chain() .reqntid {threads} {{
  .reg .b32 %r<9>; .reg .b64 %d<3>; .reg .pred %p<3>;
  mov.u32 %r0, 5;
  add.s32 %r1, %r0, 1;
  add.s32 %r2, %r1, 1;
  add.s32 %r3, %r0, 1;
  bar.sync 0;
  {body}
  ret; }}"""


def timing(*, threads=32, dataflow=False, body="", blocks=1):
    kernel = Kernel(parse(TEXT.format(threads=threads, body=body)))
    block = Block(kernel, GlobalMemory(), np.zeros(0, np.uint8))
    made = Timing.of(block, dataflow=dataflow, blocks=blocks)
    block.run()
    return made.finish()


def test_a_chain_in_order():
    """mov issues at 0 for 0.3 and is there at 2; the adds start at 2, 7 and 8, the barrier at 9."""
    first, last = timing().phases
    assert first.latency == 10
    assert first.pipes == pytest.approx((0.3 + 4, 0.5 + 6, 0, 0, 0))
    assert (first.throughput, first.busiest) == (6.5, "alu")
    assert first.instructions == 5
    assert first.cycles(1, Constants()) == 10 + BARRIER
    assert first.cycles(2, Constants()) == 13 + BARRIER
    assert last.latency == 1  # ret


def test_a_chain_by_data_flow():
    """The last add does not wait for the second; the second one issues at 7."""
    assert timing(dataflow=True).phases[0].latency == 8


def test_warps_share_the_pipes_of_a_quarter():
    assert timing(threads=128).phases[0].throughput == 6.5
    assert timing(threads=160).phases[0].throughput == 13


def test_blocks_share_a_multiprocessor():
    alone, shared = timing(), timing(blocks=3)
    assert shared.cycles() == alone.cycles(3) == 3 * 6.5 + 3 * 2 + 2 * BARRIER
    assert alone.microseconds() == pytest.approx(alone.cycles() / 1755)


def test_barriers_do_not_wait_for_results():
    slow = timing(body="popc.b32 %r4, %r0; bar.sync 0; add.s32 %r5, %r4, 1;")
    # popc starts at 0 of its phase and is there at 14; the barrier opens at 2 + 22.
    assert slow.phases[1].latency == 2
    assert slow.phases[2].latency == 2
    # A load that is issued at 2 is there at 552: then the addition, then ret.
    late = timing(body="mov.b64 %d1, 0; ld.global.b32 %r4, [%d1]; bar.sync 0; add.s32 %r5, %r4, 1;")
    assert late.phases[1].latency == 2 + 1 + 1
    assert late.phases[2].latency == 550 + 2 - (4 + BARRIER) + 1 + 1
    held = timing(body="popc.b32 %r4, %r0; setp.eq.s32 %p1, %r4, 0; bar.sync 0;")
    assert held.phases[1].latency == 14 + 1 + 1


def test_predicated_off_instructions_wait_for_what_they_keep():
    late = timing(
        body="popc.b32 %r4, %r0; setp.eq.s32 %p1, %r0, 5; @%p1 mov.u32 %r4, 1; bar.sync 0;"
    )
    assert late.phases[1].latency == pytest.approx(14 + 0.3 + 1)


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [
        ("add.s32", (1, 5, 2, 0, 0, 0)),
        ("add.s64", (2, 9, 4, 0, 0, 0)),
        ("mul.lo.s32", (1, 5, 0, 2, 0, 0)),
        ("mul.hi.u32", (1, 6, 0, 4, 0, 0)),
        ("fma.rn.f32", (1, 5, 0, 1, 0, 0)),
        ("cvt.rn.f16.s32", (1, 14, 0, 0, 8, 0)),
        ("cvt.u32.u64", (0.5, 4, 1, 0, 0, 0)),
        ("ld.shared.b32", (1, 29, 0, 0, 0, 0)),
        ("ld.global.b32", (1, 550, 0, 0, 0, 1)),
        ("ld.param.b64", (0.3, 4, 0, 0, 0, 0)),
        ("bar.warp.sync", (1, 12, 0, 0, 0, 0)),
        ("div.s64", (130, 600, 160, 60, 8, 0)),
    ],
)
def test_costs(opcode, expected):
    from ptx_machine.program import Statement

    assert cost(Statement(1, opcode, opcode, ()), Constants()) == expected


def test_resident_blocks():
    # 126 registers are 4096 for a warp, so 16 warps fill the file: two blocks of eight.
    assert resident_blocks(90, 256, 126, 33_792) == 2
    assert resident_blocks(90, 512, 62, 38_832) == 2
    assert resident_blocks(90, 1024, 32, 0) == 2
    assert resident_blocks(80, 128, 32, 40_000) == 4
    assert resident_blocks(90, 32, 16, 0) == 32


def test_launches_in_waves():
    one = timing()
    full, part = one.microseconds(2), one.microseconds(1)
    assert launch_microseconds(one, 1, 2) == pytest.approx(part + LAUNCH_MICROSECONDS)
    assert launch_microseconds(one, 264, 2) == pytest.approx(full + LAUNCH_MICROSECONDS)
    assert launch_microseconds(one, 265, 2) == pytest.approx(full + part + LAUNCH_MICROSECONDS)


@pytest.mark.slow
def test_the_command():
    require(importlib.util.find_spec("triton"), "Triton")
    script = ROOT / "bench" / "ptx_cost.py"
    rows = rows_printed_by(script, "green", "--grid", 1, 14, 14, "--json")
    assert [row["variant"] for row in rows] == ["in order", "scheduled", "data flow"]
    for row in rows:
        assert row["stack_bytes"] == 0
        assert row["cycles"] == pytest.approx(sum(p["cycles"] for p in row["phases"]), rel=0.01)
        assert row["launch_microseconds"] > row["microseconds"] > 1
    assert rows[1]["cycles"] <= rows[0]["cycles"]

"""Statements in the order of their longest path: the same results, and what waits comes later."""

import numpy as np
from small_kernels import block, kernel

from ptx_machine.block import Kernel
from ptx_machine.scheduling import scheduled

INDEPENDENT = """
    shl.b32 %r9, %r0, 2;
    cvt.u64.u32 %d3, %r9;
    add.s64 %d4, %d1, %d3;
    ld.global.u32 %r1, [%d4];
    add.s32 %r2, %r1, 1;
    mul.lo.s32 %r3, %r0, %r0;
    mul.lo.s32 %r4, %r3, %r0;
    ld.global.u32 %r5, [%d4];
    add.s32 %r6, %r5, %r4;
    add.s32 %r7, %r6, %r2;
    st.global.u32 [%d0], %r7;
"""


def opcodes(made):
    return [statement.opcode for statement in made.program.statements]


def output(made):
    one = block(made, content=np.arange(32, dtype=np.uint32))
    report = one.run()
    assert not report.findings, report.lines()
    return one.global_memory.buffers[0].content(np.uint32)


def test_loads_come_first_and_results_stay():
    before = kernel(INDEPENDENT)
    after = Kernel(scheduled(before.program))
    assert sorted(opcodes(after)) == sorted(opcodes(before))
    # Both loads are issued before the first sum waits for one of them.
    for made, both_first in ((before, False), (after, True)):
        loads = [i for i, opcode in enumerate(opcodes(made)) if opcode == "ld.global.u32"]
        assert (max(loads) < opcodes(made).index("add.s32")) == both_first
    lanes = np.arange(32)
    assert (output(after) == lanes**3 + 2 * lanes + 1).all()
    assert (output(before) == output(after)).all()


def test_nothing_passes_a_store_it_could_meet_or_the_end_of_its_block():
    before = kernel("""
        st.shared.u32 [0], %r0;
        ld.shared.u32 %r1, [4];
        bar.sync 0;
        st.shared.u32 [4], %r1;
        @%p1 bra OUT;
        mov.u32 %r2, 3;
        OUT: st.global.u32 [%d0], %r2;
    """)
    after = Kernel(scheduled(before.program))
    shared = [o for o in opcodes(after) if "shared" in o or o.startswith(("bar", "bra"))]
    assert shared == ["st.shared.u32", "ld.shared.u32", "bar.sync", "st.shared.u32", "bra"]
    assert opcodes(after)[-2:] == ["st.global.u32", "ret"]

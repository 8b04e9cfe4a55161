"""Every detector against a kernel that must trip it, and a correct twin that must not."""

import re

import numpy as np
import pytest
from small_kernels import block, findings, float_bits

from ptx_machine import Deadlock, Kind, StepLimit

#: Shared memory of the thread before, in %r2 its own address and in %r3 that one's.
NEIGHBOURS = """
  mov.u32 %r1, dynamic; shl.b32 %r2, %r0, 2; add.s32 %r3, %r2, 252; and.b32 %r3, %r3, 255;
  add.s32 %r2, %r2, %r1; add.s32 %r3, %r3, %r1;"""
BAR, WARP_BAR = "bar.sync 0;", "bar.warp.sync -1;"


def check(body, wrong, right, kind, detail="", **options):
    """``body`` has a place HERE; with ``wrong`` there it trips the detector, in order and under
    random schedules, and with ``right`` nothing does."""
    options = {"threads": 64, **options}
    for seed in (None, 1, 2):
        tripped = findings(body.replace("HERE", wrong), seed=seed, **options)
        if seed is None:
            assert tripped.kinds() == {kind}, tripped.lines()
            assert all(detail in str(finding) for finding in tripped.findings)
        # Threads that nothing orders may come the other way round.
        assert kind in tripped.kinds()
        clean = findings(body.replace("HERE", right), seed=seed, **options)
        assert not clean.findings, clean.lines()


# Races

RACES = {
    "read after write": f"{NEIGHBOURS} st.shared.u32 [%r2], %r0; HERE ld.shared.u32 %r4, [%r3];",
    "write after read": f"""{NEIGHBOURS} st.shared.u32 [%r2], 0; bar.sync 0;
        ld.shared.u32 %r4, [%r3]; HERE st.shared.u32 [%r2], %r0;""",
    "write after write": f"""{NEIGHBOURS} st.shared.u32 [%r2], %r0; HERE
        st.shared.u32 [%r3], %r0;""",
    "plain write before an atomic": f"""{NEIGHBOURS} st.shared.u32 [%r2], %r0; HERE
        atom.shared.add.u32 %r4, [%r3], 1;""",
    "plain read before an atomic": f"""{NEIGHBOURS} st.shared.u32 [%r2], %r0; bar.sync 0;
        ld.shared.u32 %r4, [%r2]; HERE atom.shared.add.u32 %r4, [%r3], 1;""",
    "plain read after an atomic": f"""{NEIGHBOURS} st.shared.u32 [%r2], %r0; bar.sync 0;
        atom.shared.add.u32 %r4, [%r3], 1; HERE ld.shared.u32 %r4, [%r2];""",
    "plain write after an atomic": f"""{NEIGHBOURS} st.shared.u32 [%r2], %r0; bar.sync 0;
        atom.shared.add.u32 %r4, [%r3], 1; HERE st.shared.u32 [%r2], 7;""",
}


@pytest.mark.parametrize("kind", RACES)
@pytest.mark.parametrize("right", [BAR, f"{BAR} {WARP_BAR}"])
def test_races_of_shared_memory(kind, right):
    if kind == "read after write":  # before the write there is nothing
        body = RACES[kind].replace("st.shared", "st.shared.u32 [%r2], 9; bar.sync 0; st.shared", 1)
        check(body, "", right, Kind.RACE, kind)
    else:
        check(RACES[kind], "", right, Kind.RACE, kind)


@pytest.mark.parametrize("kind", RACES)
def test_races_of_one_warp(kind):
    """A barrier of the warp orders its threads, and those of no other warp."""
    body = RACES[kind].replace("252", "124").replace("255", "127").replace(BAR, WARP_BAR)
    if kind == "read after write":
        body = body.replace("st.shared", f"st.shared.u32 [%r2], 9; {WARP_BAR} st.shared", 1)
    check(body, "", WARP_BAR, Kind.RACE, kind, threads=32)
    two_warps = RACES[kind].replace("HERE", WARP_BAR)
    if kind != "read after write":
        assert Kind.RACE in findings(two_warps, threads=64).kinds()


def test_atomics_do_not_race_with_atomics():
    body = f"""{NEIGHBOURS} st.shared.u32 [%r2], 0; bar.sync 0;
      atom.shared.add.u32 %r4, [%r3], 1; atom.shared.max.u32 %r4, [%r2], 1;"""
    assert not findings(body, threads=64).findings


def test_races_of_global_memory():
    body = """
      xor.b32 %r2, %r0, 63; mul.wide.u32 %d3, %r2, 4; add.s64 %d3, %d1, %d3;
      mul.wide.u32 %d4, %r0, 4; add.s64 %d4, %d1, %d4;
      st.global.u32 [%d4], %r0; HERE ld.global.u32 %r3, [%d3];"""
    content = np.zeros(64, np.uint32)
    check(body, "", BAR, Kind.RACE, "read after write", content=content)


def test_reads_of_what_another_block_wrote():
    from ptx_machine.launch import launch

    body = "ld.global.u32 %r1, [%d1]; st.global.u32 [%d1+HERE], %r1;"
    for offset, kinds in (("0", {Kind.RACE}), ("64", set())):
        one = block(body.replace("HERE", offset), content=np.zeros(32, np.uint32))
        made = launch(one.kernel, one.global_memory, one.parameters, (2, 1, 1))
        assert made.report.kinds() == kinds
        assert made.report.blocks == 2


def test_several_readers_and_writers():
    """A read by a second warp is not forgotten when a third one reads, nor by its own threads."""
    body = """
      mov.u32 %r1, dynamic; setp.eq.s32 %p1, %r0, 0; @%p1 st.shared.u32 [%r1], 5; bar.sync 0;
      setp.lt.u32 %p2, %r0, HERE; @%p2 ld.shared.u32 %r2, [%r1];
      @%p1 st.shared.u32 [%r1], 6;"""
    check(body, "96", "1", Kind.RACE, "write after read", threads=96)
    check(body, "2", "1", Kind.RACE, "write after read", threads=96)


def test_the_same_value_from_several_threads_is_no_race():
    body = "mov.u32 %r1, dynamic; st.shared.u32 [%r1], HERE;"
    check(body, "%r0", "5", Kind.RACE, "two threads of one instruction", threads=32)
    two = "mov.u32 %r1, dynamic; shr.u32 %r2, %r0, HERE; st.shared.u32 [%r1], %r2;"
    check(two, "5", "6", Kind.RACE)


def test_findings_name_both_statements():
    report = findings(f"{NEIGHBOURS} st.shared.u32 [%r2], %r0; ld.shared.u32 %r4, [%r3];")
    (finding,) = [f for f in report.findings if f.kind is Kind.RACE]
    assert re.match(r"line \d+: ld.shared.u32 %r4, \[%r3\]", finding.statement)
    assert re.match(r"line \d+: st.shared.u32 \[%r2\], %r0", finding.other)


# Uninitialised, out of bounds, misaligned


def test_uninitialised_shared_memory():
    body = f"{NEIGHBOURS} HERE bar.sync 0; ld.shared.u32 %r4, [%r3];"
    check(body, "", "st.shared.u32 [%r2], 1;", Kind.UNINITIALISED)
    check(body.replace("ld.shared.u32 %r4, [%r3]", "atom.shared.add.u32 %r4, [%r3], 1"),
          "", "st.shared.u32 [%r2], 1;", Kind.UNINITIALISED)  # fmt: skip


def test_uninitialised_global_memory():
    for written in (False, True):
        store = "st.global.u32 [%d0], 1;" if written else ""
        one = block(f"{store} ld.global.u32 %r1, [%d0];")
        one.global_memory.buffers[0].forget()
        assert one.run().kinds() == (set() if written else {Kind.UNINITIALISED})


@pytest.mark.parametrize("access", ["ld.shared.u32 %r2, [%r1]", "st.shared.u32 [%r1], 1",
                                    "atom.shared.add.u32 %r2, [%r1], 1"])  # fmt: skip
def test_out_of_bounds_of_shared_memory(access):
    fill = "shl.b32 %r3, %r0, 2; mov.u32 %r4, dynamic; add.s32 %r4, %r4, %r3;"
    body = f"{fill} st.shared.u32 [%r4], 1; bar.sync 0; add.s32 %r1, %r4, HERE; {access};"
    check(body, "4", "0", Kind.OUT_OF_BOUNDS, "shared", threads=32, shared=128)
    check(body, "-256", "0", Kind.OUT_OF_BOUNDS, "shared", threads=32, shared=128)


@pytest.mark.parametrize("access", ["ld.global.u32 %r2, [%d3]", "st.global.u32 [%d3], %r0",
                                    "atom.global.max.u32 %r2, [%d3], 1"])  # fmt: skip
@pytest.mark.parametrize("offset", ["-4", "4", "2000000"])
def test_out_of_bounds_of_global_memory(access, offset):
    body = f"mul.wide.u32 %d3, %r0, 4; add.s64 %d3, %d1, %d3; add.s64 %d3, %d3, HERE; {access};"
    content = np.zeros(32, np.uint32)
    check(body, offset, "0", Kind.OUT_OF_BOUNDS, threads=32, content=content)


def test_what_is_out_of_bounds_reads_poison_and_writes_nothing():
    body = """
      mul.wide.u32 %d3, %r0, 4; add.s64 %d3, %d1, %d3; ld.global.u32 %r1, [%d3+4];
      st.global.u32 [%d3+4], 1; st.global.u32 [%d0], %r1;"""
    one = block(body, content=np.arange(32, dtype=np.uint32))
    report = one.run()
    assert sum(report.findings.values()) == 2
    out, content = (buffer.content(np.uint32) for buffer in one.global_memory.buffers)
    assert (out == [*range(1, 32), 0xA5A5A5A5]).all()
    assert (content == [0] + [1] * 31).all()


def test_out_of_bounds_of_parameters():
    body = "mov.b64 %d3, out; add.s64 %d3, %d3, HERE; ld.param.u32 %r1, [%d3];"
    check(body, "16", "12", Kind.OUT_OF_BOUNDS, "parameters")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [("ld.global.u32 %r1, [%d1+HERE];", "2"), ("st.global.v2.u32 [%d1+HERE], {1, 2};", "4"),
     ("mov.u32 %r1, dynamic; st.shared.b16 [%r1+HERE], 1;", "1"),
     ("ld.param.u64 %d3, [out+HERE];", "4")],
)  # fmt: skip
def test_misaligned(body, wrong):
    body = f"setp.ne.s32 %p1, %r0, 0; @%p1 ret; {body}"
    check(body, wrong, "0", Kind.MISALIGNED, content=np.zeros(32, np.uint32))


# Numbers


def test_inexact_conversions():
    body = "cvt.rn.f16.f32 %h1, %f1;"
    for instruction, wrong, right in [
        ("mov.f32 %f1, HERE; cvt.rn.f16.f32 %h1, %f1;", float_bits(2049), float_bits(2048)),
        ("mov.f32 %f1, HERE; cvt.rn.f16x2.f32 %r1, %f1, %f1;", float_bits(0.1), float_bits(0.5)),
        ("mov.b32 %r1, HERE; cvt.rn.f32.s32 %f1, %r1;", str(2**24 + 1), str(2**24)),
        ("mov.b32 %r1, HERE; cvt.rn.f16.s32 %h1, %r1;", "70000", "-2048"),
    ]:
        check(instruction, wrong, right, Kind.INEXACT_CONVERSION)
    assert not findings(f"mov.f32 %f1, {float_bits(np.nan)}; {body}").findings


@pytest.mark.parametrize("wrong", [2.0**24, 0.5, np.inf])
def test_inexact_sums(wrong):
    """Of a tensor core: beyond 2**24, or no integers."""
    body = """
      mov.b32 %r1, 0; mov.f32 %f1, HERE; mov.f32 %f2, 0f00000000;
      mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
        {%f3, %f4, %f5, %f6}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%f1, %f2, %f2, %f2};"""
    check(body, float_bits(wrong), float_bits(2**24 - 1), Kind.INEXACT_SUM)


# Warps


def test_shuffles_from_lanes_that_have_ended():
    body = """
      setp.eq.s32 %p1, %r0, 40; @%p1 ret;
      shfl.sync.bfly.b32 %r1, %r0, HERE, 31, -1;"""
    report = findings(body.replace("HERE", "1"), threads=64)
    assert {finding.detail for finding in report.findings} == {
        "shuffle from it",
        "the mask names it",
    }
    assert report.kinds() == {Kind.INACTIVE_LANE}


def test_shuffles_from_lanes_on_the_other_side():
    body = """
      setp.lt.u32 %p1, %r0, 16; @%p1 shfl.sync.HERE.b32 %r1, %r0, 8, 31, 0xFFFF;"""
    # 24 is on the other side for lane 8 and up; 8 xor keeps lanes on theirs.
    check(body, "down", "bfly", Kind.INACTIVE_LANE, "shuffle from it", threads=32)


def test_masks():
    body = """
      setp.lt.u32 %p1, %r0, 16; selp.b32 %r1, 0xFFFF, 0xFFFF0000, %p1; HERE
      vote.sync.ballot.b32 %r2, %p1, %r1;"""
    check(body, "mov.b32 %r1, 0xFFFF;", "", Kind.INACTIVE_LANE, "not in its own", threads=32)
    overlapping = "@%p1 mov.b32 %r1, 0xFFFFFFFF;"
    check(body, overlapping, "", Kind.INACTIVE_LANE, "masks differ", threads=32)


# Asynchronous work

COPY = """
  mov.u32 %r1, dynamic; shl.b32 %r2, %r0, 4; add.s32 %r2, %r1, %r2;
  mul.wide.u32 %d3, %r0, 16; add.s64 %d3, %d1, %d3; st.shared.v4.u32 [%r2], {%r0, %r0, %r0, %r0};
  cp.async.cg.shared.global [%r2], [%d3], 16; cp.async.commit_group;"""


def test_copies_that_nobody_waited_for():
    content = np.zeros(32 * 4, np.uint32)
    body = f"{COPY} HERE ld.shared.u32 %r4, [%r2];"
    options = {"threads": 32, "content": content}
    check(body, "", "cp.async.wait_group 0;", Kind.IN_FLIGHT, "copy", **options)
    check(body, "cp.async.wait_group 1;", "cp.async.wait_all;", Kind.IN_FLIGHT, "copy", **options)
    overwritten = f"{COPY} HERE st.shared.u32 [%r2], 5;"
    check(overwritten, "", "cp.async.wait_group 0;", Kind.IN_FLIGHT, "will land", **options)


def test_copies_leave_what_was_there_until_they_are_waited_for():
    content = np.full(32 * 4, 77, np.uint32)
    for wait, expected in (("", 3), ("cp.async.wait_all;", 77)):
        body = f"{COPY} {wait} ld.shared.u32 %r4, [%r2]; st.global.u32 [%d0], %r4;"
        one = block(body, content=content)
        one.run()
        assert one.global_memory.buffers[0].content(np.uint32)[3] == expected


def test_copies_are_seen_by_others_after_a_barrier():
    body = f"{COPY} cp.async.wait_group 0; HERE xor.b32 %r2, %r2, 16; ld.shared.u32 %r4, [%r2];"
    check(
        body, "", BAR, Kind.RACE, "read after write", threads=32, content=np.zeros(128, np.uint32)
    )


def test_copies_into_what_others_still_read():
    body = f"""
      mov.u32 %r1, dynamic; shl.b32 %r2, %r0, 4; add.s32 %r3, %r1, %r2;
      st.shared.v4.u32 [%r3], {{%r0, %r0, %r0, %r0}}; bar.sync 0;
      xor.b32 %r4, %r2, 16; add.s32 %r4, %r4, %r1; ld.shared.u32 %r5, [%r4]; HERE
      mul.wide.u32 %d3, %r0, 16; add.s64 %d3, %d1, %d3;
      cp.async.cg.shared.global [%r3], [%d3], 16; {BAR} cp.async.wait_all;"""
    check(body, "", BAR, Kind.RACE, "before an asynchronous copy", threads=32,
          content=np.zeros(128, np.uint32))  # fmt: skip


#: A product of zeros; the places are before it and after it.
PRODUCT = """
  mov.u32 %r1, dynamic; shl.b32 %r2, %r0, 2; add.s32 %r2, %r1, %r2; mov.b32 %r3, 0;
  mov.f32 %f1, 0f00000000; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;
  st.shared.u32 [%r2], 0; BEFORE
  wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16
    {%f1, %f2, %f3, %f4}, {%r3, %r3, %r3, %r3}, 0x1000000080000, 0, 1, 1, 0;
  wgmma.commit_group.sync.aligned; AFTER"""
FENCES = "fence.proxy.async.shared::cta; bar.sync 0; wgmma.fence.sync.aligned;"
WAIT = "wgmma.wait_group.sync.aligned 0;"


def check_product(before, after, kind, detail=""):
    for seed in (None, 1):
        body = PRODUCT.replace("BEFORE", before).replace("AFTER", after)
        report = findings(body, threads=128, seed=seed)
        if seed is None or not kind:
            assert report.kinds() == ({kind} if kind else set()), report.lines()
            assert all(detail in str(finding) for finding in report.findings)
        assert not kind or kind in report.kinds()


def test_products_that_nobody_waited_for():
    read = "add.f32 %f9, %f1, %f1;"
    check_product(FENCES, f"{WAIT} {read}", None)
    check_product(FENCES, f"{read} {WAIT}", Kind.IN_FLIGHT, "accumulator %f1")
    late = "wgmma.wait_group.sync.aligned 1;"
    check_product(FENCES, f"{late} {read} {WAIT}", Kind.IN_FLIGHT, "accumulator %f1")
    check_product(FENCES, f"mov.b32 %r3, 5; {WAIT}", Kind.IN_FLIGHT, "operand %r3")
    check_product(FENCES, f"{BAR} st.shared.u32 [%r2], 1; {WAIT}", Kind.IN_FLIGHT, "still reads")
    check_product(FENCES, f"{WAIT} {BAR} st.shared.u32 [%r2], 1;", None)


def test_fences_before_products():
    after = "bar.sync 0; fence.proxy.async.shared::cta; wgmma.fence.sync.aligned;"
    check_product(after, WAIT, None)
    no_proxy = "bar.sync 0; wgmma.fence.sync.aligned;"
    check_product(no_proxy, WAIT, Kind.MISSING_FENCE, "fence.proxy.async")
    no_registers = "fence.proxy.async.shared::cta; bar.sync 0;"
    check_product(no_registers, WAIT, Kind.MISSING_FENCE, "wgmma.fence")
    no_barrier = "fence.proxy.async.shared::cta; wgmma.fence.sync.aligned;"
    check_product(no_barrier, WAIT, Kind.RACE)


# Runs that would not end


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize(
    "body",
    [
        # A part of a warp never comes to the barrier that the other part waits at.
        "setp.lt.u32 %p1, %r0, 16; @%p1 bra OTHER; bar.sync 0; ret; OTHER: bar.sync 1;",
        "setp.lt.u32 %p1, %r0, 32; @%p1 bar.sync 1; @!%p1 bar.sync 2;",
        "setp.lt.u32 %p1, %r0, 16; @%p1 bar.sync 0; @!%p1 bar.sync 1;",
        "setp.lt.u32 %p1, %r0, 16; @%p1 bar.warp.sync -1; @!%p1 bar.sync 0;",
    ],
)
def test_barriers_that_never_open(body, seed):
    with pytest.raises(Deadlock, match=r"threads .* wait .*at line \d+: .*bar\."):
        findings(body, threads=64, seed=seed)


@pytest.mark.parametrize("seed", [None, 1])
def test_barriers_do_not_wait_for_threads_that_have_ended(seed):
    body = """
      setp.lt.u32 %p1, %r0, 40; @%p1 ret; bar.sync 0; bar.sync 0; st.global.u32 [%d0], 1;"""
    one = block(body, threads=96, seed=seed)
    assert not one.run().findings
    assert one.global_memory.buffers[0].content(np.uint32).sum() == 96 - 40


def test_endless_loops():
    body = "LOOP: add.s32 %r1, %r1, 1; bra LOOP;"
    with pytest.raises(StepLimit, match="more than 1000 steps"):
        findings(body, step_limit=1000)
    # A thread that waits for another one's write, which comes: the other one is scheduled too.
    body = """
      mov.u32 %r1, dynamic; st.shared.u32 [%r1], 0; bar.sync 0;
      setp.lt.u32 %p1, %r0, 32; @%p1 bra WRITE;
    LOOP: atom.shared.or.b32 %r2, [%r1], 0; setp.eq.s32 %p2, %r2, 0; @%p2 bra LOOP; ret;
    WRITE: atom.shared.or.b32 %r2, [%r1], 1;"""
    assert not findings(body, threads=64, seed=0).findings


def test_every_kind_of_finding_is_tested_here():
    with open(__file__) as file:
        text = file.read()
    assert [kind.name for kind in Kind if f"Kind.{kind.name}" not in text] == []

"""Every instruction that the machine executes, against values worked out by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
from philox_4x32 import block_words
from small_kernels import block, float_bits, kernel, run

from ptx_machine import InvalidProgram, UnknownInstruction, parse
from ptx_machine.instructions import COMPILERS
from ptx_machine.matrix import Descriptor

LANES = np.arange(32)
ONES = 2**32 - 1
INF, NAN = float("inf"), float("nan")
MOVES = {"r": "mov.b32", "d": "mov.b64", "h": "mov.b16", "f": "mov.f32"}
RESULTS = {"r": (np.uint32, 4), "d": (np.uint64, 8), "h": (np.uint16, 2), "f": (np.float32, 4)}

# The result is register 1 of its kind, the operands are registers 2, 3, ... of theirs.
SCALAR = [
    ("add.s32 %r1, %r2, %r3", [5, -7], -2),
    ("add.s32 %r1, %r2, %r3", [2**31 - 1, 1], -(2**31)),
    ("add.s64 %d1, %d2, %d3", [2**40, -1], 2**40 - 1),
    ("add.s16 %h1, %h2, %h3", [65535, 2], 1),
    ("add.s16x2 %r1, %r2, %r3", [0x0001FFFF, 0x00010001], 0x00020000),
    ("add.f32 %f1, %f2, %f3", [1.5, 2.25], 3.75),
    ("add.rn.f32 %f1, %f2, %f3", [2**24, 1.0], 2**24),
    ("sub.s32 %r1, %r2, %r3", [3, 5], -2),
    ("mul.lo.s32 %r1, %r2, %r3", [0x10001, 0x10001], 0x20001),
    ("mul.hi.u32 %r1, %r2, %r3", [0xD2511F53, 0x9E3779B9], 0xD2511F53 * 0x9E3779B9 >> 32),
    ("mul.hi.s32 %r1, %r2, %r3", [-1, 2], -1),
    ("mul.hi.u16 %h1, %h2, %h3", [0xFFFF, 0xFFFF], 0xFFFE),
    ("mul.hi.u64 %d1, %d2, %d3", [2**63, 6], 3),
    ("mul.hi.s64 %d1, %d2, %d3", [-1, 6], -1),
    ("mul.wide.u32 %d1, %r2, %r3", [ONES, ONES], ONES * ONES),
    ("mul.wide.s32 %d1, %r2, %r3", [-3, 5], -15),
    ("mul.wide.u16 %r1, %h2, %h3", [0xFFFF, 2], 0x1FFFE),
    ("mul.f32 %f1, %f2, %f3", [0.1, 3.0], float(np.float32(0.1) * np.float32(3))),
    ("div.full.f32 %f1, %f2, %f3", [1.0, 3.0], float(np.float32(1) / np.float32(3))),
    ("div.rn.f32 %f1, %f2, %f3", [-1.0, 0.0], -INF),
    ("mad.lo.s32 %r1, %r2, %r3, %r4", [7, -3, 1], -20),
    ("mad.lo.s16 %h1, %h2, %h3, %h4", [300, 300, 1], (90001) % 2**16),
    ("mad.wide.u32 %d1, %r2, %r3, %d4", [ONES, 2, 2**40], 2 * ONES + 2**40),
    ("mad.wide.s32 %d1, %r2, %r3, %d4", [-1, 8, 100], 92),
    ("fma.rn.f32 %f1, %f2, %f3, %f4", [1 + 2**-12, 1 + 2**-12, -1.0], 2**-11 + 2**-24),
    # Just above a tie of float32, by less than float64 sees: rounded once, upwards.
    ("fma.rn.f32 %f1, %f2, %f3, %f4", [1 + 2**-12, 2**-12, 2.0**24], 2**24),
    ("fma.rn.f32 %f1, %f2, %f3, %f4", [2.0**-40, 2.0**-40, 1 + 2**-23], 1 + 2**-23),
    ("neg.s32 %r1, %r2", [5], -5),
    ("neg.f32 %f1, %f2", [1.5], -1.5),
    ("abs.s32 %r1, %r2", [-5], 5),
    ("abs.f32 %f1, %f2", [-INF], INF),
    ("min.s32 %r1, %r2, %r3", [-1, 1], -1),
    ("min.u32 %r1, %r2, %r3", [-1, 1], 1),
    ("max.s64 %d1, %d2, %d3", [-(2**40), 3], 3),
    ("max.s16 %h1, %h2, %h3", [0x8000, 0], 0),
    ("min.f32 %f1, %f2, %f3", [NAN, 2.0], 2.0),
    ("max.f32 %f1, %f2, %f3", [1.0, 2.0], 2.0),
    ("div.s32 %r1, %r2, %r3", [-7, 2], -3),
    ("div.u32 %r1, %r2, %r3", [-7, 2], (2**32 - 7) // 2),
    ("div.s64 %d1, %d2, %d3", [-(2**62) - 3, 5], -((2**62 + 3) // 5)),
    ("rem.s32 %r1, %r2, %r3", [-7, 2], -1),
    ("rem.u64 %d1, %d2, %d3", [2**63, 10], 8),
    ("and.b32 %r1, %r2, %r3", [12, 10], 8),
    ("or.b64 %d1, %d2, %d3", [2**40, 1], 2**40 + 1),
    ("xor.b32 %r1, %r2, %r3", [12, 10], 6),
    ("and.b16 %h1, %h2, %h3", [0xFF0F, 0x0FFF], 0x0F0F),
    ("not.b32 %r1, %r2", [0], ONES),
    ("shl.b32 %r1, %r2, %r3", [3, 30], 3 << 30),
    ("shl.b32 %r1, %r2, %r3", [3, 32], 0),
    ("shl.b16 %h1, %h2, %r3", [0x1234, 8], 0x3400),
    ("shl.b64 %d1, %d2, %r3", [1, 63], 2**63),
    ("shr.u32 %r1, %r2, %r3", [ONES, 28], 15),
    ("shr.u32 %r1, %r2, %r3", [ONES, 99], 0),
    ("shr.s32 %r1, %r2, %r3", [-8, 1], -4),
    ("shr.s32 %r1, %r2, %r3", [-8, 99], -1),
    ("shr.u64 %d1, %d2, %r3", [2**63, 62], 2),
    ("shf.l.wrap.b32 %r1, %r2, %r3, %r4", [0x80000001, 1, 33], 3),
    ("shf.r.wrap.b32 %r1, %r2, %r3, %r4", [4, 1, 2], 2**30 + 1),
    ("shf.r.clamp.b32 %r1, %r2, %r3, %r4", [4, 9, 40], 9),
    ("bfe.u32 %r1, %r2, 4, 8", [0xABCDEF], 0xDE),
    ("bfe.s32 %r1, %r2, 4, 8", [0xABCDEF], 0xDE - 256),
    ("bfe.s32 %r1, %r2, %r3, %r4", [0xABCDEF, 4, 8], 0xDE - 256),
    ("bfe.u32 %r1, %r2, %r3, %r4", [0xABCDEF, 28, 8], 0),
    ("bfe.s32 %r1, %r2, %r3, %r4", [-1, 30, 9], -1),
    ("bfe.s32 %r1, %r2, %r3, %r4", [-1, 3, 0], 0),
    ("bfi.b32 %r1, %r2, %r3, 8, 4", [0xF5, 0], 0x500),
    ("bfi.b32 %r1, %r2, %r3, %r4, %r5", [0xF5, ONES, 8, 4], 0xFFFFF5FF),
    ("prmt.b32 %r1, %r2, %r3, 0x5140", [0x33221100, 0x77665544], 0x55114400),
    ("prmt.b32 %r1, %r2, %r3, %r4", [0x332211F0, 0x77665544, 0x3218], 0x332211FF),
    ("lop3.b32 %r1, %r2, %r3, %r4, 0xE8", [12, 10, 6], 14),
    ("lop3.b32 %r1, %r2, %r3, %r4, 0x96", [12, 10, 6], 12 ^ 10 ^ 6),
    ("popc.b32 %r1, %r2", [0xF00F], 8),
    ("popc.b64 %r1, %d2", [2**40 + 1], 2),
    ("clz.b32 %r1, %r2", [1], 31),
    ("clz.b32 %r1, %r2", [0], 32),
    ("clz.b64 %r1, %d2", [2**40], 23),
    ("bfind.u32 %r1, %r2", [0x900], 11),
    ("bfind.u32 %r1, %r2", [0], ONES),
    ("bfind.shiftamt.u32 %r1, %r2", [0x900], 20),
    ("brev.b32 %r1, %r2", [0b1011], 0b1101 << 28),
    ("mov.b32 %r1, 7", [], 7),
    ("mov.b32 %r1, %r2", [9], 9),
    ("mov.b64 %d1, {%r2, %r3}", [1, 2], 2**33 + 1),
    ("mov.b32 %r1, {%h2, %h3}", [1, 2], 0x20001),
    ("mov.b64 {_, %r1}, %d2", [2**33 + 1], 2),
    ("mov.b64 {%r1, _}, %d2", [2**33 + 1], 1),
    ("cvta.to.global.u64 %d1, %d2", [77], 77),
    ("cvt.u32.u16 %r1, %h2", [0xFFFF], 0xFFFF),
    ("cvt.s32.s16 %r1, %h2", [0xFFFF], -1),
    ("cvt.u16.u32 %h1, %r2", [0x12345], 0x2345),
    ("cvt.s64.s32 %d1, %r2", [-5], -5),
    ("cvt.u64.u32 %d1, %r2", [-5], 2**32 - 5),
    ("cvt.u32.u64 %r1, %d2", [2**40 + 3], 3),
    ("cvt.s32.s8 %r1, %r2", [0x180], -128),
    ("cvt.rn.f32.s32 %f1, %r2", [-5], -5.0),
    ("cvt.rn.f32.u32 %f1, %r2", [2**31], 2.0**31),
    ("cvt.rn.f16.s32 %h1, %r2", [-3], int(np.float16(-3).view(np.uint16))),
    ("cvt.rn.f16.f32 %h1, %f2", [0.5], int(np.float16(0.5).view(np.uint16))),
    ("cvt.f32.f16 %f1, %h2", [int(np.float16(-1.5).view(np.uint16))], -1.5),
    ("cvt.rn.f16x2.f32 %r1, %f2, %f3", [1.0, 2.0], 0x3C004000),
    ("cvt.rzi.s32.f32 %r1, %f2", [-2.7], -2),
    ("cvt.rni.s32.f32 %r1, %f2", [2.5], 2),
    ("cvt.rmi.s32.f32 %r1, %f2", [-2.5], -3),
    ("cvt.rpi.s32.f32 %r1, %f2", [-2.5], -2),
    ("mul.f32x2 %d1, %d2, %d3", [0x40000000_BF800000, 0x3F000000_40400000], 0x3F800000_C0400000),
    ("cvt.rzi.f32.f32 %f1, %f2", [-2.7], -2.0),
    ("cvt.rzi.s32.f32 %r1, %f2", [1e10], 2**31 - 1),
    ("cvt.rzi.s32.f32 %r1, %f2", [NAN], 0),
    ("cvt.rzi.u32.f32 %r1, %f2", [-1.0], 0),
]  # fmt: skip


def as_unsigned(value, dtype):
    if np.dtype(dtype).kind == "f":
        return dtype(value)
    return dtype(value % 2 ** (8 * np.dtype(dtype).itemsize))


@pytest.mark.parametrize(("text", "operands", "expected"), SCALAR)
def test_scalar(text, operands, expected):
    kinds = {int(number): kind for kind, number in re.findall(r"%([rdhf])(\d+)", text)}
    moves = []
    for i, value in enumerate(operands):
        kind = kinds[i + 2]
        literal = float_bits(value) if kind == "f" else value
        moves.append(f"{MOVES[kind]} %{kind}{i + 2 + 30}, {literal};")
    # Out of the way of the registers that the kernel itself uses.
    text = re.sub(r"%([rdhf])(\d+)", lambda m: f"%{m[1]}{int(m[2]) + 30}", text)
    dtype, size = RESULTS[kinds[1]]
    store = {"r": "u32", "d": "u64", "h": "u16", "f": "f32"}[kinds[1]]
    body = f"{' '.join(moves)} {text}; st.global.{store} [%d0], %{kinds[1]}31;"
    got = run(body, dtype, stride=size)
    assert (got == as_unsigned(expected, dtype)).all(), (got[0], expected)


COMPARISONS = [
    ("eq.s32", 3, 3, True), ("ne.s32", 3, 3, False), ("lt.s32", -1, 1, True),
    ("lt.u32", -1, 1, False), ("gt.u32", -1, 1, True), ("le.s32", 4, 4, True),
    ("ge.s32", -4, 4, False), ("lo.u32", 1, -1, True), ("hs.u32", 1, -1, False),
    ("eq.b32", 5, 5, True),
    ("lt.f32", 1.0, 2.0, True), ("lt.f32", NAN, 2.0, False), ("ltu.f32", NAN, 2.0, True),
    ("ne.f32", NAN, NAN, False), ("neu.f32", NAN, NAN, True), ("eq.f32", 0.0, -0.0, True),
    ("nan.f32", 1.0, NAN, True), ("num.f32", 1.0, NAN, False), ("nan.f32", 1.0, 2.0, False),
]  # fmt: skip


@pytest.mark.parametrize(("comparison", "a", "b", "expected"), COMPARISONS)
def test_comparisons(comparison, a, b, expected):
    kind = "f" if comparison.endswith("f32") else "r"
    a, b = (float_bits(x) if kind == "f" else x for x in (a, b))
    body = f"""
      {MOVES[kind]} %{kind}1, {a}; {MOVES[kind]} %{kind}2, {b};
      setp.{comparison} %p1|%p2, %{kind}1, %{kind}2;
      selp.b32 %r5, 1, 0, %p1; selp.b32 %r6, 2, 0, %p2; or.b32 %r5, %r5, %r6;
      st.global.u32 [%d0], %r5;"""
    assert (run(body) == (1 if expected else 2)).all()


def test_comparisons_with_logic_and_predicates():
    body = """
      setp.gt.u32 %p1, %r0, 7;
      setp.lt.and.u32 %p2, %r0, 16, %p1;
      setp.eq.or.u32 %p3, %r0, 20, %p2;
      not.pred %p4, %p3; xor.pred %p5, %p4, -1; and.pred %p5, %p5, !%p4;
      mov.pred %p6, %p5;
      selp.u32 %r1, 1, 0, %p6;
      st.global.u32 [%d0], %r1;"""
    expected = ((LANES > 7) & (LANES < 16)) | (LANES == 20)
    assert (run(body) == expected).all()


def test_guards_and_branches():
    body = """
      mov.u32 %r1, 0;
      mov.u32 %r2, 0;
    LOOP:
      setp.ge.u32 %p1, %r2, %r0;
      @%p1 bra DONE;
      add.s32 %r1, %r1, %r2;
      add.s32 %r2, %r2, 1;
      bra.uni LOOP;
    DONE:
      setp.eq.s32 %p2, %r0, 5;
      @%p2 mov.u32 %r1, 99;
      @!%p2 add.s32 %r1, %r1, 1;
      st.global.u32 [%d0], %r1;"""
    expected = LANES * (LANES - 1) // 2 + 1
    expected[5] = 99
    assert (run(body) == expected).all()
    assert (run(body, seed=1, threads=64)[:32] == expected).all()


def test_threads_that_end_early():
    body = "setp.lt.u32 %p1, %r0, 10; @%p1 ret; st.global.u32 [%d0], 7;"
    assert (run(body, threads=64)[:12] == [0] * 10 + [7, 7]).all()


def test_special_registers():
    body = """
      mov.u32 %r1, %laneid; mov.u32 %r2, %ntid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %nctaid.x;
      st.global.v4.u32 [%d0], {%r1, %r2, %r3, %r4};"""
    got = run(body, threads=64, stride=16, position=(3, 0, 0), grid=(5, 1, 1))
    assert (got == [[i % 32, 64, 3, 5] for i in range(64)]).all()


def test_philox():
    """The ten rounds as the kernels have them, from mul.hi and mul.lo."""
    key, counter = (0x12345678, 0x9ABCDEF0), (None, 5, 0xFFFFFFFF, 3)
    lines = [f"mov.b32 %r{i}, {counter[i - 1]};" for i in (2, 3, 4)]
    lines += ["mov.u32 %r1, %r0;", *(f"mov.b32 %r{5 + i}, {key[i]};" for i in (0, 1))]
    for _ in range(10):
        lines.append("""
          mul.hi.u32 %r10, %r1, 0xD2511F53; mul.lo.s32 %r11, %r1, -766435501;
          mul.hi.u32 %r12, %r3, -845247145; mul.lo.s32 %r13, %r3, 0xCD9E8D57;
          xor.b32 %r14, %r12, %r2; xor.b32 %r1, %r14, %r5; mov.u32 %r2, %r13;
          xor.b32 %r15, %r10, %r4; xor.b32 %r3, %r15, %r6; mov.u32 %r4, %r11;
          add.s32 %r5, %r5, -1640531527; add.s32 %r6, %r6, -1150833019;""")
    lines.append("st.global.v4.b32 [%d0], {%r1, %r2, %r3, %r4};")
    seed, sample_id = key[1] << 32 | key[0], counter[3] << 32 | counter[2]
    expected = [block_words(i, counter[1], sample_id, seed) for i in range(32)]
    assert (run("\n".join(lines), stride=16) == expected).all()


# Memory


def test_loads_of_every_width():
    content = np.arange(256, dtype=np.uint8) ^ 0x80
    body = """
      mul.wide.u32 %d3, %r0, 8; add.s64 %d3, %d1, %d3;
      ld.global.u8 %r1, [%d3]; ld.global.s8 %r2, [%d3+1];
      ld.global.u16 %h1, [%d3+2]; ld.global.s16 %r3, [%d3+2];
      ld.global.v2.b16 {%h2, %h3}, [%d3+4]; ld.global.nc.L1::evict_last.b64 %d4, [%d3];
      ld.global.s32 %d5, [%d3+4];
      cvt.u32.u16 %r5, %h1; cvt.u32.u16 %r6, %h3; cvt.u32.u64 %r7, %d4; shr.s64 %d6, %d5, 32;
      cvt.u32.u64 %r8, %d6;
      st.global.v4.b32 [%d0], {%r1, %r2, %r3, %r5}; st.global.v2.b32 [%d0+16], {%r6, %r7};
      st.global.b32 [%d0+24], %r8; st.global.b32 [%d0+28], 0;"""
    got = run(body, stride=32, content=content)
    eight = content.reshape(32, 8)
    signed = eight.view(np.int8).astype(np.int64)
    halves = eight.view(np.uint16).astype(np.int64)
    expected = np.stack(
        [
            eight[:, 0],
            signed[:, 1],
            eight.view(np.int16)[:, 1],
            halves[:, 1],
            halves[:, 3],
            eight.view(np.uint32)[:, 0],
            np.where(eight.view(np.int32)[:, 1] < 0, -1, 0),
            np.zeros(32),
        ],
        axis=1,
    )
    assert (got == expected.astype(np.int64) % 2**32).all()


def test_parameters_by_address():
    body = """
      mov.b64 %d5, out; add.s64 %d5, %d5, 8; ld.param.u32 %r1, [%d5+4];
      st.global.u32 [%d0], %r1;"""
    one = block(body)
    one.run()
    got = one.global_memory.buffers[0].content(np.uint32)
    assert (got == one.global_memory.buffers[1].base >> 32).all()


@pytest.mark.parametrize("barrier", ["bar.sync 0", "barrier.sync.aligned 3, 64", "barrier.sync 1"])
def test_shared_memory(barrier):
    body = f"""
      mov.u32 %r1, dynamic; shl.b32 %r2, %r0, 2; add.s32 %r2, %r1, %r2;
      st.shared.b32 [%r2+128], %r0; {barrier};
      xor.b32 %r3, %r2, 252; ld.shared::cta.u32 %r4, [%r3+128]; st.global.u32 [%d0], %r4;"""
    assert (run(body, threads=64) == 63 - np.arange(64)).all()
    assert (run(body, threads=64, seed=3) == 63 - np.arange(64)).all()


def test_static_shared_memory_lies_before_dynamic():
    text = """.target sm_80
    .extern .shared .align 16 .b8 dynamic[];
    .shared .align 4 .b8 fixed[20];
    .shared .align 4 .b8 unused[2000];
    .entry two() .reqntid 32 { .reg .b32 %r<3>; mov.u32 %r1, fixed; mov.u32 %r2, dynamic; ret; }"""
    program = parse(text)
    assert program.shared_offsets == {"fixed": 0, "dynamic": 32}
    assert program.static_shared_bytes == 32


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_atomics_take_turns(seed):
    body = """
      mov.u32 %r1, dynamic; mov.b32 %r2, 100; setp.eq.s32 %p1, %r0, 0;
      @%p1 st.shared.v4.b32 [%r1], {%r2, %r2, 0, 0}; bar.sync 0;
      and.b32 %r3, %r0, 1; shl.b32 %r3, %r3, 2; add.s32 %r3, %r3, %r1;
      atom.shared.add.u32 %r4, [%r3], 2; atom.shared.or.b32 %r5, [%r1+8], %r0;
      red.shared.max.s32 [%r1+12], %r0; bar.sync 0;
      ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r1];
      st.global.v4.u32 [%d0], {%r4, %r6, %r8, %r9};"""
    got = run(body, threads=64, stride=16, seed=seed)
    # Each of 32 threads found another even number.
    for parity in (0, 1):
        assert sorted(got[parity::2, 0]) == list(range(100, 164, 2))
    assert (got[:, 1:] == [164, 63, 63]).all()
    if seed is None:
        assert (got[::2, 0] == np.arange(100, 164, 2)).all()


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [("min.s32", 5, -3), ("min.u32", 5, 5), ("max.u32", 5, 2**32 - 3), ("exch.b32", 5, -3),
     ("and.b32", 7, 5), ("xor.b32", 7, 7 ^ -3)],
)  # fmt: skip
def test_atomics_on_global_memory(name, start, expected):
    body = f"""
      setp.ne.s32 %p1, %r0, 0; @%p1 ret; mov.b32 %r1, -3;
      atom.global.{name} %r2, [%d1], %r1; ld.global.u32 %r3, [%d1];
      st.global.v2.u32 [%d0], {{%r2, %r3}};"""
    got = run(body, stride=8, content=np.array([start], np.uint32))
    assert (got[0] == [start, expected % 2**32]).all()


@pytest.mark.parametrize("wait", ["cp.async.wait_group 0", "cp.async.wait_all"])
def test_asynchronous_copies(wait):
    content = np.arange(32 * 4, dtype=np.uint32)
    commit = "" if "all" in wait else "cp.async.commit_group;"
    body = f"""
      mov.u32 %r1, dynamic; shl.b32 %r2, %r0, 4; add.s32 %r3, %r1, %r2;
      mul.wide.u32 %d3, %r0, 16; add.s64 %d3, %d1, %d3;
      setp.lt.s32 %p1, %r0, 30; selp.b32 %r4, 16, 0, %p1;
      cp.async.cg.shared.global [ %r3 + 0 ], [ %d3 + 0 ], 0x10, %r4; {commit} {wait}; bar.sync 0;
      xor.b32 %r2, %r2, 16; add.s32 %r3, %r1, %r2; ld.shared.v4.u32 {{%r5, %r6, %r7, %r8}}, [%r3];
      st.global.v4.u32 [%d0], {{%r5, %r6, %r7, %r8}};"""
    expected = content.reshape(32, 4).copy()
    expected[30:] = 0  # the others are filled with zeros
    assert (run(body, stride=16, content=content) == expected[LANES ^ 1]).all()


# Warps


@pytest.mark.parametrize(
    ("mode", "step", "bounds", "source"),
    [
        ("up", 3, 0, np.where(LANES >= 3, LANES - 3, LANES)),
        ("down", 5, 31, np.where(LANES + 5 < 32, LANES + 5, LANES)),
        ("bfly", 12, 31, LANES ^ 12),
        ("idx", 7, 31, np.full(32, 7)),
        # In segments of 8: the mask of the segment in bits 8 to 12.
        ("idx", 3, 0x181F, LANES // 8 * 8 + 3),
        ("up", 1, 0x1800, np.where(LANES % 8 >= 1, LANES - 1, LANES)),
        ("down", 2, 0x1807, np.where(LANES % 8 < 6, LANES + 2, LANES)),
    ],
)
def test_shuffles(mode, step, bounds, source):
    body = f"""
      add.s32 %r1, %r0, 100; shfl.sync.{mode}.b32 %r2|%p1, %r1, {step}, {bounds}, -1;
      selp.b32 %r3, 1, 0, %p1; st.global.v2.u32 [%d0], {{%r2, %r3}};"""
    got = run(body, threads=64, stride=8)
    assert (got[32:, 0] == source + 132).all()
    assert (got[:32, 1] == ((source != LANES) | (mode == "idx"))).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("add.s32", sum(range(32)) - 64), ("min.s32", -2), ("max.u32", 2**32 - 1),
     ("or.b32", ONES), ("and.b32", 0), ("xor.b32", np.bitwise_xor.reduce(LANES - 2))],
)  # fmt: skip
def test_reductions(name, expected):
    body = f"add.s32 %r1, %r0, -2; redux.sync.{name} %r2, %r1, -1; st.global.u32 [%d0], %r2;"
    assert (run(body) == np.uint32(int(expected) % 2**32)).all()


def test_reductions_of_parts_of_a_warp():
    body = """
      setp.lt.u32 %p1, %r0, 8; selp.b32 %r1, 0xFF, 0xFFFFFF00, %p1;
      @%p1 bra LOW; redux.sync.add.s32 %r2, %r0, %r1; bra.uni END;
    LOW: redux.sync.max.s32 %r2, %r0, %r1;
    END: st.global.u32 [%d0], %r2;"""
    assert (run(body) == [7] * 8 + [sum(range(8, 32))] * 24).all()


def test_votes_and_matches():
    body = """
      setp.lt.u32 %p1, %r0, 3; vote.sync.ballot.b32 %r1, %p1, -1;
      vote.sync.any.pred %p2, %p1, -1; vote.sync.all.pred %p3, %p1, -1;
      selp.b32 %r2, 1, 0, %p2; selp.b32 %r3, 1, 0, %p3;
      and.b32 %r4, %r0, 3; match.any.sync.b32 %r5, %r4, -1;
      st.global.v4.u32 [%d0], {%r1, %r2, %r3, %r5};"""
    got = run(body, stride=16)
    assert (got[:, :3] == [7, 1, 0]).all()
    assert (got[:, 3] == [0x11111111 << i % 4 for i in range(32)]).all()


def test_active_masks():
    body = """
      setp.lt.u32 %p1, %r0, 4; mov.u32 %r1, 0; @%p1 activemask.b32 %r1;
      st.global.u32 [%d0], %r1;"""
    assert (run(body) == [15] * 4 + [0] * 28).all()


def test_lanes_wait_for_those_that_their_mask_names():
    """One side of a branch takes a longer way to the same reduction."""
    body = """
      mov.u32 %r1, %r0; setp.lt.u32 %p1, %r0, 16; @%p1 bra MEET;
      mov.u32 %r2, 0;
    LOOP: add.s32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 50; @%p2 bra LOOP;
      mov.u32 %r1, 1000;
    MEET: redux.sync.max.u32 %r3, %r1, -1; st.global.u32 [%d0], %r3;"""
    assert (run(body) == 1000).all()
    # The loop lies behind: those who arrive first wait.
    body = """
      mov.u32 %r1, %r0; setp.ge.u32 %p1, %r0, 16; @%p1 bra FAR;
    MEET: redux.sync.max.u32 %r3, %r1, -1; st.global.u32 [%d0], %r3; ret;
    FAR: mov.u32 %r1, 1000; bra.uni MEET;"""
    assert (run(body) == 1000).all()


# Matrices


def store_rows(values, pitch, base=0):
    """PTX that fills shared memory with a matrix of 16-bit words, and the registers it uses."""
    lines = ["mov.u32 %r100, dynamic;", "setp.eq.s32 %p30, %r0, 0;"]
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            lines.append(f"mov.b16 %h30, {int(value)};")
            lines.append(f"@%p30 st.shared.b16 [%r100+{base + i * pitch + 2 * j}], %h30;")
    return "\n".join([*lines, "bar.sync 0;"])


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(transposed):
    tile = np.arange(64).reshape(8, 8)
    body = f"""
      {store_rows(tile, 16)}
      and.b32 %r1, %r0, 7; shl.b32 %r1, %r1, 4; add.s32 %r1, %r1, %r100;
      ldmatrix.sync.aligned.m8n8.x1{".trans" if transposed else ""}.shared.b16 {{%r2}}, [%r1];
      st.global.u32 [%d0], %r2;"""
    got = run(body).view(np.uint16).reshape(32, 2)
    seen = tile.T if transposed else tile
    for lane in range(32):
        assert (got[lane] == seen[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2]).all()


def test_ldmatrix_takes_each_tile_from_its_own_lanes():
    tiles = np.arange(256).reshape(32, 8)
    body = f"""
      {store_rows(tiles, 16)}
      shl.b32 %r1, %r0, 4; add.s32 %r1, %r1, %r100;
      ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r2, %r3, %r4, %r5}}, [%r1];
      st.global.v4.u32 [%d0], {{%r2, %r3, %r4, %r5}};"""
    got = run(body, stride=16).view(np.uint16).reshape(32, 4, 2)
    assert (got[0, :, 0] == [0, 64, 128, 192]).all()
    assert (got[5, 2] == tiles[16 + 1, 2:4]).all()


@pytest.mark.parametrize("transposed", ["", ".trans"])
def test_stmatrix_undoes_ldmatrix(transposed):
    tiles = np.arange(256).reshape(32, 8)
    body = f"""
      {store_rows(tiles, 16)}
      shl.b32 %r1, %r0, 4; add.s32 %r1, %r1, %r100;
      ldmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 {{%r2, %r3, %r4, %r5}}, [%r1];
      stmatrix.sync.aligned.m8n8.x4{transposed}.shared.b16 [%r1+512], {{%r2, %r3, %r4, %r5}};
      bar.warp.sync -1;
      ld.shared.v4.u32 {{%r2, %r3, %r4, %r5}}, [%r1+512];
      st.global.v4.u32 [%d0], {{%r2, %r3, %r4, %r5}};"""
    got = run(body, stride=16).view(np.uint16).reshape(32, 8)
    assert (got == tiles).all()


def half_words(matrix):
    return np.float16(matrix).view(np.uint16)


def test_mma():
    """ldmatrix brings both operands, as CUTLASS and Triton use it; the result has the figure's
    layout."""
    random = np.random.default_rng(0)
    a, b = random.integers(-9, 9, (16, 16)), random.integers(-9, 9, (16, 8))
    body = f"""
      {store_rows(half_words(a), 32)} {store_rows(half_words(b), 16, base=512)}
      and.b32 %r1, %r0, 15; shl.b32 %r1, %r1, 5; shr.u32 %r2, %r0, 4; shl.b32 %r2, %r2, 4;
      add.s32 %r1, %r1, %r2; add.s32 %r1, %r1, %r100;
      ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r3, %r4, %r5, %r6}}, [%r1];
      and.b32 %r7, %r0, 15; shl.b32 %r7, %r7, 4; add.s32 %r7, %r7, %r100;
      ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {{%r8, %r9}}, [%r7+512];
      cvt.rn.f32.s32 %f1, %r0; mov.f32 %f2, {float_bits(-1)}; mov.f32 %f3, 0f00000000;
      mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
        {{%f4, %f5, %f6, %f7}}, {{%r3, %r4, %r5, %r6}}, {{%r8, %r9}}, {{%f1, %f2, %f3, %f3}};
      st.global.v4.f32 [%d0], {{%f4, %f5, %f6, %f7}};"""
    one = block(body, stride=16, shared=2048)
    report = one.run()
    assert not report.findings, report.lines()
    got = one.global_memory.buffers[0].content(np.float32).reshape(32, 4)
    product = a @ b
    for lane in range(32):
        row, column = lane // 4, 2 * (lane % 4)
        expected = [
            product[row, column] + lane,
            product[row, column + 1] - 1,
            product[row + 8, column],
            product[row + 8, column + 1],
        ]
        assert (got[lane] == expected).all()
    assert report.largest_sum == (np.abs(a) @ np.abs(b) + start_of_accumulators()).max()


def start_of_accumulators():
    start = np.zeros((16, 8))
    for lane in range(32):
        start[lane // 4, 2 * (lane % 4)] = lane
        start[lane // 4, 2 * (lane % 4) + 1] = 1
    return start


@pytest.mark.parametrize(
    ("n", "swizzle", "n_is_contiguous"),
    [(8, 0, False), (16, 3, False), (16, 2, False), (64, 1, False), (16, 3, True), (64, 1, True)],
)
@pytest.mark.parametrize("seed", [None, 1])
def test_wgmma(n, swizzle, n_is_contiguous, seed):
    """The right operand lies where the descriptor says; two products add up in the accumulators."""
    random = np.random.default_rng(n)
    a, b = random.integers(-5, 5, (64, 16)), random.integers(-5, 5, (16, n))
    rows = {0: 16, 1: 128, 2: 64, 3: 32}[swizzle]
    # Eight rows of a swizzled pattern follow each other; then comes the next group of eight.
    descriptor = Descriptor(0, 8 * rows * (2 if n_is_contiguous else 1), 8 * rows, swizzle)
    if swizzle == 0:
        descriptor = Descriptor(0, 128, 256, 0)
    places = descriptor.addresses(n, n_is_contiguous=n_is_contiguous)
    assert len(np.unique(places)) == places.size
    words = np.zeros(places.max() // 2 + 1, np.uint16)
    words[places // 2] = half_words(b)
    fragments = np.zeros((128, 4, 2), np.uint16)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for register in range(4):
            row = 16 * warp + lane // 4 + 8 * (register % 2)
            column = 2 * (lane % 4) + 8 * (register // 2)
            fragments[thread, register] = half_words(a)[row, column : column + 2]
    content = np.concatenate([fragments.reshape(-1), words])
    # Every thread copies a part of the matrix to shared memory.
    steps = -(-len(words) // 128)
    content = np.concatenate([content, np.zeros(128 * steps - len(words), np.uint16)])
    copies = "\n".join(
        f"ld.global.b16 %h1, [%d4+{256 * i}]; st.shared.b16 [%r10+{256 * i}], %h1;"
        for i in range(steps)
    )
    accumulators = ", ".join(f"%f{i}" for i in range(n // 2))
    body = f"""
      mul.wide.u32 %d3, %r0, 16; add.s64 %d3, %d1, %d3;
      ld.global.v4.b32 {{%r1, %r2, %r3, %r4}}, [%d3];
      mul.wide.u32 %d4, %r0, 2; add.s64 %d4, %d1, %d4; add.s64 %d4, %d4, 2048;
      mov.u32 %r10, dynamic; shl.b32 %r11, %r0, 1; add.s32 %r10, %r10, %r11;
      {copies}
      fence.proxy.async.shared::cta; bar.sync 0;
      mov.b64 %d6, {descriptor.packed()}; mov.pred %p1, -1;
      wgmma.fence.sync.aligned;
      wgmma.mma_async.sync.aligned.m64n{n}k16.f32.f16.f16
        {{{accumulators}}}, {{%r1, %r2, %r3, %r4}}, %d6, 0, 1, 1, {int(n_is_contiguous)};
      wgmma.mma_async.sync.aligned.m64n{n}k16.f32.f16.f16
        {{{accumulators}}}, {{%r1, %r2, %r3, %r4}}, %d6, %p1, 1, 1, {int(n_is_contiguous)};
      wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
      {" ".join(f"st.global.f32 [%d0+{4 * i}], %f{i};" for i in range(n // 2))}"""
    got = run(body, np.float32, threads=128, stride=2 * n, content=content, shared=8192, seed=seed)
    product = 2 * a @ b
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for register in range(n // 2):
            row = 16 * warp + lane // 4 + 8 * (register % 4 // 2)
            column = 2 * (lane % 4) + register % 2 + 8 * (register // 4)
            assert got[thread, register] == product[row, column]


@pytest.mark.parametrize(("swizzle", "width"), [(1, 128), (2, 64), (3, 32)])
def test_swizzles(swizzle, width):
    """Of every 1024 bytes, pieces of 16 go to the place of their number xor bits of their row."""
    places = Descriptor(2048, 0, 8 * width, swizzle).addresses(16, n_is_contiguous=False)
    rows_in_128_bytes = 128 // width
    for n in range(16):
        for k in range(16):
            piece = (k // 8) ^ (n % 8 // rows_in_128_bytes)
            assert places[k, n] == 2048 + n * width + 16 * piece + 2 * (k % 8)
    packed = Descriptor(2048, 256, 512, swizzle).packed()
    assert Descriptor.unpacked(packed) == (2048, 256, 512, swizzle)


# What the machine does not know


@pytest.mark.parametrize(
    "statement",
    [
        "tanh.approx.f32 %f1, %f2",
        "add.sat.s32 %r1, %r2, %r3",
        "add.ftz.f32 %f1, %f2, %f3",
        "mul.s32 %r1, %r2, %r3",
        "fma.rz.f32 %f1, %f2, %f2, %f2",
        "ld.local.b32 %r1, [%d1]",
        "ld.u32 %r1, [%d1]",
        "ld.global.b128 %d3, [%d1]",
        "st.global.v2.b32 [%d0], %r1",
        "setp.lt.xyz.s32 %p1, %r1, %r2",
        "cvt.rn.bf16.f32 %h1, %f1",
        "cvt.rz.f16.f32 %h1, %f1",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f1, %f1, %f1}, "
        "{%r1, %r1, %r1, %r1}, {%r1, %r1}, {%f1, %f1, %f1, %f1}",
        "tcgen05.mma.cta_group::1.kind::f16 [%r1], %d1, %d1, %r1, %p1",
        "bar.arrive 0, 64",
        "bar.sync 0, 64",
        "mov.u32 %r1, %clock",
        "mov.u32 %r1, nowhere",
        "add.s32 %r1, %d1, %r2",
        "atom.global.add.f32 %f1, [%d1], %f2",
        "shfl.up.b32 %r1, %r1, 1, 0",
        "call foo, (%r1)",
    ],
)
def test_unknown_instructions_fail_by_name(statement):
    with pytest.raises(UnknownInstruction, match=re.escape(statement.split()[0])):
        kernel(statement + ";")


def test_every_instruction_is_tested_here():
    text = Path(__file__).read_text()
    missing = [name for name in COMPILERS if not re.search(rf"\b{name}\.", text)]
    assert missing == []
    run("membar.cta; fence.acq_rel.gpu; st.global.u32 [%d0], %r0;")


def test_texts_that_do_not_parse():
    with pytest.raises(InvalidProgram, match="no such label"):
        kernel("bra NOWHERE;")
    with pytest.raises(InvalidProgram, match="one kernel"):
        parse(".entry a() { ret; } .entry b() { ret; }")
    with pytest.raises(InvalidProgram, match="closing brace"):
        parse(".entry a() { ret;")


def test_statements_know_where_they_come_from():
    program = parse("""
      .entry a() .reqntid 32 {
        .reg .b32 %r<3>;
        .loc 1 9 3
        mov.u32 %r1, 1;
        .loc 2 5 1, function_name $L__info_string0, inlined_at 1 9 3
        mov.u32 %r2, 1;
        .loc 1 9 3, function_name $L__info_string0, inlined_at 2 5 1
        ret;
      }
      .file 1 "/somewhere/outer.cu"
      .file 2 "/somewhere/inner.h"
    """)
    first, second, last = program.statements
    assert first.origin == ("outer.cu:9",)
    assert second.origin == ("inner.h:5", "outer.cu:9")
    assert last.origin == ("outer.cu:9", "inner.h:5")  # a circle ends
    assert str(second) == "line 7 (inner.h:5 in outer.cu:9): mov.u32 %r2, 1"


def test_registers_of_inner_braces_are_their_own():
    body = """
      { .reg .pred q; setp.lt.u32 q, %r0, 3; selp.b32 %r1, 1, 0, q; }
      { .reg .b32 q; mov.b32 q, 8; add.s32 %r1, %r1, q; }
      st.global.u32 [%d0], %r1;"""
    assert (run(body) == [9] * 3 + [8] * 29).all()

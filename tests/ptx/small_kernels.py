"""PTX texts of a few lines, run on the machine."""

from __future__ import annotations

import numpy as np

from ptx_machine import Block, GlobalMemory, Kernel, Report, parse

HEADER = """
.version 8.0
.target sm_90
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry small(.param .u64 .ptr .global .align 1 out, .param .u64 .ptr .global .align 1 in)
.reqntid {threads}
{{
  .reg .pred %p<40>;
  .reg .b16 %h<40>;
  .reg .b32 %r<120>;
  .reg .b64 %d<40>;
  .reg .f32 %f<40>;
  mov.u32 %r0, %tid.x;
  ld.param.u64 %d0, [out];
  ld.param.u64 %d1, [in];
  mul.wide.u32 %d2, %r0, {stride};
  add.s64 %d0, %d0, %d2;
  {body}
  ret;
}}
"""


def kernel(body: str, threads: int = 32, stride: int = 4) -> Kernel:
    """``body`` finds its thread in %r0, the input's address in %d1 and in %d0 that of its own
    ``stride`` bytes of the output."""
    return Kernel(parse(HEADER.format(body=body, threads=threads, stride=stride)))


def block(
    body: str | Kernel,
    *,
    threads: int = 32,
    stride: int = 4,
    content: np.ndarray | None = None,
    shared: int = 1024,
    seed: int | None = None,
    **options: object,
) -> Block:
    """One that is ready to run, with an output of ``stride`` bytes per thread."""
    memory = GlobalMemory()
    out = memory.add(np.zeros(threads * stride, np.uint8), "out")
    content = memory.add(np.zeros(1, np.uint8) if content is None else content, "in")
    made = kernel(body, threads, stride) if isinstance(body, str) else body
    parameters = np.array([out.base, content.base], np.uint64).view(np.uint8)
    random = None if seed is None else np.random.default_rng(seed)
    return Block(made, memory, parameters, dynamic_shared_bytes=shared, random=random, **options)


def run(body: str | Kernel, dtype: type = np.uint32, **options: object) -> np.ndarray:
    """The output, [threads] or [threads, stride / size of dtype]; findings fail."""
    one = block(body, **options)
    report = one.run()
    assert not report.findings, report.lines()
    values = one.global_memory.buffers[0].content(dtype)
    return values if len(values) == one.n_threads else values.reshape(one.n_threads, -1)


def findings(body: str | Kernel, **options: object) -> Report:
    return block(body, **options).run()


def float_bits(value: float) -> str:
    """A float32 as PTX writes it."""
    return f"0f{int(np.float32(value).view(np.uint32)):08X}"

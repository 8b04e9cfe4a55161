"""What ptxas is known to translate wrongly. bench/triton_report.py looks for it in every kernel."""

import importlib.util

from testing import require, rows_printed_by

from ptx_machine.program import parse
from ptx_machine.ptxas_faults import lost_constants, lost_in

_PTX = """
.version {version}
.target sm_90a
.visible .entry sum(.param .u64 p) {{
  .reg .b32 %r<4>;
  mov.b32 %r1, {first};
  mov.b32 %r2, 18;
  {add} %r3, %r1, %r2;
  ret;
}}"""

_DISPERSION = """
import json
import torch
from ptx_machine.program import parse
from ptx_machine.ptxas_faults import lost_constants
from smnm_kernels import triton_kernels as gpu
from triton_report import compiling_for

with compiling_for(90) as compiled:
    for channels, patch in (
        (3, (3, 3, 5)), (1, (3, 7, 5)), (3, (2, 5, 9)), (2, (5, 5, 5)), (3, (2, 14, 14)),
        (1, (1, 12, 15)), (3, (3, 3, 3)), (1, (1, 16, 16)),
    ):
        gpu.dispersion_kernel(torch.zeros(1, channels, *patch), patch, "mad")
        lost = lost_constants(parse(compiled[-1].asm["ptx"]).statements)
        print(json.dumps([channels, patch, list(map(str, lost))]))
"""


def written(first="%r0", add="add.s16x2", version="8.7"):
    return _PTX.format(first=first, add=add, version=version)


def test_an_added_constant_is_found():
    [lost] = lost_in(written())
    assert lost.opcode == "add.s16x2"
    assert not lost_in(written(add="add.s32"))
    assert lost_in(written(version="9.0"))
    assert not lost_in(written(version="9.4"))
    assert lost_constants(parse(written(version="9.4")).statements)


def test_dispersion_has_none():
    require(importlib.util.find_spec("triton"), "Triton")
    rows = rows_printed_by("-c", _DISPERSION)
    assert len(rows) == 8
    assert not [row for row in rows if row[2]]

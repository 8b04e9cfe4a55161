"""The CUDA kernels of csrc/cuda/rbn.cu on CPU tensors, run as the PTX that nvcc compiles.

Grids and arguments are those of its ``launch``.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from bench.cuda_report import SOURCES, compiled

from .block import Block, Kernel
from .launch import LaunchReport, Schedule, launch, packed_parameters
from .memory import Buffer, GlobalMemory
from .program import kernel_names, parse

#: More shared memory than a block may have is taken from a workspace; of sm_80 and sm_90.
MAX_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}


class CudaKernels:
    """The kernels of csrc, compiled for one target (a compute capability times ten).

    Raises FileNotFoundError without nvcc or a C++ compiler.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._kernels: dict[str, Kernel] = {}

    @cached_property
    def ptx(self) -> str:
        return compiled(SOURCES / "cuda/rbn.cu", self.target).ptx

    def kernel(self, name: str) -> Kernel:
        """The one whose mangled name contains ``name``."""
        if name not in self._kernels:
            self._kernels[name] = Kernel(parse(self.ptx, name))
        return self._kernels[name]

    def names(self) -> list[str]:
        return kernel_names(self.ptx)

    @cached_property
    def _shape_library(self) -> ctypes.CDLL:
        compiler = shutil.which(os.environ.get("CXX", "c++"))
        if compiler is None:
            raise FileNotFoundError("a C++ compiler was not found: set CXX")
        source = Path(__file__).parent / "rounds_shape.cpp"
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "rounds_shape.so"
            options = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-I{SOURCES}/common"]
            subprocess.run([compiler, *options, str(source), "-o", str(output)], check=True)
            library = ctypes.CDLL(str(output))
        library.shape_bytes.restype = library.rounds_shape.restype = ctypes.c_size_t
        library.kernel_arguments.restype = None
        return library

    def kernel_for(self, name: str, shape: bytes, in_shared: bool) -> Kernel:
        """The instance of rbn_masks_kernel or rbn_bank_kernel that is launched for a shape."""
        masks, bank = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
        self._shape_library.kernel_arguments(shape, ctypes.c_bool(in_shared), masks, bank)
        arguments = {"rbn_masks_kernel": masks, "rbn_bank_kernel": bank}[name]
        return self.kernel(name + arguments.value.decode())

    def shape(
        self,
        grid: Sequence[int],
        n_keep: int,
        n_candidates: int,
        windows: Sequence[int],
        weights: Sequence[int],
        random_ties: bool,
    ) -> tuple[bytes, int]:
        """The struct RoundsShape, and the bytes of a block's state."""
        library = self._shape_library
        out = ctypes.create_string_buffer(library.shape_bytes())
        integers = {
            name: (ctypes.c_int64 * len(values))(*values)
            for name, values in (("windows", windows), ("weights", weights))
        }
        state_bytes = library.rounds_shape(
            *(ctypes.c_int64(side) for side in grid[1:]),
            ctypes.c_int64(n_candidates),
            ctypes.c_int64(n_keep),
            integers["windows"],
            ctypes.c_int64(len(windows)),
            integers["weights"],
            ctypes.c_bool(random_ties),
            out,
        )
        return out.raw, state_bytes


class CudaMachine:
    """Runs torch.ops.smnm.rbn_masks and rbn_bank on the machine; arguments as theirs."""

    def __init__(self, kernels: CudaKernels, schedule: Schedule | None = None) -> None:
        self.kernels = kernels
        self.schedule = schedule or Schedule()
        self.launches: list[LaunchReport] = []
        #: Multiprocessors that a workspace is shared by.
        self.n_multiprocessors = 1
        #: Whether banks keep their state in a workspace though it would fit in shared memory.
        self.always_workspace = False
        self.on_block: Callable[[Block], None] | None = None
        #: What runs in place of a kernel: called with each one that is launched.
        self.replace: Callable[[Kernel], Kernel] = lambda kernel: kernel

    def rbn_masks(
        self,
        sample_ids: torch.Tensor,
        seed_tensor: torch.Tensor | None,
        seed: int,
        grid: Sequence[int],
        n_keep: int,
        n_candidates: int,
        windows: Sequence[int],
        weights: Sequence[int],
        random_ties: bool,
        valid: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        memory, batch, n_tokens = GlobalMemory(), len(sample_ids), math.prod(grid)
        ids = memory.add(sample_ids.contiguous().numpy(), "sample_ids")
        visible = _output(memory, "visible", np.uint8, batch * n_tokens)
        keep = _output(memory, "ids_keep", np.int64, batch * n_keep)
        restore = _output(memory, "ids_restore", np.int64, batch * n_tokens)
        may_show = 0
        if valid is not None:
            may_show = memory.add(valid.contiguous().numpy().view(np.uint8), "valid").base
        outputs = (visible.base, keep.base, restore.base)
        rows = struct.pack("=6q", ids.base, batch, *outputs, may_show)
        rule = (n_candidates, windows, weights, random_ties)
        after = [rows, _seed(memory, seed_tensor, seed)]
        self._launch("rbn_masks_kernel", memory, (grid, n_keep, *rule), batch, after)
        return (
            torch.from_numpy(visible.content(np.bool_)).view(batch, n_tokens),
            torch.from_numpy(keep.content(np.int64)).view(batch, n_keep),
            torch.from_numpy(restore.content(np.int64)).view(batch, n_tokens),
        )

    def rbn_bank(
        self,
        order: torch.Tensor,
        seed_tensor: torch.Tensor | None,
        seed: int,
        grid: Sequence[int],
        n_keep: int,
        n_candidates: int,
        *rule: object,
    ) -> torch.Tensor:
        memory, (n_orders, n_tokens) = GlobalMemory(), order.shape
        orders = memory.add(order.contiguous().numpy(), "order")
        visible = _output(memory, "visible", np.uint8, n_orders * n_candidates * n_tokens)
        after = [orders.base, n_orders, _seed(memory, seed_tensor, seed), visible.base]
        shape = (grid, n_keep, n_candidates, *rule)
        self._launch("rbn_bank_kernel", memory, shape, n_orders, after)
        content = torch.from_numpy(visible.content(np.bool_))
        return content.view(n_orders, n_candidates, n_tokens)

    def _launch(
        self,
        name: str,
        memory: GlobalMemory,
        shape_arguments: tuple,
        n_items: int,
        after: list[int | bytes],
    ) -> None:
        shape, state_bytes = self.kernels.shape(*shape_arguments)
        in_shared = (
            not self.always_workspace and state_bytes <= MAX_SHARED_BYTES[self.kernels.target]
        )
        kernel = self.replace(self.kernels.kernel_for(name, shape, in_shared))
        if in_shared:
            n_blocks, workspace = n_items, struct.pack("=2q", 0, 0)
        else:
            n_blocks = self._workspace_blocks(n_items, shape_arguments[2])
            buffer = memory.add(np.zeros(n_blocks * state_bytes // 4, np.uint32), "workspace")
            buffer.forget()
            workspace = struct.pack("=2q", buffer.base, state_bytes)
        made = launch(
            kernel,
            memory,
            packed_parameters(kernel, [shape, workspace, *after]),
            (n_blocks, 1, 1),
            dynamic_shared_bytes=state_bytes if in_shared else 0,
            schedule=self.schedule,
            on_block=self.on_block,
        )
        self.launches.append(made)

    def _workspace_blocks(self, n_items: int, n_candidates: int) -> int:
        n_blocks = min(n_items, 2 * self.n_multiprocessors)
        while math.gcd(n_blocks, n_candidates) != 1:
            n_blocks -= 1
        return n_blocks


def _output(memory: GlobalMemory, name: str, dtype: type[np.generic], size: int) -> Buffer:
    """Memory that nothing was written to yet."""
    buffer = memory.add(np.zeros(size, dtype), name)
    buffer.forget()
    return buffer


def _seed(memory: GlobalMemory, seed_tensor: torch.Tensor | None, seed: int) -> bytes:
    if seed_tensor is None:
        return struct.pack("=2q", 0, seed)
    return struct.pack("=2q", memory.add(seed_tensor.reshape(1).numpy(), "seed").base, 0)

"""What narrower machines run: the CPU kernels built for them make the same masks."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from testing import compiled

import smnm_kernels as smnm
from smnm_kernels.tables.colors import parse_sigma
from smnm_kernels.tables.noise import noise_quantiles, noise_table

SOURCE = Path(__file__).parent / "cpp/vector_paths.cpp"
#: SMNM_VECTORS of csrc/cpu/simd.h, what the compiler may use, and the flag that tells it is there.
#: The last is what the extension is, by the compiler of CXX.
PATHS = {
    "0": ("x86-64", "sse2"),
    "1": ("x86-64-v3", "avx2"),
    "2": ("x86-64-v4", "avx512bw"),
    "3": ("x86-64", "sse2"),
}


@pytest.fixture(scope="module", params=PATHS)
def program(request, tmp_path_factory):
    machine, flag = PATHS[request.param]
    if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
        pytest.skip("needs an x86-64 machine with Linux")
    if flag not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip(f"this machine has no {flag}")
    made = tmp_path_factory.mktemp("paths") / "vector_paths"
    flags = ("-O2", "-w", f"-march={machine}", f"-DSMNM_VECTORS={request.param}")
    return compiled(SOURCE, made, *flags)


@pytest.mark.parametrize(
    ("grid", "color", "sigma"),
    [
        ((8, 14, 14), "green", None),
        ((3, 5, 7), "red", (0.2, 8.0)),
        ((1, 64, 8), "blue", (0.35, 2.0)),
        ((2, 3, 70), "green", ((0.2, 4.0), (2.0, 8.0))),
        ((1, 1, 1), "red", 0.2),
        ((4, 9, 17), "white", None),
    ],
)
def test_masks_are_those_of_the_reference(program, tmp_path, grid, color, sigma):
    ids, seed, n_keep = torch.tensor([0, 1, -7, 2**40]), 11, -(-torch.Size(grid).numel() // 4)
    parts = [ids]
    torus, n_levels, n_pairs = grid, 0, 0
    if color != "white":
        table = noise_table(grid, color, tuple(parse_sigma(color, sigma)))
        torus, n_levels, n_pairs = table.torus, len(table.taps), len(table.pairs)
        parts += [table.taps, table.pairs, table.scale, noise_quantiles()]
    head = torch.tensor([seed, len(ids), *grid, *torus, n_levels, n_pairs, n_keep])
    call = tmp_path / "call"
    call.write_bytes(b"".join(part.numpy().tobytes() for part in (head, *parts)))
    printed = subprocess.run([str(program), str(call)], capture_output=True, check=True).stdout
    expected = smnm.reference.noise_masks(ids, grid, color, n_keep=n_keep, sigma=sigma, seed=seed)
    rows = zip(expected.visible, expected.ids_keep, expected.ids_restore, strict=True)
    assert np.frombuffer(printed, np.uint8).tobytes() == b"".join(
        part.numpy().tobytes() for row in rows for part in row
    )

"""Every vector path that this machine has makes the same masks, from GCC and from clang."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mask_hashes import mask_hashes
from testing import ROOT, made_once

import smnm_kernels as smnm
from smnm_kernels.libraries import VECTOR_PATHS
from smnm_kernels.tables.colors import parse_sigma
from smnm_kernels.tables.noise import noise_quantiles, noise_table

PROGRAM = Path(__file__).parent / "cpp/vector_paths.cpp"
KERNELS = [*(ROOT / "csrc/cpu").glob("kernels*.cpp")]
KERNELS += [ROOT / f"csrc/cpu/{name}.cpp" for name in ("philox_blocks", "vector_path")]
BUILT = smnm.build_info()
#: Those of this machine.
PATHS = BUILT["vector_paths"] if BUILT else ()
#: Instructions of AVX and of the two extensions for bits that come with AVX2.
WIDE = r"\t(v[a-z]\w+|andn|bextr|bls\w+|mulx|pdep|pext|rorx|sarx|shlx|shrx) "
FLAGS = ("-std=c++17", "-O2", "-Wall", "-Wno-psabi")
#: What the files of paths define, whose instructions this machine need not have: their lanes are
#: emulated.
EMULATED = {
    "avx_vnni": "-DPATH=kAvxVnni -DSMNM_LANES=8 -DSMNM_PAIRS -DSMNM_AVX2 -DSMNM_AVX_VNNI",
    "avx512": "-DPATH=kAvx512 -DSMNM_LANES=16 -DSMNM_AVX2",
    "avx512_vnni": "-DPATH=kAvx512Vnni -DSMNM_LANES=16 -DSMNM_AVX2 -DSMNM_AVX512_VNNI",
}
CALLS = [
    ((8, 14, 14), "green", None),
    ((3, 5, 7), "red", (0.2, 8.0)),
    ((1, 64, 8), "blue", (0.35, 2.0)),
    ((2, 3, 70), "green", ((0.2, 4.0), (2.0, 8.0))),
    ((1, 1, 1), "red", 0.2),
    ((4, 9, 17), "white", None),
]

pytestmark = pytest.mark.slow


def run(*command):
    subprocess.run(list(map(str, command)), check=True)


@pytest.fixture(scope="module", params=["g++", "clang++"])
def compiled(request, tmp_path_factory):
    """A folder with an object for each source, and the program that they make."""
    compiler = request.param
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")

    def make(folder):
        objects = [folder / f"{source.stem}.o" for source in (PROGRAM, *KERNELS)]
        for source, made in zip((PROGRAM, *KERNELS), objects, strict=True):
            run(compiler, *FLAGS, "-c", source, "-o", made)
        run(compiler, *objects, "-o", folder / "program")

    return made_once(tmp_path_factory, f"vector-paths-{compiler}", make)


@pytest.fixture(scope="module", params=EMULATED)
def emulated(request, tmp_path_factory):
    """(program, path)"""
    path = request.param
    sources = PROGRAM, PROGRAM.with_name("emulated_paths.cpp")
    defined = (*EMULATED[path].split(), f'-DPATH_NAME="{path}"')

    def make(folder):
        run("g++", *FLAGS, "-mavx2", *defined, *sources, "-o", folder / "program")

    return made_once(tmp_path_factory, f"emulated-{path}", make) / "program", path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("grid", "color", "sigma"), CALLS)
def test_masks_are_those_of_the_reference(compiled, tmp_path, path, grid, color, sigma):
    assert_masks_of_the_reference(compiled / "program", path, tmp_path / "call", grid, color, sigma)


@pytest.mark.skipif("avx2" not in PATHS, reason="needs AVX2")
@pytest.mark.parametrize(("grid", "color", "sigma"), CALLS)
def test_emulated_masks_are_those_of_the_reference(emulated, tmp_path, grid, color, sigma):
    assert_masks_of_the_reference(*emulated, tmp_path / "call", grid, color, sigma)


def assert_masks_of_the_reference(program, path, call, grid, color, sigma):
    ids, seed, n_keep = torch.tensor([0, 1, -7, 2**40]), 11, -(-torch.Size(grid).numel() // 4)
    parts = [ids]
    torus, n_levels, n_pairs = grid, 0, 0
    if color != "white":
        table = noise_table(grid, color, tuple(parse_sigma(color, sigma)))
        torus, n_levels, n_pairs = table.torus, len(table.taps), len(table.pairs)
        parts += [table.taps, table.pairs, table.scale, noise_quantiles()]
    head = torch.tensor([seed, len(ids), *grid, *torus, n_levels, n_pairs, n_keep])
    call.write_bytes(b"".join(part.numpy().tobytes() for part in (head, *parts)))
    environment = os.environ | {"SMNM_VECTORS": path}
    command = [str(program), path, str(call)]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    expected = smnm.reference.noise_masks(ids, grid, color, n_keep=n_keep, sigma=sigma, seed=seed)
    rows = zip(expected.visible, expected.ids_keep, expected.ids_restore, strict=True)
    assert np.frombuffer(printed, np.uint8).tobytes() == b"".join(
        part.numpy().tobytes() for row in rows for part in row
    )


@pytest.mark.skipif("avx2" not in PATHS, reason="needs an x86-64 machine")
@pytest.mark.parametrize("path", VECTOR_PATHS[1:])
def test_what_paths_share_runs_on_every_machine(compiled, path):
    """The linker keeps one copy of an inline function that is not local to its file, whichever path
    it was compiled for."""
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump")
    made = compiled / f"kernels_{path}.o"
    listed = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", made], capture_output=True, text=True, check=True
    ).stdout
    _, *sections = re.split(r"^Disassembly of section (\S+):$", listed, flags=re.MULTILINE)
    wide = {
        name: re.findall(WIDE, code)
        for name, code in zip(sections[::2], sections[1::2], strict=True)
    }
    assert wide[".text"]
    assert not any(found for name, found in wide.items() if name.startswith(".text._Z")), wide


def python(program, *arguments, vectors):
    return subprocess.run(
        [sys.executable, *map(str, (program, *arguments))],
        env=os.environ | {"SMNM_VECTORS": vectors},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(BUILT is None, reason="needs the C++ library")
@pytest.mark.parametrize("path", [path for path in PATHS if path != BUILT["vectors"]])
def test_a_narrower_path_makes_all_masks(path):
    done = python(ROOT / "tests/mask_hashes.py", vectors=path)
    assert json.loads(done.stdout)["hashes"] == mask_hashes(), done.stderr


@pytest.mark.skipif(BUILT is None, reason="needs the C++ library")
def test_a_path_that_is_not_there_is_refused():
    done = python("-c", "import smnm_kernels", vectors="mmx")
    expected = f"ValueError: SMNM_VECTORS must be one of {', '.join(VECTOR_PATHS)}, got 'mmx'"
    assert done.stderr.splitlines()[-1] == expected
    for path in set(VECTOR_PATHS) - set(PATHS):
        done = python("-c", "import smnm_kernels", vectors=path)
        expected = f"ImportError: SMNM_VECTORS={path} cannot be used: this processor has"
        assert done.stderr.splitlines()[-1] == f"{expected} {', '.join(PATHS)}"

"""Every vector path that this machine has makes the same masks, from GCC and from clang."""

import json
import os
import re
import shutil
import subprocess
import sys

import kernel_program
import pytest
from kernel_calls import (
    COMPILERS,
    assert_banks_are_those_of_the_reference,
    assert_noise_is_that_of_the_reference,
    built,
    of_banks,
    of_noise,
)
from kernel_program import Program
from mask_hashes import mask_hashes
from testing import ROOT, kept, version_of

import smnm_kernels as smnm
from smnm_kernels import libraries
from smnm_kernels.libraries import VECTOR_PATHS

BUILT = smnm.build_info()
#: Those of this machine.
PATHS = BUILT["vector_paths"] if BUILT else ()
#: Instructions of AVX and of the two extensions for bits that come with AVX2.
WIDE = r"\t(v[a-z]\w+|andn|bextr|bls\w+|mulx|pdep|pext|rorx|sarx|shlx|shrx) "
#: What the files of paths define, whose instructions this machine need not have: their lanes are
#: emulated.
EMULATED = {
    "avx_vnni": "-DPATH=kAvxVnni -DSMNM_LANES=8 -DSMNM_PAIRS -DSMNM_AVX2 -DSMNM_AVX_VNNI",
    "avx512": "-DPATH=kAvx512 -DSMNM_LANES=16 -DSMNM_AVX2",
    "avx512_vnni": "-DPATH=kAvx512Vnni -DSMNM_LANES=16 -DSMNM_AVX2 -DSMNM_AVX512_VNNI",
}
EMULATED_SOURCES = (
    *("tests/cpp/vector_paths.cpp", "tests/cpp/emulated_paths.cpp"),
    *("csrc/cpu/rbn_runner.cpp", "csrc/cpu/rbn_scores.cpp"),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=COMPILERS)
def compiled(request):
    return built(request.param)


@pytest.fixture(
    scope="module", params=[pytest.param(path, marks=pytest.mark.exhaustive) for path in EMULATED]
)
def emulated(request):
    path = request.param
    flags = ("-std=c++17", "-O2", "-Wall", "-Wno-psabi", "-mavx2")
    defined = (*EMULATED[path].split(), f'-DPATH_NAME="{path}"')

    def make(folder):
        sources = [ROOT / source for source in EMULATED_SOURCES]
        kernel_program.run("g++", *flags, *defined, *sources, "-o", folder / "program")

    made = kept(f"emulated-{path}", (flags, defined, version_of("g++")), make)
    return Program((made / "program",), path)


@pytest.mark.parametrize("path", PATHS)
@of_noise
def test_noise_is_that_of_the_reference(compiled, path, grid, color, sigma):
    program = Program((compiled / "program",), path)
    assert_noise_is_that_of_the_reference(program, grid, color, sigma)


@pytest.mark.parametrize("path", PATHS)
@of_banks
def test_banks_are_those_of_the_reference(compiled, path, call):
    assert_banks_are_those_of_the_reference(Program((compiled / "program",), path), call)


@pytest.mark.skipif("avx2" not in PATHS, reason="needs AVX2")
@of_noise
def test_emulated_noise_is_that_of_the_reference(emulated, grid, color, sigma):
    assert_noise_is_that_of_the_reference(emulated, grid, color, sigma)


@pytest.mark.skipif("avx2" not in PATHS, reason="needs AVX2")
@of_banks
def test_emulated_banks_are_those_of_the_reference(emulated, call):
    assert_banks_are_those_of_the_reference(emulated, call)


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
def test_a_path_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("SMNM_VECTORS", "mmx")
    with pytest.raises(ValueError, match=r"SMNM_VECTORS must be one of .*, got 'mmx'") as refused:
        libraries.cpu_problem.__wrapped__()
    assert ", ".join(VECTOR_PATHS) in str(refused.value)
    for path in [path for path in VECTOR_PATHS if path not in PATHS][:1]:
        monkeypatch.setenv("SMNM_VECTORS", path)
        expected = f"SMNM_VECTORS={path} cannot be used: this processor has {', '.join(PATHS)}"
        with pytest.raises(ImportError, match=f"^{re.escape(expected)}$"):
            libraries.cpu_problem.__wrapped__()

"""What compilers make of the CPU kernels: vectors of each path's width, and no single elements,
calls or stack traffic in the loops that take the time, but for what ALLOWED names."""

import platform
import re
import shutil
import subprocess
import sys

import pytest
from disassembly import KINDS, functions_of, loops
from kernel_calls import COMPILERS, built
from testing import compiled as compiled_program
from testing import require

from smnm_kernels.libraries import VECTOR_PATHS

#: The functions that take the time, as compilers write them. Template arguments tell the two
#: passes of ColumnFilter apart: the last one, which writes sums, and the others.
FUNCTIONS = (
    ("filter_rows", r"\bfilter_rows\b"),
    ("pair_rows", r"\bpair_rows\b"),
    ("last pass", r"\brun<true"),
    ("pass", r"\brun<false"),
    ("write_difference", r"\bwrite_difference\b"),
    ("look_up", r"\blook_up\b"),
    ("fill_white_field", r"\bfill_white_field\b"),
    ("count_at_least", r"\bcount_at_least<"),
    ("keep_largest", r"\bkeep_largest<"),
    ("write_frame", r"\bwrite_frame\b"),
    ("sweep", r"\bsweep_few_masks<"),
)
PHILOX = tuple((f"blocks_{name}", rf"\bblocks_{name}\b") for name in ("scalar", "avx2", "avx512"))
#: Functions of these names are inlined into those above, and run once for each of their calls.
SETUP = (("", r"\b(PairedTaps|FloatTaps|ColumnFilter|paired_taps)(\(|$)"),)
#: The sweep's loop over visits, which is not an innermost one.
VISITS = "sweep, visits"

WIDE = VECTOR_PATHS[1:]
PAIRS = ("avx2", "avx_vnni")
AVX512 = ("avx512", "avx512_vnni")
ANY = ("philox_blocks", *VECTOR_PATHS)
#: (function, paths, kind, how many instructions of the kind one loop may have, why). What is not
#: here may have none. The counts are those of GCC 12 and clang 14, 16 and 22, the highest.
ALLOWED = [
    ("look_up", ANY, "inserts", 16, "quantiles enter a vector one by one: gathers are slower"),
    ("look_up", ANY, "reloads", 2, "clang, in the loop for the last few words"),
    (VISITS, WIDE, "inserts", 8, "the score of each mask enters a vector"),
    (VISITS, WIDE, "extracts", 1, "the lowest score and its mask leave it"),
    (VISITS, WIDE, "spills", 1, "which masks are full is kept in memory, where single ones change"),
    (VISITS, WIDE, "reloads", 8, "so is each mask's room; the loop has more values than registers"),
    ("sweep", ("baseline",), "reloads", 7, "clang: as above"),
    ("write_frame", WIDE, "inserts", 4, "two words of eight tokens each are broadcast"),
    ("write_frame", ("baseline",), "inserts", 18, "SSE2 shifts all lanes by the same count"),
    ("write_frame", ANY, "reloads", 1, "clang, in the loop for the last few tokens"),
    ("keep_largest", PAIRS, "extracts", 4, "clang: comparisons become bytes, once for each token"),
    ("keep_largest", WIDE, "inserts", 2, "as above"),
    ("keep_largest", ("baseline",), "extracts", 2, "as above"),
    ("fill_white_field", ANY, "spills", 2, "the random words are on the stack"),
    ("fill_white_field", ANY, "reloads", 7, "as above"),
    ("filter_rows", PAIRS, "reloads", 1, "GCC: a pointer to taps, or the end of the loop"),
    ("filter_rows", ("baseline",), "reloads", 2, "GCC: two pointers to taps"),
    ("filter_rows", ("avx512",), "inserts", 1, "GCC converts the copied values in two halves"),
    ("filter_rows", ("avx512",), "extracts", 1, "as above"),
    ("filter_rows", ("avx512_vnni",), "extracts", 2, "GCC keeps two pointers in vector registers"),
    ("filter_rows", ("avx512_vnni",), "reloads", 9, "GCC: 3; clang: 9 where a chain has no taps"),
    ("pair_rows", ("baseline", *PAIRS), "reloads", 3, "GCC: bounds, once for each pair of rows"),
    ("last pass", PAIRS, "reloads", 1, "GCC: the end of the loop"),
    # The state of 16 blocks takes all 16 registers of AVX2, and the round keys, the same for all
    # blocks, are 20 vectors more.
    ("blocks_avx2", ANY, "spills", 138, "80 keys; the rest of the state and the multipliers"),
    ("blocks_avx2", ANY, "inserts", 17, "the numbers of blocks, and clang's keys"),
    ("blocks_avx512", ANY, "inserts", 25, "the numbers of blocks, and GCC's keys, for 32 blocks"),
    ("blocks_avx512", ANY, "extracts", 2, "GCC keeps the next blocks' numbers in vector registers"),
    ("blocks_avx512", ANY, "reloads", 1, "GCC: the end of the loop"),
    ("blocks_scalar", ANY, "spills", 14, "GCC makes four blocks at a time by SSE2"),
    ("blocks_scalar", ANY, "reloads", 4, "as above"),
]
#: Older compilers may do worse.
OLDEST = {"g++": 12, "clang++": 14}
#: What the loops of a path must use, and where.
USED = [
    *((path, name, f"{dot} .*%{register}") for path, dot, register in (
        ("baseline", "pmaddwd", "xmm"),
        ("avx2", "vpmaddwd", "ymm"),
        ("avx_vnni", "{vex} vpdpwssd", "ymm"),
        ("avx512", "vfmadd...ps", "zmm"),
    ) for name in ("filter_rows", "pass", "last pass")),
    ("avx512_vnni", "filter_rows", "vpdpwssd .*%zmm"),
    ("avx512_vnni", "pass", "vfmadd...ps .*%zmm"),
    ("avx512_vnni", "last pass", "vfmadd...ps .*%zmm"),
    *((path, VISITS, "vphminposuw ") for path in WIDE),
    *((path, "look_up", "vpinsrw ") for path in WIDE),
    *((path, "count_at_least", "vpcmp.*%[yz]mm") for path in WIDE),
    ("baseline", "count_at_least", "pcmpgtd "),
    ("philox_blocks", "blocks_avx2", "vpmuludq .*%ymm"),
    ("philox_blocks", "blocks_avx512", "vpmuludq .*%zmm"),
]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=COMPILERS)
def hot_loops(request):
    """(compiler, loops by path and function)"""
    compiler = request.param
    need_x86()
    folder = built(compiler)
    found = {}
    for path in VECTOR_PATHS:
        found[path] = loops_by_function(folder / f"kernels_{path}.o", FUNCTIONS)
    found["philox_blocks"] = loops_by_function(folder / "philox_blocks.o", PHILOX)
    return compiler, found


def need_x86():
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("needs Linux on x86-64")
    require(shutil.which("objdump") and shutil.which("addr2line"), "binutils")


def loops_by_function(made, names):
    """The innermost loops of each of these functions, and the sweep's over visits."""
    found = {name: [] for name, _ in names}
    for function in functions_of(made).values():
        for loop in loops(function):
            name = loop.function((*names, *SETUP))
            if name and loop.innermost:
                found[name].append(loop)
            elif name == "sweep" and any("phminposuw" in i.text for i in loop.body):
                found.setdefault(VISITS, []).append(loop)
    return found


def is_old(compiler):
    version = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True).stdout
    return int(version.split(".")[0]) < OLDEST[compiler]


@pytest.mark.parametrize("path", ANY)
def test_inner_loops_have_no_costly_instructions(hot_loops, path):
    compiler, found = hot_loops
    if is_old(compiler):
        pytest.skip(f"needs {compiler} {OLDEST[compiler]}")
    allowed = {(name, kind): n for name, paths, kind, n, _ in ALLOWED if path in paths}
    faults = [
        f"{path}, {name}, {compiler}: {len(texts)} {kind} in a loop of {len(loop.body)} "
        f"instructions, {allowed.get((name, kind), 0)} allowed:\n  " + "\n  ".join(texts)
        for name, its_loops in found[path].items()
        for loop in its_loops
        for kind, texts in loop.costly().items()
        if len(texts) > allowed.get((name, kind), 0)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", VECTOR_PATHS)
def test_loops_are_found(hot_loops, path):
    """A function that is renamed would not be looked at any more."""
    _, found = hot_loops
    of_pairs = {"pair_rows"} if path in AVX512 else set()
    assert {name for name, its_loops in found[path].items() if not its_loops} == of_pairs
    assert all(found["philox_blocks"].values())
    assert (VISITS in found[path]) == (path in WIDE)


@pytest.mark.parametrize(("path", "function", "instruction"), USED)
def test_a_path_uses_its_instructions(hot_loops, path, function, instruction):
    compiler, found = hot_loops
    texts = [i.text for loop in found[path][function] for i in loop.body]
    assert any(re.match(instruction, text) for text in texts), (compiler, texts)


COSTLY = """
typedef int Wide __attribute__((vector_size(64)));
extern "C" int called(int);
extern "C" void inserts(int* x, int d, long n) {
  typedef int Lanes __attribute__((vector_size(16)));
  for (long i = 0; i < n; i += 4) {
    Lanes lanes = {x[i] / d, x[i + 1] / d, x[i + 2] / d, x[i + 3] / d};
    __builtin_memcpy(x + i, &lanes, 16);
  }
}
extern "C" void calls(int* x, long n) {
  for (long i = 0; i < n; ++i) x[i] = called(x[i]);
}
extern "C" void stack(int* x, long n) {
  volatile int kept = 0;
  volatile __attribute__((vector_size(16))) int all = {};
  for (long i = 0; i < n; ++i) { kept += x[i]; all += 1; }
}
extern "C" void extracts(const int* x, int* to, long n) {
  typedef int Lanes __attribute__((vector_size(16)));
  Lanes sum = {};
  for (long i = 0; i < n; i += 4) {
    Lanes lanes;
    __builtin_memcpy(&lanes, x + i, 16);
    sum += lanes;
    to[sum[2]] = sum[0];
  }
}
extern "C" void none(int* x, long n) {
  for (long i = 0; i < n; ++i) x[i] += 1;
}
"""


def test_costly_instructions_are_seen(tmp_path):
    need_x86()
    source = tmp_path / "costly.cpp"
    source.write_text(COSTLY)
    made = compiled_program(source, tmp_path / "costly.o", "-c", "-O2", "-g")
    seen = {
        name: {kind for kind in KINDS for loop in loops(code) if loop.costly()[kind]}
        for name, code in functions_of(made).items()
    }
    assert seen.pop("stack") == {"spills", "reloads"}
    assert all(name in kinds for name, kinds in seen.items() if name != "none"), seen
    assert seen["none"] == set()

"""How many instructions the CPU kernels run for a sample, by phase: figures without noise, for
comparing commits. Valgrind counts those of x86-64, up to AVX2, and a plugin of QEMU those of ARM.

    python bench/instruction_counts.py
    git worktree add ../before COMMIT && python bench/instruction_counts.py --before ../before

A sample costs what a call of twice the same samples costs more than one of these, so that set-up
cancels. Instructions are not time: a vector is one, a wait for memory is none.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import kernel_arithmetic
import torch
from kernel_arithmetic import SEED
from kernel_program import PROGRAM, ROOT, build, inlined_functions, noise_call, output, rbn_call

from smnm_kernels.kinds import make_kind
from smnm_kernels.tables.noise import packed_table


class Case(NamedTuple):
    #: "noise" or "rbn".
    op: str
    #: Arguments of make_kind().
    kind: tuple


CASES = {
    "green3d 8x14x14": Case("noise", ("green3d", (8, 14, 14), 0.9)),
    "green2d 1x64x8": Case("noise", ("green2d", (1, 64, 8), 0.8)),
    "random 8x14x14": Case("noise", ("random", (8, 14, 14), 0.9)),
    "rbn 1x64x8, K = 5": Case("rbn", ("rbn", (1, 64, 8), 0.8)),
}
SETUP = "set-up of a call"
#: Phases, and the functions that they are made of. An instruction belongs to the innermost function
#: that is listed. "last pass" is the pass along t, or along h where there is none along t.
PHASES = {
    "noise": (
        ("words", r"philox_block|\bblocks_\w+"),
        ("white values", r"\bfill_white_field\b"),
        ("lookups", r"\b(look_up|fill_quantiles)\b"),
        ("taps", r"\b(PairedTaps|FloatTaps|ColumnFilter)(\(|$)|\b(paired_taps|nonzero_taps)\b"),
        ("pass along w", r"\bfilter_rows\b"),
        ("pass along h", r"\brun<false"),
        ("last pass", r"\brun<true"),
        ("difference", r"\bwrite_difference\b"),
        ("threshold", r"\b(keep_largest|count_at_least)\b"),
        ("writing", r"\b(write_frame|write_masks)\b"),
        # Of functions of the standard library, those on what taps are kept in.
        ("taps", r"\bvector<(short|int|float|long)\b.*::_M_"),
        ("taps", r"\b(filter_columns|FieldFilter::run|NoiseMakerOfPath::make)\b"),
        (SETUP, r"\b(make_noise_maker|NoiseMakerOfPath|~?FieldFilter)\b"),
    ),
    "rbn": (
        ("words", r"philox_block|\bblocks_\w+"),
        ("sort", r"\b(draw_order|sort_keyed)\b"),
        ("sweep", r"\bsweep\w*\b"),
        ("writing", r"\b(write_frame|write_masks)\b"),
        ("rest of a bank", r"\bRbnRunner::run\b|\bclear\b"),
        (SETUP, r"\bRbnRunner\b|\bmake_rbn_scores\b|\bScoresBy\w+|\brbn_(lines|cell|neighbour)\b"),
    ),
}
#: No phase: the program that makes the call, which is not counted.
PROGRAM_FUNCTIONS = ("", r"\b(main|_start|make_noise|make_banks)\b|\b(read|print)<|\bRow::")
#: What no phase lists: on ARM, where the program holds its libraries, memory from these.
OTHER = "other"
NEON = "aarch64"
CROSS = "aarch64-linux-gnu-"


class Costs(NamedTuple):
    """Instructions, of a sample and of the set-up of a call."""

    by_phase: dict[str, float]
    setup: float

    @property
    def sample(self) -> float:
        return sum(self.by_phase.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="prints ratios to it, too")
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--samples", type=int, default=16, help="banks, for R-BN; default: 16")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    given = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("needs valgrind")
    compilers = [given.compiler, *([f"{CROSS}g++"] if has_arm() else [])]
    versions = [output(compiler, "--version").splitlines()[0] for compiler in compilers]
    print(f"{'; '.join(versions)}; {given.samples} samples\n")
    now = counts(ROOT, given.compiler, given.cases, given.samples)
    for case, costs in now.items():
        print(table(case, costs, given.samples))
    if given.before:
        try:
            before = counts(given.before.resolve(), given.compiler, given.cases, given.samples)
        except subprocess.CalledProcessError:
            sys.exit(f"{given.before}: its kernels do not compile with {PROGRAM}, see above")
        print(ratios(before, now))


def counts(
    checkout: Path, compiler: str, cases: Iterable[str], n: int
) -> dict[str, dict[str, Costs]]:
    """By case and path."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = as_source(checkout, folder / "source")
        (folder / "here").mkdir()
        programs = dict.fromkeys(
            ("baseline", "avx2"), build(compiler, folder / "here", checkout=source)
        )
        if has_arm():
            (folder / NEON).mkdir()
            programs[NEON] = build(f"{CROSS}g++", folder / NEON, "-static", checkout=source)
        return {
            case: {path: costs(program, path, case, n) for path, program in programs.items()}
            for case in cases
        }


def has_arm() -> bool:
    return all(shutil.which(tool) for tool in ("qemu-aarch64", f"{CROSS}g++", "gcc"))


def as_source(checkout: Path, folder: Path) -> Path:
    """A folder with the checkout's kernels and a program for them: its own, or, where that is older
    than this script, the one that is here."""
    own = (checkout / "bench/kernel_program.py").exists()
    (folder / PROGRAM).parent.mkdir(parents=True)
    (folder / PROGRAM).symlink_to((checkout if own else ROOT) / PROGRAM)
    (folder / "csrc").symlink_to(checkout / "csrc")
    return folder


def costs(program: Path, path: str, case: str, n: int) -> Costs:
    op, arguments = CASES[case]
    kind, ids = make_kind(*arguments), torch.arange(n)
    make_call = rbn_call if op == "rbn" else noise_call
    settings = kind.op_arguments
    if op != "rbn":
        grid, color, sigma, n_keep, _, time_scale = settings
        settings = (grid, packed_table(grid, color, sigma, time_scale), n_keep)
    once, twice = (
        by_phase(program, path, op, make_call(ids.repeat(times), SEED, *settings))
        for times in (1, 2)
    )
    samples = n * (kind.n_candidates if op == "rbn" else 1)
    names = {"last pass": "pass along h" if arguments[1][0] == 1 else "pass along t"}
    made = {names.get(p, p): (twice[p] - once[p]) / samples for p in twice if p != SETUP}
    return Costs(made, once[SETUP])


def by_phase(program: Path, path: str, op: str, call: bytes) -> Counter:
    """Instructions of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "call").write_bytes(call)
        command = [program, "baseline" if path == NEON else path, op, folder / "call", "silent"]
        count = with_plugin if path == NEON else with_valgrind
        at = count(command, folder)
    tool = f"{CROSS}addr2line" if path == NEON else "addr2line"
    phases = (PROGRAM_FUNCTIONS, *PHASES[op])
    made: Counter = Counter()
    for address, functions in inlined_functions(program, at, tool=tool).items():
        made[phase_of(functions, phases)] += at[address]
    del made[""]
    return made


def phase_of(functions: Iterable[str], phases: Iterable[tuple[str, str]]) -> str:
    for function in functions:
        for phase, pattern in phases:
            if re.search(pattern, function):
                return phase
    return OTHER


def with_valgrind(command: list, folder: Path) -> Counter:
    """By address of the program; a call of another library counts where it is made."""
    out = folder / "callgrind"
    options = ("--dump-instr=yes", "--dump-line=no", "--compress-pos=no", "--compress-strings=no")
    tool = ("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", *options)
    start(*tool, *command, vectors=command[1])
    return parsed(out.read_text(), str(command[0]))


def parsed(text: str, program: str) -> Counter:
    """Of callgrind's file: lines "ADDRESS COST" of functions and, after "calls=", of calls."""
    found: Counter = Counter()
    inside = called_inside = is_call = False
    for line in text.splitlines():
        if line.startswith("ob="):
            inside = called_inside = line == f"ob={program}"
        elif line.startswith("cob="):
            called_inside = line == f"cob={program}"
        elif line.startswith("calls="):
            is_call = True
        elif line.startswith("0x"):
            address, cost = line.split()
            if inside and not (is_call and called_inside):
                found[int(address, 16)] += int(cost)
            if is_call:
                is_call, called_inside = False, inside
    return found


def with_plugin(command: list, folder: Path) -> Counter:
    """By address of a static program for ARM, libraries included."""
    plugin, out = folder / "plugin.so", folder / "counts"
    source = ROOT / "bench/cpp/count_instructions.c"
    output("gcc", "-O2", "-shared", "-fPIC", source, "-o", plugin)
    start("qemu-aarch64", "-plugin", f"{plugin},out={out}", *command, vectors="baseline")
    found: Counter = Counter()
    for line in out.read_text().splitlines():
        address, count = line.split()
        found[int(address, 16)] += int(count)
    return found


def start(*command: object, vectors: str) -> None:
    environment = os.environ | {"SMNM_VECTORS": vectors}
    words = list(map(str, command))
    done = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{command[0]} ended with exit code {done.returncode} on {vectors}")


def table(case: str, paths: dict[str, Costs], n: int) -> str:
    """Markdown."""
    op, arguments = CASES[case]
    of = kernel_arithmetic.of_rbn if op == "rbn" else kernel_arithmetic.of_noise
    needs = of(torch.arange(n), *make_kind(*arguments).op_arguments)
    order = [phase for phase, _ in PHASES[op]]
    if "last pass" in order:
        order[order.index("last pass")] = "pass along t"
    lines = [
        f"### {case}\n",
        f"| | {' | '.join(paths)} | needed |",
        "|---" * (2 + len(paths)) + "|",
    ]
    for phase in dict.fromkeys([*order, OTHER]):
        cells = [f"{c.by_phase.get(phase, 0):,.0f}" for c in paths.values()]
        if cells != ["0"] * len(cells):
            lines.append(f"| {phase} | {' | '.join(cells)} | {needs.get(phase, '')} |")
    samples = " | ".join(f"{costs.sample:,.0f}" for costs in paths.values())
    setups = " | ".join(f"{costs.setup:,.0f}" for costs in paths.values())
    lines += [f"| a sample | {samples} | |", f"| {SETUP} | {setups} | |"]
    return "\n".join(lines) + "\n"


def ratios(before: dict[str, dict[str, Costs]], now: dict[str, dict[str, Costs]]) -> str:
    """Markdown: of a sample's instructions, now to before."""
    paths = list(next(iter(now.values())))
    lines = [f"| now / before | {' | '.join(paths)} |", "|---" * (1 + len(paths)) + "|"]
    for case, costs_now in now.items():
        cells = [f"{costs_now[p].sample / before[case][p].sample:.3f}" for p in paths]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

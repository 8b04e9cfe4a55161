"""The kernels of the CPU library in a program of their own, without torch, for a processor or a
vector path that this process cannot run, and for counting instructions."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smnm_kernels.tables.noise import packed_table

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "tests/cpp/vector_paths.cpp"
#: As setup.py compiles them, with lines for addr2line, in a form that older ones read. Warnings are
#: for the tests.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-g", "-gdwarf-4", "-Wall", "-Wno-psabi")
#: Options of compilers' own.
FLAGS_OF_GCC = ("-Wno-maybe-uninitialized",)


def sources(checkout: Path = ROOT) -> list[Path]:
    """The program's, and those of the library that know nothing of torch."""
    cpu = checkout / "csrc/cpu"
    names = ("philox_blocks", "vector_path", "rbn_runner", "rbn_scores")
    files = [*sorted(cpu.glob("kernels*.cpp")), *(cpu / f"{name}.cpp" for name in names)]
    return [checkout / PROGRAM, *files]


def build(compiler: str, folder: Path, *flags: str, checkout: Path = ROOT) -> Path:
    """The program, in the folder, beside an object for each source. On Linux, its addresses are
    those of the file, also when it runs."""
    own = () if "clang" in compiler else FLAGS_OF_GCC
    objects = []
    for source in sources(checkout):
        objects.append(folder / f"{source.stem}.o")
        run(compiler, *FLAGS, *own, *flags, "-c", source, "-o", objects[-1])
    fixed = ["-no-pie"] if sys.platform == "linux" else []
    run(compiler, *flags, *fixed, *objects, "-o", folder / "program")
    return folder / "program"


def run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True)


def inlined_functions(
    made: Path, addresses: Iterable[int], *options: str, tool: str = "addr2line"
) -> dict[int, tuple[str, ...]]:
    """For each address of a file that was compiled with -g, the names of the functions that it was
    inlined from, the innermost first."""
    asked = "".join(f"{address:#x}\n" for address in addresses)
    printed = output(tool, "-afiC", *options, "-e", made, given=asked)
    chains: dict[int, list[str]] = {}
    is_name = False
    for line in printed.splitlines():
        if line.startswith("0x"):
            chains[int(line, 16)] = chain = []
        elif is_name:
            chain.append(line)
        # Lines with a name, and with its place in the source, take turns.
        is_name = line.startswith("0x") or not is_name
    # Where debug information lacks the name of the innermost, addr2line says that of the outermost.
    return {
        address: tuple(chain[1:] if len(chain) > 1 and chain[0] == chain[-1] else chain)
        for address, chain in chains.items()
    }


def output(*command: object, given: str | None = None) -> str:
    words = list(map(str, command))
    return subprocess.run(words, input=given, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Program:
    """Its methods take the arguments of the ops and return what those return."""

    #: What starts it, such as an emulator and the program.
    command: tuple[object, ...]
    path: str = "baseline"

    def noise(self, ids: Tensor, seed_tensor: Tensor | None, seed: int, *of: object) -> Tensor:
        grid, color, sigma, *time_scale = of
        table = packed_table(tuple(grid), color, tuple(sigma), *time_scale)
        call = noise_call(ids, value(seed_tensor, seed), grid, table)
        values = torch.frombuffer(bytearray(self.printed("noise", call)), dtype=torch.float32)
        return values.view(len(ids), *grid)

    def noise_masks(
        self, ids: Tensor, seed_tensor: Tensor | None, seed: int, *of: object
    ) -> tuple[Tensor, ...]:
        grid, color, sigma, n_keep, tube, *time_scale = of
        frames, drawn = (grid[0], (1, *grid[1:])) if tube else (1, tuple(grid))
        table = packed_table(drawn, color, tuple(sigma), *time_scale)
        call = noise_call(ids, value(seed_tensor, seed), drawn, table, n_keep, frames)
        n = torch.Size(grid).numel()
        return masks(self.printed("noise", call), len(ids), n, n_keep)

    def rbn_masks(
        self, ids: Tensor, seed_tensor: Tensor | None, seed: int, *of: object
    ) -> tuple[Tensor, ...]:
        grid, n_keep, n_candidates, windows, weights, random_ties, *valid = of
        assert valid in ([], [None]), "the program shares banks, which padding does not allow"
        banks, places = ids.div(n_candidates, rounding_mode="floor").unique(return_inverse=True)
        rule = (n_keep, n_candidates, windows, weights, random_ties)
        call = rbn_call(banks, value(seed_tensor, seed), grid, *rule)
        n = grid[1] * grid[2]
        made = masks(self.printed("rbn", call), len(banks) * n_candidates, n, n_keep)
        rows = places * n_candidates + ids.remainder(n_candidates)
        return tuple(form[rows] for form in made)

    def rbn_bank(
        self, orders: Tensor, seed_tensor: Tensor | None, seed: int, *of: object
    ) -> Tensor:
        grid, n_keep, n_candidates, windows, weights, random_ties = of
        rule = (n_keep, n_candidates, windows, weights, random_ties)
        call = rbn_call(orders, value(seed_tensor, seed), grid, *rule)
        n, rows = grid[1] * grid[2], len(orders) * n_candidates
        visible, *_ = masks(self.printed("rbn", call), rows, n, n_keep)
        return visible.view(len(orders), n_candidates, n)

    def printed(self, kind: str, call: bytes) -> bytes:
        with tempfile.NamedTemporaryFile() as file:
            file.write(call)
            file.flush()
            words = list(map(str, (*self.command, self.path, kind, file.name)))
            environment = os.environ | {"SMNM_VECTORS": self.path}
            return subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True).stdout


def value(seed_tensor: Tensor | None, seed: int) -> int:
    return seed if seed_tensor is None else int(seed_tensor)


def noise_call(
    ids: Tensor,
    seed: int,
    grid: Sequence[int],
    table: Tensor,
    n_keep: int = 0,
    frames: int = 1,
) -> bytes:
    """int64s: seed, number of ids, grid, n_keep, frames, size of the table, and the ids; then the
    packed table. With n_keep, the program prints for each id what write_masks() makes, ``visible``
    a byte each; without, the noise."""
    head = [seed, len(ids), *grid, n_keep, frames, len(table)]
    return as_bytes(torch.tensor(head), ids, table)


def rbn_call(
    banks: Tensor,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
) -> bytes:
    """int64s: seed, number of banks, height, width, masks of a bank, n_keep, whether ties are
    random, number of windows, whether there are orders, windows, weights, and the banks; or, where
    ``banks`` are orders, the numbers 0, 1, ... and the orders. The program prints for each mask
    of each bank what write_masks() makes."""
    has_orders = banks.dim() == 2
    numbers = torch.arange(len(banks)) if has_orders else banks
    head = [seed, len(banks), *grid[1:], n_candidates, n_keep, random_ties, len(windows)]
    rule = torch.tensor([*head, has_orders, *windows, *weights])
    return as_bytes(rule, numbers, *([banks] if has_orders else []))


def as_bytes(*tensors: Tensor) -> bytes:
    return b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)


def masks(printed: bytes, rows: int, n: int, n_keep: int) -> tuple[Tensor, ...]:
    """(visible, ids_keep, ids_restore) from the rows that the program prints."""
    data = torch.frombuffer(bytearray(printed), dtype=torch.uint8).view(rows, -1)
    forms = data.split([n, 8 * n_keep, 8 * n], dim=1)
    kinds = (torch.bool, torch.int64, torch.int64)
    return tuple(form.contiguous().view(kind) for form, kind in zip(forms, kinds, strict=True))

"""Random settings whose masks are made on the GPU and on the CPU, compared by a hash of every byte.

    python bench/gpu_equality.py [--settings 10000] [--seed 0] [--rows equality.jsonl]
    python bench/gpu_equality.py --show 17    where the masks of one of these settings differ

The settings that need the same kernel are a group. One of several processes compiles the kernel and
compares the whole group, and then its row is saved. With the rows of an earlier run, only groups
without a row are compared. Without a GPU, ``--device ptx`` compares the code that Triton compiles
for compute capability 9.0, run on the PTX machine, with the C++ kernels. ``--device cpu`` compares
the Triton kernels in their interpreter (TRITON_INTERPRET=1), or else the reference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from gpu_table import differences, equality_lines
from kind_settings import drawn_kind, kernels_of, kind_masks
from op_calls import noise_masks_call, rbn_masks_call
from processes import ProcessDied, answers
from saved_rows import SavedRows

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.tables.colors import Sigma, parse_sigma
from smnm_kernels.tables.noise import noise_table

#: Every grid, and every torus that sigma makes of it, costs seconds of compiling. The last of these
#: does not fit on the chip.
GRIDS = [
    (8, 14, 14), (16, 14, 14), (1, 64, 8), (1, 14, 14), (3, 5, 7),
    (1, 31, 1), (5, 1, 13), (4, 12, 9), (1, 20, 27), (3, 40, 36),
]  # fmt: skip
SIGMAS = {
    "white": [None],
    "red": [None, 0.7, 2.5],
    "blue": [None, 0.7, (0.5, 1.5)],
    "green": [None, "variant-1", "variant-3", "main-text", (0.7, 1.4), ((0.3, 0.8), (1.0, 2.0))],
}
WINDOWS = [(3, 5), (3, 5), (1,), (3,), (5, 5), (7, 3, 9), (99,)]
WEIGHTS = [(0.4, 0.4, 0.1, 0.1), (0.1, 0.2, 0.3, 0.3), (0, 0, 0, 0), (12.345, 0.999, 100, 7.5)]


class Setting(NamedTuple):
    op: str
    sample_ids: tuple[int, ...]
    #: Arguments of the public function, without the seed.
    arguments: dict
    seed: int
    seed_in_tensor: bool


def drawn_settings(n: int, seed: int) -> Iterator[Setting]:
    draw = random.Random(seed)
    for _ in range(n):
        op = draw.choice(["noise_masks"] * 3 + ["rbn_masks"] + ["kind_masks"] * 2)
        sample_ids = tuple(_drawn_integer(draw) for _ in range(draw.randint(1, 4)))
        arguments = _ARGUMENTS[op](draw)
        yield Setting(op, sample_ids, arguments, _drawn_integer(draw), draw.random() < 0.5)


def _drawn_integer(draw: random.Random) -> int:
    """64 bits, of every magnitude."""
    return draw.randint(-(2**63), 2**63 - 1) >> draw.choice([0, 0, 1, 20, 31, 32, 40, 56])


def _noise_arguments(draw: random.Random) -> dict:
    grid, color = draw.choice(GRIDS), draw.choice(list(SIGMAS))
    tube = draw.random() < 0.25
    frames = grid[0] if tube else 1
    return {
        "grid": grid,
        "color": color,
        "sigma": draw.choice(SIGMAS[color]),
        "tube": tube,
        **_count(draw, math.prod(grid), frames),
    }


def _rbn_arguments(draw: random.Random) -> dict:
    grid = draw.choice([(1, 64, 8), (1, 14, 14), (1, draw.randint(1, 12), draw.randint(1, 20))])
    return {
        "grid": grid,
        "n_candidates": draw.choice([None, draw.randint(1, 12)]),
        "windows": draw.choice(WINDOWS),
        "weights": draw.choice(WEIGHTS),
        "tie_break": draw.choice(["first", "random"]),
        **_count(draw, math.prod(grid)),
    }


def _count(draw: random.Random, n_tokens: int, frames: int = 1) -> dict:
    thousandths = draw.choice([500, 750, 800, 900, draw.randrange(1000)])
    per_frame = n_tokens // frames
    if draw.random() < 0.5 and per_frame * (1000 - thousandths) >= 1000:
        return {"mask_ratio": thousandths / 1000}
    return {"n_keep": frames * draw.randint(1, per_frame)}


_ARGUMENTS = {
    "noise_masks": _noise_arguments,
    "rbn_masks": _rbn_arguments,
    "kind_masks": drawn_kind,
}


def kernel_of(setting: Setting) -> tuple:
    """The arguments that a kernel is compiled for. The R-BN kernels are compiled already."""
    a = setting.arguments
    if setting.op == "rbn_masks":
        return ("rbn_masks", setting.seed % 12)
    if setting.op == "kind_masks":
        return (a["kind"], a["grid"])
    grid = (1, *a["grid"][1:]) if a["tube"] else a["grid"]
    frames = a["grid"][0] if a["tube"] else 1
    torus = _torus(grid, a["color"], a["sigma"])
    return (grid, frames, torus, a["color"] == "red", setting.seed_in_tensor)


@cache
def _torus(grid: Grid, color: str, sigma: Sigma) -> Grid | None:
    if color == "white":
        return None
    return noise_table(grid, color, tuple(parse_sigma(color, sigma))).torus


def make_on(device: str, setting: Setting) -> smnm.Masks:
    """The masks of a setting, from the public function."""
    sample_ids, seed = _tensors(setting, device)
    if setting.op == "kind_masks":
        return kind_masks(sample_ids, **setting.arguments, seed=seed)
    return getattr(smnm, setting.op)(sample_ids, **setting.arguments, seed=seed)


def make_by_reference(setting: Setting) -> smnm.Masks:
    sample_ids, seed = _tensors(setting, "cpu")
    if setting.op == "kind_masks":
        with kernels_of(smnm.reference):
            return kind_masks(sample_ids, **setting.arguments, seed=seed)
    return getattr(smnm.reference, setting.op)(sample_ids, **setting.arguments, seed=seed)


def make_on_ptx_machine(setting: Setting) -> smnm.Masks:
    from ptx_machine.triton_launch import running_triton

    with running_triton(90):
        return make_in_triton(setting)


def make_in_triton(setting: Setting) -> smnm.Masks:
    """The masks of a setting on the CPU, from the Triton kernels in an interpreter."""
    from smnm_kernels import triton_kernels

    sample_ids, seed = _tensors(setting, "cpu")
    if setting.op == "kind_masks":
        with kernels_of(triton_kernels):
            return kind_masks(sample_ids, **setting.arguments, seed=seed)
    a = {"mask_ratio": None, "n_keep": None, **setting.arguments}
    if setting.op == "noise_masks":
        call = noise_masks_call(sample_ids, **a, freq_major=False, seed=seed)
        return triton_kernels.noise_masks_kernel(*call)
    call = rbn_masks_call(sample_ids, **a, freq_major=False, seed=seed)
    return triton_kernels.rbn_masks_kernel(*call)


def _tensors(setting: Setting, device: str) -> tuple[torch.Tensor, int | torch.Tensor]:
    sample_ids = torch.tensor(setting.sample_ids, dtype=torch.int64, device=device)
    seed = torch.tensor(setting.seed, device=device) if setting.seed_in_tensor else setting.seed
    return sample_ids, seed


def digest(masks: smnm.Masks) -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for tensor in masks:
        hashed.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        hashed.update(tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


Make = Callable[[Setting], smnm.Masks]
Group = Sequence[tuple[int, Setting]]


def check_group(group: Group, make: Make) -> tuple[int, dict | None]:
    """(how many settings were compared, the first one that differs or fails, or None)."""
    for compared, (index, setting) in enumerate(group):
        try:
            ours, expected = digest(make(setting)), digest(make_on("cpu", setting))
        except Exception as error:
            ours, expected = f"{type(error).__name__}: {error}", None
        if ours != expected:
            return compared + 1, difference(index, setting, ours, expected)
    return len(group), None


def difference(index: int, setting: Setting, came: str, expected: str | None) -> dict:
    return {"index": index, **setting._asdict(), "came": came, "expected": expected}


def group_by_kernel(settings: Iterable[Setting]) -> dict[str, Group]:
    """Groups the settings by their kernel. Kernels that take long to compile come first, so that at
    the end no process works on one while the others have nothing left to do."""
    groups: dict[str, list[tuple[int, Setting]]] = {}
    for index, setting in enumerate(settings):
        groups.setdefault(str(kernel_of(setting)), []).append((index, setting))
    by_tokens = sorted(groups.items(), key=lambda g: -math.prod(g[1][0][1].arguments["grid"]))
    return dict(by_tokens)


def compare(groups: dict[str, Group], make: Make, saved: SavedRows, processes: int = 1) -> None:
    """Adds a row for each group that has none yet."""
    done = {row["group"] for row in saved.rows}
    waiting = {name: group for name, group in groups.items() if name not in done}
    names = list(waiting)
    if done:
        print(f"{len(done)} of {len(groups)} groups were compared before", flush=True)
    for index, answer in _answers(
        partial(check_group, make=make), list(waiting.values()), processes
    ):
        name = names[index]
        if isinstance(answer, ProcessDied):
            # The process took with it which setting it was.
            answer = 0, difference(*waiting[name][0], f"{answer}, in this group", None)
        compared, found = answer
        saved.add(
            {
                "group": name,
                "settings": len(waiting[name]),
                "compared": compared,
                "difference": found,
            }
        )
        if found:
            print(f"differs: {json.dumps(found)}", flush=True)
        print(f"{len(saved.rows)} of {len(groups)} groups: {name}", flush=True)


def _answers(check: Callable, groups: list[Group], processes: int) -> Iterator[tuple[int, object]]:
    if processes == 1:
        return ((index, check(group)) for index, group in enumerate(groups))
    return answers(check, groups, processes)


def show_difference(setting: Setting, make: Make) -> str:
    """Which tensors of the masks differ, and where first."""
    lines = [str(setting)]
    ours, expected = make(setting), make_on("cpu", setting)
    for name, a, b in zip(smnm.Masks._fields, ours, expected, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"{name}: {a.dtype} {list(a.shape)} instead of {b.dtype} {list(b.shape)}")
            continue
        wrong = (a.cpu() != b).nonzero().tolist()
        lines.append(f"{name}: {len(wrong)} of {b.numel()} values differ")
        for at in wrong[:10]:
            lines.append(f"  {at}: {a[tuple(at)].item()} instead of {b[tuple(at)].item()}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu", "ptx"], default="cuda")
    parser.add_argument("--settings", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-tokens", type=int, help="leave out settings of larger grids")
    parser.add_argument("--processes", type=int, help="default: on CUDA 12, else 1")
    parser.add_argument("--rows", type=Path, help="save the rows in this file, and go on with it")
    parser.add_argument("--show", type=int, metavar="INDEX", help="compare this setting alone")
    options = parser.parse_args()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("no CUDA device: --device cpu and ptx need none")
        compared, make = "cuda with cpu", partial(make_on, "cuda")
    elif options.device == "ptx":
        compared, make = "Triton's compiled code on the PTX machine with cpu", make_on_ptx_machine
    elif os.environ.get("TRITON_INTERPRET") == "1":
        compared, make = "Triton's interpreter with cpu", make_in_triton
    else:
        compared, make = "reference with cpu", make_by_reference
    settings = list(drawn_settings(options.settings, options.seed))
    if options.show is not None:
        print(show_difference(settings[options.show], make))
        return
    if options.most_tokens:
        fits = [math.prod(s.arguments["grid"]) <= options.most_tokens for s in settings]
        settings = [s for s, small in zip(settings, fits, strict=True) if small]
    processes = options.processes or (min(12, os.cpu_count()) if options.device == "cuda" else 1)
    saved = SavedRows(options.rows)
    try:
        compare(group_by_kernel(settings), make, saved, processes)
    finally:
        print(f"{compared}, {len(settings)} settings", *equality_lines(saved.rows), sep="\n")
    sys.exit(bool(differences(saved.rows)) or not saved.rows)


if __name__ == "__main__":
    main()

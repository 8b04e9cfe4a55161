"""Random settings of all kinds of masks, with inputs and padding, for gpu_equality.py."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor

from smnm_kernels import Masks, ops
from smnm_kernels.arguments import parse_seed
from smnm_kernels.kinds import KINDS, make_kind, parameters_of

VIDEO = [(8, 14, 14), (16, 14, 14), (3, 5, 7), (4, 12, 9), (2, 8, 8), (3, 40, 36)]
FLAT = [(1, 64, 8), (1, 14, 14), (1, 5, 38), (1, 31, 1), (1, 20, 27), (1, 7, 7)]
#: On grids of one frame alone.
ONLY_FLAT = ("rbn", "time_frequency", "bands", "activity")
#: Outside the promise of equal bits: scores of principal components.
OUTSIDE = ("self_guided",)
#: (t, h, w) values; with two channels also more than 127 of them, and no powers of two.
PATCHES = [(2, 4, 4), (2, 4, 4), (1, 3, 5), (3, 5, 5)]


def drawn_kind(draw: random.Random) -> dict:
    """Arguments of ``kind_masks``."""
    name = draw.choice([kind for kind in KINDS if kind not in OUTSIDE])
    flat = name in ONLY_FLAT or (name != "motion" and draw.random() < 0.4)
    frames, *sides = grid = draw.choice(FLAT if flat else VIDEO)
    arguments = {
        "kind": name,
        "grid": grid,
        "n_keep": frames * draw.randint(1, math.prod(sides)),
        "patch": draw.choice(PATCHES),
        "input_seed": draw.randrange(1000),
        "padded": draw.random() < 0.4,
        "freq_major": draw.random() < 0.3,
    }
    chosen: dict = {}
    if "hint_ratio" in parameters_of(name):
        chosen |= {"hint_ratio": draw.choice([0, 0.3, 1]), "deterministic": draw.random() < 0.3}
    if name in ("red3d", "blue3d", "green3d") and frames > 1:
        chosen["time_scale"] = draw.choice([1, 0, 0.5, 2])
    if name == "inverse_block":
        chosen["block_size"] = draw.choice([1, 3, 5])
    return arguments | {"parameters": chosen}


def kind_masks(
    sample_ids: Tensor,
    *,
    kind: str,
    grid: tuple[int, int, int],
    n_keep: int,
    patch: tuple[int, int, int],
    input_seed: int,
    padded: bool,
    freq_major: bool,
    parameters: dict,
    seed: int | Tensor,
) -> Masks:
    """The masks of a kind, of an input and padding that ``input_seed`` makes, on the device of the
    sample ids."""
    settings = make_kind(kind, grid, n_keep=n_keep, freq_major=freq_major, **parameters)
    n, n_tokens = len(sample_ids), math.prod(grid)
    numbers = torch.Generator().manual_seed(input_seed)
    data = valid = None
    if settings.needs_data:
        t, h, w = (1, *patch[1:]) if grid[0] == 1 else patch
        sides = (grid[0] * t, grid[1] * h, grid[2] * w)
        data = torch.randn(n, 2, *sides, generator=numbers)
        # Some are silent, or louder in one half.
        data[::3, :, :, : sides[1] // 2] *= 0.01
        data = data.to(sample_ids.device)
    if padded:
        counts = torch.randint(n_keep, n_tokens + 1, (n, 1), generator=numbers)
        places = torch.rand(n, n_tokens, generator=numbers).argsort(1)
        valid = (places < counts).to(sample_ids.device)
    return settings.draw(sample_ids, parse_seed(seed, sample_ids.device), data, valid)


@contextmanager
def kernels_of(module: ModuleType) -> Iterator[None]:
    """Inside, kinds run on the kernels of ``reference`` or of ``triton_kernels``."""
    names = [name for name in vars(module) if name.endswith("_kernel")]
    with ExitStack() as stack:
        for name in names:
            op = name.removesuffix("_kernel")
            stack.enter_context(mock.patch.object(ops, op, getattr(module, name)))
        yield

"""Grid, block, inverse block and time-frequency masks, in loops."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from smnm_kernels.kinds.structures import (
    BlockKind,
    InverseBlockKind,
    LatticeKind,
    StructureKind,
)
from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import N_BLOCKS, STRUCTURE_SEED, WHITE_BITS, Purpose

from .fields import masks_from_visible
from .random_words import words


def structure_masks(
    sample_ids: Tensor, seed_tensor: Tensor | None, seed: int, structure: StructureKind
) -> Masks:
    """The masks of one structure, tokens in row-major order."""
    seed = seed if seed_tensor is None else int(seed_tensor)
    frames, height, width = structure.grid
    in_frame = structure.n_keep // frames
    visible = torch.zeros(len(sample_ids), frames, height * width, dtype=torch.bool)
    for row, sample_id in enumerate(sample_ids.tolist()):
        marks = _marks(structure, height, width, in_frame, sample_id, seed)
        white = _bits(height * width, sample_id, seed)
        by_priority = sorted(
            range(height * width), key=lambda token: (-marks[token], -white[token], token)
        )
        visible[row, :, by_priority[:in_frame]] = True
    return masks_from_visible(visible.flatten(1), structure.n_keep)


def _bits(n: int, sample_id: int, seed: int) -> list[int]:
    """The top 22 bits of n random words: those that white noise is made from."""
    return [int(word) >> 32 - WHITE_BITS for word in words(n, Purpose.NOISE, sample_id, seed)]


def _marks(
    structure: StructureKind, height: int, width: int, n_keep: int, sample_id: int, seed: int
) -> list[int]:
    """The mark of each patch: patches with larger marks are visible first."""

    def draw(n: int) -> list[int]:
        return _bits(n, sample_id, seed ^ STRUCTURE_SEED)

    def uniform(bits: int, n: int) -> int:
        return bits * n >> WHITE_BITS

    places = [(y, x) for y in range(height) for x in range(width)]
    if isinstance(structure, LatticeKind):
        period = math.isqrt(height * width // n_keep)
        period_y, period_x = min(period, height), min(period, width)
        bits = draw(2)
        first_y, first_x = uniform(bits[0], period_y), uniform(bits[1], period_x)
        return [
            int((y - first_y) % period_y == 0 and (x - first_x) % period_x == 0) for y, x in places
        ]
    if isinstance(structure, BlockKind):
        bits, blocks = draw(4 * N_BLOCKS), []
        for i in range(N_BLOCKS):
            block = []
            for side, part in ((height, bits[: 2 * N_BLOCKS]), (width, bits[2 * N_BLOCKS :])):
                least, most = -(-side // 4), -(-side // 2)
                length = least + uniform(part[i], most - least + 1)
                start = uniform(part[N_BLOCKS + i], side - length + 1)
                block.append(range(start, start + length))
            blocks.append(block)
        return [
            next((i for i, (ys, xs) in enumerate(blocks) if y in ys and x in xs), N_BLOCKS)
            for y, x in places
        ]
    if isinstance(structure, InverseBlockKind):
        block_size, marked = structure.block_size, set()
        # data2vec 2.0 makes blocks for 0.07 more than shall be visible, to allow for overlaps.
        wanted = Fraction(n_keep) + Fraction(7, 100) * height * width
        for word in draw(max(1, math.floor(wanted / block_size**2))):
            y, x = divmod(uniform(word, height * width), width)
            for dy in range(block_size):
                for dx in range(block_size):
                    v, u = y + dy - block_size // 2, x + dx - block_size // 2
                    marked.add((min(max(v, 0), height - 1), min(max(u, 0), width - 1)))
        return [int(place in marked) for place in places]
    # The same share of rows and of columns: of each the fewest that have room for all n_keep.
    share = Fraction(n_keep, height * width)
    n_rows = next(n for n in range(height + 1) if Fraction(n, height) ** 2 >= share)
    n_columns = next(n for n in range(width + 1) if Fraction(n, width) ** 2 >= share)
    bits = draw(height + width)
    rows = sorted(range(height), key=lambda y: (-bits[y], y))[:n_rows]
    columns = sorted(range(width), key=lambda x: (-bits[height + x], x))[:n_columns]
    return [int(y in rows and x in columns) for y, x in places]

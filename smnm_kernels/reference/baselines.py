"""Grid, block, inverse block and time-frequency masks, in loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from smnm_kernels.calls import baseline_masks_call
from smnm_kernels.masks import Masks

from .fields import masks_from_visible
from .random_words import Stream, words

#: The seed XOR this draws the structure.
STRUCTURE_SEED = 0x2545F4914F6CDD1D
N_BLOCKS = 32


def baseline_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    kind: str,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    block_size: int = 5,
    freq_major: bool = False,
    seed: int | Tensor = 0,
) -> Masks:
    """See ``smnm_kernels.baseline_masks``."""
    _, seed_tensor, seed, sides, kind, n_keep, block_size = baseline_masks_call(
        sample_ids, grid, kind, mask_ratio, n_keep, block_size, freq_major, seed
    )
    seed = seed if seed_tensor is None else int(seed_tensor)
    frames, height, width = sides
    in_frame = n_keep // frames
    visible = torch.zeros(len(sample_ids), frames, height * width, dtype=torch.bool)
    for row, sample_id in enumerate(sample_ids.tolist()):
        marks = _marks(kind, height, width, in_frame, block_size, sample_id, seed)
        white = _bits(height * width, sample_id, seed)
        by_priority = sorted(
            range(height * width), key=lambda token: (-marks[token], -white[token], token)
        )
        visible[row, :, by_priority[:in_frame]] = True
    masks = masks_from_visible(visible.flatten(1), n_keep)
    return masks.freq_major(sides) if freq_major else masks


def _bits(n: int, sample_id: int, seed: int) -> list[int]:
    """What white noise makes of n words: their top 22 bits."""
    return [int(word) >> 10 for word in words(n, Stream.NOISE, sample_id, seed)]


def _marks(
    kind: str, height: int, width: int, n_keep: int, block_size: int, sample_id: int, seed: int
) -> list[int]:
    """The mark of each patch: those with larger ones are visible first."""

    def draw(n: int) -> list[int]:
        return _bits(n, sample_id, seed ^ STRUCTURE_SEED)

    def uniform(bits: int, n: int) -> int:
        return bits * n >> 22

    places = [(y, x) for y in range(height) for x in range(width)]
    if kind == "grid":
        period = math.isqrt(height * width // n_keep)
        period_y, period_x = min(period, height), min(period, width)
        bits = draw(2)
        first_y, first_x = uniform(bits[0], period_y), uniform(bits[1], period_x)
        return [
            int((y - first_y) % period_y == 0 and (x - first_x) % period_x == 0) for y, x in places
        ]
    if kind == "block":
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
    if kind == "inverse_block":
        marked = set()
        # data2vec 2.0 makes blocks for 0.07 more than shall be visible, to allow for overlaps.
        wanted = Fraction(n_keep) + Fraction(7, 100) * height * width
        for bits in draw(max(1, math.floor(wanted / block_size**2))):
            y, x = divmod(uniform(bits, height * width), width)
            for dy in range(block_size):
                for dx in range(block_size):
                    v, u = y + dy - block_size // 2, x + dx - block_size // 2
                    marked.add((min(max(v, 0), height - 1), min(max(u, 0), width - 1)))
        return [int(place in marked) for place in places]
    # The same share of rows and columns, the least of each with room for all.
    share = Fraction(n_keep, height * width)
    n_rows = next(n for n in range(height + 1) if Fraction(n, height) ** 2 >= share)
    n_columns = next(n for n in range(width + 1) if Fraction(n, width) ** 2 >= share)
    bits = draw(height + width)
    rows = sorted(range(height), key=lambda y: (-bits[y], y))[:n_rows]
    columns = sorted(range(width), key=lambda x: (-bits[height + x], x))[:n_columns]
    return [int(y in rows and x in columns) for y, x in places]

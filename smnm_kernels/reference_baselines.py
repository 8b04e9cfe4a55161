"""The definition of ``baselines.baseline_masks``, in loops; see ``reference`` for the words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .baselines import (
    N_BLOCKS,
    STRUCTURE_SEED,
    baseline_masks_call,
    grid_period,
    kept_lines,
    n_centres,
)
from .masks import Masks
from .reference import Stream, masks_from_visible, words


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
    """See ``baselines.baseline_masks``."""
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
        period_y, period_x = grid_period(height, width, n_keep)
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
        for bits in draw(n_centres(height * width, n_keep, block_size)):
            y, x = divmod(uniform(bits, height * width), width)
            for dy in range(block_size):
                for dx in range(block_size):
                    v, u = y + dy - block_size // 2, x + dx - block_size // 2
                    marked.add((min(max(v, 0), height - 1), min(max(u, 0), width - 1)))
        return [int(place in marked) for place in places]
    n_rows, n_columns = kept_lines(height, width, n_keep)
    bits = draw(height + width)
    rows = sorted(range(height), key=lambda y: (-bits[y], y))[:n_rows]
    columns = sorted(range(width), key=lambda x: (-bits[height + x], x))[:n_columns]
    return [int(y in rows and x in columns) for y, x in places]

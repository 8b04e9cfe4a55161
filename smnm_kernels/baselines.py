"""The masks that structured noise is compared with: grid, block, inverse block, time-frequency.

Each marks places by its structure; then the n_keep largest of the marks with white noise added are
visible. So counts are exact: a structure with too many places is thinned at random, one with too
few is topped up. ``reference.baseline_masks`` is the definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .calls import baseline_masks_call
from .masks import Masks

#: n -> float32 [B, n].
Draw = Callable[[int], Tensor]
#: White noise has the odd integers of 22 bits and a sign for its values, times this.
_BITS = 22
_WHITE_SCALE = 3**0.5 / 2**_BITS
#: The seed XOR this draws the structure, so that its words are not those of the white noise added.
STRUCTURE_SEED = 0x2545F4914F6CDD1D
#: As many blocks cover a frame but for a few patches, whatever the draw.
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
    """Masks of the usual structures; one (1, H, W) mask repeated over T, as for a tube.

    Args:
        sample_ids, mask_ratio, n_keep, freq_major, seed: as for ``noise_masks``.
        grid: (T, H, W); "time_frequency" needs T = 1.
        kind: "grid": every s-th patch of every s-th row, s = floor(sqrt(H * W / visible in a
            frame)), at a random offset (MAE's grid-wise sampling). "block": 32 rectangles of a
            quarter to a half of each side, masked one after the other until enough is masked
            (BEiT's and MAE's block-wise masking, in integers). "inverse_block": square blocks
            round random centres are visible (data2vec 2.0, with its 0.07 more than needed).
            "time_frequency": whole columns of time and bands of mel are masked (AudioMAE's
            fine-tuning), the same share of each.
        block_size: side of an inverse block, in patches.

    Source: Structured-Noise Masked Modeling, Table A.5, compares with the first two.
    """
    call = baseline_masks_call(
        sample_ids, grid, kind, mask_ratio, n_keep, block_size, freq_major, seed
    )
    masks = draw_baseline(*call)
    return masks.freq_major(call[3]) if freq_major else masks


def draw_baseline(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    kind: str,
    n_keep: int,
    block_size: int,
) -> Masks:
    frames, height, width = grid
    in_frame = n_keep // frames
    if seed_tensor is None:
        structure = (None, seed ^ STRUCTURE_SEED)
    else:
        structure = (seed_tensor ^ STRUCTURE_SEED, 0)

    def draw(n: int) -> Tensor:
        """White noise, float32 [B, n], of the structure's own."""
        noise = torch.ops.smnm.noise(sample_ids, *structure, (1, 1, n), "white", [])
        return noise.flatten(1)

    if kind == "grid":
        marks = _grid_marks(draw, height, width, in_frame)
    elif kind == "block":
        marks = _block_marks(draw, height, width)
    elif kind == "inverse_block":
        marks = _inverse_block_marks(draw, height, width, in_frame, block_size)
    else:
        marks = _time_frequency_marks(draw, height, width, in_frame)
    white = torch.ops.smnm.noise(sample_ids, seed_tensor, seed, (1, height, width), "white", [])
    # Whole numbers and noise below 2 in magnitude: float64 holds the sum exactly.
    priority = (4 * marks + white[:, 0].double()).flatten(1)
    visible, *ids = torch.ops.smnm.threshold(priority, in_frame)
    if frames == 1:
        return Masks(visible, *ids)
    return Masks._with_count(visible.repeat(1, frames), n_keep)


def grid_period(height: int, width: int, n_keep: int) -> tuple[int, int]:
    s = math.isqrt(height * width // n_keep)
    return min(s, height), min(s, width)


def n_centres(n_tokens: int, n_keep: int, block_size: int) -> int:
    return max(1, (100 * n_keep + 7 * n_tokens) // (100 * block_size**2))


def kept_lines(height: int, width: int, n_keep: int) -> tuple[int, int]:
    """Rows and columns that stay: the same share of each, at least n_keep places together."""
    n = height * width

    def lines(side: int) -> int:
        # The least a with a / side >= sqrt(n_keep / n).
        a = math.isqrt(side * side * n_keep // n)
        return a if a * a * n >= side * side * n_keep else a + 1

    return lines(height), lines(width)


def _grid_marks(draw: Draw, height: int, width: int, n_keep: int) -> Tensor:
    period_y, period_x = grid_period(height, width, n_keep)
    offsets = draw(2)
    y = torch.arange(height, device=offsets.device) - _uniform(offsets[:, :1], period_y)
    x = torch.arange(width, device=offsets.device) - _uniform(offsets[:, 1:], period_x)
    return ((y % period_y == 0)[:, :, None] & (x % period_x == 0)[:, None, :]).double()


def _block_marks(draw: Draw, height: int, width: int) -> Tensor:
    """How many blocks come before the first that covers a patch."""
    noise = draw(4 * N_BLOCKS)
    inside = []
    for side, part in ((height, noise[:, : 2 * N_BLOCKS]), (width, noise[:, 2 * N_BLOCKS :])):
        least, most = -(-side // 4), -(-side // 2)
        length = least + _uniform(part[:, :N_BLOCKS], most - least + 1)
        start = _uniform(part[:, N_BLOCKS:], side - length + 1)
        place = torch.arange(side, device=noise.device)
        inside.append((place >= start[:, :, None]) & (place < (start + length)[:, :, None]))
    covered = inside[0][:, :, :, None] & inside[1][:, :, None, :]
    number = torch.arange(N_BLOCKS, device=noise.device)[:, None, None]
    return torch.where(covered, number, N_BLOCKS).amin(1).double()


def _inverse_block_marks(
    draw: Draw, height: int, width: int, n_keep: int, block_size: int
) -> Tensor:
    n = n_centres(height * width, n_keep, block_size)
    centre = _uniform(draw(n), height * width)
    around = torch.arange(block_size, device=centre.device) - block_size // 2
    y = (centre[:, :, None, None] // width + around[:, None]).clamp(0, height - 1)
    x = (centre[:, :, None, None] % width + around).clamp(0, width - 1)
    marks = torch.zeros(len(centre), height * width, dtype=torch.float64, device=centre.device)
    return marks.scatter(1, (y * width + x).flatten(1), 1.0).unflatten(1, (height, width))


def _time_frequency_marks(draw: Draw, height: int, width: int, n_keep: int) -> Tensor:
    rows, columns = kept_lines(height, width, n_keep)
    noise = draw(height + width)
    row, *_ = torch.ops.smnm.threshold(noise[:, :height], rows)
    column, *_ = torch.ops.smnm.threshold(noise[:, height:], columns)
    return (row[:, :, None] & column[:, None, :]).double()


def _uniform(white: Tensor, n: int | Tensor) -> Tensor:
    """int64 in [0, n) from white noise: its 22 random bits, scaled."""
    # Half way between two integers before the floor, so that float32's rounding does not matter.
    bits = ((white.double() / _WHITE_SCALE + 2**_BITS) / 2).floor().long()
    return bits * n >> _BITS

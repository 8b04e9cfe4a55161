"""Noise, its threshold, and the kernels of their ops.

A kernel takes canonical arguments, in the order of the op's schema.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.arguments import Grid
from smnm_kernels.masks import Masks
from smnm_kernels.tables.colors import Color
from smnm_kernels.tables.constants import (
    MAX_FIELD,
    MAX_SIGNAL,
    TAP_SHIFT,
    TAP_UNIT,
    WHITE_BITS,
    WHITE_SCALE,
    Purpose,
)
from smnm_kernels.tables.noise import noise_quantiles, noise_table, scaled_taps

from .random_words import philox, words


def white_values(torus: Grid, sample_id: int, seed: int) -> np.ndarray:
    """int64 [PT, PH, PW]: iid N(0, 1) quantiles in units of 1/256, the input of every filter.

    The top 12 bits of each 16-bit half of a word pick one of 4096 quantiles. The eight halves of
    a block (low half of word 0, high half of word 0, low half of word 1, ...) go to eight
    segments of whole planes (of whole rows, where there is one plane).
    """
    first, rest = (torus[0], torus[1:]) if torus[0] > 1 else (torus[1], torus[2:])
    q = -(-first // 8) * int(np.prod(rest))
    block_words = philox(np.arange(q), Purpose.NOISE, sample_id, seed)  # [4, q]
    halves = np.stack([block_words & 0xFFFF, block_words >> 16], axis=1)  # [4, 2, q]
    n = int(np.prod(torus))
    return noise_quantiles().numpy()[halves.reshape(-1)[:n] >> 4].astype(np.int64).reshape(torus)


def circular_filter(signal: np.ndarray, taps: np.ndarray, n_out: int, axis: int) -> np.ndarray:
    """out[i] = sum over j of taps[(i - j) mod P] * signal[j] along ``axis``, for i < n_out."""
    side = signal.shape[axis]
    distance = (np.arange(n_out)[:, None] - np.arange(side)[None, :]) % side
    out = np.tensordot(taps[distance], signal, axes=(1, axis))
    return np.moveaxis(out, 0, axis)


def rescale(total: np.ndarray) -> np.ndarray:
    """Undo the taps' norm after a pass: halves round up, then clamp."""
    return np.clip((total + TAP_UNIT // 2) >> TAP_SHIFT, -MAX_SIGNAL, MAX_SIGNAL)


def field(
    sample_id: int,
    grid: Grid,
    color: Color,
    sigma: Sequence[float],
    seed: int,
    time_scale: float = 1.0,
) -> tuple[np.ndarray, np.float32]:
    """The integer field int64 [T, H, W] that is thresholded, and the factor that gives it unit
    variance."""
    if color == "white":
        n = int(np.prod(grid))
        value = words(n, Purpose.NOISE, sample_id, seed).astype(np.int64) >> 32 - WHITE_BITS
        return (2 * value + 1 - 2**WHITE_BITS).reshape(grid), WHITE_SCALE
    table = noise_table(grid, color, tuple(sigma), time_scale)
    pairs, taps = table.pairs.numpy().astype(np.int64), table.taps.numpy().astype(np.int64)
    word = int(philox(np.zeros(1), Purpose.SIGMA, sample_id, seed)[0, 0])
    pair = word * len(pairs) >> 32
    level1, level2, gain = pairs[pair]

    white = white_values(table.torus, sample_id, seed)
    _, height, width = grid
    two_dimensional = grid[0] == 1

    def chain(level: int, gain: int) -> np.ndarray:
        along_t, along_h, along_w = np.split(taps[level], np.cumsum(table.torus)[:2])
        signal = rescale(circular_filter(white, along_w, width, axis=2))
        if two_dimensional:
            return circular_filter(signal, scaled_taps(along_h, gain), height, axis=1)
        signal = rescale(circular_filter(signal, along_h, height, axis=1))
        return circular_filter(signal, scaled_taps(along_t, gain), grid[0], axis=0)

    total = chain(level1, TAP_UNIT)
    if level2 >= 0:
        total = total - chain(level2, gain)
    return np.clip(total, -MAX_FIELD, MAX_FIELD), table.scale.numpy()[pair]


def noise_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    time_scale: float = 1.0,
) -> Tensor:
    """float32 [B, T, H, W]."""
    seed = seed if seed_tensor is None else int(seed_tensor)
    out = np.empty((len(sample_ids), *grid), dtype=np.float32)
    for row, sample_id in enumerate(sample_ids.tolist()):
        sides = (grid[0], grid[1], grid[2])
        integers, scale = field(sample_id, sides, color, sigma, seed, time_scale)
        out[row] = integers.astype(np.float32) * scale
    return torch.from_numpy(out).to(sample_ids.device)


def threshold_kernel(noise: Tensor, n_keep: int) -> Masks:
    """``noise`` [B, N]: the n_keep largest of each row are visible, ties to the lower token."""
    largest = noise.sort(dim=1, descending=True, stable=True).indices[:, :n_keep]
    visible = torch.zeros(noise.shape, dtype=torch.bool, device=noise.device)
    return masks_from_visible(visible.scatter_(1, largest, True), n_keep)


def noise_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    n_keep: int,
    tube: bool,
    time_scale: float = 1.0,
) -> Masks:
    """The threshold of the noise. With ``tube``, one (1, H, W) mask is repeated over T."""
    frames, drawn_grid = (grid[0], (1, *grid[1:])) if tube else (1, grid)
    drawn = noise_kernel(sample_ids, seed_tensor, seed, drawn_grid, color, sigma, time_scale)
    frame = threshold_kernel(drawn.flatten(1), n_keep // frames)
    return masks_from_visible(frame.visible.repeat(1, frames), n_keep)


def valid_noise_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
    n_keep: int,
    tube: bool,
    time_scale: float,
    valid: Tensor,
) -> Masks:
    """The largest values among the tokens that are ``valid``, bool [B, N]; ties to the lower token.

    With ``tube``, the noise of one frame is repeated over T. So tokens of one place have equal
    values: the places come in the order of the one mask, and of a place the earlier frames first.
    """
    check_enough_valid(valid, n_keep)
    drawn_grid = (1, *grid[1:]) if tube else tuple(grid)
    noise = noise_kernel(sample_ids, seed_tensor, seed, drawn_grid, color, sigma, time_scale)
    noise = noise.flatten(1)
    n_places = noise.shape[1]
    visible = torch.zeros(valid.shape, dtype=torch.bool)
    for row in range(len(sample_ids)):
        values = noise[row].tolist()
        tokens = [token for token in range(valid.shape[1]) if valid[row, token]]
        tokens.sort(key=lambda token: (-values[token % n_places], token % n_places, token))
        visible[row, tokens[:n_keep]] = True
    return masks_from_visible(visible.to(sample_ids.device), n_keep)


def check_enough_valid(valid: Tensor, n_keep: int) -> None:
    for row, count in enumerate(valid.sum(1).tolist()):
        if count < n_keep:
            raise ValueError(
                f"valid must be True for at least {n_keep} tokens of every row, got {count} in row "
                f"{row}"
            )


def masks_from_visible(visible: Tensor, n_keep: int) -> Masks:
    """Masks of bool ``visible`` [B, N]; the ids come from a stable sort, visible tokens first."""
    in_order = (~visible).to(torch.uint8).sort(dim=1, stable=True).indices
    return Masks(visible, in_order[:, :n_keep].contiguous(), in_order.argsort(dim=1))

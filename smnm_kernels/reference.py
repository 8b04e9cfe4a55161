"""The definition: every mask in plain NumPy, slow and obvious. All backends equal it bit for bit.

Random words
------------
All randomness is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011), a pure function of a 64-bit key and a 128-bit counter:

    key     = (seed low, seed high)
    counter = (block, stream, sample id low, sample id high)

Each use has its own stream (``Stream``). A block yields four 32-bit words. Arrays of words are
laid out in *segments*: with q blocks, word j of block b is element j*q + b, so neighbours in
memory come from neighbouring blocks, which suits vectors and warps alike.

Integers
--------
Noise, filter taps and sums are integers small enough that float32 holds them exactly, so any
order of summation on any unit gives the same field (see ``noise_table``).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .arguments import Grid
from .calls import noise_call, noise_masks_call, rbn_bank_call, rbn_masks_call, threshold_call
from .colors import Color, Sigma
from .masks import Masks
from .noise_table import (
    MAX_SIGNAL,
    TAP_SHIFT,
    TAP_UNIT,
    noise_quantiles,
    noise_table,
    scaled_taps,
)
from .rbn_arguments import RbnRule

#: The field is clamped to 22 bits and a sign, eight standard deviations at the least.
MAX_FIELD = 2**22 - 1
#: White noise: standard deviation of the odd integers below 2**22 in magnitude is 2**22/sqrt(3).
WHITE_SCALE = np.float32(3**0.5 / 2**22)


class Stream(enum.IntEnum):
    """The second counter word: one value per use of random words."""

    NOISE = 0
    SIGMA = 1
    ORDER = 2
    TIE = 3
    CROP = 4


def philox(block: np.ndarray, stream: int, sample_id: int, seed: int) -> np.ndarray:
    """uint32 [4, *block.shape]: the Philox4x32-10 output at counters (block, stream, id)."""
    low = np.uint64(0xFFFFFFFF)
    block = np.asarray(block, dtype=np.uint64)
    c = [
        block,
        np.full_like(block, stream),
        np.full_like(block, sample_id & 0xFFFFFFFF),
        np.full_like(block, sample_id >> 32 & 0xFFFFFFFF),
    ]
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * c[0]
        product1 = np.uint64(0xCD9E8D57) * c[2]
        c = [
            (product1 >> np.uint64(32)) ^ c[1] ^ np.uint64(key0),
            product1 & low,
            (product0 >> np.uint64(32)) ^ c[3] ^ np.uint64(key1),
            product0 & low,
        ]
        key0, key1 = key0 + 0x9E3779B9 & 0xFFFFFFFF, key1 + 0xBB67AE85 & 0xFFFFFFFF
    return np.stack(c).astype(np.uint32)


def words(n: int, stream: int, sample_id: int, seed: int, first_block: int = 0) -> np.ndarray:
    """uint32 [n]: n words in segments, from ceil(n / 4) blocks starting at ``first_block``."""
    blocks = first_block + np.arange(-(-n // 4))
    return philox(blocks, stream, sample_id, seed).reshape(-1)[:n]


def white_values(torus: Grid, sample_id: int, seed: int) -> np.ndarray:
    """int64 [PT, PH, PW]: iid N(0, 1) quantiles in units of 1/256, the input of every filter.

    The top 12 bits of each 16-bit half of a word pick one of 4096 quantiles. The eight halves of
    a block (low half of word 0, high half of word 0, low half of word 1, ...) go to eight
    segments of whole planes (of whole rows, where there is one plane).
    """
    first, rest = (torus[0], torus[1:]) if torus[0] > 1 else (torus[1], torus[2:])
    q = -(-first // 8) * int(np.prod(rest))
    block_words = philox(np.arange(q), Stream.NOISE, sample_id, seed)  # [4, q]
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
    sample_id: int, grid: Grid, color: Color, sigma: Sequence[float], seed: int
) -> tuple[np.ndarray, np.float32]:
    """The integer field int64 [T, H, W] that is thresholded, and its scale to unit variance."""
    if color == "white":
        n = int(np.prod(grid))
        value = words(n, Stream.NOISE, sample_id, seed).astype(np.int64) >> 10
        return (2 * value + 1 - 2**22).reshape(grid), WHITE_SCALE
    table = noise_table(grid, color, tuple(sigma))
    pairs, taps = table.pairs.numpy().astype(np.int64), table.taps.numpy().astype(np.int64)
    word = int(philox(np.zeros(1), Stream.SIGMA, sample_id, seed)[0, 0])
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


def algorithm1(
    order: Sequence[int],
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    rule: RbnRule,
    bank: int,
    seed: int,
) -> np.ndarray:
    """bool [K, H, W]: K masks that compete for each position (Algorithm 1 of the paper)."""
    _, height, width = grid
    visible = np.zeros((n_candidates, height, width), dtype=bool)
    sweep = 0
    while visible.sum() < n_candidates * n_keep:
        tie_words = _tie_words(sweep, height * width, bank, seed) if rule.random_ties else None
        for position in order:
            y, x = divmod(int(position), width)
            scores = {
                k: rbn_score(visible[k], y, x, rule)
                for k in range(n_candidates)
                if visible[k].sum() < n_keep and not visible[k, y, x]
            }
            if not scores:
                continue
            best = [k for k in scores if scores[k] == min(scores.values())]
            pick = int(tie_words[position]) * len(best) >> 32 if rule.random_ties else 0
            visible[best[pick], y, x] = True
        sweep += 1
    return visible


def rbn_score(visible: np.ndarray, y: int, x: int, rule: RbnRule) -> int:
    """Thousandths: for each window, the weighted counts of visible patches on the horizontal, the
    vertical and the two diagonals through (y, x); the centre and the outside count zero."""
    height, width = visible.shape
    score = 0
    for window in rule.windows:
        for (dy, dx), weight in zip([(0, 1), (1, 0), (1, 1), (1, -1)], rule.weights, strict=True):
            for step in range(-(window // 2), window // 2 + 1):
                v, u = y + step * dy, x + step * dx
                if step != 0 and 0 <= v < height and 0 <= u < width:
                    score += weight * int(visible[v, u])
    return score


def _tie_words(sweep: int, n_tokens: int, bank: int, seed: int) -> np.ndarray:
    return words(n_tokens, Stream.TIE, bank, seed, first_block=sweep * -(-n_tokens // 4))


def rbn_order(bank: int, n_tokens: int, seed: int) -> np.ndarray:
    """int64 [N]: the visiting order of a bank, positions sorted by their random word."""
    return np.argsort(words(n_tokens, Stream.ORDER, bank, seed), kind="stable")


# The kernels of the ops: canonical arguments, in the order of the schemas in ``ops``.


def noise_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: Color,
    sigma: Sequence[float],
) -> Tensor:
    """float32 [B, T, H, W]."""
    seed = seed if seed_tensor is None else int(seed_tensor)
    out = np.empty((len(sample_ids), *grid), dtype=np.float32)
    for row, sample_id in enumerate(sample_ids.tolist()):
        integers, scale = field(sample_id, tuple(grid), color, sigma, seed)
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
) -> Masks:
    """Threshold of the noise; with ``tube`` of one (1, H, W) noise, repeated over T."""
    frames, drawn_grid = (grid[0], (1, *grid[1:])) if tube else (1, grid)
    drawn = noise_kernel(sample_ids, seed_tensor, seed, drawn_grid, color, sigma)
    frame = threshold_kernel(drawn.flatten(1), n_keep // frames)
    return masks_from_visible(frame.visible.repeat(1, frames), n_keep)


def rbn_bank_kernel(
    order: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
) -> Tensor:
    """bool [G, K, N] from orders [G, N]; row g is bank g."""
    rule = RbnRule(tuple(windows), tuple(weights), random_ties)
    seed = seed if seed_tensor is None else int(seed_tensor)
    banks = np.zeros((len(order), n_candidates, *grid[1:]), dtype=bool)
    for bank, positions in enumerate(order.tolist()):
        banks[bank] = algorithm1(positions, n_candidates, n_keep, grid, rule, bank, seed)
    return torch.from_numpy(banks).flatten(2).to(order.device)


def rbn_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
) -> Masks:
    """Sample s is mask s mod K of bank s div K."""
    rule = RbnRule(tuple(windows), tuple(weights), random_ties)
    seed = seed if seed_tensor is None else int(seed_tensor)
    n_tokens = grid[1] * grid[2]
    banks: dict[int, np.ndarray] = {}
    visible = np.zeros((len(sample_ids), n_tokens), dtype=bool)
    for row, sample_id in enumerate(sample_ids.tolist()):
        bank, k = divmod(sample_id, n_candidates)
        if bank not in banks:
            order = rbn_order(bank, n_tokens, seed).tolist()
            banks[bank] = algorithm1(order, n_candidates, n_keep, grid, rule, bank, seed)
        visible[row] = banks[bank][k].reshape(-1)
    return masks_from_visible(torch.from_numpy(visible).to(sample_ids.device), n_keep)


def masks_from_visible(visible: Tensor, n_keep: int) -> Masks:
    """The ids by sorting: masked (True) after visible (False), stable."""
    in_order = (~visible).to(torch.uint8).sort(dim=1, stable=True).indices
    return Masks(visible, in_order[:, :n_keep].contiguous(), in_order.argsort(dim=1))


# The public functions, as in ``smnm_kernels``.


def noise(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    *,
    sigma: Sigma = None,
    seed: int | Tensor = 0,
) -> Tensor:
    """See ``smnm_kernels.noise``."""
    return noise_kernel(*noise_call(sample_ids, grid, color, sigma, seed))


def threshold(
    noise: Tensor, mask_ratio: float | None = None, *, n_keep: int | None = None
) -> Masks:
    """See ``smnm_kernels.threshold``."""
    return threshold_kernel(*threshold_call(noise, mask_ratio, n_keep))


def noise_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    color: Color,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    sigma: Sigma = None,
    tube: bool = False,
    freq_major: bool = False,
    seed: int | Tensor = 0,
) -> Masks:
    """See ``smnm_kernels.noise_masks``."""
    call = noise_masks_call(
        sample_ids, grid, color, mask_ratio, n_keep, sigma, tube, freq_major, seed
    )
    masks = noise_masks_kernel(*call)
    return masks.freq_major(call[3]) if freq_major else masks


def rbn_bank(
    order: Tensor,
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    *,
    windows: Sequence[int] = (3, 5),
    weights: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    tie_break: str = "first",
    seed: int | Tensor = 0,
) -> Tensor:
    """See ``smnm_kernels.rbn_bank``."""
    call = rbn_bank_call(order, n_candidates, n_keep, grid, windows, weights, tie_break, seed)
    return rbn_bank_kernel(*call)


def rbn_masks(
    sample_ids: Tensor,
    grid: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    n_candidates: int | None = None,
    windows: Sequence[int] = (3, 5),
    weights: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    tie_break: str = "first",
    freq_major: bool = False,
    seed: int | Tensor = 0,
) -> Masks:
    """See ``smnm_kernels.rbn_masks``."""
    call = rbn_masks_call(
        sample_ids,
        grid,
        mask_ratio,
        n_keep,
        n_candidates,
        windows,
        weights,
        tie_break,
        freq_major,
        seed,
    )
    masks = rbn_masks_kernel(*call)
    return masks.freq_major(call[3]) if freq_major else masks

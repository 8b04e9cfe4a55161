"""Regularized blue noise, Algorithm 1, and the kernels of its ops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import Purpose

from .fields import check_enough_valid, masks_from_visible
from .random_words import words


def algorithm1(
    order: Sequence[int],
    n_candidates: int,
    n_keep: int,
    grid: Sequence[int],
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
    bank: int,
    seed: int,
) -> np.ndarray:
    """bool [K, H, W]: K masks that compete for each position (Algorithm 1 of the paper).

    ``weights`` are thousandths. ``order`` may leave positions out, which no mask then shows.
    """
    _, height, width = grid
    visible = np.zeros((n_candidates, height, width), dtype=bool)
    sweep = 0
    while visible.sum() < n_candidates * n_keep:
        tie_words = _tie_words(sweep, height * width, bank, seed) if random_ties else None
        for position in order:
            y, x = divmod(int(position), width)
            scores = {
                k: rbn_score(visible[k], y, x, windows, weights)
                for k in range(n_candidates)
                if visible[k].sum() < n_keep and not visible[k, y, x]
            }
            if not scores:
                continue
            best = [k for k in scores if scores[k] == min(scores.values())]
            pick = 0 if tie_words is None else int(tie_words[position]) * len(best) >> 32
            visible[best[pick], y, x] = True
        sweep += 1
    return visible


def rbn_score(
    visible: np.ndarray, y: int, x: int, windows: Sequence[int], weights: Sequence[int]
) -> int:
    """Thousandths: for each window, the weighted counts of visible patches on the horizontal, the
    vertical and the two diagonals through (y, x); the centre and the outside count zero."""
    height, width = visible.shape
    score = 0
    for window in windows:
        for (dy, dx), weight in zip([(0, 1), (1, 0), (1, 1), (1, -1)], weights, strict=True):
            for step in range(-(window // 2), window // 2 + 1):
                v, u = y + step * dy, x + step * dx
                if step != 0 and 0 <= v < height and 0 <= u < width:
                    score += weight * int(visible[v, u])
    return score


def _tie_words(sweep: int, n_tokens: int, bank: int, seed: int) -> np.ndarray:
    return words(n_tokens, Purpose.TIE, bank, seed, first_block=sweep * -(-n_tokens // 4))


def rbn_order(bank: int, n_tokens: int, seed: int) -> np.ndarray:
    """int64 [N]: the visiting order of a bank, positions sorted by their random word."""
    return np.argsort(words(n_tokens, Purpose.ORDER, bank, seed), kind="stable")


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
    rule = (windows, weights, random_ties)
    seed = seed if seed_tensor is None else int(seed_tensor)
    banks = np.zeros((len(order), n_candidates, *grid[1:]), dtype=bool)
    for bank, positions in enumerate(order.tolist()):
        banks[bank] = algorithm1(positions, n_candidates, n_keep, grid, *rule, bank, seed)
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
    valid: Tensor | None = None,
) -> Masks:
    """Sample s is mask s mod K of bank s div K; with ``valid`` bool [B, N], of the bank that leaves
    the row's other positions out of its order."""
    rule = (windows, weights, random_ties)
    seed = seed if seed_tensor is None else int(seed_tensor)
    n_tokens = grid[1] * grid[2]
    banks: dict[tuple[int, bytes], np.ndarray] = {}
    left_out = np.zeros((len(sample_ids), n_tokens), dtype=bool)
    if valid is not None:
        check_enough_valid(valid, n_keep)
        left_out = ~valid.cpu().numpy()
    visible = np.zeros((len(sample_ids), n_tokens), dtype=bool)
    for row, sample_id in enumerate(sample_ids.tolist()):
        bank, k = divmod(sample_id, n_candidates)
        key = bank, left_out[row].tobytes()
        if key not in banks:
            order = [p for p in rbn_order(bank, n_tokens, seed).tolist() if not left_out[row, p]]
            banks[key] = algorithm1(order, n_candidates, n_keep, grid, *rule, bank, seed)
        visible[row] = banks[key][k].reshape(-1)
    return masks_from_visible(torch.from_numpy(visible).to(sample_ids.device), n_keep)

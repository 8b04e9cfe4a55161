"""smnm::rbn_masks and smnm::rbn_bank in Triton, for machines without the CUDA library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..arguments import Grid
from ..masks import Masks
from ..ops import empty_masks
from .device_tables import keep_on_device
from .rbn import order_words, rbn_in_order
from .threshold_ops import fill_masks, on_device_of
from .tiles import next_power_of_two

#: Bound of the scratch memory. It limits how many banks run at once.
MAX_SCRATCH_BYTES = 2**28


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
    """See ``ops.rbn_masks``."""
    n_tokens = grid[1] * grid[2]
    masks = Masks(*empty_masks(sample_ids, n_tokens, n_keep))
    if len(sample_ids) == 0:
        return masks
    sides = grid[0], grid[1], grid[2]
    rule = (n_candidates, tuple(windows), tuple(weights), random_ties)
    blocks = next_power_of_two(-(-n_tokens // 4), 32, 256)
    with on_device_of(sample_ids):
        for part in parts(len(sample_ids), n_tokens, n_candidates):
            ids = sample_ids[part]
            banks, k = ids.div(n_candidates, rounding_mode="floor"), ids.remainder(n_candidates)
            words = ids.new_empty((len(ids), n_tokens))
            order_words[(len(ids), -(-n_tokens // (4 * blocks)))](
                banks, seed_tensor, seed, words, n_tokens, blocks, num_warps=4
            )
            order = words.sort(dim=1, stable=True).indices
            within = None if valid is None else valid[part].contiguous()
            visible = run_banks(order, within, banks, seed_tensor, seed, sides, n_keep, *rule)
            own = visible[torch.arange(len(ids), device=ids.device), k].int()
            fill_masks(Masks(*(m[part] for m in masks)), own, n_keep, frames=1)
    return masks


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
    if len(order) == 0:
        return order.new_empty((0, n_candidates, grid[1] * grid[2]), dtype=torch.bool)
    banks = torch.arange(len(order), device=order.device)
    sides = grid[0], grid[1], grid[2]
    rule = (n_candidates, tuple(windows), tuple(weights), random_ties)
    with on_device_of(order):
        made = [
            run_banks(
                order[part].contiguous(),
                None,
                banks[part],
                seed_tensor,
                seed,
                sides,
                n_keep,
                *rule,
            )
            for part in parts(len(order), order.shape[1], n_candidates)
        ]
        return torch.cat(made)


def parts(batch: int, n_tokens: int, n_candidates: int) -> Iterator[slice]:
    """Splits the batch into parts whose scores fit in MAX_SCRATCH_BYTES; a part has at least one
    bank."""
    size = max(1, MAX_SCRATCH_BYTES // (4 * n_tokens * next_power_of_two(n_candidates, 1)))
    return (slice(start, min(start + size, batch)) for start in range(0, batch, size))


def run_banks(
    order: Tensor,
    valid: Tensor | None,
    banks: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Grid,
    n_keep: int,
    n_candidates: int,
    windows: tuple[int, ...],
    weights: tuple[int, ...],
    random_ties: bool,
) -> Tensor:
    _, height, width = grid
    pad_k = next_power_of_two(n_candidates, 1)
    neighbours = neighbour_table(height, width, windows, weights, order.device)
    scores = order.new_zeros((len(order), height * width, pad_k), dtype=torch.int32)
    visible = order.new_zeros((len(order), n_candidates, height * width), dtype=torch.bool)
    rbn_in_order[(len(order),)](
        banks,
        seed_tensor,
        seed,
        order,
        valid,
        neighbours,
        n_keep,
        scores,
        visible,
        height,
        width,
        n_candidates,
        pad_k,
        neighbours.shape[1],
        random_ties,
        num_warps=1,
        num_stages=1,
    )
    return visible


@keep_on_device
def neighbour_table(
    height: int,
    width: int,
    windows: tuple[int, ...],
    weights: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    """int32 [3, n]: steps along H, steps along W, and by how much the score rises there; n is a
    power of two, and columns beyond the neighbours have a rise of 0."""
    # A step longer than a side of the grid leads out of it.
    reach = min(max(windows) // 2, max(height, width) - 1)
    rows = [
        (sign * step * dy, sign * step * dx, weight * sum(w // 2 >= step for w in windows))
        for step in range(1, reach + 1)
        for (dy, dx), weight in zip([(0, 1), (1, 0), (1, 1), (1, -1)], weights, strict=True)
        for sign in (1, -1)
    ]
    rows += [(height, width, 0)] * (next_power_of_two(len(rows), 1) - len(rows))
    return torch.tensor(rows, dtype=torch.int32, device=device).T.contiguous()

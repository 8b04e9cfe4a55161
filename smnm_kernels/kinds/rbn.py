"""Regularized blue noise (R-BN): K masks at a time that compete for each position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import (
    Grid,
    Seed,
    as_constant,
    constant_in_graphs,
    is_int,
    is_sequence,
    parse_flag,
    parse_grid,
    parse_n_keep,
    parse_once,
    parse_thousandths,
)
from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import MAX_CANDIDATES, MAX_SCORE

from .kind import Kind

#: Defaults of every function that makes R-BN masks.
WINDOWS = (3, 5)
WEIGHTS = (0.4, 0.4, 0.1, 0.1)
TIE_BREAKS = ("first", "random")


@dataclass(frozen=True)
class RbnKind(Kind):
    """Algorithm 1: each position goes to the mask whose visible patches are fewest around it."""

    grid: Grid
    n_keep: int
    #: K, masks of a bank.
    n_candidates: int
    #: Odd window sizes (the paper's Delta).
    windows: tuple[int, ...]
    #: Thousandths for horizontal, vertical, main diagonal, second diagonal.
    weights: tuple[int, int, int, int]
    #: Whether a random one of the tied masks gets a position; else the first of them does.
    random_ties: bool
    freq_major: bool
    #: The arguments of both ops that follow ids (or orders) and seed, put together once.
    op_arguments: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rule = (self.n_candidates, self.windows, self.weights, self.random_ties)
        object.__setattr__(self, "op_arguments", (self.grid, self.n_keep, *rule))

    @staticmethod
    @parse_once
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        n_candidates: int | None = None,
        windows: Sequence[int] = WINDOWS,
        weights: Sequence[float] = WEIGHTS,
        tie_break: str = "first",
        freq_major: bool = False,
    ) -> RbnKind:
        """From the arguments of ``smnm_kernels.rbn_masks``."""
        parse_flag("freq_major", freq_major)
        sides = parse_grid(grid)
        if sides[0] != 1:
            raise ValueError(f"grid for R-BN must be two-dimensional, (1, H, W), got {sides}")
        sizes, thousandths = _parse_windows(windows), _parse_weights(weights)
        largest = sum((size - 1) * sum(thousandths) for size in sizes)
        if largest > MAX_SCORE:
            raise ValueError(
                f"weights and windows must keep the largest score at most {MAX_SCORE // 1000}, "
                f"got {largest // 1000} from windows={tuple(windows)!r}, weights={tuple(weights)!r}"
            )
        if tie_break not in TIE_BREAKS:
            raise ValueError(f"tie_break must be one of {', '.join(TIE_BREAKS)}, got {tie_break!r}")
        n_keep = parse_n_keep(math.prod(sides), mask_ratio, n_keep)
        if n_candidates is None:
            n_candidates = default_n_candidates(math.prod(sides), n_keep)
        return RbnKind(
            sides,
            n_keep,
            parse_n_candidates(n_candidates),
            sizes,
            thousandths,
            tie_break == "random",
            freq_major,
        )

    @property
    def name(self) -> str:
        return "rbn"

    @property
    def repeats_over_time(self) -> bool:
        return False

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        arguments = as_constant(self.op_arguments)
        made = ops.rbn_masks(sample_ids, seed.tensor, seed.value, *(*arguments, valid))
        return Masks(*made)


def default_n_candidates(n_tokens: int, n_keep: int) -> int:
    """K: how many masks fit on the grid without sharing a position, at least 2."""
    return min(max(2, n_tokens // n_keep), MAX_CANDIDATES)


def parse_n_candidates(n_candidates: int) -> int:
    if not is_int(n_candidates):
        raise TypeError(f"n_candidates must be an int, got {n_candidates!r}")
    if not 1 <= n_candidates <= MAX_CANDIDATES:
        raise ValueError(f"n_candidates must be in [1, {MAX_CANDIDATES}], got {n_candidates}")
    return int(n_candidates)


def _parse_windows(windows: Sequence[int]) -> tuple[int, ...]:
    odd = "windows must be a non-empty sequence of odd positive ints"
    if not is_sequence(windows) or len(windows) == 0 or not all(is_int(w) for w in windows):
        raise TypeError(f"{odd}, got {windows!r}")
    if any(w < 1 or w % 2 == 0 for w in windows) or sum(w - 1 for w in windows) > MAX_SCORE:
        raise ValueError(f"{odd} of at most {MAX_SCORE} together, got {tuple(windows)!r}")
    return tuple(int(w) for w in windows)


@constant_in_graphs
def _parse_weights(weights: Sequence[float]) -> tuple[int, int, int, int]:
    """The weights in thousandths."""
    if not is_sequence(weights) or len(weights) != 4:
        raise ValueError(
            "weights must be four numbers (horizontal, vertical, main diagonal, second diagonal), "
            f"got {weights!r}"
        )
    allowed = "weights must be non-negative decimals with at most three places, of at most 268435"
    return tuple(parse_thousandths(w, MAX_SCORE, allowed) for w in weights)  # type: ignore[return-value]


def check_order(order: Tensor, n_tokens: int) -> None:
    """``order`` must be integer [G, N], each row a permutation of 0..N-1.

    To read the rows, the host waits for the device. Orders are made outside training steps, so the
    wait costs no training time.
    """
    complaint = f"order must be an integer tensor [G, {n_tokens}] of permutations of its positions"
    if not isinstance(order, Tensor):
        raise TypeError(f"{complaint}, got {type(order).__name__}")
    if order.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        raise TypeError(f"{complaint}, got {order.dtype}")
    if order.dim() != 2 or order.shape[1] != n_tokens:
        raise ValueError(f"{complaint}, got shape {list(order.shape)}")
    in_order = torch.arange(n_tokens, device=order.device)
    wrong = (order.long().sort(dim=1).values != in_order).any(dim=1)
    if torch.compiler.is_compiling():
        torch._assert_async(~wrong.any(), f"{complaint}, but a row is not a permutation")
    elif wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"{complaint}, but row {row} is not a permutation")

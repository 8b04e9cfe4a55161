"""Checks of the R-BN arguments, and the scoring rule in the integers that scores compare in."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch
from torch import Tensor

from .arguments import Grid, decimal_as_written, is_int, is_sequence

#: Scores are sums of thousandths in int32, with headroom for the kernels' "full" marker.
MAX_SCORE = 2**28
MAX_CANDIDATES = 1024
TIE_BREAKS = ("first", "random")


@dataclass(frozen=True)
class RbnRule:
    """How Algorithm 1 scores a position for a mask and which of tied masks gets it."""

    #: Odd window sizes (the paper's Delta).
    windows: tuple[int, ...]
    #: Thousandths for horizontal, vertical, main diagonal, second diagonal.
    weights: tuple[int, int, int, int]
    random_ties: bool


@torch.compiler.assume_constant_result
def parse_rbn_rule(
    sides: Grid, windows: Sequence[int], weights: Sequence[float], tie_break: str
) -> RbnRule:
    if sides[0] != 1:
        raise ValueError(f"grid for R-BN must be two-dimensional, (1, H, W), got {sides}")
    odd = "windows must be a non-empty sequence of odd positive ints"
    if not is_sequence(windows) or len(windows) == 0 or not all(is_int(w) for w in windows):
        raise TypeError(f"{odd}, got {windows!r}")
    if any(w < 1 or w % 2 == 0 for w in windows) or sum(w - 1 for w in windows) > MAX_SCORE:
        raise ValueError(f"{odd} of at most {MAX_SCORE} together, got {tuple(windows)!r}")
    if not is_sequence(weights) or len(weights) != 4:
        raise ValueError(
            "weights must be four numbers (horizontal, vertical, main diagonal, second diagonal), "
            f"got {weights!r}"
        )
    thousandths = tuple(_thousandths(weight) for weight in weights)
    largest = sum((w - 1) * sum(thousandths) for w in windows)
    if largest > MAX_SCORE:
        raise ValueError(
            f"weights and windows must keep the largest score at most {MAX_SCORE // 1000}, "
            f"got {largest // 1000} from windows={tuple(windows)!r}, weights={tuple(weights)!r}"
        )
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break must be one of {', '.join(TIE_BREAKS)}, got {tie_break!r}")
    return RbnRule(tuple(int(w) for w in windows), thousandths, tie_break == "random")


def _thousandths(weight: float) -> int:
    complaint = "weights must be non-negative decimals with at most three places, of at most 268435"
    if isinstance(weight, bool) or not isinstance(weight, (numbers.Real, Decimal)):
        raise TypeError(f"{complaint}, got {weight!r}")
    try:
        exact = 1000 * decimal_as_written(weight)
    except ValueError:  # nan, inf
        raise ValueError(f"{complaint}, got {weight!r}") from None
    if not 0 <= exact <= MAX_SCORE or exact.denominator != 1:
        raise ValueError(f"{complaint}, got {weight!r}")
    return int(exact)


def default_n_candidates(n_tokens: int, n_keep: int) -> int:
    """As many masks as fit without sharing a position, at least 2."""
    return min(max(2, n_tokens // n_keep), MAX_CANDIDATES)


def parse_n_candidates(n_candidates: int) -> int:
    if not is_int(n_candidates):
        raise TypeError(f"n_candidates must be an int, got {n_candidates!r}")
    if not 1 <= n_candidates <= MAX_CANDIDATES:
        raise ValueError(f"n_candidates must be in [1, {MAX_CANDIDATES}], got {n_candidates}")
    return int(n_candidates)


def check_order(order: Tensor, n_tokens: int) -> None:
    """Integer [G, N], each row a permutation of 0..N-1.

    Reading the rows makes the host wait for the device; orders are made outside training steps.
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

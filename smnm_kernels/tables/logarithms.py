"""Integer tables for the logarithms of weighted draws (see ``reference.draws``).

They are computed in decimal arithmetic, which rounds the same everywhere, and interpolated in
integers. So every machine gets the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .constants import LOG_BITS, N_MANTISSAS, N_SHARES

_DIGITS = 40


@cache
def mantissas() -> np.ndarray:
    """int64 [N_MANTISSAS + 1], in units of 2**-LOG_BITS: log2(1 + f) - f for f = i / N_MANTISSAS.

    By so much the logarithm of 1 + f is above the straight line that the bits of a float32 are.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        return _rounded(_log2(1 + f) - f for f in _places(N_MANTISSAS, Decimal(1)))


@cache
def shares() -> np.ndarray:
    """int64 [N_SHARES + 1], in units of 2**-LOG_BITS: log2(-log2(1 - u) / u) for
    u = i / (2 N_SHARES); its limit for u = 0."""
    with localcontext() as context:
        context.prec = _DIGITS
        _, *others = _places(N_SHARES, Decimal("0.5"))
        limit = -_log2(Decimal(2).ln())
        return _rounded([limit, *(_log2(-_log2(1 - u) / u) for u in others)])


@cache
def packed_logarithms() -> Tensor:
    """int32: mantissas(), then shares(); as the C++ op and the Triton kernel take them."""
    return torch.from_numpy(np.concatenate([mantissas(), shares()]).astype(np.int32))


def _places(n: int, end: Decimal) -> list[Decimal]:
    """n + 1 places from 0 to ``end``."""
    return [end * i / n for i in range(n + 1)]


def _log2(x: Decimal) -> Decimal:
    return x.ln() / Decimal(2).ln()


def _rounded(values: Iterable[Decimal]) -> np.ndarray:
    return np.array([int((value * 2**LOG_BITS).to_integral_value()) for value in values])

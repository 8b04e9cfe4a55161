"""Masks that look at the data: draws by weights or scores, and dispersion-weighted masking.

``reference.draws`` and ``reference.dispersion`` are the definition.
"""

from __future__ import annotations

import math
import numbers
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import (
    Grid,
    Seed,
    as_constant,
    check_rows,
    constant_in_graphs,
    decimal_as_written,
    is_int,
    is_sequence,
    parse_flag,
    parse_grid,
    parse_n_keep,
)
from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import MAX_PATCH, METRICS

from .kind import Kind

_MAX_WEIGHT = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class WeightedKind(Kind):
    """Patches are masked with a probability in proportion to a weight that their values give."""

    grid: Grid
    n_keep: int
    freq_major: bool
    #: Tokens that are swapped.
    n_swapped: int
    #: Whether the patches of largest weight are masked, without chance.
    deterministic: bool
    needs_data: ClassVar[bool] = True

    @staticmethod
    def _parse_common(
        grid: Sequence[int],
        mask_ratio: float | None,
        n_keep: int | None,
        hint_ratio: float,
        deterministic: bool,
        freq_major: bool,
    ) -> dict[str, Any]:
        """The fields that all of them have."""
        sides = parse_grid(as_constant(grid))
        n_tokens = math.prod(sides)
        count = parse_n_keep(n_tokens, mask_ratio, as_constant(n_keep))
        return {
            "grid": sides,
            "n_keep": count,
            "freq_major": parse_flag("freq_major", freq_major),
            "n_swapped": parse_hint(hint_ratio, n_tokens - count),
            "deterministic": parse_flag("deterministic", deterministic),
        }

    @property
    def repeats_over_time(self) -> bool:
        return False

    @property
    def ignores_data(self) -> bool:
        return self.n_swapped == math.prod(self.grid) - self.n_keep

    @property
    def rule(self) -> str:
        """That of ``ops.draw_masks``."""
        return "scores" if self.deterministic else "weights"

    @abstractmethod
    def weights(self, data: Tensor, patch: Grid) -> Tensor:
        """float32 [B, N], row-major, of checked ``data`` [B, C, T, H, W]."""

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        assert data is not None
        weights = self.weights(data, patch_on_grid(data, self.grid))
        n_keep, n_swapped = as_constant(self.n_keep), as_constant(self.n_swapped)
        return Masks(
            *ops.draw_masks(sample_ids, *seed, weights, self.rule, n_keep, False, n_swapped, valid)
        )


@dataclass(frozen=True)
class DispersionKind(WeightedKind):
    """Patches whose values differ much are masked (see ``smnm_kernels.dispersion_masks``)."""

    metric: str

    @staticmethod
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        hint_ratio: float = 0.0,
        metric: str = "mad",
        deterministic: bool = False,
        freq_major: bool = False,
    ) -> DispersionKind:
        """From the arguments of ``smnm_kernels.dispersion_masks``."""
        common = WeightedKind._parse_common(
            grid, mask_ratio, n_keep, hint_ratio, deterministic, freq_major
        )
        return DispersionKind(**common, metric=parse_metric(metric))

    @property
    def name(self) -> str:
        return "dispersion"

    def weights(self, data: Tensor, patch: Grid) -> Tensor:
        return ops.dispersion(values_of_patches(data, patch), patch, self.metric)


def parse_weights(
    weights: Tensor, sample_ids: Tensor, mask_ratio: float | None, n_keep: int | None
) -> tuple[Tensor, int]:
    """(weights as float32 [B, N], n_keep) from the arguments of ``weighted_masks``."""
    flat, count = parse_scores("weights", weights, sample_ids, mask_ratio, n_keep)
    if ops.is_plain(weights) and weights.numel():
        _check_weights(weights.detach().flatten(1))
    return flat, count


def _check_weights(weights: Tensor) -> None:
    """Not negative, and finite also as float32."""
    low, high = weights.aminmax()
    if low >= 0 and high <= _MAX_WEIGHT:  # not so if one of them is NaN
        return
    wrong = ~((weights >= 0) & (weights <= _MAX_WEIGHT))
    row, token = wrong.nonzero()[0].tolist()
    raise ValueError(
        f"weights must be in [0, {_MAX_WEIGHT:.6g}], got {weights[row, token].item()!r} in row "
        f"{row} at token {token}"
    )


def parse_scores(
    name: str, scores: Tensor, sample_ids: Tensor, mask_ratio: float | None, n_keep: int | None
) -> tuple[Tensor, int]:
    """(scores as float32 [B, N], n_keep)."""
    _check_numbers(name, scores)
    if scores.dim() < 2 or 0 in scores.shape[1:]:
        raise ValueError(f"{name} must have shape [B, T, H, W] or [B, N], got {list(scores.shape)}")
    check_rows(name, scores, sample_ids)
    flat = scores.detach().flatten(1)
    return flat.float(), parse_n_keep(flat.shape[1], mask_ratio, n_keep)


def _check_numbers(name: str, values: Tensor) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a tensor of numbers, got {type(values).__name__}")
    if values.dtype == torch.bool or values.dtype.is_complex:
        raise TypeError(f"{name} must be floating point or integers, got {values.dtype}")


def check_input(data: Tensor) -> None:
    """Numbers [B, C, T, H, W]."""
    _check_numbers("data", data)
    if data.dim() != 5 or 0 in data.shape[1:]:
        raise ValueError(f"data must have shape [B, C, T, H, W], got {list(data.shape)}")


def parse_patch(data: Tensor, patch: Sequence[int]) -> tuple[Grid, Grid]:
    """(patch (t, h, w), grid (T/t, H/h, W/w)) of checked ``data``."""
    if not is_sequence(patch) or len(patch) != 3 or not all(is_int(n) and n > 0 for n in patch):
        raise ValueError(f"patch must be three positive ints (t, h, w), got {patch!r}")
    t, h, w = (int(n) for n in patch)
    if data.shape[2] % t or data.shape[3] % h or data.shape[4] % w:
        raise ValueError(
            f"patch must divide the sides {tuple(data.shape[2:])} of data, got {(t, h, w)}"
        )
    return (t, h, w), (data.shape[2] // t, data.shape[3] // h, data.shape[4] // w)


def patch_on_grid(data: Tensor, grid: Grid) -> Grid:
    """(t, h, w) values of a patch of ``data``, which is checked."""
    check_input(data)
    sides = data.shape[2:]
    if any(side % n for side, n in zip(sides, grid, strict=True)):
        raise ValueError(
            f"data must have sides (T, H, W) that are multiples of the grid {grid}, got "
            f"{tuple(sides)}"
        )
    t, h, w = (side // n for side, n in zip(sides, grid, strict=True))
    return t, h, w


def values_of_patches(data: Tensor, patch: Grid) -> Tensor:
    """``data`` as ``ops.dispersion`` takes it."""
    if data.shape[1] * math.prod(patch) > MAX_PATCH:
        raise ValueError(
            f"patch must have at most {MAX_PATCH} values in all channels together, got "
            f"{data.shape[1]} channels of {patch}"
        )
    return data.detach().float()


def parse_metric(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return metric


def parse_hint(hint_ratio: float, n_masked: int) -> int:
    """How many of the masked tokens are swapped: floor(n_masked * hint_ratio), of the decimal as
    written."""
    share, out_of = _hint_share(as_constant(hint_ratio))
    return n_masked * share // out_of


@constant_in_graphs
def _hint_share(hint_ratio: float) -> tuple[int, int]:
    if isinstance(hint_ratio, bool) or not isinstance(hint_ratio, (numbers.Real, Decimal)):
        raise TypeError(f"hint_ratio must be a real number in [0, 1], got {hint_ratio!r}")
    try:
        exact = decimal_as_written(hint_ratio)
    except ValueError:  # nan, inf
        exact = Fraction(-1)
    if not 0 <= exact <= 1:
        raise ValueError(f"hint_ratio must be in [0, 1], got {hint_ratio!r}")
    return exact.numerator, exact.denominator


def parse_guide(masked: str, temperature: float) -> tuple[str, float]:
    """(rule of ``ops.draw_masks``, factor of the scores) from the arguments of ``guided_masks``."""
    if masked not in ("highest", "lowest"):
        raise ValueError(f'masked must be "highest" or "lowest", got {masked!r}')
    if isinstance(temperature, bool) or not isinstance(temperature, numbers.Real):
        raise TypeError(f"temperature must be a real number >= 0, got {temperature!r}")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a finite number >= 0, got {temperature!r}")
    sign = 1.0 if masked == "highest" else -1.0
    if temperature == 0:
        return "scores", sign
    return "log2_weights", sign / (float(temperature) * math.log(2))

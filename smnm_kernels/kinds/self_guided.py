"""Self-guided masks: what belongs least clearly to one of two groups of tokens is masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from smnm_kernels import ops
from smnm_kernels.arguments import Grid, Seed, as_constant, parse_flag, parse_grid, parse_n_keep
from smnm_kernels.masks import Masks

from .kind import Kind
from .weighted import parse_hint, patch_on_grid

#: Scores are multiples of 1 / this, so that tokens which only rounding tells apart are ties.
_STEPS = 2**16


@dataclass(frozen=True)
class SelfGuidedKind(Kind):
    """The tokens of the lowest ``self_guided_scores`` are masked, ties to the higher token index.

    Data are the features of an encoder that saw every token, as a map [B, D, T, H, W] on the grid.
    Of a larger input, the values of each patch are its features. What is not finite counts as 0.
    """

    grid: Grid
    n_keep: int
    freq_major: bool
    #: Tokens that are swapped.
    n_swapped: int
    needs_data: ClassVar[bool] = True
    of_features: ClassVar[bool] = True

    @staticmethod
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        hint_ratio: float = 0.0,
        freq_major: bool = False,
    ) -> SelfGuidedKind:
        """The parameters are those of ``smnm_kernels.dispersion_masks``."""
        sides = parse_grid(as_constant(grid))
        n_tokens = math.prod(sides)
        count = parse_n_keep(n_tokens, mask_ratio, as_constant(n_keep))
        n_swapped = parse_hint(hint_ratio, n_tokens - count)
        return SelfGuidedKind(sides, count, parse_flag("freq_major", freq_major), n_swapped)

    @property
    def name(self) -> str:
        return "self_guided"

    @property
    def repeats_over_time(self) -> bool:
        return False

    @property
    def ignores_data(self) -> bool:
        return self.n_swapped == math.prod(self.grid) - self.n_keep

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        assert data is not None
        scores = two_group_scores(_features(data, self.grid).nan_to_num(0, 0, 0), valid)
        n_keep, n_swapped = as_constant(self.n_keep), as_constant(self.n_swapped)
        made = ops.draw_masks(sample_ids, *seed, -scores, "scores", n_keep, False, n_swapped, valid)
        return Masks(*made)


def _features(data: Tensor, grid: Grid) -> Tensor:
    """float32 [B, N, D]: the values of each token."""
    t, h, w = patch_on_grid(data, grid)
    parts = data.detach().float().unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
    return parts.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


@torch.no_grad()
def two_group_scores(features: Tensor, valid: Tensor | None) -> Tensor:
    """float32 [B, N]: what ``smnm_kernels.self_guided_scores`` returns, of checked arguments."""
    unit = normalize(features.detach().float(), dim=2)
    taken = torch.ones_like(unit[..., 0], dtype=torch.bool) if valid is None else valid
    unit = unit * taken[..., None]
    mean = unit.sum(1, keepdim=True) / taken.sum(1)[:, None, None].clamp(min=1)
    centred = (unit - mean) * taken[..., None]
    # The component from the smaller one of the two products; only its sign is needed.
    if unit.shape[1] <= unit.shape[2]:
        side = torch.linalg.eigh(centred @ centred.mT).eigenvectors[:, :, -1]
    else:
        axis = torch.linalg.eigh(centred.mT @ centred).eigenvectors[:, :, -1:]
        side = (centred @ axis).squeeze(2)
    first = side > 0
    cosines = []
    for group in (first & taken, ~first & taken):
        direction = normalize((unit * group[..., None]).sum(1), dim=1)
        cosine = (unit * direction[:, None]).sum(2)
        # A group without tokens has no direction.
        cosines.append(cosine.masked_fill(~group.any(1, keepdim=True), -1))
    return torch.maximum(*cosines).mul_(_STEPS).round_().div_(_STEPS).clamp_(-1, 1)

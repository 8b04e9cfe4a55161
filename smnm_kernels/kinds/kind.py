"""The base class of all kinds of masks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import Grid, Seed, as_constant, check_rows
from smnm_kernels.masks import Masks


class Kind(ABC):
    """A kind of mask on one grid, with checked arguments. ``draw`` makes masks of ids and a seed.

    A subclass is a frozen dataclass with these fields and more, so equal settings are equal
    objects. Its static method ``parse`` makes one from the arguments that users write.
    """

    #: (T, H, W) patches.
    grid: Grid
    #: Visible tokens of every mask.
    n_keep: int
    #: Whether ``draw`` returns tokens in frequency-major order, ``(t*W + x)*H + y``. Masks are made
    #: row-major and reordered.
    freq_major: bool
    #: Whether the masks depend on values of the input.
    needs_data: ClassVar[bool] = False
    #: Whether these are the features of an encoder, where there is one, in place of the input.
    of_features: ClassVar[bool] = False
    #: Whether ``draw`` can leave tokens out.
    takes_valid: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in ``KINDS``."""

    @property
    @abstractmethod
    def repeats_over_time(self) -> bool:
        """Whether one two-dimensional mask is repeated over T."""

    @property
    def ignores_data(self) -> bool:
        """Whether the masks are the same whatever the data's values, as where a hint's share of
        chance is 1. Data of the right shape are needed all the same, if ``needs_data``."""
        return not self.needs_data

    def draw(
        self,
        sample_ids: Tensor,
        seed: Seed,
        data: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Masks:
        """The masks of these ids.

        Args:
            sample_ids: int64 [B], checked; their device does the work.
            data: the input that a data-driven kind looks at, a row for each id; None for all
                others. The trainer gives the normalised input, float32 [B, C, T, H, W], or, if
                ``of_features``, features of every patch as a map on the grid, [B, D, *grid].
            valid: False for tokens that must not be visible, such as padding: bool [B, N], in the
                token order of the masks, or bool [B, T, H, W], as the grid is laid out.
        """
        if self.needs_data or data is not None:
            self._check_data(sample_ids, data)
        if valid is not None:
            valid = self._parse_valid(sample_ids, valid)
        return self.in_token_order(self._draw_row_major(sample_ids, seed, data, valid))

    def describe(self, parameters: Mapping[str, object]) -> str:
        """One line: name, grid, n_keep and these parameters, as the user gave them."""
        more = "".join(f", {name}={value!r}" for name, value in parameters.items())
        return f"{self.name!r}, grid={self.grid}, n_keep={self.n_keep}{more}"

    def in_token_order(self, masks: Masks) -> Masks:
        """Reorders the tokens of row-major ``masks`` if ``freq_major`` is True."""
        return masks.freq_major(self.grid) if self.freq_major else masks

    @abstractmethod
    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        """``draw`` with checked arguments, tokens counted row-major, ``valid`` bool [B, N] or None.
        Where all are valid, the masks are those of None."""

    def _parse_valid(self, sample_ids: Tensor, valid: Tensor) -> Tensor:
        """bool [B, N], row-major, from the argument of ``draw``."""
        if not self.takes_valid:
            raise TypeError(f"valid must not be given: {self.name} masks cannot leave tokens out")
        grid, n_keep = as_constant(self.grid), as_constant(self.n_keep)
        return parse_valid(valid, sample_ids, grid, n_keep, self.freq_major)

    def _check_data(self, sample_ids: Tensor, data: Tensor | None) -> None:
        if not self.needs_data:
            raise TypeError(
                f"data must not be given: {self.name} masks do not depend on the input, got "
                f"{type(data).__name__}"
            )
        if not isinstance(data, Tensor):
            raise TypeError(
                f"data must be a tensor: {self.name} masks depend on the input, got "
                f"{type(data).__name__}"
            )
        check_rows("data", data, sample_ids)


def parse_valid(
    valid: Tensor,
    sample_ids: Tensor,
    grid: Sequence[int],
    n_keep: int,
    freq_major: bool = False,
) -> Tensor:
    """bool [B, N], tokens row-major, with at least ``n_keep`` valid tokens in every row.

    Args:
        valid: bool [B, N] in the token order of the masks, or [B, *grid]; of one frame also
            [B, H, W].
        grid: (T, H, W), or (N,) where only [B, N] is allowed.

    Where the host cannot look without waiting for a device, and in compiled graphs, a row with too
    few valid tokens is no error: its first other tokens count as valid until there are n_keep.
    """
    n_tokens = math.prod(grid)
    shapes = f"[B, {n_tokens}]"
    if len(grid) > 1:
        shapes += f" or [B, {', '.join(map(str, grid))}]"
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        came = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
        raise TypeError(f"valid must be a bool tensor {shapes}, True = may be visible, got {came}")
    check_rows("valid", valid, sample_ids)
    forms = [(n_tokens,), tuple(grid)]
    if len(grid) == 3 and grid[0] == 1:
        forms.append(tuple(grid[1:]))
    if tuple(valid.shape[1:]) not in forms:
        raise ValueError(f"valid must have shape {shapes}, got {list(valid.shape)}")
    flat = valid.flatten(1)
    if freq_major and valid.dim() == 2:
        frames, height, width = grid
        flat = flat.unflatten(1, (frames, width, height)).transpose(2, 3).flatten(1)
    if not ops.is_plain(flat):
        return _topped_up(flat, n_keep)
    counts = flat.sum(1)
    if len(counts) and int(counts.min()) < n_keep:
        row = int((counts < n_keep).nonzero()[0])
        raise ValueError(
            f"valid must be True for at least n_keep={n_keep} tokens of every row, got "
            f"{int(counts[row])} in row {row}"
        )
    return flat


def _topped_up(valid: Tensor, n_keep: int) -> Tensor:
    """With the first tokens that are not valid, in rows of fewer than n_keep."""
    missing = n_keep - valid.sum(1, keepdim=True)
    return valid | ((~valid).cumsum(1) <= missing)

"""The module a training loop holds: an endless stream of masks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .masks import Masks
from .recipe import Recipe
from .stream import MaskStream


class MaskSampler(MaskStream):
    """Draws the next masks of one seed's endless stream: ``sampler(batch_size) -> Masks``.

    Args:
        kind: "green3d", "red3d", "blue3d" and "green2d", "red2d", "blue2d"; "rbn"; and to compare
            with, "random", "tube", "grid", "block", "inverse_block", "time_frequency".
        grid: (T, H, W) patches.
        mask_ratio: share masked, in [0, 1); or give ``n_keep``.
        seed: names the stream.
        parameters: what ``noise_masks`` (``sigma``) or ``rbn_masks`` (``n_candidates``,
            ``windows``, ``weights``, ``tie_break``) take beyond that, ``block_size`` of
            "inverse_block", and ``freq_major``.
    """

    def __init__(
        self,
        kind: str,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        seed: int | Tensor = 0,
        **parameters: object,
    ) -> None:
        super().__init__(seed)
        self.recipe = Recipe(kind, grid, mask_ratio, n_keep=n_keep, **parameters)
        self._prepare()

    @property
    def kind(self) -> str:
        return self.recipe.kind

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.recipe.grid

    @property
    def n_keep(self) -> int:
        """Visible tokens of every mask."""
        return self.recipe.n_keep

    def masks(self, sample_ids: Tensor) -> Masks:
        """The masks with these ids (int64 [B]), without advancing: for evaluation, or where a
        dataset's index names the mask."""
        return self.recipe.masks(sample_ids, self.seed)

    def extra_repr(self) -> str:
        return repr(self.recipe)

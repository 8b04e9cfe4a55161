"""The module a training loop holds: an endless stream of masks of one kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from smnm_kernels.arguments import Seed, check_sample_ids
from smnm_kernels.kinds import Kind, make_kind
from smnm_kernels.masks import Masks

from .stream import MaskStream


class MaskSampler(MaskStream):
    """Draws the next masks of one seed's endless stream: ``sampler(batch_size) -> Masks``.

    Args:
        kind: "green3d", "red3d", "blue3d", "green2d", "red2d", "blue2d" or "rbn"; or one of those
            they are compared with: "random", "tube", "grid", "block", "inverse_block",
            "multi_block", "time_frequency", "bands", "frames", "running_cell"; or one that looks at
            the input: "dispersion", "motion", "activity"; or at features of every patch,
            [B, D, T, H, W]: "self_guided".
        grid: (T, H, W) patches; (H, W) is (1, H, W).
        mask_ratio: share masked, in [0, 1); or give ``n_keep``.
        seed: names the stream.
        parameters: ``freq_major``, and those of the kind: ``sigma`` and ``time_scale`` of red,
            blue and green noise (see ``noise_masks``); ``n_candidates``, ``windows``, ``weights``
            and ``tie_break`` of "rbn" (see ``rbn_masks``); ``block_size`` of "inverse_block", and
            ``time_bands``, ``freq_bands``, ``time_width`` and ``freq_width`` of "bands" (see
            ``baseline_masks``); ``preset``, ``n_blocks``, ``scale``, ``aspect`` and
            ``context_scale`` of "multi_block" (see ``multi_block_masks``); ``hint_ratio`` and
            ``deterministic`` of "dispersion" and "motion", ``metric`` of "dispersion", and
            ``hint_ratio`` of "self_guided" (see ``dispersion_masks``); those of "activity" (see
            ``activity_masks``).

    A kind that looks at the input takes it as a second argument, ``sampler(batch_size, data)``. All
    other kinds raise TypeError if they are given one. Where inputs are padded, ``valid`` says which
    tokens may be visible: ``sampler(batch_size, valid=valid)``; see ``noise_masks``.
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
        self.settings = make_kind(kind, grid, mask_ratio, n_keep=n_keep, **parameters)
        self._given = parameters
        self._prepare()

    @property
    def kind(self) -> str:
        """The kind's name."""
        return self.settings.name

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T, H, W) patches."""
        return self.settings.grid

    @property
    def n_keep(self) -> int:
        """Visible tokens of every mask."""
        return self.settings.n_keep

    @property
    def needs_data(self) -> bool:
        return self.settings.needs_data

    def _first_draws(self) -> dict[Kind, Callable[[Tensor], object]]:
        return {} if self.needs_data else {self.settings: self.masks}

    def masks(
        self, sample_ids: Tensor, data: Tensor | None = None, valid: Tensor | None = None
    ) -> Masks:
        """The masks of these sample ids; the stream does not advance. For evaluation, or where the
        ids come from a dataset's indices.

        Args:
            sample_ids: int64 [B]; their device does the work.
            data: the input, a row for each id, for kinds that look at it.
            valid: where tokens may be visible, a row for each id; see ``noise_masks``.
        """
        check_sample_ids(sample_ids)
        return self.settings.draw(sample_ids, Seed.beside(sample_ids, self.seed), data, valid)

    def extra_repr(self) -> str:
        return self.settings.describe(self._given)

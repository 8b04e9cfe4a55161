"""The stream of masks of a bank of noise."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from .arguments import check_sample_ids
from .kinds import NoiseKind, make_kind
from .kinds.kind import parse_valid
from .masks import Masks
from .noise_bank import NoiseBank
from .samplers import MaskStream


class BankSampler(MaskStream):
    """Draws masks from a ``NoiseBank`` as a ``MaskSampler`` draws them without one:
    ``sampler(batch_size) -> Masks``.

    >>> bank = smnm.NoiseBank.precompute(256, (64, 64, 64), "green", seed=seed)
    >>> sampler = smnm.BankSampler(bank, (8, 14, 14), 0.9, seed=seed)

    A mask is a function of (bank, seed, sample id, settings), whatever the batch, the ranks or the
    place where a run went on. The bank is no part of ``state_dict()``; ``.to()`` moves it, and
    leaves its dtype as it is.

    Args:
        bank: where the noise comes from.
        grid: (T, H, W) patches; (H, W) is (1, H, W). On no axis longer than the bank's volumes;
            with ``tube`` one frame of it.
        mask_ratio: share masked, in [0, 1); or give ``n_keep``.
        tube: one two-dimensional mask is repeated over T, as of "green2d".
        flips: as for ``NoiseBank.noise``.
        seed: names the stream.
    """

    def __init__(
        self,
        bank: NoiseBank,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        tube: bool = False,
        flips: bool = True,
        seed: int | Tensor = 0,
    ) -> None:
        super().__init__(seed)
        kind = make_kind("tube" if tube else "random", grid, mask_ratio, n_keep=n_keep)
        assert isinstance(kind, NoiseKind)
        self.settings, self.flips = kind, flips
        self.bank = bank
        self._prepare()
        self._draw(torch.empty_like(self.next_id.view(1)[:0]))  # wrong arguments are named now

    def _prepare(self) -> None:
        device = self.next_id.device
        if device.type != "meta" and self.bank.volumes.device != device:
            self.bank = self.bank.to(device)
        super()._prepare()

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
        return False

    def _first_draws(self) -> dict[Hashable, Callable[[Tensor], object]]:
        return {("bank", self.settings): self.masks}

    def masks(self, sample_ids: Tensor, data: Any = None, valid: Tensor | None = None) -> Masks:
        """The masks of these sample ids; the stream does not advance.

        Args:
            sample_ids: int64 [B], on the sampler's device.
            data: None: these masks do not depend on the input.
            valid: where tokens may be visible, a row for each id; see ``noise_masks``.
        """
        check_sample_ids(sample_ids)
        if data is not None:
            raise TypeError(
                "data must not be given: masks of a bank do not depend on the input, got "
                f"{type(data).__name__}"
            )
        if valid is not None:
            grid, n_keep = self.settings.grid, self.settings.n_keep
            valid = parse_valid(valid, sample_ids, grid, n_keep).unflatten(1, grid)
        return self.settings.of_noise(self._draw(sample_ids), valid)

    def _draw(self, sample_ids: Tensor) -> Tensor:
        grid = self.settings.noise.grid
        seed = self.seed if self.seed.device == sample_ids.device else int(self.seed)
        return self.bank.noise(sample_ids, grid, flips=self.flips, seed=seed)

    def extra_repr(self) -> str:
        parameters = {"tube": self.settings.tube, "flips": self.flips}
        return f"{self.bank!r}, {self.settings.describe(parameters).partition(', ')[2]}"

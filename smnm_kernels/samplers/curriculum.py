"""Masks from easy to hard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from smnm_kernels.kinds import Kind, MixedKind, make_kind

from .scheduled import ScheduledSampler


class CurriculumSampler(ScheduledSampler):
    """Masks begin as one kind, and a growing share of the samples gets another one.

    >>> sampler = smnm.CurriculumSampler(
    ...     {"kind": "blue3d"},
    ...     {"kind": "green3d", "sigma": "variant-3"},
    ...     (8, 14, 14),
    ...     0.9,
    ...     share=schedules.linear(0.0, 1.0, steps=10_000, places=4),
    ... )
    >>> masks = sampler(batch_size)

    Each sample has one kind or the other, by (seed, sample id), and the mask that a ``MaskSampler``
    of this kind and seed would make of its id. Both kinds show the same number of tokens, so shapes
    stay what they are. Steps, epochs and resuming are those of a ``ScheduledSampler``. Mask
    schedules are an open question of the structured-noise paper; this form of one is our choice.

    Args:
        easy, hard: {"kind": name, and the kind's parameters}, as for ``MaskSampler``.
        grid: (T, H, W) patches; (H, W) is (1, H, W).
        mask_ratio: share masked, in [0, 1); or give ``n_keep``. At one ratio, kinds that repeat
            over time may show fewer tokens than others: that is an error here, and ``n_keep``, a
            multiple of the frames, avoids it.
        share: the share of samples with hard masks, in [0, 1], or a callable of the step (or epoch)
            such as those of ``smnm.schedules``.
        freq_major: token order, as for ``MaskSampler``.
        every: "step" or "epoch".
        seed: names the stream.
    """

    def __init__(
        self,
        easy: Mapping[str, Any],
        hard: Mapping[str, Any],
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        share: float | Callable[[int], Any],
        freq_major: bool = False,
        every: str = "step",
        seed: int | Tensor = 0,
    ) -> None:
        kinds: dict[str, Any] = {}
        for name, given in (("easy", easy), ("hard", hard)):
            if not isinstance(given, Mapping) or "kind" not in given:
                raise TypeError(
                    f"{name} must be a dict with kind and its parameters, got {given!r}"
                )
            try:
                kinds[name] = make_kind(
                    **{"freq_major": freq_major, **given},
                    grid=grid,
                    mask_ratio=mask_ratio,
                    n_keep=n_keep,
                )
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
        super().__init__("mixed", grid, share=share, **kinds, every=every, seed=seed)

    def _make(self, arguments: Mapping[str, Any]) -> Kind:
        return MixedKind.of(arguments["easy"], arguments["hard"], arguments["share"])

    def extra_repr(self) -> str:
        now = self.settings
        assert isinstance(now, MixedKind)
        return (
            f"{now.first.name!r} to {now.second.name!r}, grid={now.grid}, n_keep={now.n_keep}, "
            f"share={now.share} at {self.every} {self.step}"
        )

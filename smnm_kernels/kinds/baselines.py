"""The structures that structured noise is compared with, by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .bands import BandsKind
from .multi_block import MultiBlockKind
from .structures import (
    BlockKind,
    FramesKind,
    InverseBlockKind,
    LatticeKind,
    RunningCellKind,
    StructureKind,
    TimeFrequencyKind,
    check_block_size,
)

#: The kinds of ``baseline_masks``.
BASELINES: dict[str, Callable[..., StructureKind]] = {
    "grid": LatticeKind.parse,
    "block": BlockKind.parse,
    "inverse_block": InverseBlockKind.parse,
    "multi_block": MultiBlockKind.parse,
    "time_frequency": TimeFrequencyKind.parse,
    "bands": BandsKind.parse,
    "frames": FramesKind.parse,
    "running_cell": RunningCellKind.parse,
}


def parse_baseline(
    kind: str,
    grid: Sequence[int],
    mask_ratio: float | None,
    n_keep: int | None,
    block_size: int,
    freq_major: bool,
) -> StructureKind:
    """From the arguments of ``smnm_kernels.baseline_masks``, which are the same for all kinds:
    ``block_size`` is checked for all and used by "inverse_block" alone."""
    if not isinstance(kind, str) or kind not in BASELINES:
        raise ValueError(f"kind must be one of {', '.join(BASELINES)}, got {kind!r}")
    block_size = check_block_size(block_size)
    more: dict[str, int] = {"block_size": block_size} if kind == "inverse_block" else {}
    return BASELINES[kind](grid, mask_ratio, n_keep=n_keep, freq_major=freq_major, **more)

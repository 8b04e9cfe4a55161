"""The section "quality" of `smnm bench`: how good the masks of each kind are and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import smnm_kernels as smnm
from smnm_kernels.analysis.quality import report

from .mask_making import AUDIO, IMAGE, VIDEO, Shape
from .paired_times import Contender, Times, measure, rows

BATCH = 64
KINDS: dict[Shape, tuple[tuple[str, dict[str, Any]], ...]] = {
    VIDEO: tuple(
        (kind, {})
        for kind in ("green3d", "red3d", "blue3d", "random", "tube", "green2d", "block")
    ),
    AUDIO: (
        ("rbn", {}), ("rbn", {"tie_break": "random"}), ("blue2d", {}), ("green2d", {}),
        ("random", {}), ("inverse_block", {}), ("time_frequency", {}), ("bands", {}),
    ),
    IMAGE: (
        ("green2d", {}), ("rbn", {}), ("blue2d", {}), ("random", {}), ("grid", {}), ("block", {}),
        ("multi_block", {}),
    ),
}  # fmt: skip


def quality(n_masks: int, device: torch.device, progress: Callable[[str], None]) -> list[dict]:
    """A row for each kind: ``quality.report`` of n_masks masks, and its time for a batch of 64."""
    made = []
    for shape, kinds in KINDS.items():
        samplers = {}
        for kind, more in kinds:
            name = f"{kind}, random ties" if more else kind
            samplers[name] = smnm.MaskSampler(kind, shape.grid, shape.ratio, **more)
        ids = torch.arange(BATCH, device=device)
        calls = [
            Contender(name, partial(smnm.MaskSampler.masks, sampler.to(device), ids), ours=True)
            for name, sampler in samplers.items()
        ]
        times: dict[str, Times] = {}
        measure(calls, times, 0.2 * len(calls), device)
        timed = rows(calls, times, section="quality", shape=str(shape), batch=BATCH)
        for row, sampler in zip(timed, samplers.values(), strict=True):
            progress(f"quality: {row['what']} on {shape}")
            made.append(row | report(sampler.to("cpu"), n_masks, 500))
    return made

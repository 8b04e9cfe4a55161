"""A module of its own, imported when it is first needed: torch.compiler.disable imports the whole
compiler, which takes a second that ``import smnm_kernels`` need not take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smnm_kernels.masks import Masks

if TYPE_CHECKING:
    from .scheduled import ScheduledSampler


@torch.compiler.disable(
    reason="a ScheduledSampler is drawn outside compiled code: pass its masks in"
)
def draw_outside_graphs(
    sampler: ScheduledSampler,
    batch_size: int | Sequence[int],
    data: Tensor | None,
    valid: Tensor | None,
) -> Masks:
    """The sampler's next masks; torch.compile does not look into it."""
    return sampler._draw(batch_size, data, valid)

"""The next sample ids, and the two places where asking for them would give masks a second time.

A data loader worker holds a copy of the stream, so every worker would draw the same masks: refused.
Activation checkpointing runs a region of the forward pass once more in the backward pass, which
would take new masks there: refused, or the ids of the forward pass are used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from smnm_kernels.ops import library

if TYPE_CHECKING:
    from .stream import MaskStream

_IN_A_WORKER = (
    "a sampler's stream cannot be drawn in a data loader worker: every worker has a copy and would "
    "draw the same masks. Use smnm_kernels.loading, or sampler.masks(sample_ids) with ids of your "
    "own"
)
_IN_BACKWARD = (
    "a sampler was called in a backward pass: activation checkpointing computes its region again, "
    "and would go on with other masks than the forward pass had. Draw the masks before the region "
    "and pass them in; a MaskSampler in eager code may also be called inside checkpoint(..., "
    "use_reentrant=False, context_fn=sampler.checkpoint_contexts)"
)
COMPILED = (
    "a sampler's checkpoint_contexts are for eager code, and it was called in compiled code. Draw "
    "the masks before the region and pass them in"
)


@torch.library.impl(library, "advance", "CompositeExplicitAutograd")
def advance(next_id: Tensor, n: int, before: int, by_all: int) -> Tensor:
    """The n ids from ``next_id + before`` on, int64 [n]; then ``next_id`` is ``by_all`` more.

    An op, so that compiled code, too, looks when it runs where it runs.
    """
    if get_worker_info() is not None:
        raise RuntimeError(_IN_A_WORKER)
    # The graph task is that of a running backward pass, -1 outside one.
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(_IN_BACKWARD)
    sample_ids = torch.arange(before, before + n, device=next_id.device).add_(next_id)
    next_id.add_(by_all)
    return sample_ids


class NoteIds(AbstractContextManager):
    """While a region runs in the forward pass: notes the ids of the sampler's calls."""

    def __init__(self, stream: MaskStream, noted: list[Tensor]) -> None:
        self.stream, self.noted = stream, noted

    def __enter__(self) -> None:
        # A region inside another is noted by both: each is computed again by itself.
        self._was = self.stream._notes
        self.stream._notes = (*self._was, self.noted)

    def __exit__(self, *error: object) -> None:
        self.stream._notes = self._was


class RepeatIds(AbstractContextManager):
    """While a region runs again in a backward pass: the sampler's calls take the noted ids."""

    def __init__(self, stream: MaskStream, noted: list[Tensor]) -> None:
        self.stream, self.noted = stream, noted

    def __enter__(self) -> None:
        self._was = self.stream._repeated
        self.stream._repeated = self._noted_ids()

    def __exit__(self, *error: object) -> None:
        self.stream._repeated = self._was

    def _noted_ids(self) -> Iterator[Tensor]:
        yield from self.noted
        raise RuntimeError(
            f"a checkpointed region that was computed again called the sampler more than the "
            f"{len(self.noted)} times of the forward pass"
        )

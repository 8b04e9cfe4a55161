"""Where drawing the next masks would draw some again: in workers, and when activation checkpointing
computes a region again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

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
    "and pass them in, or give checkpoint(..., use_reentrant=False, "
    "context_fn=sampler.checkpoint_contexts)"
)
_COMPILED = (
    "a sampler was called in compiled code inside a region of activation checkpointing, which "
    "would draw other masks when the region is computed again. Draw the masks before the region "
    "and pass them in"
)


def why_not_here(stream: MaskStream) -> str | None:
    """Why the stream cannot be drawn here and now, or None."""
    if get_worker_info() is not None:
        return _IN_A_WORKER
    # The graph task is that of a running backward pass, -1 outside one.
    if stream.again is None and torch._C._current_graph_task_id() != -1:
        return _IN_BACKWARD
    return None


def why_not_compiled() -> str | None:
    """The same, while the call is compiled: later runs of the code ask no more."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint":
        return _COMPILED
    return _COMPILED if torch._C._current_graph_task_id() != -1 else None


class Noting(AbstractContextManager):
    """Notes the first ids of the stream's calls, while a region is computed first."""

    def __init__(self, stream: MaskStream, drawn: list[Tensor]) -> None:
        self.stream, self.drawn = stream, drawn

    def __enter__(self) -> None:
        # A region inside another is noted by both: each is computed again by itself.
        self._was = self.stream.notes
        self.stream.notes = (*self._was, self.drawn)

    def __exit__(self, *error: object) -> None:
        self.stream.notes = self._was


class DrawingAgain(AbstractContextManager):
    """Has the stream's calls draw the noted ids, while a region is computed again; as often as
    there are backward passes."""

    def __init__(self, stream: MaskStream, drawn: list[Tensor]) -> None:
        self.stream, self.drawn = stream, drawn

    def __enter__(self) -> None:
        self._was = self.stream.again
        self.stream.again = self._again()

    def __exit__(self, *error: object) -> None:
        self.stream.again = self._was

    def _again(self) -> Iterator[Tensor]:
        yield from self.drawn
        raise RuntimeError(
            f"a checkpointed region that was computed again called the sampler more than the "
            f"{len(self.drawn)} times of the forward pass"
        )

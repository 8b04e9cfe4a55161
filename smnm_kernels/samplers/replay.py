"""Taking the next sample ids of a stream, and two places where that would be wrong.

* In a data loader worker. Every worker has a copy of the sampler, so all would draw the same masks.
  This is an error.
* In a backward pass. Activation checkpointing runs a region of the forward pass again there, and a
  call in the region would take new ids. This is an error, too, unless the region runs in
  ``NoteIds`` and then in ``RepeatIds``: these replay the ids of the forward pass.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from smnm_kernels.ops import library

_IN_A_WORKER = (
    "a sampler cannot be called in a data loader worker: every worker has a copy of it and would "
    "draw the same masks. Use smnm_kernels.loading, or sampler.masks(sample_ids) with ids of your "
    "own"
)
_IN_BACKWARD = (
    "a sampler was called in a backward pass: activation checkpointing computes a region again, "
    "which would get other masks than in the forward pass. Draw the masks before the region and "
    "pass them in; a MaskSampler in eager code may also be called inside checkpoint(..., "
    "use_reentrant=False, context_fn=sampler.checkpoint_contexts)"
)
COMPILED = (
    "a sampler's checkpoint_contexts are for eager code, and it was called in compiled code. Draw "
    "the masks before the region and pass them in"
)

#: Threads that share a sampler must not take the same ids.
_lock = threading.Lock()


def _renew_lock() -> None:
    """A process that was forked while a thread of its parent held the lock would wait for ever."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@torch.library.impl(library, "advance", "CompositeExplicitAutograd")
def advance(next_id: Tensor, n: int, before: int, by_all: int) -> Tensor:
    """The n ids from ``next_id + before`` on, int64 [n]. Adds ``by_all`` to ``next_id``.

    It is an op, so that compiled code makes the checks when it runs, not when it is compiled.

    Raises:
        RuntimeError: in a data loader worker and in a backward pass.
    """
    check_may_draw()
    with _lock:
        sample_ids = torch.arange(before, before + n, device=next_id.device).add_(next_id)
        next_id.add_(by_all)
    return sample_ids


def check_may_draw() -> None:
    """Raises RuntimeError in a data loader worker and in a backward pass."""
    if get_worker_info() is not None:
        raise RuntimeError(_IN_A_WORKER)
    # The id of the backward pass that runs in this thread, -1 if none does.
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(_IN_BACKWARD)


@dataclass(eq=False)
class Replay:
    """What calls of one stream do with ids while checkpointed regions run. Each stream has one;
    ``NoteIds`` and ``RepeatIds`` set it, calls look at it."""

    #: Each call appends its ids to all of these lists. Of nested regions every one has a list,
    #: because every one is computed again by itself.
    noted_in: tuple[list[Tensor], ...] = ()
    #: Calls take these ids, in place of the next of the stream; None while no region runs again.
    repeated: Iterator[Tensor] | None = None


class NoteIds(AbstractContextManager):
    """Appends the ids of the stream's calls to ``noted``, while a region runs in the forward
    pass."""

    def __init__(self, replay: Replay, noted: list[Tensor]) -> None:
        self.replay, self.noted = replay, noted

    def __enter__(self) -> None:
        self._before = self.replay.noted_in
        self.replay.noted_in = (*self._before, self.noted)

    def __exit__(self, *error: object) -> None:
        self.replay.noted_in = self._before


class RepeatIds(AbstractContextManager):
    """Lets the stream's calls take the ids in ``noted``, while a region runs again in the backward
    pass."""

    def __init__(self, replay: Replay, noted: list[Tensor]) -> None:
        self.replay, self.noted = replay, noted

    def __enter__(self) -> None:
        self._before = self.replay.repeated
        self.replay.repeated = self._noted_ids()

    def __exit__(self, *error: object) -> None:
        self.replay.repeated = self._before

    def _noted_ids(self) -> Iterator[Tensor]:
        yield from self.noted
        raise RuntimeError(
            f"a checkpointed region that was computed again called the sampler more than the "
            f"{len(self.noted)} times of the forward pass"
        )

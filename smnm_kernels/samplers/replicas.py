"""Samplers in ``nn.DataParallel``, which copies a model to every device in each step and runs the
copies in threads.

The copies of a sampler share out the next ids of its stream as one sampler would give them to the
whole batch: a copy draws after it knows how many samples all the others have. PyTorch gives the
first copy the buffers of the original itself, so what it adds to ``next_id`` stays.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from .stream import MaskStream

Sampler = TypeVar("Sampler", bound="MaskStream")
#: Seconds that a copy waits for the others to draw.
PATIENCE = 120.0


class Replicas:
    """The copies of one sampler that work on one batch."""

    def __init__(self) -> None:
        #: The thread that makes the copies. They run in others, unless there is only one.
        self.thread = threading.get_ident()
        self._copies: list[weakref.ref[MaskStream]] = []
        #: For each call of the sampler in this step, the samples of each copy that has come to it.
        self._samples: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._changed = threading.Condition()

    def add(self, copy: MaskStream) -> Replica:
        self._copies.append(weakref.ref(copy))
        # PyTorch sets it to the copy's own after the last copy is made.
        copy._buffers["next_id"] = None
        return Replica(self, len(self._copies) - 1)

    @property
    def complete(self) -> bool:
        last = self._copies[-1]()
        return last is None or last._buffers["next_id"] is not None

    def on(self, device: torch.device) -> MaskStream | None:
        """The copy on this device."""
        alive = (reference() for reference in self._copies)
        return next((copy for copy in alive if copy and copy.next_id.device == device), None)

    def share(self, place: int, call: int, n: int) -> tuple[int, int]:
        """(samples of the copies before this one, of all) in the given call of each."""
        with self._changed:
            samples = self._samples[call]
            samples[place] = n
            self._changed.notify_all()
            copies = len(self._copies)
            if not self._changed.wait_for(lambda: len(samples) == copies, PATIENCE):
                missing = sorted(set(range(copies)) - samples.keys())
                raise RuntimeError(
                    f"copies {missing} of {copies} that nn.DataParallel made of the model did not "
                    f"draw masks within {PATIENCE:g} seconds, and without their batch sizes the "
                    "others do not know their sample ids: all must call the sampler equally often"
                )
        return sum(samples[other] for other in range(place)), sum(samples.values())


class Replica:
    """What a copy of a sampler knows of the others."""

    def __init__(self, replicas: Replicas, place: int) -> None:
        self.replicas, self.place, self._calls = replicas, place, 0

    def share(self, n: int) -> tuple[int, int]:
        """(samples of the copies before this one, of all) in the next call."""
        call, self._calls = self._calls, self._calls + 1
        return self.replicas.share(self.place, call, n)


_latest: weakref.WeakKeyDictionary[MaskStream, Replicas] = weakref.WeakKeyDictionary()


def count_in(original: MaskStream, copy: MaskStream) -> Replica:
    """To be called for each copy, in the order of the devices, before its buffers are set."""
    replicas = _latest.get(original)
    if replicas is None or replicas.complete:
        replicas = _latest[original] = Replicas()
    return replicas.add(copy)


def copy_of_this_thread(original: Sampler, device: torch.device) -> Sampler:
    """In a thread of ``nn.DataParallel`` the copy on ``device``, elsewhere the original: for
    objects that hold the original and are called by copies of the model."""
    if torch.compiler.is_compiling():
        return original
    replicas = _latest.get(original)
    if replicas is None or replicas.thread == threading.get_ident():
        return original
    return replicas.on(device) or original  # type: ignore[return-value]

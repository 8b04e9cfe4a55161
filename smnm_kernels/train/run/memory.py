"""What a step needs of the device's memory, computed without doing it.

One part of a batch goes forward and backward through the model as tensors without values, and every
storage that comes to life is counted until it dies. Not in it are the batch before normalisation,
what kernels and libraries take for themselves and what an allocator loses between its blocks.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

# What a model raises here whose work depends on values, such as one that selects by a boolean mask.
NEEDS_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocator of torch's has raised it: only that of devices has a type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass(frozen=True)
class StepMemory:
    """Bytes."""

    weights: int  # and buffers
    gradients: int
    optimizer: int
    inputs: int  # the model's arguments
    # The most there is at any time, temporary tensors of the backward pass included.
    activations: int

    @property
    def total(self) -> int:
        """An upper bound: in a step of one part, gradients come while activations go."""
        return self.weights + self.gradients + self.optimizer + self.inputs + self.activations

    def __str__(self) -> str:
        parts = [
            f"{n_bytes / 1e9:.2f} GB of {name}"
            for name, n_bytes in (
                ("weights", self.weights),
                ("gradients", self.gradients),
                ("optimiser", self.optimizer),
                ("inputs", self.inputs),
                ("activations", self.activations),
            )
        ]
        return f"{self.total / 1e9:.2f} GB ({', '.join(parts)})"


def step_memory(
    model: nn.Module, arguments: tuple[Any, ...], precision: AbstractContextManager[None]
) -> StepMemory:
    """Of the gradients of model(*arguments), a loss or several, and of AdamW.

    Raises one of NEEDS_VALUES where it cannot be computed.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return StepMemory(
        weights=sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        gradients=sum(p.nbytes for p in trained),
        optimizer=sum(2 * p.nbytes for p in trained),  # AdamW's two moments
        inputs=sum(x.nbytes for x in tree_leaves(arguments) if isinstance(x, Tensor)),
        activations=_peak(model, arguments, precision),
    )


def _peak(
    model: nn.Module, arguments: tuple[Any, ...], precision: AbstractContextManager[None]
) -> int:
    with FakeTensorMode() as mode:
        # The copy's weights are these; it is not compiled, should the model be.
        without_values = {
            id(t): mode.from_tensor(t) for t in (*model.parameters(), *model.buffers())
        }
        held: list[Tensor] = list(without_values.values())
        model = copy.deepcopy(model, without_values)
        arguments = tree_map_only(Tensor, mode.from_tensor, arguments)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.empty_like(weight)
                held.append(weight.grad)
        with _LiveStorages((*held, *tree_leaves(arguments))) as live:
            with precision:
                out = tree_leaves(model(*arguments))
            losses = [x for x in out if isinstance(x, Tensor) and x.requires_grad]
            torch.autograd.backward([x.sum() for x in losses])
    return live.peak


class _LiveStorages(TorchDispatchMode):
    """Bytes of the storages that operations have made and that are still there, but for those of
    `given`."""

    def __init__(self, given: Iterable[Any]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {x.untyped_storage()._cdata for x in given if isinstance(x, Tensor)}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)
        self.now -= n_bytes

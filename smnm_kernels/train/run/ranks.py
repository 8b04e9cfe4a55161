"""What a run does differently under torchrun: WORLD_SIZE processes share each batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist

from smnm_kernels.errors import UsageError

T = TypeVar("T")


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def start(device: torch.device) -> None:
    if world_size() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Result(Generic[T]):
    value: T


@dataclass(frozen=True)
class _Refusal:
    reason: str


def on_main(work: Callable[[], T]) -> T:
    """work()'s result, done by the first process and handed to all, a UsageError likewise."""
    if world_size() == 1:
        return work()
    outcome: _Result[T] | _Refusal | None = None
    if rank() == 0:
        try:
            outcome = _Result(work())
        except UsageError as error:
            outcome = _Refusal(str(error))
    parcel = [outcome]
    dist.broadcast_object_list(parcel)
    (outcome,) = parcel
    if isinstance(outcome, _Refusal):
        raise UsageError(outcome.reason)
    assert outcome is not None
    return outcome.value


def average(values: torch.Tensor) -> torch.Tensor:
    """Mean over the processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
        values /= world_size()
    return values


def everyones(value: T) -> list[T]:
    """The value of each process, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def is_loss_of_another(error: BaseException) -> bool:
    """Whether this is what a collective raises when another process has gone."""
    return world_size() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())

"""What the processes of a run exchange within a step."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def among_others() -> bool:
    """Whether there are other processes to exchange something with.

    Not without gradients: then one process may be looking into a step by itself.
    """
    there = dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()
    return there and dist.get_world_size() > 1


def everyones(x: Tensor) -> Tensor:
    """x [B, ...] of each process, with gradients -> [world * B, ...], by rank; B is the same in
    all. Where there is nobody to exchange with (`among_others`), x itself.

    The gradient of a process's x is the sum of those that all processes have for it. Where
    gradients of weights are then averaged over the processes, as DDP does, they are those of one
    process with the whole batch, also of a loss that every process computes in full.

    Call it outside of a compiled model.
    """
    return _Everyones.apply(x) if among_others() else x


def gathered(x: Tensor, over_ranks: bool) -> Tensor:
    """x [...] of each process -> [processes, ...], by rank; without gradients. Without `over_ranks`
    x alone."""
    return _gathered(x) if over_ranks else x.unsqueeze(0)


class _Everyones(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = len(x)
        return torch.cat(_of_each(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad[dist.get_rank() * ctx.size :][: ctx.size]


# An op of its own, because torch.compile and tensors without values cannot look into a collective.
@torch.library.custom_op("smnm_train::gathered", mutates_args=())
def _gathered(x: Tensor) -> Tensor:
    return torch.stack(_of_each(x))


@_gathered.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(dist.get_world_size(), *x.shape)


def _of_each(x: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return parts

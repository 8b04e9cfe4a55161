"""Balanced assignments of tokens to prototypes, over the tokens of all processes."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def sinkhorn(
    scores: Tensor, epsilon: float, iterations: int = 10, over_ranks: bool = False
) -> Tensor:
    """scores [M, K] of M tokens for K prototypes -> Q [M, K], float32 (float64 of float64).

    Q begins as exp(scores / epsilon). Each iteration scales it so that all prototypes have the same
    sum, and then so that every token has (Sinkhorn and Knopp 1967; Cuturi 2013; SwAV, Caron et al.
    2020; SIGMA's code). In the end each token's values sum to 1 and, up to what the iterations have
    left, each prototype's to M / K.

    It works with logarithms, so that no epsilon overflows or loses a token or a prototype (our
    choice: the codes take exponentials). No gradient goes through it, and autocast does not touch
    it.

    over_ranks: the prototypes' sums are over the tokens of all processes, of which each has as many
        and gets its own back.

    Raises:
        ValueError: where scores are not [M, K], or epsilon or iterations are not above 0.
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be [M, K], got {tuple(scores.shape)}")
    if not (0 < epsilon < math.inf):
        raise ValueError(f"epsilon must be a finite number above 0, got {epsilon!r}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations!r}")
    log_q = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    of_tokens = log_q.new_zeros(len(log_q), 1)
    of_prototypes = log_q.new_zeros(log_q.shape[1])
    for _ in range(iterations):
        sums = gathered(torch.logsumexp(log_q + of_tokens, 0), over_ranks)
        of_prototypes = -torch.logsumexp(sums, 0)
        of_tokens = -torch.logsumexp(log_q + of_prototypes, 1, keepdim=True)
    return torch.softmax(log_q + of_prototypes, 1)


@torch.no_grad()
def entropy_share(chosen: Tensor, prototypes: int, over_ranks: bool = False) -> Tensor:
    """Of the prototypes that tokens have: chosen, int64 [M] in [0, K) -> a float32 scalar.

    The entropy of the K shares of tokens that the prototypes have, as a share of the largest that
    so many tokens and prototypes allow: 1 where all have the same, 0 where one has all.
    """
    counts = torch.zeros(prototypes, device=chosen.device)
    counts = counts.scatter_add(0, chosen, torch.ones_like(chosen, dtype=torch.float32))
    counts = gathered(counts, over_ranks)
    tokens = len(chosen) * len(counts)
    shares = counts.sum(0) / tokens
    return torch.special.entr(shares).sum() / math.log(max(2, min(tokens, prototypes)))


def among_others() -> bool:
    """Whether there are other processes to exchange something with.

    Not without gradients: then one process may be looking into a step by itself.
    """
    there = dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()
    return there and dist.get_world_size() > 1


def gathered(x: Tensor, over_ranks: bool) -> Tensor:
    """x [...] of each process -> [processes, ...], by rank; without gradients."""
    return _gathered(x) if over_ranks else x.unsqueeze(0)


# An op of its own, because torch.compile and tensors without values cannot look into a collective.
@torch.library.custom_op("smnm_train::gathered", mutates_args=())
def _gathered(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


@_gathered.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(dist.get_world_size(), *x.shape)

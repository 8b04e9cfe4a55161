"""Balanced assignments of tokens to prototypes, over the tokens of all processes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .exchange import gathered

# Cosines lie within 2 of each other. Where each prototype's largest value is 1, factors stay within
# exp(+-2 / epsilon), those of prototypes within M / K times that, and sums within M times that. So
# up to here float32, which ends at exp(88), holds them for 60 million tokens.
_LARGEST_EXPONENT = 70.0


@torch.no_grad()
def sinkhorn(
    scores: Tensor, epsilon: float, iterations: int = 10, over_ranks: bool = False
) -> Tensor:
    """scores [M, K], cosines of M tokens and K prototypes -> Q [M, K], float32 (float64 of
    float64).

    Q begins as exp(scores / epsilon). Each iteration scales it so that all prototypes have the same
    sum, and then so that every token has (Sinkhorn and Knopp 1967; Cuturi 2013; SwAV, Caron et al.
    2020; SIGMA's code). In the end each token's values sum to 1 and, up to what the iterations have
    left, each prototype's to M / K.

    Iterations find a factor for each token and each prototype, and Q itself is scaled once. Where
    epsilon is so small that exponentials could overflow or lose a token or a prototype, factors are
    logarithms, which takes about ten times as long (our choice: the codes scale Q each time, and
    take exponentials for any epsilon). No gradient goes through it, and autocast does not touch it.

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
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    scaled = _by_factors if 2 / epsilon <= _LARGEST_EXPONENT else _by_logarithms
    with torch.autocast(scores.device.type, enabled=False):
        return scaled(scores, epsilon, iterations, over_ranks)


def _by_factors(scores: Tensor, epsilon: float, iterations: int, over_ranks: bool) -> Tensor:
    largest = gathered(scores.amax(0), over_ranks).amax(0)
    q = scores.sub(largest).div_(epsilon).exp_()
    of_tokens = q.new_ones(len(q))
    for _ in range(iterations):
        sums = gathered(of_tokens @ q, over_ranks)
        tokens = len(q) * len(sums)  # both scalings must leave one total, or factors would drift
        of_prototypes = tokens / q.shape[1] / sums.sum(0)
        of_tokens = 1 / (q @ of_prototypes)
    return q.mul_(of_prototypes).mul_(of_tokens.unsqueeze(1))


def _by_logarithms(scores: Tensor, epsilon: float, iterations: int, over_ranks: bool) -> Tensor:
    log_q = scores / epsilon
    of_tokens = log_q.new_zeros(len(log_q), 1)
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

"""Balanced assignments, slowly."""

import math

import torch


def defined(scores, epsilon, iterations):
    """As SIGMA's code has it, value by value, in float64: prototypes are rows there."""
    tokens, prototypes = scores.shape
    q = [[math.exp(scores[m, k] / epsilon) for m in range(tokens)] for k in range(prototypes)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        q = [[value / sum(row) / prototypes for value in row] for row in q]
        sums = [sum(row[m] for row in q) for m in range(tokens)]
        q = [[value / sums[m] / tokens for m, value in enumerate(row)] for row in q]
    return torch.tensor(q, dtype=torch.float64).T * tokens

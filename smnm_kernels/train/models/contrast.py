"""Contrast between two views of the same samples: InfoNCE, over the samples of all processes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from smnm_kernels.train.data.on_device import moved

from .exchange import everyones

Directions = Literal["a_to_b", "both"]

_LEAST_NORM = 1e-6


def related_of_all(files: Tensor | None, device: torch.device) -> Tensor | None:
    """`sharing` of the samples of all processes, as `everyones` has them, on this device. None
    where every sample is of files of its own."""
    return None if files is None else sharing(everyones(moved(files, device)))


def sharing(files: Tensor) -> Tensor:
    """bool [B, B]: whether two samples have a file in common. files: int64 [B, k], those that each
    is made of."""
    return (files[:, None, :, None] == files[None, :, None, :]).flatten(2).any(2)


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor,
    directions: Directions = "both",
    related: Tensor | None = None,
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018) of a, b [B, D], whose rows i belong together: a scalar.

    "a_to_b": the mean cross-entropy of finding row i of b among all rows of b, given row i of a,
    with logits cosine / temperature. "both": the mean of this and of the same from b to a. CAV-MAE
    (Gong et al. 2023) takes its code's one direction, from video to audio, at 0.05.

    related: bool [B, B], symmetric, which rows are no negatives of each other, such as those of one
        file (our choice: the codes take any other row). A row that has no negative has the loss 0.

    Computed in float32 (float64 of float64), also under autocast. A row shorter than 1e-6 has no
    direction: it counts as zeros and gets no gradient (our choice).

    Raises:
        ValueError: where shapes differ, temperature is not positive, or the direction is unknown.
    """
    if directions not in get_args(Directions):
        raise ValueError(f"directions must be a_to_b or both, got {directions!r}")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}")
    with torch.autocast(a.device.type, enabled=False):
        logits = _compared(cosines(a, b) / temperature, related)
        own = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, own)
        return loss if directions == "a_to_b" else (loss + F.cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def accuracy(a: Tensor, b: Tensor, related: Tensor | None = None) -> Tensor:
    """Share of the rows of a [B, D] whose own row of b is nearer than any other, by cosine; float32
    scalar. Rows of b that are equally near share the hit, so that chance is 1 / B. Those that are
    `related`, as in `info_nce`, are no others; a row that has no other does not count, and 0 is the
    share of none."""
    with torch.autocast(a.device.type, enabled=False):
        near = _compared(cosines(a, b), related)
        nearest = near == near.amax(1, keepdim=True)
        hits = nearest.diagonal() / nearest.sum(1)
        counts = torch.ones_like(hits) if related is None else (~related.all(1)).to(hits.dtype)
        return (hits * counts).sum() / counts.sum().clamp(min=1)


def _compared(logits: Tensor, related: Tensor | None) -> Tensor:
    """Without those of rows that are related to another."""
    if related is None:
        return logits
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return logits.masked_fill(related & ~own, -torch.inf)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """[n, D], [m, D] -> [n, m], float32 at least."""
    if a.ndim != 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"a and b must be [B, D] of one D, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return normalised(a) @ normalised(b).T


def normalised(x: Tensor) -> Tensor:
    """Rows of length 1, or 0 where they are shorter than 1e-6; float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    tiny = norm < _LEAST_NORM
    return (x / norm.masked_fill(tiny, 1.0)).masked_fill(tiny, 0.0)

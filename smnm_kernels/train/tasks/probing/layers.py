"""From a batch of inputs to the features of its samples: which layer, which tokens, how pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.vit import Encoder, select_tokens

#: mean: over the patch tokens. class: the class token. time: over all but the last axis, mel
#: bands, which stay side by side, as MSM-MAE evaluates.
Pool = Literal["mean", "class", "time"]
LAST = "last"


def layer_numbers(given: Sequence[str], depth: int, encoder: str) -> list[int]:
    """Of --layer, for an encoder of so many blocks; UsageError where it has no such layer."""
    numbers = []
    for name in given:
        if name != LAST and not (name.isdecimal() and int(name) <= depth):
            raise UsageError(
                f"--layer {name}: must be {LAST} or a number from 0 to {depth}, the blocks of "
                f"{encoder}"
            )
        numbers.append(depth if name == LAST else int(name))
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--layer {' '.join(given)}: names a layer twice")
    return numbers


def tokens_of_layers(
    encoder: Encoder, x: Tensor, ids: Tensor | None, layers: Sequence[int]
) -> dict[int, Tensor]:
    """What comes out of some layers, [B, class tokens + n, dim] each.

    x: [B, C, T, H, W], normalised. ids: int64 [B, n], the tokens that go in, or None for all.
    layers: 0 is the embedding with its positions, L what block L gives; the last one comes after
        the encoder's final norm, the others before any.
    """
    patches = encoder.patchify(x)
    if ids is not None:
        patches = select_tokens(patches, ids)
    tokens = encoder.embed(patches, ids)
    found = {}
    for number in range(max(layers) + 1):
        if number:
            tokens = encoder.blocks[number - 1](tokens)
        if number in layers:
            found[number] = encoder.norm(tokens) if number == len(encoder.blocks) else tokens
    return found


def groups_of_equal_length(valid: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """Samples that have as many real tokens, [(places int64 [b], their ids int64 [b, n])]; ids are
    None where all are real.

    valid: bool [B, N].
    """
    counts = valid.sum(1)
    found: list[tuple[Tensor, Tensor | None]] = []
    for count in counts.unique().tolist():
        places = (counts == count).nonzero().flatten()
        if count == valid.shape[1]:
            found.append((places, None))
        else:
            found.append((places, valid[places].nonzero()[:, 1].view(len(places), count)))
    return found


def pooled(tokens: Tensor, pool: Pool, class_tokens: int, bands: int) -> Tensor:
    """[B, class tokens + n, dim] -> float32 [B, dim], or [B, bands * dim] for "time"."""
    tokens = tokens.float()
    if pool == "class":
        return tokens[:, 0]
    patches = tokens[:, class_tokens:]
    if pool == "time":
        return patches.unflatten(1, (-1, bands)).mean(1).flatten(1)
    return patches.mean(1)


@torch.no_grad()
def features_of(
    encoder: Encoder,
    x: Tensor,
    valid: Tensor | None,
    layers: Sequence[int],
    pool: Pool,
    keep_tokens: bool,
) -> list[dict[str, Tensor]]:
    """Of each sample: {"pooled.LAYER": float32 [dim], "tokens.LAYER": float16 [n, dim]}, on the
    CPU. Tokens that are not valid (bool [B, N], None: all are) go into nothing."""
    n_patches = encoder.grid[0] * encoder.grid[1] * encoder.grid[2]
    everything = torch.ones(len(x), n_patches, dtype=torch.bool)
    samples: list[dict[str, Tensor]] = [{} for _ in range(len(x))]
    for places, ids in groups_of_equal_length(everything if valid is None else valid):
        given = x if len(places) == len(x) else x[places.to(x.device)]
        found = tokens_of_layers(encoder, given, None if ids is None else ids.to(x.device), layers)
        for layer, tokens in found.items():
            vectors = pooled(tokens, pool, encoder.class_tokens, encoder.grid[2]).cpu()
            kept = tokens[:, encoder.class_tokens :].half().cpu() if keep_tokens else None
            for row, place in enumerate(places.tolist()):
                samples[place][f"pooled.{layer}"] = vectors[row]
                if kept is not None:
                    samples[place][f"tokens.{layer}"] = kept[row]
    return samples

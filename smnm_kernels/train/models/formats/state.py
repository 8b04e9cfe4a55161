"""What all formats share: renaming, the shapes in which they differ, and key biases."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
Renames = tuple[tuple[str, str], ...]  # (ours, theirs): names, or prefixes that end in a dot


def encoder_state(encoder: nn.Module) -> State:
    """An encoder's own state dict, named as the part of a model."""
    return {f"encoder.{name}": t for name, t in encoder.state_dict().items()}


def encoder_part(state: Mapping[str, Tensor]) -> State:
    """Of our state dict what an encoder alone holds, under its own names."""
    prefix = "encoder."
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def load_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Our state dict into a model, or its `encoder_part` into an encoder.

    Position codes may be missing where a rule makes them: the model has its own.

    Raises:
        ValueError: naming what is missing, what is too much, or whose shape differs.
    """
    check_weights(model, state)
    model.load_state_dict(state, strict=False)


def check_weights(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The ValueError of `load_weights`, without loading; the model may be on the device "meta"."""
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    given = {
        f"{name}.pos_embed".removeprefix(".")
        for name, part in model.named_modules()
        if getattr(getattr(part, "settings", None), "positions", None) == "given"
    }
    by_rule = {name for name in shapes if name.endswith("pos_embed")} - given
    missing = [name for name in shapes if name not in state and name not in by_rule]
    unknown = [name for name in state if name not in shapes]
    if missing or unknown:
        raise ValueError(
            f"state must hold this model's tensors, got none for {named(missing)} "
            f"and unknown {named(unknown)}"
        )
    for name, t in state.items():
        if t.shape != shapes[name]:
            raise ValueError(
                f"{name} must have the shape {tuple(shapes[name])} in this model, "
                f"got {tuple(t.shape)}"
            )


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Of names, shapes and values: 16 bytes in hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, t in sorted(state.items()):
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def with_key_bias(state: Mapping[str, Tensor], key_bias: bool) -> State:
    """Our state dict for a model with or without a bias of the keys: the same function.

    A bias of the keys adds the same to all logits of a query, which softmax takes out again. So
    zeros may be put in its place, and it may be left out.
    """
    changed: State = {}
    for name, t in state.items():
        stem, _, last = name.rpartition(".attn.")
        if key_bias and last == "q_bias":
            zeros = torch.zeros_like(t)
            bias = torch.cat([t, zeros, state[f"{stem}.attn.v_bias"]])
            changed[f"{stem}.attn.qkv.bias"] = bias
        elif key_bias and last == "v_bias":
            continue
        elif not key_bias and last == "qkv.bias":
            q, _, v = t.chunk(3)
            changed[f"{stem}.attn.q_bias"], changed[f"{stem}.attn.v_bias"] = q.clone(), v.clone()
        else:
            changed[name] = t
    return changed


def rename(state: Mapping[str, Tensor], renames: Renames, to_ours: bool) -> State:
    """Each name by the first rename that fits it.

    Raises:
        ValueError: naming the tensors for which there is none.
    """
    pairs = [(theirs, ours) if to_ours else (ours, theirs) for ours, theirs in renames]
    changed, unknown = {}, []
    for name, t in state.items():
        for before, after in pairs:
            if name == before or (before.endswith(".") and name.startswith(before)):
                changed[after + name[len(before) :]] = t
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(f"state must be of a known format, got unknown {named(unknown)}")
    return changed


def substitute(state: Mapping[str, Tensor], patterns: Iterable[tuple[str, str]]) -> State:
    """Each name after all regular expressions in turn."""
    changed = {}
    for name, t in state.items():
        for pattern, replacement in patterns:
            name = re.sub(pattern, replacement, name)
        changed[name] = t
    return changed


def their_shapes(state: Mapping[str, Tensor], patch: tuple[int, ...]) -> State:
    """Under our names: kernels of a convolution, channels fastest in predictions, batches of 1.

    patch: 2 lengths of a two-dimensional convolution's kernel, or 3.
    """
    values = state["encoder.patch_embed.weight"].shape[1]
    channels = values // math.prod(patch)
    reshaped = {
        "encoder.patch_embed.weight": lambda t: t.unflatten(1, (channels, *patch)),
        "decoder.pred.weight": lambda t: _swap(t, channels),
        "decoder.pred.bias": lambda t: _swap(t, channels),
        "encoder.cls_token": lambda t: t.view(1, 1, -1),
        "decoder.mask_token": lambda t: t.view(1, 1, -1),
        "encoder.pos_embed": lambda t: t.unsqueeze(0),
        "decoder.pos_embed": lambda t: t.unsqueeze(0),
    }
    return _each(state, reshaped)


def our_shapes(state: Mapping[str, Tensor]) -> State:
    """Inverse of `their_shapes`."""
    kernel = state["encoder.patch_embed.weight"]
    values = math.prod(kernel.shape[2:])
    reshaped = {
        "encoder.patch_embed.weight": lambda t: t.flatten(1),
        "decoder.pred.weight": lambda t: _swap(t, values),
        "decoder.pred.bias": lambda t: _swap(t, values),
        "encoder.cls_token": lambda t: t.flatten(),
        "decoder.mask_token": lambda t: t.flatten(),
        "encoder.pos_embed": lambda t: t.squeeze(0),
        "decoder.pos_embed": lambda t: t.squeeze(0),
    }
    return _each(state, reshaped)


def _each(state: Mapping[str, Tensor], change: dict[str, Callable[[Tensor], Tensor]]) -> State:
    return {
        name: change[name](t).contiguous() if name in change else t for name, t in state.items()
    }


def _swap(t: Tensor, outer: int) -> Tensor:
    """Rows counted as (outer, inner) -> rows counted as (inner, outer)."""
    return t.unflatten(0, (outer, -1)).transpose(0, 1).flatten(0, 1)


def named(names: Sequence[str]) -> str:
    """Some of the names, for a message."""
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown or "nothing"

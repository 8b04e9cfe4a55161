"""The names in which MAE, AudioMAE and VideoMAE publish their weights.

`from_mae` reads AudioMAE's files, too, with either of its decoders, and encoders in timm's names
(MAE's without a decoder).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .state import Renames, State, our_shapes, rename, their_shapes, with_key_bias

_MAE: Renames = (
    ("encoder.patch_embed.", "patch_embed.proj."),
    ("encoder.cls_token", "cls_token"),
    ("encoder.pos_embed", "pos_embed"),
    ("encoder.blocks.", "blocks."),
    ("encoder.norm.", "norm."),
    ("decoder.embed.", "decoder_embed."),
    ("decoder.mask_token", "mask_token"),
    ("decoder.pos_embed", "decoder_pos_embed"),
    ("decoder.blocks.", "decoder_blocks."),
    ("decoder.norm.", "decoder_norm."),
    ("decoder.pred.", "decoder_pred."),
)
_VIDEOMAE: Renames = (
    ("encoder.patch_embed.", "encoder.patch_embed.proj."),
    ("encoder.blocks.", "encoder.blocks."),
    ("encoder.norm.", "encoder.norm."),
    ("encoder.pos_embed", "encoder.pos_embed"),  # where they were learned
    ("decoder.embed.", "encoder_to_decoder."),
    ("decoder.mask_token", "mask_token"),
    ("decoder.blocks.", "decoder.blocks."),
    ("decoder.norm.", "decoder.norm."),
    ("decoder.pred.", "decoder.head."),
)


def to_mae(state: Mapping[str, Tensor], patch: tuple[int, int, int]) -> State:
    """Ours -> MAE's, AudioMAE's, or, from an encoder alone, timm's. patch: (1, ph, pw)."""
    if patch[0] != 1:
        raise ValueError(f"patch must be (1, ph, pw) for MAE, got {patch}")
    state = with_key_bias(state, True)
    return rename(their_shapes(state, patch[1:]), _MAE, to_ours=False)


def from_mae(state: Mapping[str, Tensor]) -> State:
    """MAE's, AudioMAE's or timm's -> ours, with a bias of the keys."""
    return our_shapes(rename(state, _MAE, to_ours=True))


def to_videomae(state: Mapping[str, Tensor], patch: tuple[int, int, int]) -> State:
    """Ours -> VideoMAE's, which holds no positions and no bias of the keys."""
    state = {n: t for n, t in state.items() if not n.endswith(".pos_embed")}
    return rename(their_shapes(with_key_bias(state, False), patch), _VIDEOMAE, to_ours=False)


def from_videomae(state: Mapping[str, Tensor]) -> State:
    """VideoMAE's, as pretraining saves it, -> ours, without positions."""
    return our_shapes(rename(state, _VIDEOMAE, to_ours=True))

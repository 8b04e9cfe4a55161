"""Weights of other people under our names: which codebase names them so, and of what size they are.

Names say the codebase, shapes say the size. What neither says comes from a configuration beside the
weights (`Told`), or is what the codebase's public models have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from smnm_kernels.train.data.statistics import (
    AUDIOSET_MEAN,
    AUDIOSET_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
)

from ..mae import MaskedAutoencoder
from ..positions import Grid, Positions, position_codes
from ..settings import MAE, VIDEOMAE, EncoderSettings, ModelSettings
from ..vit import Encoder, InputSize
from .hugging_face import from_hf_videomae, from_hf_vitmae
from .original import from_mae, from_videomae
from .state import State, check_weights, encoder_part, named
from .weights import Told, Weights

# All but ViT-H (1280, MAE's and VideoMAE's) and VideoMAE's ViT-g (1408) have heads of 64 values.
_HEADS = {1280: 16, 1408: 16}
_BANDS = 128  # AudioMAE
_VIDEOMAE_SIZE = (3, 16, 224, 224)
# Of sincos codes in files, which were computed in float64.
_SAME_CODE = 1e-5


# Tensors that stand beside an encoder: heads, and norms of what the head gets.
_HF_BESIDE = re.compile(
    r"(classifier|fc_norm|pooler|(vit|videomae)\.pooler)\.|vit\.embeddings\.mask"
)
_TIMM_BESIDE = re.compile(r"(head|fc_norm|pre_logits|attn_pool)\.")
_MAE_DECODER = re.compile(r"decoder_|mask_token$")
_OTHER_DECODER = re.compile(r"decoder_(?!(embed|blocks|norm|pred)\.|pos_embed$)")
# In any format, behind the encoder's blocks, and of a decoder.
_FINAL_NORM = re.compile(r"((vit|videomae|encoder)\.)?(layer)?norm\.")
_ANY_DECODER = re.compile(r"decoder[._]|encoder_to_decoder\.|mask_token$")
_VIDEOMAE_OWN = re.compile(r"(encoder|encoder_to_decoder|decoder)\.|mask_token$")
_RUN_OF_OURS = "encoder.patch_embed.weight"


def recognise(
    state: Mapping[str, Tensor],
    told: Told | None = None,
    like: InputSize | None = None,
    wanted: str | None = None,
) -> Weights:
    """state: of VideoMAE, MAE, AudioMAE, timm's ViT, or transformers' VideoMAE, ViTMAE or ViT.
    like: the input that is wanted, for sizes that weights do not tell (VideoMAE's).
    wanted: the modality; None: any.

    Raises:
        ValueError: which says what is missing, of no known name, or contradicts `told`.
    """
    told = told or Told()
    if _RUN_OF_OURS in state:
        raise ValueError("is a checkpoint of a run of smnm; give the run's folder")
    given = state
    state, unmapped, kernel = _ours(given)
    mapped = [name for name in given if name not in unmapped]
    if kernel.ndim not in (4, 5):
        raise ValueError(f"its patches must be convolved in 2 or 3 axes, got {tuple(kernel.shape)}")
    is_video, channels = kernel.ndim == 5, kernel.shape[1]
    pt, ph, pw = kernel.shape[2:] if is_video else (1, *kernel.shape[2:])
    patch = (pt, ph, pw)
    modality = "video" if is_video else "audio" if channels == 1 else "image"

    check_modality(modality, wanted)

    state = _with_biases(state, key_bias=not is_video)
    dim, depth = kernel.shape[0], _depth(state, "encoder")
    last = f"encoder.blocks.{depth - 1}"
    hidden = _rows(state, f"{last}.mlp.fc1.weight")
    found = {"dim": dim, "depth": depth, "hidden": hidden, "channels": channels}
    found |= dict(zip(("patch_t", "patch_h", "patch_w"), patch, strict=True))
    for name, (theirs, value) in told.sizes.items():
        if found[name] != value:
            raise ValueError(f"its configuration has {theirs} {value}, its weights {found[name]}")

    final_norm, unused = "encoder.norm.weight" in state, tuple[str, ...]()
    if told.final_norm is False and final_norm:
        state = {name: t for name, t in state.items() if not name.startswith("encoder.norm.")}
        unused = tuple(filter(_FINAL_NORM.match, mapped))
        final_norm = False
    elif told.final_norm and not final_norm:
        raise ValueError("its configuration has a norm after the last block, its weights none")
    encoder = EncoderSettings(
        patch=patch,
        dim=dim,
        depth=depth,
        heads=told.heads or _heads(dim),
        positions="flat",
        class_token="encoder.cls_token" in state,
        key_bias=f"{last}.attn.qkv.bias" in state,
        final_norm=final_norm,
        mlp_ratio=hidden / dim,
        norm_eps=told.norm_eps,
        xavier_embed=not is_video,
    )
    state, encoder, input_size, remarks = _placed(state, encoder, channels, told, like)
    if encoder.dim // encoder.heads != 64 and (dim, told.heads) == (384, 16):
        remarks += (
            "its configuration has 16 heads, as transformers' conversion of VideoMAE's ViT-S says; "
            "the original was trained with 6",
        )
    with torch.device("meta"):
        check_weights(Encoder(encoder, input_size), encoder_part(state))
    model = _with_decoder(state, encoder, input_size, told, is_video)
    if model is None:
        unused += tuple(filter(_ANY_DECODER.match, mapped))
        state = {name: t for name, t in state.items() if name.startswith("encoder.")}
    statistics = {
        3: (IMAGENET_MEAN, IMAGENET_STD),
        1: ((AUDIOSET_MEAN,), (2 * AUDIOSET_STD,)),
    }
    mean, scale = statistics.get(channels, ((0.0,) * channels, (1.0,) * channels))
    mean, scale = told.mean or mean, told.scale or scale
    return Weights(
        state,
        encoder,
        input_size,
        modality,
        mean,
        scale,
        model,
        (*unmapped, *unused),
        remarks,
    )


def check_modality(found: str, wanted: str | None) -> None:
    if wanted not in (None, found):
        raise ValueError(f"is of {found}, and {wanted} was asked for")


def _ours(state: Mapping[str, Tensor]) -> tuple[State, list[str], Tensor]:
    """(under our names and in our shapes, names that were left out, the patches' kernel)"""
    for name, kernel in state.items():
        if name.endswith("embeddings.patch_embeddings.projection.weight"):
            kept, beside = _apart(state, _HF_BESIDE)
            return (from_hf_videomae if kernel.ndim == 5 else from_hf_vitmae)(kept), beside, kernel
    if "encoder.patch_embed.proj.weight" in state:  # as VideoMAE's pretraining saves it
        kernel = state["encoder.patch_embed.proj.weight"]
        beside = [name for name in state if not _VIDEOMAE_OWN.match(name)]
        return from_videomae({n: t for n, t in state.items() if n not in beside}), beside, kernel
    if "patch_embed.proj.weight" not in state:
        raise ValueError(
            "its names must be those of VideoMAE, MAE, AudioMAE, timm's ViT, or transformers' "
            f"VideoMAE, ViTMAE or ViT, got {named(list(state))}"
        )
    kernel = state["patch_embed.proj.weight"]
    kept, beside = _apart(state, _TIMM_BESIDE)
    if any(_OTHER_DECODER.match(name) for name in kept):
        kept, decoder = _apart(kept, _MAE_DECODER)
        beside += decoder
    if kernel.ndim == 5:  # as VideoMAE's fine-tuning saves it
        return from_videomae({f"encoder.{name}": t for name, t in kept.items()}), beside, kernel
    return from_mae(kept), beside, kernel


def _apart(state: Mapping[str, Tensor], beside: re.Pattern[str]) -> tuple[State, list[str]]:
    left_out = [name for name in state if beside.match(name)]
    return {name: t for name, t in state.items() if name not in left_out}, left_out


def _rows(state: State, name: str) -> int:
    if name not in state:
        raise ValueError(f"its weights lack {name}")
    return len(state[name])


def _depth(state: State, part: str) -> int:
    """As the highest number has it: where a block is missing, its tensors will be named."""
    numbers = [re.match(rf"{part}\.blocks\.(\d+)\.", name) for name in state]
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def _heads(dim: int) -> int:
    if dim not in _HEADS and dim % 64:
        raise ValueError(
            f"nothing says how many heads its width of {dim} has, and it is no multiple of 64"
        )
    return _HEADS.get(dim, dim // 64)


def _with_biases(state: State, key_bias: bool) -> State:
    """Zeros where no block of the encoder, or of the decoder, has biases of queries, keys, values.
    Where only some lack them, the file is damaged, and nothing is added."""
    having = {
        name.partition(".")[0]
        for name in state
        if name.endswith((".attn.qkv.bias", ".attn.q_bias", ".attn.v_bias"))
    }
    added: State = {}
    for name, weight in state.items():
        stem, attn, _ = name.rpartition(".attn.qkv.weight")
        if not attn or stem.partition(".")[0] in having:
            continue
        if key_bias:
            added[f"{stem}.attn.qkv.bias"] = weight.new_zeros(len(weight))
        else:
            for part in ("q_bias", "v_bias"):
                added[f"{stem}.attn.{part}"] = weight.new_zeros(len(weight) // 3)
    return {**state, **added}


def _placed(
    state: State, encoder: EncoderSettings, channels: int, told: Told, like: InputSize | None
) -> tuple[State, EncoderSettings, InputSize, tuple[str, ...]]:
    """With the input's size, the positions' rule, and a position for the class token."""
    table = state.get("encoder.pos_embed")
    if table is None and encoder.patch[0] == 1:
        raise ValueError("its weights lack positions (pos_embed)")
    if table is not None and table.ndim != 2:
        raise ValueError(f"its positions must be [1, tokens, width], got {tuple(table.shape)}")
    remarks: tuple[str, ...] = ()
    size = told.input_size
    if size is None and table is None:
        size = like if like and like[0] == channels and _fits(encoder, like) else None
        if size is None:
            size = (channels, *_VIDEOMAE_SIZE[1:])
            remarks = (f"nothing says the size of its input: {_text(size)} is taken, VideoMAE's",)
        elif size != (channels, *_VIDEOMAE_SIZE[1:]):
            remarks = (
                f"nothing says the size of its input: {_text(size)} is taken, as was asked for or "
                "the preset has it",
            )
    elif size is None and table is not None:
        size = _size_of(len(table), encoder, channels, like)
    assert size is not None
    grid = encoder.grid(size)
    patches, first = math.prod(grid), int(encoder.class_token)
    if table is None:
        return state, encoder, size, remarks
    if len(table) == patches and first:  # positions are added to the patches alone
        table = torch.cat([table.new_zeros(1, table.shape[1]), table])
    if len(table) != patches + first:
        raise ValueError(
            f"its positions are of {len(table) - first} patches, and an input of {_text(size)} has "
            f"{patches}"
        )
    positions = _rule_of(table, grid, encoder.dim, encoder.class_token)
    placed = {**state, "encoder.pos_embed": table}
    return placed, replace(encoder, positions=positions), size, remarks


def _fits(encoder: EncoderSettings, size: InputSize) -> bool:
    try:
        encoder.grid(size)
    except ValueError:
        return False
    return True


def _size_of(
    rows: int, encoder: EncoderSettings, channels: int, like: InputSize | None
) -> InputSize:
    """From the number of positions: of squares, or of spectrograms with as many bands as wanted."""
    pt, ph, pw = encoder.patch
    first = int(encoder.class_token)
    for patches in (rows - first, rows) if first else (rows,):
        fits = like is not None and like[0] == channels and _fits(encoder, like)
        if like is not None and fits and math.prod(encoder.grid(like)) == patches:
            return like
        if pt == 1 and channels == 1:
            columns = (like[3] if like and like[0] == 1 else _BANDS) // pw
            if columns and patches % columns == 0:
                return (1, 1, patches // columns * ph, columns * pw)
        side = math.isqrt(patches)
        if pt == 1 and channels > 1 and side**2 == patches:
            return (channels, 1, side * ph, side * pw)
    raise ValueError(
        f"nothing says the size of its input, and {rows - first} positions are of no square"
        if channels > 1
        else f"{rows - first} positions are no whole number of columns of a spectrogram"
    )


def _rule_of(table: Tensor, grid: Grid, dim: int, class_token: bool) -> Positions:
    """The rule that made these positions, or "given"."""
    rules: tuple[Positions, ...] = (
        "rows_columns",
        "rows_columns_transposed",
        "columns_rows",
        "flat_columns",
    )
    for rule in rules if grid[0] == 1 else ("flat",):
        if dim % 4 == 0:
            made = position_codes(rule, grid, dim, class_token)
            if table.shape == made.shape and torch.allclose(table, made, rtol=0, atol=_SAME_CODE):
                return rule
    return "given"


def _with_decoder(
    state: State, encoder: EncoderSettings, input_size: InputSize, told: Told, is_video: bool
) -> ModelSettings | None:
    """The whole model's settings where its decoder is there and one that we know, or None."""
    if "decoder.embed.weight" not in state or "decoder.blocks.0.mlp.fc1.weight" not in state:
        return None
    family = VIDEOMAE if is_video else MAE
    dim = len(state["decoder.embed.weight"])
    windows = "decoder.blocks.0.attn.tau" in state
    # Heads of 64 values are VideoMAE's, of 32 MAE's and AudioMAE's.
    heads = told.decoder_heads or max(1, dim // (64 if is_video else 32))
    positions: Positions = "flat"
    grid = encoder.grid(input_size)
    if "decoder.pos_embed" in state:
        table = state["decoder.pos_embed"]
        positions = _rule_of(table, grid, dim, encoder.class_token)
    try:
        decoder = replace(
            family.decoder,
            dim=dim,
            depth=_depth(state, "decoder"),
            heads=len(state["decoder.blocks.0.attn.tau"]) if windows else heads,
            positions=positions,
            key_bias="decoder.blocks.0.attn.qkv.bias" in state,
            embed_bias="decoder.embed.bias" in state,
            window=(4, 4) if windows else None,
            mlp_ratio=len(state["decoder.blocks.0.mlp.fc1.weight"]) / dim,
            norm_eps=told.norm_eps,
            final_norm_eps=told.decoder_norm_eps or told.norm_eps,
        )
        model = replace(
            family, encoder=encoder, decoder=decoder, target=told.target or family.target
        )
        if input_size[0] != len(model.pixel_mean):
            model = replace(model, pixel_mean=(), pixel_std=())
        with torch.device("meta"):
            check_weights(MaskedAutoencoder(model, input_size), state)
    except ValueError:
        return None
    return model


def _text(size: InputSize) -> str:
    return " x ".join(map(str, size))

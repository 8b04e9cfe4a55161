"""`transformers`' VideoMAE and ViTMAE: names in files, and configurations.

Written are the names that every version reads from files. Read are these, those that newer versions
write, and those of a model in memory (`model.state_dict()`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smnm_kernels.train.data.statistics import IMAGENET_MEAN, IMAGENET_STD

from ..settings import MAE, VIDEOMAE, EncoderSettings, ModelSettings, Target
from ..vit import InputSize
from .state import Renames, State, our_shapes, rename, substitute, their_shapes, with_key_bias

_VIDEOMAE: Renames = (
    ("encoder.patch_embed.", "videomae.embeddings.patch_embeddings.projection."),
    ("encoder.blocks.", "videomae.encoder.layer."),
    ("encoder.norm.", "videomae.layernorm."),
    ("decoder.embed.", "encoder_to_decoder."),
    ("decoder.mask_token", "mask_token"),
    ("decoder.blocks.", "decoder.decoder_layers."),
    ("decoder.norm.", "decoder.norm."),
    ("decoder.pred.", "decoder.head."),
)
_VITMAE: Renames = (
    ("encoder.patch_embed.", "vit.embeddings.patch_embeddings.projection."),
    ("encoder.cls_token", "vit.embeddings.cls_token"),
    ("encoder.pos_embed", "vit.embeddings.position_embeddings"),
    ("encoder.blocks.", "vit.encoder.layer."),
    ("encoder.norm.", "vit.layernorm."),
    ("decoder.embed.", "decoder.decoder_embed."),
    ("decoder.mask_token", "decoder.mask_token"),
    ("decoder.pos_embed", "decoder.decoder_pos_embed"),
    ("decoder.blocks.", "decoder.decoder_layers."),
    ("decoder.norm.", "decoder.decoder_norm."),
    ("decoder.pred.", "decoder.decoder_pred."),
)
# Within a block, beside the attention's input: (ours, theirs).
_BLOCK = (
    ("attn.proj.", "attention.output.dense."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
)
_QKV = "attention.attention."
_PARTS = ("query", "key", "value")

# Other names for the same, as regular expressions and what they are in files.
_VIDEOMAE_ALIASES = (
    (r"^(embeddings|encoder|layernorm)\.", r"videomae.\1."),  # VideoMAEModel alone
    (r"attention\.attention\.query\.bias$", "attention.attention.q_bias"),
    (r"attention\.attention\.value\.bias$", "attention.attention.v_bias"),
)
# A model in memory also has mlp.fc1 and mlp.fc2, as ours.
_VITMAE_ALIASES = (
    (r"^(embeddings|encoder|layernorm|layers)\.", r"vit.\1."),  # ViTMAEModel alone
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)


def to_hf_videomae(state: Mapping[str, Tensor], patch: tuple[int, int, int]) -> State:
    """Ours -> VideoMAEForPreTraining's; an encoder alone -> VideoMAEModel's part of it."""
    state = {n: t for n, t in state.items() if not n.endswith(".pos_embed")}
    state = their_shapes(with_key_bias(state, False), patch)
    return _to_blocks(rename(state, _VIDEOMAE, to_ours=False))


def from_hf_videomae(state: Mapping[str, Tensor]) -> State:
    """VideoMAEForPreTraining's -> ours, without positions and without a bias of the keys."""
    state = _from_blocks(substitute(state, _VIDEOMAE_ALIASES))
    return our_shapes(rename(state, _VIDEOMAE, to_ours=True))


def to_hf_vitmae(state: Mapping[str, Tensor], patch: tuple[int, int, int]) -> State:
    """Ours -> ViTMAEForPreTraining's; an encoder alone -> ViTMAEModel's part of it."""
    if patch[0] != 1:
        raise ValueError(f"patch must be (1, ph, pw) for ViTMAE, got {patch}")
    state = their_shapes(with_key_bias(state, True), patch[1:])
    return _to_blocks(rename(state, _VITMAE, to_ours=False))


def from_hf_vitmae(state: Mapping[str, Tensor]) -> State:
    """ViTMAEForPreTraining's -> ours, with a bias of the keys."""
    state = _from_blocks(substitute(state, _VITMAE_ALIASES))
    return our_shapes(rename(state, _VITMAE, to_ours=True))


def hf_videomae_config(
    settings: ModelSettings | EncoderSettings, input_size: InputSize
) -> dict[str, Any]:
    """Arguments of VideoMAEConfig for this model, or for an encoder alone.

    The last norm of that class's decoder always has an eps of 1e-5.
    """
    encoder = _encoder_of(settings)
    if encoder.positions != "flat" or encoder.class_token:
        raise ValueError(
            "settings must have flat positions and no class token for VideoMAE, got "
            f"{encoder.positions} and class_token={encoder.class_token}"
        )
    if isinstance(settings, ModelSettings) and settings.decoder.positions != "flat":
        raise ValueError(
            "settings must have flat positions in the decoder for VideoMAE, got "
            f"{settings.decoder.positions}"
        )
    return {
        **_config(settings, input_size, "channel"),
        "num_frames": input_size[1],
        "tubelet_size": encoder.patch[0],
        "qv_bias": True,
        "use_mean_pooling": not encoder.final_norm,
    }


def hf_vitmae_config(
    settings: ModelSettings | EncoderSettings, input_size: InputSize
) -> dict[str, Any]:
    """Arguments of ViTMAEConfig for this model, or for an encoder alone; square pictures only."""
    _, t, h, w = input_size
    if t != 1 or h != w:
        raise ValueError(f"input_size must be (C, 1, H, H) for ViTMAE, got {input_size}")
    encoder = _encoder_of(settings)
    if not encoder.class_token or not encoder.final_norm:
        raise ValueError(
            "settings must have a class token and a final norm for ViTMAE, got "
            f"class_token={encoder.class_token} and final_norm={encoder.final_norm}"
        )
    return {**_config(settings, input_size, "patch"), "qkv_bias": True}


def settings_of_hf_videomae(config: Mapping[str, Any]) -> tuple[ModelSettings, InputSize]:
    """From VideoMAEConfig.to_dict()."""
    h, w = pair_of(config["image_size"])
    channels = config["num_channels"]
    settings = _settings(VIDEOMAE, config, (config["tubelet_size"], *pair_of(config["patch_size"])))
    encoder = replace(settings.encoder, final_norm=not config["use_mean_pooling"])
    settings = replace(
        settings,
        encoder=encoder,
        decoder=replace(settings.decoder, final_norm_eps=1e-5),
        target="channel" if config["norm_pix_loss"] else "pixels",
        pixel_mean=IMAGENET_MEAN if channels == 3 else (),
        pixel_std=IMAGENET_STD if channels == 3 else (),
    )
    return settings, (channels, config["num_frames"], h, w)


def settings_of_hf_vitmae(config: Mapping[str, Any]) -> tuple[ModelSettings, InputSize]:
    """From ViTMAEConfig.to_dict()."""
    h, w = pair_of(config["image_size"])
    settings = _settings(MAE, config, (1, *pair_of(config["patch_size"])))
    settings = replace(
        settings,
        decoder=replace(settings.decoder, final_norm_eps=config["layer_norm_eps"]),
        target="patch" if config["norm_pix_loss"] else "pixels",
    )
    return settings, (config["num_channels"], 1, h, w)


def _encoder_of(settings: ModelSettings | EncoderSettings) -> EncoderSettings:
    return settings.encoder if isinstance(settings, ModelSettings) else settings


def _config(
    settings: ModelSettings | EncoderSettings, input_size: InputSize, normalised: Target
) -> dict[str, Any]:
    """What both configurations name alike. normalised: what the class takes for a target."""
    encoder = _encoder_of(settings)
    c, _, h, w = input_size
    _, ph, pw = encoder.patch
    if ph != pw:
        raise ValueError(f"patch must be square for transformers, got {encoder.patch}")
    config = {
        "image_size": h if h == w else [h, w],
        "patch_size": ph,
        "num_channels": c,
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": round(encoder.dim * encoder.mlp_ratio),
        "layer_norm_eps": encoder.norm_eps,
    }
    if isinstance(settings, EncoderSettings):
        return config
    decoder = settings.decoder
    if decoder.window is not None:
        raise ValueError(f"window must be None for transformers, got {decoder.window}")
    if decoder.norm_eps != encoder.norm_eps:
        raise ValueError(
            "norm_eps must be the same in encoder and decoder for transformers, got "
            f"{encoder.norm_eps} and {decoder.norm_eps}"
        )
    if settings.target not in (normalised, "pixels"):
        raise ValueError(
            f"target must be {normalised} or pixels for this class, got {settings.target}"
        )
    return {
        **config,
        "decoder_hidden_size": decoder.dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": round(decoder.dim * decoder.mlp_ratio),
        "norm_pix_loss": settings.target == normalised,
    }


def _settings(
    family: ModelSettings, config: Mapping[str, Any], patch: tuple[int, int, int]
) -> ModelSettings:
    sized = family.resized(
        dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        decoder_dim=config["decoder_hidden_size"],
        decoder_depth=config["decoder_num_hidden_layers"],
        decoder_heads=config["decoder_num_attention_heads"],
    )
    eps = config["layer_norm_eps"]
    return replace(
        sized,
        encoder=replace(
            sized.encoder,
            patch=patch,
            norm_eps=eps,
            mlp_ratio=config["intermediate_size"] / config["hidden_size"],
        ),
        decoder=replace(
            sized.decoder,
            norm_eps=eps,
            mlp_ratio=config["decoder_intermediate_size"] / config["decoder_hidden_size"],
        ),
    )


def pair_of(value: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    h, w = (value, value) if isinstance(value, int) else value
    return h, w


def _to_blocks(state: Mapping[str, Tensor]) -> State:
    """Names within the blocks, and queries, keys and values apart."""
    changed: State = {}
    for name, t in state.items():
        stem, attn, last = name.rpartition(".attn.")
        if attn and last in ("qkv.weight", "qkv.bias"):
            kind = last.split(".")[1]
            for part, piece in zip(_PARTS, t.chunk(3), strict=True):
                changed[f"{stem}.{_QKV}{part}.{kind}"] = piece.clone()
        elif attn and last in ("q_bias", "v_bias"):
            changed[f"{stem}.{_QKV}{last}"] = t
        else:
            for ours, theirs in _BLOCK:
                name = name.replace(f".{ours}", f".{theirs}")
            changed[name] = t
    return changed


def _from_blocks(state: Mapping[str, Tensor]) -> State:
    """Inverse of _to_blocks."""
    changed: State = {}
    for name, t in state.items():
        stem, qkv, last = name.partition(f".{_QKV}")
        if qkv and last in ("q_bias", "v_bias"):
            changed[f"{stem}.attn.{last}"] = t
        elif qkv:
            part, kind = last.split(".")
            if part == "query":
                names = [f"{stem}.{_QKV}{p}.{kind}" for p in _PARTS]
                missing = [name for name in names if name not in state]
                if missing:
                    raise ValueError(
                        f"state must hold this model's tensors, got none for {missing[0]}"
                    )
                pieces = [state[name] for name in names]
                changed[f"{stem}.attn.qkv.{kind}"] = torch.cat(pieces)
        else:
            for ours, theirs in _BLOCK:
                name = name.replace(f".{theirs}", f".{ours}")
            changed[name] = t
    return changed

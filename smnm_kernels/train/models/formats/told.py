"""What configurations beside weights say: config.json of transformers and of timm, and
preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..vit import InputSize
from .files import read_json
from .hugging_face import pair_of
from .weights import Told

Config = Mapping[str, Any]

# Of transformers' classes, for what a configuration leaves out.
_VIT_DEFAULTS: Config = {
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
_DEFAULTS: dict[str, Config] = {
    "vit": _VIT_DEFAULTS,
    "vit_mae": {**_VIT_DEFAULTS, "decoder_num_attention_heads": 16, "norm_pix_loss": False},
    "videomae": {
        **_VIT_DEFAULTS,
        "num_frames": 16,
        "tubelet_size": 2,
        "use_mean_pooling": True,
        "decoder_num_attention_heads": 6,
        "norm_pix_loss": True,
    },
}
# (our name, theirs)
_SIZES = (
    ("dim", "hidden_size"),
    ("depth", "num_hidden_layers"),
    ("hidden", "intermediate_size"),
    ("channels", "num_channels"),
    ("patch_h", "patch_size"),
    ("patch_w", "patch_size"),
    ("patch_t", "tubelet_size"),
)
_WHOLE = {theirs for _, theirs in _SIZES} | {
    "num_frames",
    "num_attention_heads",
    "decoder_num_attention_heads",
}
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
# Of timm's `model_args`: those that are read here or that tensors show, those that decide only what
# stands behind the encoder, and those that matter in training alone.
_TIMM_KNOWN = {
    *("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio"),
    *("qkv_bias", "class_token", "final_norm", "no_embed_class", "reg_tokens", "init_values"),
    *("num_classes", "global_pool", "fc_norm", "pool_include_prefix"),
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
    *("drop_path_rate", "weight_init", "fix_init", "dynamic_img_size"),
}
# Others, which may stand there with the values that change nothing.
_TIMM_PLAIN: dict[str, tuple[Any, ...]] = {
    "act_layer": (None, "gelu"),
    "norm_layer": (None, "layernorm"),
    "pos_embed": ("learn",),
    "pre_norm": (False,),
    "proj_bias": (True,),
    "qk_norm": (False,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "dynamic_img_pad": (False,),
}
#: What `smnm export` puts into a folder beside the files of the format: marks it as its own, and
#: says what the format has no place for.
EXPORT = "smnm_export.json"
EXPORT_FORMAT = "smnm-export-1"


def told_in(folder: Path) -> Told | None:
    """What a folder's config.json says, or None where there is none.

    Raises:
        ValueError: where it is of another kind of model, or says what cannot be.
    """
    if (folder / EXPORT).exists():
        about = exported(folder)
        told = about["told"] or _of_config(folder) or Told()
        return replace(told, mean=about["mean"], scale=about["scale"])
    return _of_config(folder)


def exported(folder: Path) -> dict[str, Any]:
    """What `smnm export` wrote beside the weights; ValueError where it is of another format."""
    about = read_json(folder / EXPORT)
    if about.get("format") != EXPORT_FORMAT:
        raise ValueError(
            f"{EXPORT}: is of format {about.get('format')!r}, this version reads {EXPORT_FORMAT}"
        )
    try:
        told = about["told"]
        if told is not None:
            told = Told(**{**told, "input_size": tuple(told["input_size"])})
        step = None if about["step"] is None else int(about["step"])
        return {
            "told": told,
            "mean": tuple(about["mean"]),
            "scale": tuple(about["scale"]),
            "modality": str(about["modality"]),
            "clip": dict(about["clip"]),
            "step": step,
        }
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{EXPORT}: holds what cannot be understood ({error})") from error


def _of_config(folder: Path) -> Told | None:
    if not (folder / CONFIG).exists():
        return None
    config = read_json(folder / CONFIG)
    if "model_type" in config:
        read: Callable[[Config, Path], Told] = _of_transformers
    elif "architecture" in config:
        read = _of_timm
    else:
        raise ValueError(f"{CONFIG}: names neither a model_type (transformers) nor an architecture")
    try:
        return read(config, folder)
    except (TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{CONFIG}: holds what cannot be understood ({error})") from error


def _of_transformers(config: Config, folder: Path) -> Told:
    kind = config["model_type"]
    if kind not in _DEFAULTS:
        raise ValueError(
            f"{CONFIG}: is of a model of type {kind}; there are {', '.join(_DEFAULTS)}"
        )
    config = {**_DEFAULTS[kind], **config}
    if config["hidden_act"] != "gelu":
        raise ValueError(f"{CONFIG}: has hidden_act {config['hidden_act']}, and gelu is needed")
    if pair_of(config["patch_size"])[0] != pair_of(config["patch_size"])[1]:
        raise ValueError(f"{CONFIG}: has patch_size {config['patch_size']}, and squares are needed")
    h, w = pair_of(config["image_size"])
    is_video = kind == "videomae"
    size: InputSize = (config["num_channels"], config["num_frames"] if is_video else 1, h, w)
    patch, _ = pair_of(config["patch_size"])
    config = {**config, "patch_size": patch}
    for name, value in config.items():
        if name in _WHOLE and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{CONFIG}: {name} must be a whole number above 0, got {value!r}")
    mean, scale = _normalisation(folder, config["num_channels"])
    normalised = "channel" if is_video else "patch"
    return Told(
        heads=config["num_attention_heads"],
        norm_eps=config["layer_norm_eps"],
        final_norm=not config["use_mean_pooling"] if is_video else True,
        input_size=size,
        decoder_heads=config.get("decoder_num_attention_heads"),
        # The last norm of VideoMAE's decoder has torch's default there.
        decoder_norm_eps=1e-5 if is_video else None,
        target=(normalised if config["norm_pix_loss"] else "pixels")  # type: ignore[arg-type]
        if "norm_pix_loss" in config
        else None,
        mean=mean,
        scale=scale,
        sizes={
            ours: (theirs, config[theirs])
            for ours, theirs in _SIZES
            if config.get(theirs) is not None
        },
    )


def _of_timm(config: Config, folder: Path) -> Told:
    name = str(config["architecture"])
    if not name.startswith("vit_"):
        raise ValueError(f"{CONFIG}: is of timm's {name}, and of timm's models vit_... are read")
    # Since timm 0.9 below one key; before, beside the architecture.
    about = {**config, **config.get("pretrained_cfg", {})}
    given = config.get("model_args", {})
    for key, value in given.items():
        if key not in _TIMM_KNOWN and value not in _TIMM_PLAIN.get(key, ()):
            raise ValueError(
                f"{CONFIG}: has {key} {value!r} in model_args, which is not known here"
            )
    channels, h, w = about.get("input_size", (None, None, None))
    channels = given.get("in_chans", channels)
    h, w = pair_of(given["img_size"]) if "img_size" in given else (h, w)
    is_picture = channels == 3
    return Told(
        heads=given.get("num_heads"),
        input_size=None if None in (channels, h, w) else (channels, 1, h, w),
        # Of spectrograms, they are those of the pictures that timm expects.
        mean=_values(about.get("mean"), 3) if is_picture else None,
        scale=_values(about.get("std"), 3) if is_picture else None,
        sizes={
            ours: (theirs, given[theirs])
            for ours, theirs in (("dim", "embed_dim"), ("depth", "depth"), ("channels", "in_chans"))
            if theirs in given
        },
    )


def _normalisation(
    folder: Path, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """What pictures of [0, 1] are normalised by, where a preprocessor says so."""
    if not (folder / PREPROCESSOR).exists():
        return None, None
    config = read_json(folder / PREPROCESSOR)
    if config.get("do_normalize") is False:
        return (0.0,) * channels, (1.0,) * channels
    return _values(config.get("image_mean"), channels), _values(config.get("image_std"), channels)


def _values(given: Any, count: int) -> tuple[float, ...] | None:
    if given is None:
        return None
    if not isinstance(given, (list, tuple)) or len(given) != count:
        raise ValueError(f"its configuration must have {count} values a channel, got {given}")
    return tuple(float(value) for value in given)

"""What `smnm export` writes for each codebase: tensors in its names, and the files beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.statistics import AUDIOSET_MEAN, AUDIOSET_STD

from .hugging_face import hf_videomae_config, hf_vitmae_config, to_hf_videomae, to_hf_vitmae
from .original import to_mae, to_videomae
from .state import State
from .told import CONFIG, PREPROCESSOR
from .weights import Head, Told, Weights

SAFETENSORS, CHECKPOINT = "model.safetensors", "checkpoint.pth"
_EPS_OF_TIMM = 1e-6
_EPS_OF_TORCH = 1e-5  # of norms for which transformers gives none
_WITHOUT_BIASES = (
    "transformers 5.5 to 5.17 leave the biases of queries and values at zero, of this and of any "
    "other file of a VideoMAE"
)


@dataclass(frozen=True)
class Folder:
    """tensors: of the file of weights, `weights`, which tells by its name how it is stored."""

    weights: str
    tensors: State
    files: dict[str, dict[str, Any]]  # JSON
    #: What reading needs and no file of the format says; None where they say all.
    told: Told | None = None
    remarks: tuple[str, ...] = field(default=())  # where the other code computes something else


def hf_videomae(given: Weights) -> Folder:
    """transformers' VideoMAE: ForPreTraining, the encoder alone, or ForVideoClassification."""
    if given.modality != "video":
        raise ValueError(f"is for video, and this model is of {given.modality}")
    settings = given.encoder if given.model is None else given.model
    config = hf_videomae_config(settings, given.input_size)
    state = to_hf_videomae(given.state, given.encoder.patch)
    kind = "VideoMAEModel" if given.model is None else "VideoMAEForPreTraining"
    remarks = [_WITHOUT_BIASES]
    if given.model is not None and given.model.decoder.final_norm_eps != _EPS_OF_TORCH:
        remarks.append(
            f"the last norm of transformers' decoder has an eps of {_EPS_OF_TORCH:g}, this model's "
            f"{given.model.decoder.final_norm_eps:g}"
        )
    if given.head is not None:
        kind = "VideoMAEForVideoClassification"
        head = _as_linear(given.head)
        state |= {
            "fc_norm.weight": head["fc_norm.weight"],
            "fc_norm.bias": head["fc_norm.bias"],
            "classifier.weight": head["head.weight"],
            "classifier.bias": head["head.bias"],
        }
        config |= _classes(given.head)
        remarks.append(
            f"transformers' fc_norm has an eps of {_EPS_OF_TORCH:g}, this model's "
            f"{given.head.norm_eps:g}"
        )
    config = {"architectures": [kind], "model_type": "videomae", "hidden_act": "gelu", **config}
    files = {CONFIG: config, PREPROCESSOR: _pictures(given, "VideoMAEImageProcessor")}
    return Folder(SAFETENSORS, state, files, remarks=tuple(remarks))


def hf_vitmae(given: Weights) -> Folder:
    """transformers' ViTMAE: ForPreTraining, or the encoder alone; ViT with a fine-tuned head."""
    if given.modality != "image":
        raise ValueError(f"is for image, and this model is of {given.modality}")
    head = given.head
    if head is not None and head.settings.pool != "class":
        raise ValueError(
            "transformers has no head on the mean of a picture's patches; --to timm has one"
        )
    settings = given.encoder if given.model is None else given.model
    config = hf_vitmae_config(settings, given.input_size)
    state = to_hf_vitmae(given.state, given.encoder.patch)
    kind, model_type = "ViTMAEModel" if given.model is None else "ViTMAEForPreTraining", "vit_mae"
    if head is not None:
        kind, model_type = "ViTForImageClassification", "vit"
        linear = _as_linear(head)
        state |= {f"classifier.{part}": linear[f"head.{part}"] for part in ("weight", "bias")}
        config |= _classes(head)
    config = {"architectures": [kind], "model_type": model_type, "hidden_act": "gelu", **config}
    files = {CONFIG: config, PREPROCESSOR: _pictures(given, "ViTImageProcessor")}
    remark = (
        "transformers' processor squashes the whole picture; smnm evaluates the square in the "
        f"middle, {Image.fixed_crop.share:g} of the short side"
    )
    return Folder(SAFETENSORS, state, files, remarks=(remark,))


#: timm's models of patches of 16: (dim, depth, heads) -> name.
_TIMM = {
    (192, 12, 3): "vit_tiny_patch16_224",
    (384, 12, 6): "vit_small_patch16_224",
    (768, 12, 12): "vit_base_patch16_224",
    (1024, 24, 16): "vit_large_patch16_224",
}


def timm(given: Weights) -> Folder:
    """timm's VisionTransformer of pictures or spectrograms, in the layout of its hub."""
    encoder, head = given.encoder, given.head
    channels, t, h, w = given.input_size
    if encoder.patch[0] != 1 or t != 1:
        raise ValueError(f"is for image and audio, and this model is of {given.modality}")
    pooled = head is not None and head.settings.pool == "mean"
    # Without a head: the mean of the patches behind the final norm.
    about: dict[str, Any] = {
        "img_size": [h, w],
        "in_chans": channels,
        "class_token": encoder.class_token,
        "global_pool": "token" if head is not None and not pooled else "avg",
        "fc_norm": pooled,
    }
    if not encoder.final_norm and not pooled:
        about["final_norm"] = False
    size = (encoder.dim, encoder.depth, encoder.heads)
    name = _TIMM.get(size)
    if name is None:
        name = "vit_base_patch16_224"
        sizes = {"embed_dim": encoder.dim, "depth": encoder.depth, "num_heads": encoder.heads}
        about |= sizes
    if encoder.patch != (1, 16, 16):
        _, ph, pw = encoder.patch
        about["patch_size"] = ph if ph == pw else [ph, pw]
    if encoder.mlp_ratio != 4:
        about["mlp_ratio"] = encoder.mlp_ratio
    state = to_mae(_encoder_of(given), encoder.patch)
    outputs = 0
    if head is not None:
        linear = _as_linear(head)
        state |= linear
        outputs = len(linear["head.weight"])
    remarks: tuple[str, ...] = ()
    if encoder.norm_eps != _EPS_OF_TIMM:
        remarks = (f"timm's norms have an eps of 1e-06, this model's {encoder.norm_eps:g}",)
    config = {
        "architecture": name,
        "num_classes": outputs,
        "num_features": encoder.dim,
        "global_pool": about["global_pool"],
        "model_args": about,
        "pretrained_cfg": {
            "input_size": [channels, h, w],
            "fixed_input_size": True,
            **({} if len(given.mean) > channels else {"mean": list(given.mean)}),
            **({} if len(given.scale) > channels else {"std": list(given.scale)}),
            "interpolation": "bicubic",
            "crop_pct": 1.0 if given.modality == "audio" else Image.fixed_crop.share,
            "num_classes": outputs,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    if head is not None and head.settings.names:
        config["label_names"] = list(head.settings.names)
    files = {CONFIG: config, **_preprocessor(given)}
    return Folder(SAFETENSORS, state, files, remarks=(*remarks, *_of_spectrogram(given)))


def original(given: Weights) -> Folder:
    """A checkpoint in the names of VideoMAE's, MAE's or AudioMAE's own code, under "model"."""
    encoder, head = given.encoder, given.head
    if given.modality == "video":
        if encoder.positions != "flat":
            raise ValueError(f"positions must be VideoMAE's own, got {encoder.positions}")
        state = to_videomae(given.state, encoder.patch)
    else:
        state = to_mae(given.state, encoder.patch)
    if head is not None:  # as fine-tuning saves it
        state = {name.removeprefix("encoder."): t for name, t in state.items()} | _as_linear(head)
    decoder = given.model and given.model.decoder
    told = Told(
        heads=encoder.heads,
        norm_eps=encoder.norm_eps,
        final_norm=encoder.final_norm,
        input_size=given.input_size,
        decoder_heads=decoder.heads if decoder else None,
        decoder_norm_eps=decoder.final_norm_eps if decoder else None,
        target=given.model.target if given.model else None,
    )
    return Folder(CHECKPOINT, state, _preprocessor(given), told, _of_spectrogram(given))


#: As in `--to`.
FORMATS: dict[str, Callable[[Weights], Folder]] = {
    "hf-videomae": hf_videomae,
    "hf-vitmae": hf_vitmae,
    "timm": timm,
    "mae": original,
}


def _encoder_of(given: Weights) -> State:
    return {name: t for name, t in given.state.items() if name.startswith("encoder.")}


def _as_linear(head: Head) -> dict[str, Tensor]:
    """The head's tensors; a number's scale and offset become part of them."""
    state = dict(head.state)
    if head.settings.kind == "number":
        state["head.weight"] = state["head.weight"] * head.settings.scale
        state["head.bias"] = state["head.bias"] * head.settings.scale + head.settings.offset
    return state


_PROBLEMS = {
    "class": "single_label_classification",
    "classes": "multi_label_classification",
    "number": "regression",
}


def _classes(head: Head) -> dict[str, Any]:
    """Of a configuration of transformers."""
    names = head.settings.names or ("number",)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "problem_type": _PROBLEMS[head.settings.kind],
    }


def _preprocessor(given: Weights) -> dict[str, dict[str, Any]]:
    """The file of it; none where transformers has no such preprocessor."""
    if given.modality == "audio":
        return {} if given.clip.get("front") else {PREPROCESSOR: _sounds(given)}
    kind = "VideoMAEImageProcessor" if given.modality == "video" else "ViTImageProcessor"
    return {PREPROCESSOR: _pictures(given, kind)}


def _of_spectrogram(given: Weights) -> tuple[str, ...]:
    """What other code must do that no file of the folder can ask for."""
    if not given.clip.get("front"):
        return ()
    return (
        f"no {PREPROCESSOR}: transformers' feature extractors do not compute this spectrogram. "
        "README.md says which it is, and what it is normalised by",
    )


def _pictures(given: Weights, kind: str) -> dict[str, Any]:
    _, _, h, w = given.input_size
    size: dict[str, Any] = {"size": {"height": h, "width": w}}
    if kind == "VideoMAEImageProcessor" and h == w:
        crop = {"height": h, "width": w}
        size = {"size": {"shortest_edge": h}, "do_center_crop": True, "crop_size": crop}
    return {
        "image_processor_type": kind,
        "do_resize": True,
        **size,
        "resample": 2 if kind == "VideoMAEImageProcessor" else 3,  # bilinear, bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(given.mean),
        "image_std": list(given.scale),
    }


def _sounds(given: Weights) -> dict[str, Any]:
    """transformers' feature extractor of AST computes AudioMAE's input: 25 ms Hann windows every
    10 ms, and (x - mean) / (2 std)."""
    _, _, frames, bands = given.input_size
    (mean,), (scale,) = given.mean or (AUDIOSET_MEAN,), given.scale or (2 * AUDIOSET_STD,)
    return {
        "feature_extractor_type": "ASTFeatureExtractor",
        "sampling_rate": 16000,
        "num_mel_bins": bands,
        "max_length": frames,
        "do_normalize": True,
        "mean": mean,
        "std": scale / 2,
        "feature_size": 1,
        "padding_value": 0.0,
        "padding_side": "right",
        "return_attention_mask": False,
    }


def as_json(told: Told | None) -> dict[str, Any] | None:
    """For `told_in`."""
    if told is None:
        return None
    return {name: value for name, value in asdict(told).items() if name not in ("mean", "scale")}

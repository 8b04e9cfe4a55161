"""What a user can ask of fine-tuning, and its checks. Defaults are in finetune_presets/."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from tyro.conf import Positional, arg
from tyro.extras import literal_type_from_choices

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Treatment
from smnm_kernels.train.data.augment_jitter import Jitter
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.view import PixelAspect
from smnm_kernels.train.models.classifier import Pool
from smnm_kernels.train.models.pretrained import Pretrained
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.options import (
    Count,
    Number,
    RunOptions,
    check_apart,
    check_batch_size,
    check_run_options,
    need_at_least,
)

from .finetune_joint import JointOptions, check_joint, mix_of
from .finetune_presets import PRESETS
from .finetune_presets.preset import FinetunePreset, InputMask
from .label_options import LabelOptions
from .preset_options import (
    PaddingOption,
    PixelAspectOption,
    check_modality,
    chosen,
    names_of,
    overridden,
)

if TYPE_CHECKING:
    ModalityName = str
    PresetName = str
else:
    ModalityName = Positional[literal_type_from_choices(PRESETS)]
    PresetName = literal_type_from_choices(names_of(PRESETS))
PoolOption = Annotated[Pool | None, arg(metavar="{mean,class}", help_behavior_hint="")]
ViewsOption = Annotated[str | None, arg(metavar="CLIPSxCROPS", help_behavior_hint="")]


# Fields of a modality that are as the encoder was trained, and those that an option sets.
_AS_TRAINED = ("stride", "pixel_aspect", "padding")
_CLIP_OPTIONS = ("frames", "size", *_AS_TRAINED)


@dataclass(kw_only=True)
class TuningOptions:
    """What is fine-tuned, and how."""

    encoder: str
    """RUN, RUN/encoder.safetensors, a file or folder in a format that other codebases write, or
    none: untrained weights, the preset's model trained from scratch."""
    preset: PresetName = "tiny"
    """tiny runs on two CPU cores in minutes. videomae (Kinetics-400), videomae-ssv2, mae,
    audiomae-..., maskspec-... and cav-mae do what those methods' code does; snm-video, snm-audio
    and snm-cav-mae what the structured-noise paper's tables say. A table in docs/evaluation.md has
    their values."""
    epochs: Count = None
    """Passes over the files that are trained on. Default: the preset's, or its steps."""
    frames: Count = None
    """Video: frames of a clip; audio: of a spectrogram, one every 10 ms. Default: the encoder's."""
    size: Count = None
    """Video, images: pixels of a side. Default: the encoder's."""
    stride: Count = None
    """Video: take every N-th frame. Default: the encoder's, or the preset's."""
    pixel_aspect: PixelAspectOption = None
    """Video whose pixels are not square: apply scales the width, ignore takes them as they are.
    Default: as the encoder was trained, or apply."""
    padding: PaddingOption = None
    """Audio, of recordings shorter than the window: hide leaves patches of padding alone out of
    attention and mean; see treats them as sound. Default: as the encoder was trained, or the
    preset's."""
    flip: bool = True
    """Mirror half of the samples where the preset does; --no-flip mirrors none."""
    augment: bool = True
    """RandAugment and erasing where the preset has them; --no-augment does neither."""
    crop: bool = True
    """Cut random parts from video and pictures; --no-crop takes the squares that evaluation takes,
    for labels that depend on the place."""
    pool: PoolOption = None
    """mean of the patches' tokens, with a norm of its own; or the class token."""
    layer_decay: Number = None
    """Rates fall by this factor from each block to the one before. Default: the preset's."""
    drop_path: Number = None
    """Share of samples that skip the last block's branches in training; it rises from 0 at the
    first block. Default: the preset's."""
    label_smoothing: Number = None
    """Share of a label that is shared out among all classes; for one class a file.
    Default: the preset's."""
    mixup: Number = None
    """Alpha of Beta(alpha, alpha), of which mixup draws shares; 0 is off. Default: the preset's."""
    cutmix: Number = None
    """Likewise of cutmix; for pictures and video. Default: the preset's."""
    jitter: Number = None
    """Sounds: noise up to this is added to normalised spectrograms, and they are rolled in time by
    any number of frames, as CAV-MAE does (0.1); 0 does neither. Default: the preset's."""
    mask_ratio: Number = None
    """Audio: share of the input's patches that are masked in training, by time and by mel band;
    0 is off. Default: the preset's."""
    repeats: Count = None
    """Samples of each file at each of its turns; a pass takes as many times the steps. Default: the
    preset's, 1."""
    balanced: Count = None
    """Draw N files an epoch without replacement, those with rare labels sooner (AudioMAE's
    weights). Default: the preset's."""
    evaluate_every: Count = None
    """Steps between two evaluations on the val split. Default: the preset's, or an epoch."""
    views: ViewsOption = None
    """Of each file in the evaluation in the end, such as 5x3: so many clips along time, so many
    crops along the longer side; what they predict is averaged. Default: the preset's."""


@dataclass(kw_only=True)
class FinetuneTraining(RunOptions, LabelOptions, JointOptions, TuningOptions):
    # Help lists the fields of the last class first.
    """Options of every fine-tuning run."""


@dataclass(kw_only=True)
class Finetune(FinetuneTraining):
    """Fine-tune an encoder on labelled files, and evaluate it.

    A run that was stopped, by Ctrl-C or by a crash, goes on when the same command is given again.
    """

    modality: ModalityName
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Labelled files: a folder for each class, with or without train/, val/ and test/ above it, or
    a list of files with their labels. docs/evaluation.md describes the forms."""
    out: Path
    """Folder of the run: made if missing, resumed if it holds a run."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)


def check(options: Finetune) -> None:
    """Refuse values outside their range, before any work."""
    check_run_options(options)
    check_modality(PRESETS, options.modality)
    for name in ("epochs", "frames", "size", "stride", "repeats", "balanced", "evaluate_every"):
        need_at_least(options, name, 1)
    if options.epochs is not None and options.steps is not None:
        raise UsageError(f"--epochs {options.epochs}: and --steps {options.steps}; give one")
    if options.repeats is not None and options.repeats > 1 and options.balanced is not None:
        raise UsageError(f"--repeats {options.repeats}: and --balanced; give one")
    _check_range(options, "layer_decay", 0, 1, low_open=True)
    _check_range(options, "drop_path", 0, 1, high_open=True)
    _check_range(options, "label_smoothing", 0, 1, high_open=True)
    _check_range(options, "mask_ratio", 0, 1, high_open=True)
    for name in ("mixup", "cutmix", "jitter"):
        _check_range(options, name, 0, math.inf, high_open=True)
    for name, of, allowed in (
        ("pool", "mean or class", Pool),
        ("padding", "hide or see", Treatment),
        ("pixel_aspect", "apply or ignore", PixelAspect),
    ):
        value = getattr(options, name)
        if value not in (None, *get_args(allowed)):
            raise UsageError(f"--{name.replace('_', '-')} must be {of}, got {value!r}")
    check_joint(options)
    if not str(options.encoder):
        raise UsageError("--encoder is empty; RUN, a file, a folder or none is needed")
    check_apart(options.out, options.data)
    if str(options.encoder) != "none" and os.path.realpath(options.out) == os.path.realpath(
        options.encoder
    ):
        raise UsageError(f"--out {options.out}: is the run of --encoder; give a folder of its own")


def _check_range(
    options: Any,
    name: str,
    low: float,
    high: float,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    value = getattr(options, name)
    if value is None:
        return
    above = value > low if low_open else value >= low
    below = value < high if high_open else value <= high
    if not (above and below):
        shown = f"{'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"
        raise UsageError(f"--{name.replace('_', '-')} must be in {shown}, got {value}")


def parsed_views(given: str) -> tuple[int, int]:
    """(clips, crops) of "5x3"."""
    found = re.fullmatch(r"(\d{1,4})x(\d{1,4})", given)
    clips, crops = (int(number) for number in found.groups()) if found else (0, 0)
    if clips < 1 or crops < 1:
        raise UsageError(f"--views must be CLIPSxCROPS such as 5x3, each at least 1, got {given!r}")
    return clips, crops


def preset_of(options: Finetune) -> FinetunePreset:
    """The preset, with the options that were given put in place of its values, but for what the
    encoder decides: `clip_of`."""
    preset = chosen(PRESETS, options.modality, options.preset)
    mask = preset.mask
    if options.mask_ratio is not None:
        if options.modality != "audio":
            raise UsageError(
                f"--mask-ratio {options.mask_ratio}: is for audio; {options.modality} has no mel "
                "bands"
            )
        kind = mask.kind if mask else InputMask.kind
        mask = InputMask(options.mask_ratio, kind) if options.mask_ratio else None
    if options.cutmix and options.modality == "audio":
        raise UsageError(f"--cutmix {options.cutmix}: is for pictures and video")
    if (options.repeats or 1) > 1 and preset.optimisation.most_per_epoch:
        raise UsageError(
            f"--repeats {options.repeats}: and --preset {options.preset}, which draws files for an "
            "epoch as --balanced does; take another preset"
        )
    lengths: dict[str, Any] = {}
    if options.epochs is not None:
        if preset.optimisation.epochs:
            lengths |= {"epochs": options.epochs}
        else:  # lengths of the preset are in steps
            share = (preset.optimisation.warmup_steps or 0) / (preset.optimisation.steps or 1)
            lengths |= {
                "epochs": options.epochs,
                "steps": None,
                "warmup_steps": None,
                "warmup_epochs": share * options.epochs,
            }
    optimisation = replace(preset.optimisation, **lengths)
    optimisation = overridden(
        optimisation,
        batch_size=options.batch_size,
        weight_decay=options.weight_decay,
        steps=options.steps,
        warmup_steps=options.warmup_steps,
        checkpoint_every=options.checkpoint_every,
        repeats=options.repeats,
        most_per_epoch=options.balanced,
    )
    jitter = preset.jitter
    if options.jitter is not None:
        if options.modality not in ("audio", "audio-video"):
            raise UsageError(f"--jitter {options.jitter}: is for sounds")
        jitter = Jitter(options.jitter) if options.jitter else None
    changed = overridden(
        replace(preset, mask=mask, jitter=jitter),
        optimisation=optimisation,
        layer_decay=options.layer_decay,
        drop_path=options.drop_path,
        label_smoothing=options.label_smoothing,
        mix=mix_of(options, overridden(preset.mix, mixup=options.mixup, cutmix=options.cutmix)),
        pool=options.pool,
        views=None if options.views is None else parsed_views(options.views),
        evaluate_every=options.evaluate_every,
    )
    changed = replace(changed, mix=_turned_on(changed.mix, preset.mix, options))
    check_batch_size(optimisation.batch_size, options.accumulate)
    if changed.mix.on:
        part = optimisation.batch_size // (options.accumulate or 1) // ranks.world_size()
        if part % 2:
            raise UsageError(
                f"--batch-size {optimisation.batch_size}: mixing takes pairs of neighbours, and "
                f"{part} samples go through the model at a time; give an even number, or "
                "--mixup 0 --cutmix 0"
            )
    return changed


def _turned_on(mix: Mix, before: Mix, options: Finetune) -> Mix:
    """Sounds are mixed by their powers also where the preset does not mix."""
    if mix.on and not before.on:
        return replace(mix, powers=mix.powers or options.modality == "audio")
    return mix


def clip_of(options: Finetune, preset: FinetunePreset, pretrained: Pretrained | None) -> Modality:
    """How files are read: as the encoder was trained, where nothing else is asked for.

    pretrained: None before it is known; then with the preset's sizes.
    """
    clip = preset.clip
    allowed = {field.name for field in fields(clip)}
    for name in _CLIP_OPTIONS:
        value = getattr(options, name)
        if value is not None and name not in allowed:
            shown = f"--{name.replace('_', '-')} {value}"
            raise UsageError(f"{shown}: {options.modality} has no such option")
    if options.stride is not None and getattr(clip, "sampling", None) == "segments":
        raise UsageError(
            f"--stride {options.stride}: --preset {options.preset} takes a frame of each of "
            "as many segments, however far they lie apart"
        )
    if pretrained:
        of_all = (*_AS_TRAINED, "front")
        held = {n: v for n, v in pretrained.clip.items() if n in of_all and n in allowed}
        if pretrained.clip and "front" in allowed:
            held.setdefault("front", None)  # an encoder from before there were others
        try:
            clip = replace(clip, **held).sized(pretrained.encoder.input_size)
        except (ValueError, TypeError) as error:
            raise UsageError(f"--encoder {options.encoder}: {error}") from error
    asked = {name: getattr(options, name) for name in _CLIP_OPTIONS}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if not options.flip:
        given["flip"] = False
    if not options.crop and "crop" in allowed:
        given["crop"] = clip.fixed_crop  # type: ignore[attr-defined]
    if not options.augment:
        given |= {"augment": None, "erase": None}
    return replace(clip, **{n: v for n, v in given.items() if n in allowed})


def of_the_encoder(options: Finetune, preset: FinetunePreset, clip: Modality) -> list[str]:
    """Of `clip_of` with an encoder: what is not the preset's, and no option asked for, as
    "stride 2, not 4"."""
    found = []
    for name in _CLIP_OPTIONS:
        wanted, value = (getattr(one, name, None) for one in (preset.clip, clip))
        unused = name == "stride" and getattr(clip, "sampling", None) == "segments"
        if value != wanted and getattr(options, name) is None and not unused:
            found.append(f"{name.replace('_', '-')} {value}, not {wanted}")
    if getattr(preset.clip, "front", None) != getattr(clip, "front", None):
        found.append("another spectrogram")
    return found

"""What a user can ask of pretraining, and its checks. Defaults of a preset are in presets.py."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from tyro.conf import Positional, arg
from tyro.extras import literal_type_from_choices

from smnm_kernels import schedules
from smnm_kernels.errors import UsageError, printable
from smnm_kernels.kinds import KINDS, parameters_of
from smnm_kernels.train.data.audio import Treatment
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.view import PixelAspect
from smnm_kernels.train.run.options import (
    Count,
    Number,
    RunOptions,
    check_batch_size,
    check_run_options,
    need_at_least,
)

from .preset_options import PaddingOption, PixelAspectOption, chosen, overridden
from .presets import PRESETS, HintSettings, Preset

if TYPE_CHECKING:
    ModalityName = str
    PresetName = str
else:
    ModalityName = Positional[literal_type_from_choices(PRESETS)]
    PresetName = literal_type_from_choices(
        dict.fromkeys(name for table in PRESETS.values() for name in table)
    )
MaskOptions = Annotated[
    tuple[str, ...], arg(metavar="NAME=VALUE [NAME=VALUE ...]", help_behavior_hint="")
]
HintSchedule = Annotated[str | None, arg(metavar="dwm|START[:POWER]", help_behavior_hint="")]
Init = Annotated[Path | None, arg(metavar="X", help_behavior_hint="")]
Kind = Annotated[str | None, arg(metavar="KIND", help_behavior_hint="")]


#: What --mask-options must not set.
_MASK_FIELDS = {
    "kind": "--mask",
    "mask_ratio": "--mask-ratio",
    "n_keep": "--mask-ratio",
    "seed": "--seed",
    "grid": "the preset",
    "freq_major": "the model",
    "every": "--hint-schedule",
}


@dataclass(kw_only=True)
class RecipeOptions:
    """What is learnt, and from which samples."""

    preset: PresetName = "tiny"
    """tiny runs on two CPU cores in minutes; small and base are ViT-S and ViT-B with structured
    masks. videomae, audiomae and mae do what those methods' code does, snm-video and snm-audio what
    the structured-noise paper's tables say. A table in docs/training.md has their values."""
    mask: Kind = None
    """Kind of mask, any of smnm.MaskSampler's: green3d, red2d, ..., rbn, random, tube, grid, block,
    inverse_block, multi_block, time_frequency, bands, frames, running_cell, dispersion,
    motion, activity. Default: the preset's."""
    mask_ratio: Number = None
    """Share of patches that is masked, in [0, 1). Default: the preset's."""
    mask_options: MaskOptions = ()
    """Parameters of the kind of mask, NAME=VALUE each, such as sigma=variant-3 time_scale=2,
    windows=3,5 tie_break=random, metric=variance or hint_ratio=0.3. smnm.MaskSampler names them."""
    hint_schedule: HintSchedule = None
    """Dispersion and motion masks: how the share of chance, 1 at first, falls. dwm is 1 for a sixth
    of the schedule's steps and then 1 - (step / steps)^2; START:POWER sets both, START a share
    of the steps. Default: no chance (hint_ratio=0)."""
    stride: Count = None
    """Video: take every N-th frame; shorter files get the largest stride that fits.
    Default: the preset's."""
    pixel_aspect: PixelAspectOption = None
    """Video whose pixels are not square: apply scales the width, as players do; ignore takes the
    pixels as they are. Default: apply."""
    padding: PaddingOption = None
    """Audio, of recordings shorter than the window: hide never shows the padding to the model and
    leaves it out of the loss; see treats it as sound. Default: the preset's."""
    flip: bool = True
    """Mirror half of the samples where the preset does; --no-flip mirrors none."""


@dataclass(kw_only=True)
class Training(RunOptions, RecipeOptions):  # help lists the fields of the last class first
    """Options of every pretraining run."""


@dataclass(kw_only=True)
class Pretrain(Training):
    """Pretrain a masked autoencoder (VideoMAE, AudioMAE, MAE) on a folder of ordinary files.

    A run that was stopped, by Ctrl-C or by a crash, goes on when the same command is given again.
    """

    modality: ModalityName
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Folder that is searched for files, with everything below it; or a list of files (text or CSV,
    a path a line, labels beside it are ignored); or a tar, or several ('shards-{000..010}.tar').
    Tar shards are read in place."""
    files_from: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    """The folder that paths in a list are relative to. Default: the list's own, or the only one
    beside it that has the files."""
    out: Path
    """Folder of the run: made if missing, resumed if it holds a run."""
    init: Init = None
    """Continue from a trained encoder, and from its decoder where there is one that fits: another
    RUN, what smnm export wrote, a folder of transformers or timm, or a checkpoint of VideoMAE, MAE
    or AudioMAE. The optimiser and the schedule begin anew. Default: random weights."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)
        self.init = None if self.init is None else Path(self.init)


def check(options: Pretrain) -> None:
    """Refuse values outside their range, before any work."""
    check_run_options(options)
    need_at_least(options, "stride", 1)
    if options.modality not in PRESETS:
        raise UsageError(f"modality must be one of {', '.join(PRESETS)}, got {options.modality!r}")
    if options.files_from is not None and not os.path.isdir(options.files_from):
        raise UsageError(f"--files-from {printable(str(options.files_from))}: is no folder")
    if os.path.realpath(options.out) == os.path.realpath(options.data):
        raise UsageError(
            f"--out {options.out}: is DATA itself; give a folder of its own, also one below DATA"
        )


def preset_of(options: Pretrain) -> Preset:
    """The preset, with the options that were given put in place of its values."""
    preset = chosen(PRESETS, options.modality, options.preset)
    changed = Preset(
        clip=_clip_of(options, preset.clip),
        masks={
            name: overridden(
                masks,
                kind=options.mask,
                ratio=options.mask_ratio,
                parameters=_mask_parameters(options.mask_options),
                hint=_hint_of(options, options.mask or masks.kind),
            )
            for name, masks in preset.masks.items()
        },
        objective=preset.objective,
        optimisation=overridden(
            preset.optimisation,
            batch_size=options.batch_size,
            weight_decay=options.weight_decay,
            steps=options.steps,
            warmup_steps=options.warmup_steps,
            checkpoint_every=options.checkpoint_every,
        ),
    )
    check_batch_size(changed.optimisation.batch_size, options.accumulate)
    return changed


def _mask_parameters(words: Sequence[str]) -> dict[str, Any] | None:
    """From NAME=VALUE: numbers, True and False, sequences with commas, else text."""
    parameters = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text) or name in parameters:
            raise UsageError(f"--mask-options must be NAME=VALUE, each name once, got {word!r}")
        if name in _MASK_FIELDS:
            raise UsageError(f"--mask-options {word}: {_MASK_FIELDS[name]} sets it")
        try:
            parameters[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            parameters[name] = text
    return parameters or None


def _hint_of(options: Pretrain, kind: str) -> HintSettings | None:
    given = options.hint_schedule
    if given is None:
        return None
    asked = f"--hint-schedule {given}"
    able = [name for name in KINDS if "hint_ratio" in parameters_of(name)]
    if kind not in able:
        raise UsageError(f"{asked}: is for --mask {' or '.join(able)}, and masks are {kind}")
    if any(word.startswith("hint_ratio=") for word in options.mask_options):
        raise UsageError(f"{asked}: sets hint_ratio, which --mask-options gives, too")
    if given == "dwm":
        return HintSettings()
    start, colon, power = given.partition(":")
    try:
        settings = HintSettings(float(start), float(power) if colon else HintSettings.power)
        schedules.hint(1, start=settings.start, power=settings.power)
    except ValueError as error:
        raise UsageError(
            f"{asked}: must be dwm, START or START:POWER, START a share of the steps in [0, 1] and "
            f"POWER above 0 ({error})"
        ) from None
    return settings


def _clip_of(options: Pretrain, clip: Modality) -> Modality:
    allowed = {field.name for field in fields(clip)}
    if options.stride is not None and "stride" not in allowed:
        raise UsageError(f"--stride {options.stride}: {options.modality} has no stride")
    if options.pixel_aspect is not None and "pixel_aspect" not in allowed:
        raise UsageError(
            f"--pixel-aspect {options.pixel_aspect}: is for video; {options.modality} has none"
        )
    if options.pixel_aspect not in (None, *get_args(PixelAspect)):
        raise UsageError(f"--pixel-aspect must be apply or ignore, got {options.pixel_aspect!r}")
    if options.padding is not None and "padding" not in allowed:
        raise UsageError(f"--padding {options.padding}: is for audio; {options.modality} has none")
    if options.padding not in (None, *get_args(Treatment)):
        raise UsageError(f"--padding must be hide or see, got {options.padding!r}")
    mirrors = "flip" in allowed and not options.flip
    return overridden(
        clip,
        stride=options.stride,
        pixel_aspect=options.pixel_aspect,
        padding=options.padding,
        flip=False if mirrors else None,
    )

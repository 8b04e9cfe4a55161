"""What a user can ask of pretraining, and its checks. Defaults of a preset are in presets/."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from tyro.conf import Positional, arg
from tyro.extras import literal_type_from_choices

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.audio import Treatment
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.view import PixelAspect
from smnm_kernels.train.models.avt import Avt
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.run.options import (
    Count,
    Number,
    RunOptions,
    check_apart,
    check_batch_size,
    check_run_options,
    need_at_least,
)

from .avt_options import check_pairs
from .mask_options import AudioVideoMaskOptions, MaskOptions, masks_of
from .objectives import ObjectiveOptions, objective_of, own_masks
from .preset_options import (
    PaddingOption,
    PixelAspectOption,
    check_modality,
    chosen,
    names_of,
    overridden,
    settings_of,
    with_settings,
)
from .presets import PRESETS
from .presets.preset import Preset

if TYPE_CHECKING:
    ModalityName = str
    PresetName = str
else:
    ModalityName = Positional[literal_type_from_choices(PRESETS)]
    PresetName = literal_type_from_choices(names_of(PRESETS))
Init = Annotated[Path | None, arg(metavar="X", help_behavior_hint="")]


@dataclass(kw_only=True)
class RecipeOptions:
    """What is learnt, and from which samples."""

    preset: PresetName = "tiny"
    """tiny runs on two CPU cores in minutes; small and base are ViT-S and ViT-B with structured
    masks. videomae, sigma, audiomae, maskspec, msm-mae, mae and cav-mae do what those methods' code
    does, snm-... what the structured-noise paper's tables say, dwm masks as the paper on
    dispersion-weighted masking, cav-mae-clip is CAV-MAE for whole clips. A table in
    docs/training.md has their values."""
    frames: Count = None
    """Video: frames of a clip; audio: of a spectrogram, one every 10 ms. Default: the preset's."""
    size: Count = None
    """Video, images: pixels of a side. Default: the preset's."""
    stride: Count = None
    """Video: take every N-th frame; shorter files get the largest stride that fits.
    Default: the preset's."""
    pixel_aspect: PixelAspectOption = None
    """Video whose pixels are not square: apply scales the width, as players do; ignore takes the
    pixels as they are. Default: apply."""
    padding: PaddingOption = None
    """Audio, of recordings shorter than the window: hide never shows the padding to the model and
    leaves it out of the loss; see treats it as sound. Default: the preset's."""
    mean: Number = None
    """Audio: what log-mel values are normalised by, together with --std: (x - mean) / std, with
    AudioMAE's spectrogram (x - mean) / (2 std). Default: AudioSet's; of MaskSpec's and MSM-MAE's
    spectrograms measured in DATA, or --init's."""
    std: Number = None
    """See --mean."""
    flip: bool = True
    """Mirror half of the samples where the preset does; --no-flip mirrors none."""
    crop: bool = True
    """Cut random parts from video and pictures; --no-crop takes the squares that evaluation
    takes."""


# Help lists the fields of the last class first.
@dataclass(kw_only=True)
class Training(RunOptions, AudioVideoMaskOptions, MaskOptions, ObjectiveOptions, RecipeOptions):
    """Options of every pretraining run."""


@dataclass(kw_only=True)
class Pretrain(Training):
    """Pretrain a masked autoencoder (VideoMAE, AudioMAE, MAE, CAV-MAE) on a folder of ordinary
    files.

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

    init_audio: Init = None
    """avt: begin with this encoder of sound, and with --init's of video; both in any form that
    --init takes. Blocks and patches are theirs; fusion starts anew."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)
        self.init = None if self.init is None else Path(self.init)
        self.init_audio = None if self.init_audio is None else Path(self.init_audio)
        self.target = None if self.target is None else Path(self.target)


def check(options: Pretrain) -> None:
    """Refuse values outside their range, before any work."""
    check_run_options(options)
    for name in ("frames", "size", "stride"):
        need_at_least(options, name, 1)
    check_modality(PRESETS, options.modality)
    if options.files_from is not None and not os.path.isdir(options.files_from):
        raise UsageError(f"--files-from {printable(str(options.files_from))}: is no folder")
    check_apart(options.out, options.data)


def preset_of(options: Pretrain) -> Preset:
    """The preset, with the options that were given put in place of its values."""
    preset = chosen(PRESETS, options.modality, options.preset)
    objective = objective_of(options, options.modality, preset.objective)
    changed = Preset(
        clip=_clip_of(options, preset.clip),
        masks=masks_of(options, own_masks(objective, preset.masks)),
        objective=objective,
        optimisation=overridden(
            preset.optimisation,
            batch_size=options.batch_size,
            weight_decay=options.weight_decay,
            steps=options.steps,
            warmup_steps=options.warmup_steps,
            checkpoint_every=options.checkpoint_every,
        ),
        hidden_time=preset.hidden_time if options.hidden_time is None else options.hidden_time,
    )
    check_batch_size(changed.optimisation.batch_size, options.accumulate)
    if isinstance(objective, CavMae):
        _check_contrast(options, changed.optimisation.batch_size, objective)
    if isinstance(objective, Avt):
        check_pairs(options, changed.optimisation.batch_size, objective.weights)
    return changed


def _check_contrast(options: Pretrain, batch_size: int, objective: CavMae) -> None:
    """Samples of all processes are compared."""
    part = batch_size // (options.accumulate or 1)
    if part < 2 and objective.contrast_weight:
        raise UsageError(
            f"--batch-size {batch_size}: cav-mae compares samples with each other, and {part} goes "
            "through the model at a time; give more, or a smaller --accumulate"
        )


def _clip_of(options: Pretrain, clip: Modality) -> Modality:
    allowed = settings_of(clip)
    for name in ("frames", "size"):
        value, own = getattr(options, name), {field.name for field in fields(clip)}
        if value is not None and name not in own:
            raise UsageError(f"--{name} {value}: {options.modality} has no such option")
    if options.stride is not None and "stride" not in allowed:
        raise UsageError(f"--stride {options.stride}: {options.modality} has no stride")
    spread = getattr(clip, "spread", None)
    if options.stride is not None and spread is not None:
        raise UsageError(
            f"--stride {options.stride}: --preset {options.preset} spreads {spread} frames over "
            "the sound"
        )
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
    mean, std = _statistics(options, allowed)
    return with_settings(
        clip,
        frames=options.frames,
        size=options.size,
        stride=options.stride,
        pixel_aspect=options.pixel_aspect,
        padding=options.padding,
        mean=mean,
        std=std,
        flip=False if mirrors else None,
        crop=None if options.crop else _fixed_crop(clip),
    )


def _statistics(
    options: Pretrain, allowed: set[str]
) -> tuple[tuple[float] | None, tuple[float] | None]:
    """--mean and --std, as the modality has them."""
    mean, std = options.mean, options.std
    if mean is None and std is None:
        return None, None
    given = f"--mean {mean}" if std is None else f"--std {std}"
    if mean is None or std is None:
        missing = "--std" if std is None else "--mean"
        raise UsageError(f"{given}: {missing} is missing; give both, or neither")
    if "std" not in allowed:
        raise UsageError(f"{given}: is for sound; {options.modality} has none")
    if not math.isfinite(mean):
        raise UsageError(f"--mean must be a number, got {mean}")
    if not 0 < std < math.inf:
        raise UsageError(f"--std must be above 0, got {std}")
    return (mean,), (std,)


def _fixed_crop(clip: Any) -> Any:
    """That of evaluation, of a modality or of the one of its parts that has pictures; None: none
    has."""
    own = [getattr(clip, field.name) for field in fields(clip)]
    return next((part.fixed_crop for part in (clip, *own) if hasattr(part, "fixed_crop")), None)

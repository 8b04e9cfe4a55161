"""What a user can ask of masks, put in place of a preset's."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from tyro.conf import arg

from smnm_kernels import schedules
from smnm_kernels.errors import UsageError
from smnm_kernels.kinds import KINDS, parameters_of
from smnm_kernels.train.run.options import Count, Number, flag, need_at_least

from .masking import BankSettings, EasierMasks, HintSettings, MaskSettings, are_paired
from .preset_options import overridden

Kind = Annotated[str | None, arg(metavar="KIND", help_behavior_hint="")]
MaskParameters = Annotated[
    tuple[str, ...], arg(metavar="NAME=VALUE [NAME=VALUE ...]", help_behavior_hint="")
]
HintSchedule = Annotated[str | None, arg(metavar="dwm|START[:POWER]", help_behavior_hint="")]
MaskBank = Annotated[str | None, arg(metavar="crop|resize[:VOLUMES]", help_behavior_hint="")]

#: What --mask-options must not set.
_MASK_FIELDS = {
    "kind": "--mask",
    "mask_ratio": "--mask-ratio",
    "n_keep": "--n-keep",
    "seed": "--seed",
    "grid": "the preset",
    "freq_major": "the model",
    "every": "--hint-schedule",
}

#: Options that clips with sound have nothing like.
_OF_ONE_INPUT = ("hint_schedule", "mask_bank", "mask_from", "mask_from_options")


@dataclass(kw_only=True)
class MaskOptions:
    """Of modalities with one input."""

    mask: Kind = None
    """Kind of mask, any of smnm.MaskSampler's: green3d, red3d, ..., rbn, random, tube, grid, block,
    inverse_block, multi_block, time_frequency, bands, frames, running_cell, dispersion,
    motion, activity, self_guided. Default: the preset's."""
    mask_ratio: Number = None
    """Share of patches that is masked, in [0, 1). Default: the preset's."""
    n_keep: Count = None
    """Number of visible patches, in place of --mask-ratio. At one ratio, kinds that repeat over
    time show fewer patches than others; a fair comparison gives all the same, a multiple of the
    grid's frames."""
    mask_options: MaskParameters = ()
    """Parameters of the kind of mask, NAME=VALUE each, such as sigma=variant-3 time_scale=2,
    windows=3,5 tie_break=random, metric=variance or hint_ratio=0.3. smnm.MaskSampler names them."""
    hint_schedule: HintSchedule = None
    """Dispersion, motion and self_guided masks: how the share of chance, 1 at first, falls. dwm is
    1 for a sixth of the schedule's steps and then 1 - (step / steps)^2; START:POWER sets both,
    START a share of the steps. Default: the preset's, or no chance (hint_ratio=0);
    --mask-options hint_ratio=0 takes the place of a preset's schedule."""
    mask_bank: MaskBank = None
    """Masks of noise: cut them from volumes that are made before training, for comparison with the
    structured-noise paper. Its Algorithm 2 crops and its section 3.4 resizes, which makes other
    masks. 256 volumes of 64x64x64 take 256 MiB in every process; VOLUMES sets another number.
    Default: noise is made for each batch."""
    mask_from: Kind = None
    """Masks from easy to hard: begin as this kind; the share of samples that get --mask's rises
    evenly from 0 to 1 over the schedule's steps. Both must show as many patches (--n-keep).
    Default: all masks are --mask's."""
    mask_from_options: MaskParameters = ()
    """Parameters of --mask-from, as --mask-options. It may be the same kind with others."""


@dataclass(kw_only=True)
class AudioVideoMaskOptions:
    """Of clips with sound."""

    video_mask: Kind = None
    """audio-video: as --mask, of the pictures. Default, as of the next seven: the preset's."""
    video_mask_ratio: Number = None
    """audio-video: as --mask-ratio, of the pictures."""
    video_n_keep: Count = None
    """audio-video: as --n-keep, of the pictures."""
    video_mask_options: MaskParameters = ()
    """audio-video: as --mask-options, of the pictures."""
    audio_mask: Kind = None
    """audio-video: as --mask, of the sound."""
    audio_mask_ratio: Number = None
    """audio-video: as --mask-ratio, of the sound."""
    audio_n_keep: Count = None
    """audio-video: as --n-keep, of the sound."""
    audio_mask_options: MaskParameters = ()
    """audio-video: as --mask-options, of the sound."""
    hidden_time: Number = None
    """audio-video: a share of each clip's moments, in (0, 1), hidden in pictures and sound at once;
    as many patches stay visible, in the other moments. Needs masks of noise, of the sound also rbn.
    Default: the two are masked independently."""


def masks_of(options: Any, preset: Mapping[str, MaskSettings]) -> dict[str, MaskSettings]:
    """The preset's masks of each input, with what MaskOptions and AudioVideoMaskOptions give."""
    _refuse_others(options, preset)
    found = {}
    for name, masks in preset.items():
        kind, ratio, words = asked_of(options, name)
        count = n_keep_option(options, name)
        need_at_least(options, count, 1)
        n_keep = getattr(options, count)
        if n_keep is not None and ratio is not None:
            given = f"{flag(count)} {n_keep}"
            raise UsageError(f"{given}: and {prefix_of(options, name)}-ratio; give one")
        if kind not in (None, masks.kind):  # what the preset says of its own kind
            masks = replace(masks, parameters={}, hint=None)
        if _gives_hint(words) and options.hint_schedule is None:
            masks = replace(masks, hint=None)  # one share of chance for the whole run
        found[name] = overridden(
            masks,
            kind=kind,
            ratio=ratio,
            parameters=parsed_parameters(words, f"{prefix_of(options, name)}-options"),
            hint=_hint_of(options, kind or masks.kind),
            n_keep=n_keep,
            bank=_bank_of(options),
            easier=_easier_of(options),
        )
        if found[name].easier and found[name].hint:
            raise UsageError(
                f"--mask-from {options.mask_from}: and a hint schedule, from --hint-schedule or "
                f"--preset {options.preset}; one schedule at a time"
            )
    return found


def words_of(options: Any, name: str, masks: MaskSettings) -> str:
    """What was asked for, of this input's masks."""
    prefix, (_, _, parameters) = prefix_of(options, name), asked_of(options, name)
    words = [prefix, masks.kind]
    if masks.n_keep is None:
        words += [f"{prefix}-ratio", str(masks.ratio)]
    else:
        words += [flag(n_keep_option(options, name)), str(masks.n_keep)]
    if parameters:
        words += [f"{prefix}-options", *parameters]
    if masks.bank is not None:
        words += ["--mask-bank", options.mask_bank]
    if masks.easier is not None:
        words += ["--mask-from", masks.easier.kind]
        if options.mask_from_options:
            words += ["--mask-from-options", *options.mask_from_options]
    return " ".join(words)


def prefix_of(options: Any, name: str) -> str:
    """The option for the kind of this input's masks; with "-ratio" and "-options" behind it, the
    other two."""
    return f"--{name}-mask" if _have_two(options) else "--mask"


def n_keep_option(options: Any, name: str) -> str:
    """The field for the number of this input's visible patches."""
    return f"{name}_n_keep" if _have_two(options) else "n_keep"


def asked_of(options: Any, name: str) -> tuple[str | None, float | None, tuple[str, ...]]:
    """(kind, ratio, parameters) that are given for this input."""
    prefix = f"{name}_mask" if _have_two(options) else "mask"
    kind, ratio, words = (getattr(options, prefix + end) for end in ("", "_ratio", "_options"))
    return kind, ratio, words


def _have_two(options: Any) -> bool:
    """Whether options name the input."""
    return options.modality == "audio-video"


def _refuse_others(options: Any, preset: Mapping[str, MaskSettings]) -> None:
    """Options of another kind of modality, or of an input that is not masked."""
    have_two = _have_two(options)
    for name in (*MaskOptions.__dataclass_fields__, *AudioVideoMaskOptions.__dataclass_fields__):
        given, word = getattr(options, name), "--" + name.replace("_", "-")
        if given is None or given == ():
            continue
        of_two = name in AudioVideoMaskOptions.__dataclass_fields__
        if of_two and not have_two:
            raise UsageError(f"{word}: is for audio-video; {options.modality} has one input")
        if have_two and name in _OF_ONE_INPUT:
            raise UsageError(f"{word}: is for one input, and audio-video has two")
        if have_two and not of_two:
            raise UsageError(
                f"{word}: is for one input, and audio-video has two; give --video{word[1:]} or "
                f"--audio{word[1:]}"
            )
        masked = are_paired(preset) if name == "hidden_time" else name.partition("_")[0] in preset
        if of_two and not masked:
            raise UsageError(
                f"{word}: this objective masks "
                + (f"{' and '.join(preset)} only" if preset else "nothing")
            )


def parsed_parameters(words: Sequence[str], option: str) -> dict[str, Any] | None:
    """From NAME=VALUE: numbers, True and False, sequences with commas, else text."""
    parameters = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text) or name in parameters:
            raise UsageError(f"{option} must be NAME=VALUE, each name once, got {word!r}")
        if name in _MASK_FIELDS:
            prefix = option.removesuffix("-options")
            if name != "kind":
                prefix = prefix.removesuffix("-from")
            sets = _MASK_FIELDS[name].replace("--mask", prefix)
            if option.endswith("mask-options"):
                sets = sets.replace("--n-keep", option.replace("mask-options", "n-keep"))
            raise UsageError(f"{option} {word}: {sets} sets it")
        try:
            parameters[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            parameters[name] = text
    return parameters or None


def _gives_hint(words: Sequence[str]) -> bool:
    return any(word.startswith("hint_ratio=") for word in words)


def _hint_of(options: Any, kind: str) -> HintSettings | None:
    given = options.hint_schedule
    if given is None:
        return None
    asked = f"--hint-schedule {given}"
    able = [name for name in KINDS if "hint_ratio" in parameters_of(name)]
    if kind not in able:
        raise UsageError(f"{asked}: is for --mask {' or '.join(able)}, and masks are {kind}")
    if _gives_hint(options.mask_options):
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


def _bank_of(options: Any) -> BankSettings | None:
    given = options.mask_bank
    if given is None:
        return None
    place, colon, volumes = given.partition(":")
    if place not in ("crop", "resize") or (colon and not (volumes.isdecimal() and int(volumes))):
        raise UsageError(
            f"--mask-bank must be crop or resize, or with a number of volumes such as crop:1024, "
            f"got {given!r}"
        )
    return BankSettings(place, int(volumes)) if colon else BankSettings(place)


def _easier_of(options: Any) -> EasierMasks | None:
    given, words = options.mask_from, options.mask_from_options
    if given is None:
        if words:
            raise UsageError(
                f"--mask-from-options {' '.join(words)}: is for --mask-from, and none is given"
            )
        return None
    if options.mask_bank is not None:
        raise UsageError(f"--mask-from {given}: and --mask-bank {options.mask_bank}; give one")
    return EasierMasks(given, parsed_parameters(words, "--mask-from-options") or {})

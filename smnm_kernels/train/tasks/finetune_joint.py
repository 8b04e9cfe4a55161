"""Fine-tuning of clips with sound: what a user can ask beside the rest, and what it settles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

from smnm_kernels import MaskSampler
from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.modality import InputFormat, Modality
from smnm_kernels.train.models.audio_video_encoder import AudioVideoSettings
from smnm_kernels.train.models.avt_encoder import FusedEncoder, FusedEncoderSettings
from smnm_kernels.train.models.avt_learner import LossWeights
from smnm_kernels.train.models.formats.state import digest_of
from smnm_kernels.train.models.fusion import FusionSettings
from smnm_kernels.train.models.joint_classifier import Modalities, inputs_of
from smnm_kernels.train.models.joint_pretrained import JointPretrained, find_joint_encoder
from smnm_kernels.train.models.pretrained import UNTRAINED
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.machine import find_device

from .avt_options import (
    SEGMENT_RATIO,
    AvtOptions,
    asked,
    check_pairs,
    check_same_fusion,
    fused_like,
    fusion_of,
    loss_weights,
)
from .finetune_forms import WithAvtLosses, WithSound
from .finetune_presets.preset import FinetunePreset
from .finetune_settled import Setup
from .preset_options import overridden

NAME = AudioVideo.name
ModalitiesOption = Annotated[
    Modalities | None, arg(metavar="{both,audio,video}", help_behavior_hint="")
]
ObjectiveOption = Annotated[Literal["avt"] | None, arg(metavar="avt", help_behavior_hint="")]

# Of a file's picture and of its sound, what is as the encoder was trained.
_PICTURE = ("frames", "size", "stride", "pixel_aspect")
_SOUND = ("frames", "bands", "padding", "front", "mean", "std")


@dataclass(kw_only=True)
class JointOptions(AvtOptions):
    """Of clips with sound."""

    modalities: ModalitiesOption = None
    """audio-video: what the model looks at: both, the sound alone or the picture alone.
    Default: both."""
    objective: ObjectiveOption = None
    """audio-video: avt learns AVT's other losses beside the labels, with an encoder of --objective
    avt, or without a trained one (--encoder none). Default: the labels alone."""


def check_joint(options: Any) -> None:
    """Refuse what does not go together, before any work."""
    if options.modality != NAME:
        for name in ("modalities", "objective"):
            value = getattr(options, name)
            if value is not None:
                raise UsageError(f"--{name} {value}: is for {NAME}, not {options.modality}")
        if asked(options):
            raise UsageError(f"{asked(options)[0]}: is for {NAME}, not {options.modality}")
        return
    if options.modalities not in (None, *get_args(Modalities)):
        raise UsageError(f"--modalities must be both, audio or video, got {options.modalities!r}")
    if options.objective not in (None, "avt"):
        raise UsageError(f"--objective must be avt, got {options.objective!r}")
    if options.objective is None and asked(options):
        raise UsageError(f"{asked(options)[0]}: is for --objective avt")
    if options.objective and modalities_of(options) != "both":
        raise UsageError(
            f"--modalities {options.modalities}: --objective avt compares pictures with sound; it "
            "needs both"
        )
    if options.mask_ratio is not None:
        raise UsageError(f"--mask-ratio {options.mask_ratio}: is for audio, not {NAME}")
    if options.pool == "class":
        raise UsageError(f"--pool class: encoders of {NAME} have no class token to pool")
    if options.jitter and modalities_of(options) == "video":
        raise UsageError(f"--jitter {options.jitter}: is for sounds, and --modalities video")
    if options.cutmix and modalities_of(options) == "audio":
        raise UsageError(f"--cutmix {options.cutmix}: is for pictures and video")


def modalities_of(options: JointOptions) -> Modalities:
    return options.modalities or "both"


def mix_of(options: Any, mix: Mix) -> Mix:
    """Of the sound alone powers are mixed."""
    if options.modality == NAME and modalities_of(options) == "audio":
        return mix.of_sounds()
    return mix


def set_up_joint(options: Any, preset: FinetunePreset) -> Setup:
    """Everything that can be refused without looking at a file or at RUN."""
    device = find_device(options.device)
    say: Callable[[str], None] = print if ranks.rank() == 0 else lambda text: None
    weights = loss_weights(options) if options.objective else LossWeights(0, 0, 0)
    check_pairs(options, preset.optimisation.batch_size, weights, preset.mix.on)
    first = clip_of(options, preset, None)
    try:
        pretrained = find_joint_encoder(
            f"--encoder {printable(options.encoder)}",
            options.encoder,
            first.inputs,
            _untrained(options, preset),
            options.seed,
        )
    except ValueError as error:  # sizes that patches do not fill, of an untrained encoder
        raise UsageError(f"--encoder {options.encoder}: {error}") from error
    encoder = pretrained.encoder
    if options.objective:
        if not isinstance(encoder, FusedEncoder):
            raise UsageError(
                f"--objective avt: --encoder {options.encoder} is of another objective; give an "
                f"encoder of smnm pretrain {NAME} --objective avt, or {UNTRAINED}"
            )
        check_same_fusion(options, encoder.settings.fusion, options.encoder)
    clip = clip_of(options, preset, pretrained)
    formats = {
        name: replace(given, mean=pretrained.mean[name], scale=pretrained.scale[name])
        for name, given in clip.inputs.items()
    }
    _check_sizes(options, encoder.input_sizes, formats)
    _say_differences(options, preset, clip, say)
    modalities = modalities_of(options)
    grids = {name: encoder.branch(name).grid for name in inputs_of(modalities)}
    form = WithSound(encoder, modalities)
    if any((weights.contrast, weights.matching, weights.segment)):
        sampler = None
        if weights.segment:
            sampler = MaskSampler("activity", grids["audio"], SEGMENT_RATIO, seed=options.seed)
        form = WithAvtLosses(encoder, modalities, weights, sampler)
    return Setup(
        preset=preset,
        clip=clip,
        inputs={name: formats[name] for name in grids},
        form=form,
        grids=grids,
        origin=pretrained.origin,
        digest=digest_of(encoder.state_dict()),
        device=device,
        seed=options.seed,
        all_inputs=formats,
    )


def _untrained(options: Any, preset: FinetunePreset) -> AudioVideoSettings | FusedEncoderSettings:
    """The model of --encoder none."""
    assert isinstance(preset.model, AudioVideoSettings)
    if not options.objective:
        return preset.model
    return fused_like(preset.model, fusion_of(options, FusionSettings()))


def clip_of(options: Any, preset: FinetunePreset, pretrained: JointPretrained | None) -> AudioVideo:
    """How files are read: as the encoder was trained, where nothing else is asked for.

    pretrained: None before it is known; then with the preset's sizes.
    """
    clip = preset.clip
    assert isinstance(clip, AudioVideo)
    if pretrained and pretrained.clip:
        try:
            clip = clip_as_trained(clip, pretrained.clip)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"--encoder {options.encoder}: its samples are not of this version ({error})"
            ) from error
    for name in ("frames", "stride"):
        value = getattr(options, name)
        if value is not None and clip.spread is not None:
            raise UsageError(
                f"--{name} {value}: frames are spread over the sound here, {clip.spread} of them "
                f"(--preset {options.preset}, or as the encoder was trained)"
            )
    video = overridden(
        clip.video,
        frames=options.frames,
        size=options.size,
        stride=options.stride,
        pixel_aspect=options.pixel_aspect,
        flip=None if options.flip else False,
        crop=None if options.crop else clip.video.fixed_crop,
    )
    if not options.augment:
        video = replace(video, augment=None, erase=None)
    return replace(clip, video=video, audio=overridden(clip.audio, padding=options.padding))


def clip_as_trained(clip: Modality, held: dict[str, Any]) -> AudioVideo:
    """`clip` with what of its samples is as an encoder was trained. held: fields of the modality
    then, as JSON holds them; KeyError, TypeError or ValueError where they are others."""
    assert isinstance(clip, AudioVideo)
    video, audio = held["video"], held["audio"]
    return replace(
        clip,
        video=replace(clip.video, **{name: video[name] for name in _PICTURE}),
        audio=replace(clip.audio, **{name: audio[name] for name in _SOUND}),
        spread=held["spread"],
    )


def _check_sizes(options: Any, trained: dict[str, Any], formats: dict[str, InputFormat]) -> None:
    for name, given in formats.items():
        if given.size != trained[name]:
            raise UsageError(
                f"--encoder {options.encoder}: takes {name} of {trained[name]} (C, T, H, W), and "
                f"--frames and --size ask for {given.size}"
            )


def _say_differences(
    options: Any, preset: FinetunePreset, clip: AudioVideo, say: Callable[[str], None]
) -> None:
    """What is the encoder's and not the preset's, where no option asked for it."""
    assert isinstance(preset.clip, AudioVideo)
    pairs = ((preset.clip.video, clip.video, _PICTURE), (preset.clip.audio, clip.audio, _SOUND))
    found = []
    for wanted, given, names in pairs:
        for name in names:
            before, now = getattr(wanted, name), getattr(given, name)
            if before != now and getattr(options, name, None) is None:
                found.append(f"{given.name} {name.replace('_', '-')} {now}, not {before}")
    if found:
        say(f"--preset {options.preset}: inputs are as the encoder was trained, {', '.join(found)}")

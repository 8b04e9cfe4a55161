"""What a user can ask of AVT: fusion and losses."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, get_args

from tyro.conf import arg

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.audio_video_encoder import AudioVideoSettings
from smnm_kernels.train.models.avt_encoder import FusedEncoderSettings
from smnm_kernels.train.models.avt_learner import LossWeights
from smnm_kernels.train.models.fusion import FusionKind, FusionSettings
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.options import Count, Number

from .preset_options import overridden

FusionOption = Annotated[
    FusionKind | None, arg(metavar="{bottleneck,concat,late}", help_behavior_hint="")
]

#: Of a sound's patches, the share that activity masks hide for the segment's loss: near the share
#: of time that is sound (our choice).
SEGMENT_RATIO = 0.4

_OF_FUSION = {"kind": "fusion", "tokens": "bottleneck", "blocks": "fusion_blocks"}
_OF_LOSSES = {"contrast": "contrast_weight", "matching": "matching_weight",
              "segment": "segment_weight"}  # fmt: skip


@dataclass(kw_only=True)
class AvtOptions:
    """Of --objective avt."""

    fusion: FusionOption = None
    """avt: what the blocks behind the encoders attend to beside their own tokens: bottleneck, a few
    tokens that pass on what the two tell each other; concat, all tokens; late, nothing.
    Default: bottleneck."""
    bottleneck: Count = None
    """avt: tokens of the bottleneck. Default: 4."""
    fusion_blocks: Count = None
    """avt: blocks of fusion. Default: the preset's, 4."""
    contrast_weight: Number = None
    """avt: weight of the contrast between pictures and sound before fusion; 0 leaves it out, as of
    the next two. Default: 0.5."""
    matching_weight: Number = None
    """avt: weight of telling a clip's own sound from another's behind fusion. Default: 0.1."""
    segment_weight: Number = None
    """avt: weight of restoring a masked sound. Default: 0.01."""


def asked(options: AvtOptions) -> list[str]:
    """Those that are given, as words."""
    names = [*_OF_FUSION.values(), *_OF_LOSSES.values()]
    return [
        f"--{name.replace('_', '-')} {value}"
        for name in names
        if (value := getattr(options, name)) is not None
    ]


def loss_weights(options: AvtOptions) -> LossWeights:
    """AVT's, with those that are given. UsageError where one is out of range."""
    for name in _OF_LOSSES.values():
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"--{name.replace('_', '-')} must be a number from 0 on, got {value}")
    return overridden(
        LossWeights(), **{field: getattr(options, name) for field, name in _OF_LOSSES.items()}
    )


def check_pairs(options: Any, batch_size: int, weights: LossWeights, mixes: bool = False) -> None:
    """UsageError where a process gets too few samples at a time to compare them. Two that are mixed
    with each other are not compared."""
    part = batch_size // (options.accumulate or 1) // ranks.world_size()
    if part < (4 if mixes else 2) and (weights.contrast or weights.matching):
        but = ", but not two that are mixed" if mixes else ""
        raise UsageError(
            f"--batch-size {batch_size}: contrast and matching compare samples with each other{but}"
            f", and {part} {'goes' if part == 1 else 'go'} through the model at a time; give more, "
            "or --contrast-weight 0 --matching-weight 0"
        )


def fusion_of(options: AvtOptions, fusion: FusionSettings) -> FusionSettings:
    """These settings, with what is given. UsageError where it is out of range."""
    if options.fusion not in (None, *get_args(FusionKind)):
        raise UsageError(f"--fusion must be bottleneck, concat or late, got {options.fusion!r}")
    for name in ("bottleneck", "fusion_blocks"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    given = {field: getattr(options, name) for field, name in _OF_FUSION.items()}
    changed = overridden(fusion, **given)
    if options.bottleneck is not None and changed.kind != "bottleneck":
        raise UsageError(
            f"--bottleneck {options.bottleneck}: is for --fusion bottleneck, and fusion is "
            f"{changed.kind}"
        )
    return changed


def fused_like(settings: AudioVideoSettings, fusion: FusionSettings) -> FusedEncoderSettings:
    """AVT's encoder with the branches of CAV-MAE's for its encoders: each has a norm of its own
    behind its last block, and fusion in place of the joint blocks."""
    video, audio = (replace(settings.of(name), final_norm=True) for name in ("video", "audio"))
    return FusedEncoderSettings(video, audio, fusion)


def check_same_fusion(options: AvtOptions, held: FusionSettings, encoder: str) -> None:
    """UsageError where an option asks for another fusion than a trained encoder has."""
    wanted = fusion_of(options, held)
    differing = [
        f"--{_OF_FUSION[name].replace('_', '-')} {value}"
        for name, value in asdict(wanted).items()
        if value != getattr(held, name)
    ]
    if differing:
        raise UsageError(
            f"{differing[0]}: --encoder {encoder} was trained with {held.kind} fusion of "
            f"{held.blocks} blocks" + _tokens(held)
        )


def _tokens(fusion: Any) -> str:
    return f" and {fusion.tokens} tokens" if fusion.kind == "bottleneck" else ""

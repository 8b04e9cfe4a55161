"""What a user can ask of `smnm probe`, and its checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

from tyro.conf import Positional, arg
from tyro.extras import literal_type_from_choices

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Treatment
from smnm_kernels.train.data.view import PixelAspect
from smnm_kernels.train.data.waiting import DEFAULT_STALL_LIMIT_S
from smnm_kernels.train.run.options import Count, Precision, check_apart, flag, need_at_least

from .label_options import Folder, LabelOptions
from .options import PresetName
from .preset_options import PaddingOption, PixelAspectOption, check_modality
from .presets import PRESETS as ALL_PRESETS
from .probing.layers import LAST, Pool
from .probing.protocol import ProbeName

#: Of encoders with one input.
PRESETS = {name: presets for name, presets in ALL_PRESETS.items() if name != "audio-video"}
if TYPE_CHECKING:
    ModalityName = str
else:
    ModalityName = Positional[literal_type_from_choices(PRESETS)]


@dataclass(kw_only=True)
class Probe(LabelOptions):
    """Measure what can be read from the frozen features of an encoder, on labelled files.

    The test files are those of the split test, or of val where there is no test. Settings of the
    probes are chosen on val, or on a fifth of the training files where val is what is tested.
    """

    modality: ModalityName
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Labelled files: a folder per class, with or without train/, val/ and test/ above it, or a
    list."""
    encoder: str
    """RUN, its encoder.safetensors, an encoder in another known format, or none (untrained)."""
    out: Path
    """Folder for results.json, predictions and pictures."""
    against: tuple[str, ...] = ()
    """Further encoders on the same files, with intervals of the differences. none has the
    architecture of the first encoder that is not none."""
    probes: tuple[ProbeName, ...] = ("linear", "knn")
    """linear: logistic regression, or ridge regression of numbers; knn: nearest neighbours by
    cosine; attentive: one block of attention from a learned query to all tokens."""
    layer: tuple[str, ...] = (LAST,)
    """Features after these blocks, 0 being the embedding; last comes after the final norm."""
    pool: Pool = "mean"
    """mean: over the patch tokens, without padding; class: the class token; time: audio, over time
    alone, mel bands side by side (MSM-MAE)."""
    clips: int = 1
    """Views of a file whose features are averaged: N clips evenly along time,"""
    crops: int = 1
    """times N crops evenly along the longer side."""
    k: Count = None
    """Nearest neighbours. Default: of 1, 3, 5, 10, 20 and 50 what is best where settings are
    chosen."""
    few_shot: tuple[int, ...] = (1, 2, 5, 10)
    """Also fit linear and knn probes to so many training files of each class. Empty for none."""
    draws: int = 10
    """Choices of these few files."""
    preset: PresetName = "tiny"
    """Architecture of an encoder none, where no other encoder is given."""
    stride: Count = None
    """Video: take every N-th frame. Default: the encoder's in pretraining, else the preset's."""
    pixel_aspect: PixelAspectOption = None
    """Video whose pixels are not square: apply scales the width, ignore takes them as they are.
    Default: as in pretraining."""
    padding: PaddingOption = None
    """Audio, of recordings shorter than the window: hide encodes what is real alone, see treats
    padding as sound. Default: as in pretraining."""
    seed: int = 0
    """Of weights of none, the attentive probe, few-shot draws and the bootstrap."""
    cache: Folder = None
    """Folder that keeps features, for other commands, too. Default: OUT/features."""
    batch_size: int = 16
    """Samples that go through the encoder together."""
    workers: Count = None
    """Processes that read files; 0 reads in this one. Default: one less than there are cores, at
    least 1, at most 8."""
    stall_limit: int = DEFAULT_STALL_LIMIT_S
    """End with an error after so many seconds in which what looks at a file shows no sign of life.
    """
    scan_of: Folder = None
    """Folder of a run of the same DATA: files that have not changed since are not looked at again.
    """
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Of the encoder's matrix products. auto is bfloat16 on CUDA and float32 on the CPU."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)


def check(options: Probe) -> None:
    """Refuse values outside their range."""
    for name in ("clips", "crops", "k", "draws", "stride", "batch_size", "stall_limit"):
        need_at_least(options, name, 1)
    for name in ("seed", "workers"):
        need_at_least(options, name, 0)
    check_modality(PRESETS, options.modality)
    if options.preset not in PRESETS[options.modality]:
        raise UsageError(
            f"--preset {options.preset}: {options.modality} has "
            f"{', '.join(PRESETS[options.modality])}"
        )
    clip = PRESETS[options.modality][options.preset].clip
    allowed = {field.name for field in fields(clip)}
    for name, choices in (
        ("stride", None),
        ("pixel_aspect", get_args(PixelAspect)),
        ("padding", get_args(Treatment)),
    ):
        value = getattr(options, name)
        if value is not None and name not in allowed:
            raise UsageError(f"{flag(name)} {value}: {options.modality} has no such option")
        if value is not None and choices and value not in choices:
            raise UsageError(f"{flag(name)} must be one of {', '.join(choices)}, got {value!r}")
    if options.pool == "time" and options.modality != "audio":
        raise UsageError("--pool time: is for audio")
    if options.modality != "video" and options.modality != "audio" and options.clips != 1:
        raise UsageError(f"--clips {options.clips}: {options.modality} has no time")
    if options.modality == "audio" and options.crops != 1:
        raise UsageError(f"--crops {options.crops}: is for pictures and video")
    for name in ("probes", "layer"):
        given = getattr(options, name)
        if not given or len(set(given)) < len(given):
            raise UsageError(f"{flag(name)}: each once, and at least one, got {' '.join(given)!r}")
    unknown = [name for name in options.probes if name not in get_args(ProbeName)]
    if unknown:
        allowed_probes = ", ".join(get_args(ProbeName))
        raise UsageError(f"--probes must be of {allowed_probes}, got {unknown[0]!r}")
    shots = options.few_shot
    if any(n < 1 for n in shots) or list(shots) != sorted(set(shots)):
        raise UsageError(f"--few-shot must be ascending numbers of at least 1, got {shots}")
    check_apart(options.out, options.data)

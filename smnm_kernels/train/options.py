"""What a user can ask for, and its checks. Defaults that depend on a preset are in presets.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from smnm_kernels.errors import UsageError

from .presets import PRESETS, Preset

# None stands for the preset's own value; help says in words what that is.
Text = Annotated[str | None, arg(metavar="KIND", help_behavior_hint="")]
Count = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Number = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]


@dataclass(kw_only=True)
class Training:
    """Options of every pretraining run."""

    preset: Literal["tiny", "small", "base"] = "tiny"
    """tiny runs on two CPU cores in minutes; small and base are ViT-S and ViT-B."""
    mask: Text = None
    """Kind of mask, any of smnm.MaskSampler's: green3d, red2d, ..., rbn, random, tube, grid, block,
    inverse_block, time_frequency.
    Default: green3d for video, rbn for audio."""
    mask_ratio: Number = None
    """Share of patches that is masked, in [0, 1). Default: 0.9 for video, 0.8 for audio."""
    seed: int = 0
    """Decides weights, masks, order of files and crops."""
    steps: Count = None
    """Train until N steps are done. Raise it to go on with a finished run. Default: tiny 300;
    small and base 800 (video) or 32 (audio) passes over the files."""
    schedule_steps: Count = None
    """Length of the learning rate's cosine. Fixed when a run begins, by default to its --steps;
    steps beyond it keep the lowest rate."""
    warmup_steps: Count = None
    """Steps of linear warmup. Default: tiny 30; video a twentieth, audio 3/32 of the schedule."""
    batch_size: Count = None
    """Clips per step, over all processes together. Default: tiny 8, video 1024, audio 512."""
    lr: Number = None
    """Peak learning rate. Default: the preset's base rate times batch size / 256."""
    weight_decay: Number = None
    """AdamW's, of weight matrices. Default: 0.05 for video, 0.0001 for audio."""
    stride: Count = None
    """Video: take every N-th frame; shorter files get the largest stride that fits.
    Default: 4, tiny 2."""
    flip: bool = True
    """Video: mirror half of the clips."""
    workers: Count = None
    """Processes that read files; 0 reads in the trainer itself. Never changes a result.
    Default: one less than there are cores, at least 1, at most 8."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Count = None
    """CPU threads of the model. Default: torch's own number, but at most one less than there are
    cores; on resume the run's."""
    checkpoint_every: Count = None
    """Steps between two checkpoints. Default: 500, tiny 50."""


@dataclass(kw_only=True)
class Pretrain(Training):
    """Pretrain a masked autoencoder (VideoMAE, AudioMAE) on a folder of ordinary files.

    A run that was stopped, by Ctrl-C or by a crash, goes on when the same command is given again.
    """

    modality: Positional[Literal["video", "audio"]]
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Folder that is searched for files, with everything below it."""
    out: Path
    """Folder of the run: made if missing, resumed if it holds a run."""


_IN_PRESET = (
    "mask",
    "mask_ratio",
    "steps",
    "warmup_steps",
    "batch_size",
    "weight_decay",
    "stride",
    "checkpoint_every",
)


def preset_of(options: Pretrain) -> Preset:
    """The preset, with the options that were given put in place of its values."""
    preset = PRESETS[options.modality][options.preset]
    changed = {
        name: getattr(options, name) for name in _IN_PRESET if getattr(options, name) is not None
    }
    return Preset(**(vars(preset) | changed))


def check(options: Pretrain) -> None:
    """Refuse values outside their range, before any work."""
    at_least_one = (
        "steps",
        "schedule_steps",
        "batch_size",
        "stride",
        "threads",
        "checkpoint_every",
    )
    for name in at_least_one:
        _need(options, name, 1)
    for name in ("warmup_steps", "workers"):
        _need(options, name, 0)
    for name in ("lr", "weight_decay"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(
                f"--{name.replace('_', '-')} must be a finite number >= 0, got {value}"
            )
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed must be in [0, 2**63), got {options.seed}")
    if not options.data.is_dir():
        what = "is not a folder" if options.data.exists() else "does not exist"
        raise UsageError(
            f"DATA {options.data}: {what}; a folder of {options.modality} files is needed"
        )


def _need(options: Pretrain, name: str, least: int) -> None:
    value: Any = getattr(options, name)
    if value is not None and value < least:
        raise UsageError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")

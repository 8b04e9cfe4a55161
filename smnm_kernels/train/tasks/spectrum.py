"""`smnm spectrum`: where the energy of one's own files lies, beside where masks have theirs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import PIL.Image
import torch
from tyro.conf import Positional, arg

from smnm_kernels import MaskSampler
from smnm_kernels.analysis.energy import (
    TIME_SCALES,
    Distribution,
    Proposal,
    distribution,
    periodogram,
    propose,
)
from smnm_kernels.arguments import Grid
from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import reason, replacing
from smnm_kernels.kinds import KINDS
from smnm_kernels.pictures.energy_plot import Column, paint_energy
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.run.options import Count, need_at_least

from .options import PresetName
from .preset_options import chosen, overridden
from .presets import PRESETS
from .presets.preset import Preset
from .spectrum_clips import Clips, files_of, read

ModalityOption = Annotated[
    Literal["video", "audio", "image"] | None,
    arg(metavar="{video,audio,image}", help_behavior_hint=""),
]

#: Drawn where nothing else is asked for, and of each the axes that it tells apart.
_KINDS = {
    "video": ("random", "tube", "red3d", "blue3d", "green3d", "green2d"),
    "audio": ("random", "red2d", "blue2d", "green2d", "rbn", "dispersion"),
    "image": ("random", "red2d", "blue2d", "green2d", "rbn", "block"),
}
_COLUMNS: dict[str, dict[str, tuple[int, ...]]] = {
    "video": {"space and time": (0, 1, 2), "space": (1, 2), "time": (0,)},
    "audio": {"time and mel": (1, 2), "time": (1,), "mel": (2,)},
    "image": {"space": (1, 2)},
}


@dataclass(kw_only=True)
class Spectrum:
    """Show how the energy of files is spread over frequency, beside that of masks.

    The structured-noise paper's frequency analysis on one's own data: radial power, and the energy
    below each frequency, of clips, spectrograms or pictures as the model sees them, and of masks.
    Besides, the range of sigma and the time_scale of green noise whose energy is spread most like
    that of the data: our proposal, not the paper's.
    """

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Files, as for smnm pretrain."""
    out: Path
    """Picture to write (png, jpg, ...)."""
    modality: ModalityOption = None
    """What to look at. Default: what most files of DATA are; of videos their frames."""
    preset: PresetName = "base"
    """Of smnm pretrain: frames, stride, size and patches of a clip."""
    stride: Count = None
    """Video: take every N-th frame. Default: the preset's."""
    kinds: tuple[str, ...] = ()
    """Kinds of mask, as smnm.MaskSampler takes them; or all. Default: six of the modality."""
    mask_ratio: Annotated[float | None, arg(aliases=("--ratio",))] = None
    """Share of patches that is masked, in (0, 1). Default: the preset's."""
    clips: int = 256
    """So many clips are looked at, of as many files; of fewer files several clips each."""
    seed: int = 0
    """Of the masks."""
    json: bool = False
    """Print the numbers as one JSON object."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)


def spectrum(options: Spectrum) -> int:
    """Returns 0. Raises UsageError where options or data do not allow it."""
    _check(options)
    preset, modality = _looked_at(options)
    (masks,) = preset.masks.values()
    ratio = masks.ratio if options.mask_ratio is None else options.mask_ratio
    _samplers(options, modality, ratio, preset)  # what they refuse, before any file is looked at
    chosen_files = files_of(options.data, modality, options.clips)
    modality = chosen_files.modality
    (grid,) = preset.objective.grids(modality.inputs).values()
    samplers = _samplers(options, modality, ratio, preset)
    clips = read(chosen_files, grid, options.clips)
    of_masks = _of_masks(samplers, clips, options.clips)
    columns = [
        Column(
            title,
            distribution(clips.power, axes, clips.patch),
            distribution(clips.of_patches.mean(0), axes),
            {name: distribution(power, axes) for name, power in of_masks.items()},
        )
        for title, axes in _COLUMNS[modality.name].items()
    ]
    proposal = propose(clips.of_patches)
    lines = _in_words(proposal, grid, options.preset)
    n = len(clips.of_patches)
    shown, files = printable(options.data.name or str(options.data)), len(chosen_files.records)
    of_files = f"{files} files of " if files < n else ""
    title = f"{n} {_noun(modality.name, n)} of {of_files}{shown}"
    notes = [f"grid {grid[0]} x {grid[1]} x {grid[2]} patches, mask ratio {ratio:g}", *lines]
    picture = paint_energy(columns, title, notes).convert("RGB")
    try:
        with replacing(options.out) as file:
            picture.save(file, PIL.Image.registered_extensions()[options.out.suffix.lower()])
    except OSError as error:
        raise UsageError(f"--out {options.out}: cannot be written ({reason(error)})") from error
    if options.json:
        print(json.dumps(_as_json(columns, proposal, clips, ratio)))
        return 0
    print(_table(columns))
    print(*lines, f"picture: {options.out}", sep="\n")
    return 0


def _check(options: Spectrum) -> None:
    need_at_least(options, "clips", 2)
    need_at_least(options, "stride", 1)
    if PIL.Image.registered_extensions().get(options.out.suffix.lower()) not in PIL.Image.SAVE:
        raise UsageError(f"--out {options.out}: must end as a picture does, such as .png")
    if not options.out.absolute().parent.is_dir():
        raise UsageError(f"--out {options.out}: its folder is not there")
    if unknown := [kind for kind in options.kinds if kind not in (*KINDS, "all")]:
        raise UsageError(f"--kinds must be among {', '.join(KINDS)}, got {', '.join(unknown)}")
    if "all" in options.kinds and len(options.kinds) > 1:
        raise UsageError(f"--kinds: all stands alone, got {' '.join(options.kinds)}")


def _looked_at(options: Spectrum) -> tuple[Preset, Modality]:
    name = options.modality or _most_of(options.data)
    preset = chosen(PRESETS, name, options.preset)
    if options.stride is not None and name != "video":
        raise UsageError(f"--stride {options.stride}: {name} has no stride")
    return preset, overridden(preset.clip, stride=options.stride)


def _most_of(data: Path) -> str:
    """The modality that has the most files; of films the frames."""
    counts = {
        name: len(find(data, table["base"].clip.suffixes).entries)
        for name, table in PRESETS.items()
        if name in _KINDS
    }
    return max(_KINDS, key=lambda name: counts[name])


def _samplers(
    options: Spectrum, modality: Modality, ratio: float, preset: Preset
) -> dict[str, MaskSampler]:
    """Of all kinds that suit the grid, or of those that were asked for."""
    everything = options.kinds == ("all",)
    asked = tuple(KINDS) if everything else options.kinds or _KINDS[modality.name]
    (grid,) = preset.objective.grids(modality.inputs).values()
    samplers = {}
    for kind in asked:
        try:
            sampler = MaskSampler(kind, grid, ratio, seed=options.seed)
            if sampler.needs_data:  # no sample of the input, which may not suit the kind
                (given,) = modality.inputs.values()
                sampler.masks(torch.empty(0, dtype=torch.int64), torch.empty(0, *given.size))
        except (ValueError, TypeError) as error:
            if not everything:
                raise UsageError(
                    f"--kinds {kind} at --mask-ratio {ratio:g} on a grid of {grid}: {error}"
                ) from error
            continue
        if sampler.n_keep == math.prod(grid):
            raise UsageError(f"--mask-ratio {ratio:g}: masks none of {sampler.n_keep} patches")
        samplers[kind] = sampler
    return samplers


def _of_masks(samplers: dict[str, MaskSampler], clips: Clips, count: int) -> dict[str, np.ndarray]:
    """The mean periodogram of each kind's masks, brought to unit variance."""
    found = {}
    for kind, sampler in samplers.items():
        power, ids = 0.0, torch.arange(count)
        for part in ids.split(64):
            data = clips.shown[part % len(clips.shown)] if sampler.needs_data else None
            visible = sampler.masks(part, data).visible.unflatten(1, clips.grid).double().numpy()
            share = visible.mean()
            power = power + periodogram((visible - share) / math.sqrt(share * (1 - share))).sum(0)
        found[kind] = np.asarray(power) / count
    return found


def _noun(modality: str, count: int) -> str:
    word = {"video": "clip", "audio": "spectrogram", "image": "picture"}[modality]
    return word if count == 1 else f"{word}s"


def _in_words(proposal: Proposal, grid: Grid, preset: str) -> list[str]:
    (low1, high1), (low2, high2) = proposal.sigma
    kind, axes = ("green3d", (" in space", " in time")) if grid[0] > 1 else ("green2d", ("",))
    asked = f"--mask {kind} --mask-options 'sigma=({low1:g},{high1:g}),({low2:g},{high2:g})'"
    if grid[0] > 1:
        asked += f" time_scale={proposal.time_scale:g}"

    def words(distances: Sequence[float]) -> str:
        return ", ".join(f"{d:.2f}{axis}" for d, axis in zip(distances, axes, strict=True))

    lines = [
        f"our proposal for --preset {preset}, {grid[0]}x{grid[1]}x{grid[2]} patches: {asked}",
        "its share of energy below a frequency differs from that of the data's patches by at most "
        f"{words(proposal.distance)}; {kind}'s defaults: {words(proposal.default_distance)}",
    ]
    if sum(proposal.distance) >= sum(proposal.default_distance):
        lines.append(f"{kind}'s defaults are no further from the data: take them")
    if proposal.time_scale in (TIME_SCALES[0], TIME_SCALES[-1]):
        lines.append("time_scale is at the end of what was looked at: the data go further")
    return lines


def _table(columns: Sequence[Column]) -> str:
    """Below which frequency half of the energy lies."""
    rows = [("cycles per patch, half of the energy below", *(c.title for c in columns))]
    names = ("data", "data, mean of each patch", *columns[0].masks)
    for name in names:
        spreads = (_named(c)[name] for c in columns)
        rows.append((name, *(f"{spread.median:.3f}" for spread in spreads)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _named(column: Column) -> dict[str, Distribution]:
    return {"data": column.data, "data, mean of each patch": column.of_patches, **column.masks}


def _as_json(
    columns: Sequence[Column], proposal: Proposal, clips: Clips, ratio: float
) -> dict[str, Any]:
    def of(spread: Distribution) -> dict[str, list[float]]:
        return {
            "frequency": spread.frequency.tolist(),
            "power": spread.power.tolist(),
            "below": spread.below.tolist(),
        }

    return {
        "clips": len(clips.of_patches),
        "grid": list(clips.grid),
        "patch": list(clips.patch),
        "mask_ratio": ratio,
        "proposal": asdict(proposal),
        "axes": {
            c.title: {name: of(spread) for name, spread in _named(c).items()} for c in columns
        },
    }

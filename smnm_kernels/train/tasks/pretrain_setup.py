"""What decides a pretraining run before its first step: the preset with what was asked for in place
of its values, the kinds of masks, the weights to begin with, and what the run is compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smnm_kernels.arguments import Seed
from smnm_kernels.errors import UsageError
from smnm_kernels.kinds import Kind
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.modality import Record, of_inputs
from smnm_kernels.train.data.padding import Padding, TokenGrid
from smnm_kernels.train.data.scan import Listing
from smnm_kernels.train.models.avt import Avt
from smnm_kernels.train.models.avt_initial import start_from_encoders
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_initial import start_from_pictures
from smnm_kernels.train.models.initial import Start, start_from
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.pretrained import weights_for
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.models.sigma_target import Frozen, find_frozen
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.run.plan import Recipe

from .mask_options import asked_of, prefix_of, words_of
from .masking import Masking, masking_of
from .measuring import Measuring, as_trained, measures, with_measured
from .objectives import WORDS
from .options import Pretrain, check, preset_of
from .presets.preset import Preset


@dataclass(frozen=True)
class Setup:
    """What follows from the options alone."""

    preset: Preset
    kinds: dict[str, Kind]  # of each input's masks, at the first step
    seed: int
    device: torch.device
    start: Start | None = None  # None: from random weights
    target: Frozen | None = None  # of an objective that learns a frozen encoder's features

    def with_measured(self, measured: dict[str, Any] | None) -> Setup:
        clip = with_measured(self.preset.clip, measured)
        return replace(self, preset=replace(self.preset, clip=clip))

    def masking(self, schedule_steps: int) -> Masking:
        grids = {name: kind.grid for name, kind in self.kinds.items()}
        masks, hidden = self.preset.masks, self.preset.hidden_time
        return masking_of(masks, grids, hidden, self.seed, schedule_steps, self.device)


def set_up(options: Pretrain) -> Setup:
    """Everything that can be refused without looking at a file or at RUN."""
    check(options)
    preset, start, target = preset_of(options), None, None
    if options.init_audio is not None and not isinstance(preset.objective, Avt):
        raise UsageError(f"--init-audio {options.init_audio}: is for --objective avt")
    if options.init is not None or options.init_audio is not None:
        preset, start = _from_init(options, preset)
    if options.target is not None:
        preset, target = _with_target(options.target, preset)
    if options.modality == "image":
        for masks in preset.masks.values():
            for option, name in (("--mask", masks.kind), ("--mask-from", masks.from_kind)):
                if name == "activity":
                    raise UsageError(
                        f"{option} activity: looks for sounds over time; pictures have none"
                    )
    try:
        grids = preset.objective.grids(preset.clip.inputs)
    except ValueError as error:
        raise UsageError(f"{_sizes_of(options)}: {error}") from error
    kinds = {name: _kind_of(options, preset, name, grid) for name, grid in grids.items()}
    for name, kind in kinds.items():
        if kind.of_features and not isinstance(preset.objective, MaskedAutoencoding):
            raise UsageError(
                f"{prefix_of(options, name)} {kind.name}: looks at the features of a masked "
                f"autoencoder's encoder, and this objective is {type(preset.objective).__name__}"
            )
    setup = Setup(preset, kinds, options.seed, find_device(options.device), start, target)
    if preset.hidden_time is not None:
        try:
            setup.masking(schedule_steps=1)
        except (ValueError, TypeError) as error:  # each input's masks by themselves are right
            raise UsageError(f"--hidden-time {preset.hidden_time}: {error}") from error
    return setup


def _sizes_of(options: Pretrain) -> str:
    """What was asked for that decides the inputs' sizes."""
    given = {name: getattr(options, name) for name in ("preset", "frames", "size")}
    return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)


def _kind_of(options: Pretrain, preset: Preset, name: str, grid: tuple[int, int, int]) -> Kind:
    """Of this input's masks, at the first step; UsageError, which says what was asked for."""
    masks = preset.masks[name]
    try:
        kind = masks.first_kind(grid)
        if kind.needs_data:  # no sample of the input, which may not suit the kind
            ids = torch.empty(0, dtype=torch.int64)
            kind.draw(ids, Seed(None, 0), torch.empty(0, *preset.clip.inputs[name].size))
        return kind
    except (ValueError, TypeError) as error:
        asked, why = words_of(options, name, masks), str(error).removeprefix("at epoch 0: ")
        if why.startswith("easy: "):  # the sampler's name for it
            why = f"--mask-from: {why.removeprefix('easy: ')}"
        raise UsageError(f"{asked} on a grid of {grid}: {why}") from error


def _from_init(options: Pretrain, preset: Preset) -> tuple[Preset, Start]:
    """The preset's model with what --init decides of it, and the weights to begin with."""
    asked = f"--init {options.init}"
    objective = preset.objective
    if isinstance(objective, Avt):
        return _from_encoders(options, preset, objective)
    if isinstance(objective, CavMae):
        return _from_pictures(options, preset, objective)
    if not isinstance(objective, MaskedAutoencoding | Sigma):
        raise UsageError(f"{asked}: is for masked autoencoders, not {type(objective).__name__}")
    restores = isinstance(objective, MaskedAutoencoding)
    assert options.init is not None
    (inputs,) = preset.clip.inputs.values()
    lines: list[str] = []
    weights = weights_for(
        asked, options.init, options.modality, inputs, lines.append, whole=restores
    )
    preset = replace(preset, clip=as_trained(preset.clip, weights, lines.append))
    (inputs,) = preset.clip.inputs.values()
    try:
        start = start_from(weights, objective.model, inputs, decoder=restores)
    except ValueError as error:
        raise UsageError(f"{asked}: {error}, of --preset {options.preset}") from error
    start = replace(start, said=(*(one.removeprefix(f"{asked}: ") for one in lines), *start.said))
    return replace(preset, objective=replace(objective, model=start.model)), start


def words_of_init(options: Pretrain) -> str:
    """What was asked for of weights to begin with."""
    audio = "" if options.init_audio is None else f" --init-audio {options.init_audio}"
    return f"--init {options.init}{audio}"


def _from_encoders(options: Pretrain, preset: Preset, objective: Avt) -> tuple[Preset, Start]:
    """AVT begins with an encoder of video and one of sound, each of its own training."""
    clip = preset.clip
    assert isinstance(clip, AudioVideo)
    if options.init is None or options.init_audio is None:
        given = "--init-audio" if options.init is None else "--init"
        path = options.init_audio if options.init is None else options.init
        raise UsageError(
            f"{given} {path}: avt begins with two encoders; give --init, of video, and "
            "--init-audio, of sound"
        )
    weights, lines = {}, list[str]()
    for name, option, path in (
        ("video", "--init", options.init),
        ("audio", "--init-audio", options.init_audio),
    ):
        asked, said = f"{option} {path}", list[str]()
        weights[name] = weights_for(asked, path, name, clip.inputs[name], said.append)
        if name == "audio":
            as_trained(clip.audio, weights[name], said.append)
        lines += [f"{name}: {line.removeprefix(f'{asked}: ')}" for line in said]
    try:
        start = start_from_encoders(weights, objective.model.fusion, clip.inputs)
    except ValueError as error:
        raise UsageError(f"{words_of_init(options)}: {error}") from error
    start = replace(start, said=(*lines, *start.said))
    return replace(preset, objective=replace(objective, model=start.model)), start


def _from_pictures(options: Pretrain, preset: Preset, objective: CavMae) -> tuple[Preset, Start]:
    """CAV-MAE begins with an MAE of pictures."""
    assert options.init is not None
    asked, inputs, lines = f"--init {options.init}", preset.clip.inputs, list[str]()
    channels, _, height, width = inputs["video"].size
    picture = replace(inputs["video"], size=(channels, 1, height, width))
    try:
        weights = weights_for(asked, options.init, "image", picture, lines.append, whole=True)
        start = start_from_pictures(weights, objective.model, inputs)
    except UsageError as error:
        raise UsageError(f"{error}; audio-video begins with a model of pictures (MAE)") from error
    except ValueError as error:
        raise UsageError(f"{asked}: {error}, of --preset {options.preset}") from error
    said = (*(one.removeprefix(f"{asked}: ") for one in lines), *start.said)
    return preset, replace(start, said=said)


def _with_target(given: Path, preset: Preset) -> tuple[Preset, Frozen]:
    """The preset whose model learns the features of the frozen encoder that --target names."""
    objective = preset.objective
    assert isinstance(objective, Sigma)
    (inputs,) = preset.clip.inputs.values()
    frozen = find_frozen(given, inputs, objective.model.encoder.grid(inputs.size))
    return replace(preset, objective=replace(objective, frozen=frozen.settings)), frozen


def recipe_of(options: Pretrain, setup: Setup) -> Recipe:
    """What decides the losses beside seed and files."""
    preset = setup.preset
    optimisation = preset.optimisation
    return Recipe(
        modality=preset.clip,
        optimisation=optimisation,
        lr=optimisation.lr if options.lr is None else options.lr,
        settings={
            "preset": options.preset,
            "mask": of_inputs({name: masks.kind for name, masks in preset.masks.items()}),
            "mask_ratio": of_inputs({name: masks.ratio for name, masks in preset.masks.items()}),
            "n_keep": _n_keep_of(preset),
            # None where nothing was asked for, as runs have it that were begun before.
            "mask_options": _mask_options_of(options, preset),
            "hidden_time": preset.hidden_time,
            "hint_schedule": of_inputs(
                {name: masks.hint and asdict(masks.hint) for name, masks in preset.masks.items()}
            ),
            "mask_bank": of_inputs(
                {name: masks.bank and asdict(masks.bank) for name, masks in preset.masks.items()}
            ),
            "mask_from": of_inputs(
                {
                    name: masks.easier and asdict(masks.easier)
                    for name, masks in preset.masks.items()
                }
            ),
            "grid": of_inputs({name: kind.grid for name, kind in setup.kinds.items()}),
            "objective": {"name": type(preset.objective).__name__, **asdict(preset.objective)},
            "init": setup.start and setup.start.digest,
            "target": setup.target and setup.target.digest,
        },
        notes={
            name: str(path.resolve())
            for name, path in (
                ("init", options.init),
                ("init_audio", options.init_audio),
                ("target", options.target),
            )
            if path
        },
        finder=Files(options.data, options.files_from),
        check_found=partial(_check_found, options, setup),
        measure=partial(_measured, options, setup) if measures(preset.clip) else None,
        words=WORDS,
    )


def _measured(options: Pretrain, setup: Setup, listing: Listing, workers: int) -> dict[str, Any]:
    clip, files = setup.preset.clip, listing.usable
    assert isinstance(clip, Audio)
    measuring = Measuring(clip, options.data, options.seed, options.stall_limit)
    return measuring(files, range(len(files)), padding_of(setup, files), workers)


def padding_of(setup: Setup, files: Sequence[Record]) -> Padding | None:
    """What these files leave of their windows, or None where they fill them."""
    inputs = setup.preset.clip.inputs
    tokens = {
        name: TokenGrid(inputs[name].size[1:], kind.grid, kind.n_keep)
        for name, kind in setup.kinds.items()
    }
    for name, grid in setup.preset.objective.unmasked(inputs).items():
        tokens[name] = TokenGrid(inputs[name].size[1:], grid, n_keep=None)
    padding = Padding(setup.preset.clip, tokens, files)
    return padding if padding.padded else None


def _check_found(options: Pretrain, setup: Setup, listing: Listing) -> None:
    compared = setup.preset.objective.compares
    if compared and len(listing.usable) == 1:
        print(
            f"  there is one usable file: the loss of {' and of '.join(compared)}, which compares "
            "samples of different ones, stays 0",
            flush=True,
        )
    _check_padding(options, setup, listing)


def _check_padding(options: Pretrain, setup: Setup, listing: Listing) -> None:
    padding = padding_of(setup, listing.usable)
    if padding is None:
        return
    for name, count in padding.padded.items():
        if name not in setup.kinds:
            continue  # nothing is masked
        kind = setup.kinds[name]
        hidden_time, asked = setup.preset.hidden_time, ""
        if hidden_time is not None:
            asked = f"--hidden-time {hidden_time}"
        elif not kind.takes_valid:
            asked = f"{prefix_of(options, name)} {kind.name}"
        if asked:
            raise UsageError(
                f"{asked}: cannot leave out the padding of {count} short files; give another "
                "mask, or --padding see"
            )
    for name, count in padding.too_short.items():
        least, n_patches = padding.tokens[name].least, math.prod(padding.tokens[name].grid)
        print(
            f"  {'1 recording fills' if count == 1 else f'{count} recordings fill'} fewer than "
            f"{least} of {n_patches} patches: padding next to the sound is treated as sound until "
            f"{least} are filled",
            flush=True,
        )


def _n_keep_of(preset: Preset) -> Any:
    """Numbers of visible patches that are asked for; None where shares are, as runs have it that
    were begun before."""
    asked = {name: masks.n_keep for name, masks in preset.masks.items()}
    return of_inputs(asked) if any(asked.values()) else None


def _mask_options_of(options: Pretrain, preset: Preset) -> Any:
    """Parameters that are asked for, in one order; None where there are none."""
    asked = {name: sorted(asked_of(options, name)[2]) for name in preset.masks}
    return of_inputs(asked) if any(asked.values()) else None

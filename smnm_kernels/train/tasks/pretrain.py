"""Pretraining on masked inputs, from a folder of files to an exported encoder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from smnm_kernels import Masks
from smnm_kernels.errors import Unusable, UsageError
from smnm_kernels.kinds import Kind
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.loader import Batch, Failure, SampleDataset
from smnm_kernels.train.data.modality import Normalisation, Record
from smnm_kernels.train.data.padding import Padding, TokenGrid, with_quiet_padding
from smnm_kernels.train.data.scan import Listing
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_initial import start_from_pictures
from smnm_kernels.train.models.encoder_file import step_of
from smnm_kernels.train.models.initial import Start, start_from
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.pretrained import weights_for
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.models.sigma_target import Frozen, find_frozen
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.run.meter import StepClock
from smnm_kernels.train.run.optimisation import optimizer_of
from smnm_kernels.train.run.options import check_data
from smnm_kernels.train.run.plan import Plan, Recipe, begin
from smnm_kernels.train.run.signals import StoppedBySignal

from .mask_options import asked_of, prefix_of
from .masking import Masking, masking_of
from .measuring import Measuring, as_trained, measures, with_measured
from .options import Pretrain, check, preset_of
from .presets.preset import Preset
from .reconstruction import reconstruction, stacked

_PICTURED_SAMPLES = 3


def pretrain(options: Pretrain) -> int:
    """Run or resume the job. Returns 0, or 130 / 143 when SIGINT / SIGTERM made it save and stop.

    Raises UsageError, before any work, where the options, the data or RUN do not allow it;
    RunError where a run that was going cannot go on.
    """
    setup = set_up(options)
    check_data(options.data, options.modality)
    ranks.start(setup.device)
    try:
        recipe = recipe_of(options, setup)
        plan, folder = begin(options, recipe, options.data, options.out, setup.device)
        if folder and not plan.resumed:
            for given, found in (("init", setup.start), ("target", setup.target)):
                for line in found.said if found else ():
                    print(f"--{given} {getattr(options, given)}: {line}", flush=True)
        setup = setup.with_measured(plan.measured)
        padding = padding_of(setup, plan.files)
        clip = setup.preset.clip
        dataset = SampleDataset(options.data, plan.files, clip, options.seed, padding)
        task = Pretraining(setup, dataset, plan, options.checkpoint_activations)
        return Loop(task, plan, setup.device, options.out, folder).run()
    except StoppedBySignal as stopped:
        return 128 + stopped.number
    finally:
        ranks.stop()


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
    if options.init is not None:
        preset, start = _from_init(options, preset)
    if options.target is not None:
        preset, target = _with_target(options.target, preset)
    if options.modality == "image" and any(m.kind == "activity" for m in preset.masks.values()):
        raise UsageError("--mask activity: looks for sounds over time; pictures have none")
    try:
        grids = preset.objective.grids(preset.clip.inputs)
    except ValueError as error:
        raise UsageError(f"{_sizes_of(options)}: {error}") from error
    kinds = {name: _kind_of(options, preset, name, grid) for name, grid in grids.items()}
    setup = Setup(preset, kinds, options.seed, find_device(options.device), start, target)
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
        sampler = masks.sampler(grid, options.seed, schedule_steps=1)
        if sampler.needs_data:  # no sample of the input, which may not suit the kind
            ids = torch.empty(0, dtype=torch.int64)
            sampler.masks(ids, torch.empty(0, *preset.clip.inputs[name].size))
        return sampler.settings
    except (ValueError, TypeError) as error:
        prefix = prefix_of(options, name)
        asked = f"{prefix} {masks.kind} {prefix}-ratio {masks.ratio}"
        if masks.n_keep is not None:
            asked = f"{prefix} {masks.kind} --n-keep {masks.n_keep}"
        _, _, words = asked_of(options, name)
        if words:
            asked += f" {prefix}-options {' '.join(words)}"
        raise UsageError(f"{asked} on a grid of {grid}: {error}") from error


def _from_init(options: Pretrain, preset: Preset) -> tuple[Preset, Start]:
    """The preset's model with what --init decides of it, and the weights to begin with."""
    asked = f"--init {options.init}"
    objective = preset.objective
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
            "mask": _of_inputs({name: masks.kind for name, masks in preset.masks.items()}),
            "mask_ratio": _of_inputs({name: masks.ratio for name, masks in preset.masks.items()}),
            "n_keep": options.n_keep,  # None, as in runs that were begun before: mask_ratio counts
            # None where nothing was asked for, as runs have it that were begun before.
            "mask_options": _mask_options_of(options, preset),
            "hidden_time": preset.hidden_time,
            "hint_schedule": _of_inputs(
                {name: masks.hint and asdict(masks.hint) for name, masks in preset.masks.items()}
            ),
            "grid": _of_inputs({name: kind.grid for name, kind in setup.kinds.items()}),
            "objective": {"name": type(preset.objective).__name__, **asdict(preset.objective)},
            "init": setup.start and setup.start.digest,
            "target": setup.target and setup.target.digest,
        },
        notes={
            name: str(path.resolve())
            for name, path in (("init", options.init), ("target", options.target))
            if path
        },
        finder=Files(options.data, options.files_from),
        check_found=partial(_check_padding, options, setup),
        measure=partial(_measured, options, setup) if measures(preset.clip) else None,
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
    padding = Padding(setup.preset.clip, tokens, files)
    return padding if padding.padded else None


def _check_padding(options: Pretrain, setup: Setup, listing: Listing) -> None:
    padding = padding_of(setup, listing.usable)
    if padding is None:
        return
    for name, count in padding.padded.items():
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


def _mask_options_of(options: Pretrain, preset: Preset) -> Any:
    """Parameters that are asked for, in one order; None where there are none."""
    asked = {name: sorted(asked_of(options, name)[2]) for name in preset.masks}
    return _of_inputs(asked) if any(asked.values()) else None


def _of_inputs(values: dict[str, Any]) -> Any:
    """The value of the only input, or those of several by their names."""
    return next(iter(values.values())) if len(values) == 1 else values


class Pretraining:
    """The Task: draw masks, let the objective make losses of what they leave."""

    picture_name = "reconstruction.png"
    evaluations = None

    def __init__(
        self,
        setup: Setup,
        dataset: SampleDataset,
        plan: Plan,
        checkpoint_activations: bool = False,
    ) -> None:
        preset, device = setup.preset, setup.device
        self.preset, self.objective, self.dataset = preset, preset.objective, dataset
        self.device = device
        self.inputs = preset.clip.inputs
        self.normalisations = {
            name: Normalisation(given, device) for name, given in self.inputs.items()
        }
        self.batch_size = plan.batch_size
        self.grids = {name: kind.grid for name, kind in setup.kinds.items()}
        self.masking = setup.masking(plan.schedule.length)
        model = self.objective.build(self.inputs, dataset.seed, checkpoint_activations)
        if setup.start:
            setup.start.load(model)
        if setup.target:
            setup.target.load(model)
        self.model = model.to(device)
        self.optimizer = optimizer_of(self.model, preset.optimisation)
        self.optimizer.register_step_post_hook(lambda *_: self.objective.after_update(self.model))
        self.watch = self.objective.watch()

    def step(
        self, forward: Callable[..., Any], batch: Batch, clock: StepClock
    ) -> dict[str, Tensor]:
        x = self._normalised(batch.inputs)
        with clock.measure("mask_ms"):
            self.masking.set_step(int(batch.sample_ids[0]) // self.batch_size)
            masks = self.masking.draw(len(batch), self._looked_at(x, batch.real), batch.valid)
        return self.objective.losses(forward, x, masks, batch.valid)

    def _looked_at(self, x: dict[str, Tensor], real: dict[str, Tensor]) -> dict[str, Tensor]:
        """What masks look at: inputs, their padding quiet."""
        return {
            name: with_quiet_padding(x[name], real[name]) if name in real else x[name]
            for name in self.masking.needs_data
        }

    def _normalised(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.normalisations[name](raw) for name, raw in inputs.items()}

    def state(self) -> dict[str, Any]:
        return {"mask_samplers": self.masking.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.masking.load_state(state["mask_samplers"])

    @property
    def pictures(self) -> Pretraining | None:
        return self if self.grids else None  # nothing is masked, so nothing is restored

    def read_for_picture(
        self, report: Callable[[Failure], None]
    ) -> list[tuple[int, dict[str, Tensor]]] | None:
        """Samples of some of the files, with the files' numbers."""
        n_files = len(self.dataset.files)
        count = min(_PICTURED_SAMPLES, n_files)
        samples = []
        for i in range(count):
            number = i * n_files // count
            try:
                samples.append((number, self.dataset.read(number, i)))
            except Unusable as error:
                report(Failure(self.dataset.name(number), str(error)))
        return samples or None

    def picture(self, samples: list[tuple[int, dict[str, Tensor]]]) -> Image:
        """Of all inputs that are masked, one below the other."""
        raw = {n: torch.stack([s[n] for _, s in samples]).to(self.device) for n in self.inputs}
        x, valid, real = self._normalised(raw), {}, {}
        if self.dataset.padding is not None:
            numbers = [number for number, _ in samples]
            valid, real = (
                {name: of_input.to(self.device) for name, of_input in found.items()}
                for found in (
                    self.dataset.padding.valid(numbers),
                    self.dataset.padding.real(numbers),
                )
            )
        # Masks by their ids: looking does not move the run's own stream on.
        ids = torch.arange(len(samples), device=self.device)
        masks = self.masking.of_ids(ids, self._looked_at(x, real), valid)
        return self._picture(x, masks, valid)

    @torch.no_grad()
    def _picture(
        self, x: dict[str, Tensor], masks: dict[str, Masks], valid: dict[str, Tensor]
    ) -> Image:
        self.model.eval()
        restored = self.objective.restore(self.model, x, masks)
        self.model.train()
        pictures = []
        for name in restored:
            undo, grid = self.normalisations[name].undo, self.grids[name]
            visible = masks[name].visible.view(-1, *grid)
            real = valid[name].view(-1, *grid) if name in valid else None
            shown = undo(x[name]), visible, undo(restored[name])
            rows, last = self.inputs[name].picture_rows, self.objective.picture_row
            pictures.append(reconstruction(*shown, rows, real, last))
        return stacked(pictures)

    def export(self, path: Path, step: int) -> None:
        self.objective.export(self.model, path, export_metadata(self.preset, step))

    def exported_step(self, path: Path) -> int | None:
        return step_of(path)


def export_metadata(preset: Preset, step: int) -> dict[str, str]:
    """What an encoder's file says of the training behind it."""
    inputs = preset.clip.inputs
    return {
        "modality": preset.clip.name,
        "step": str(step),
        "mean": json.dumps(_of_inputs({n: i.mean for n, i in inputs.items()})),
        "scale": json.dumps(_of_inputs({n: i.scale for n, i in inputs.items()})),
        "preset": json.dumps(asdict(preset)),
    }

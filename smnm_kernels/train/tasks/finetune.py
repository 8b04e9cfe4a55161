"""Fine-tuning of an encoder on labelled files, from a folder of files to an accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.augment_mix import soft_targets
from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.data.loader import Batch, SampleDataset
from smnm_kernels.train.data.modality import Normalisation, Record
from smnm_kernels.train.data.on_device import moved
from smnm_kernels.train.data.orders import Balanced, Order, Passes, label_weights
from smnm_kernels.train.data.padding import Padding, TokenGrid
from smnm_kernels.train.models.classifier import (
    Classifier,
    HeadSettings,
    loss_of,
    save_classifier,
)
from smnm_kernels.train.models.encoder_file import encoder_metadata, save_tensors, step_of
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.meter import StepClock
from smnm_kernels.train.run.optimisation import layerwise_adamw
from smnm_kernels.train.run.options import check_data
from smnm_kernels.train.run.plan import Plan, begin
from smnm_kernels.train.run.signals import StoppedBySignal

from .finetune_evaluation import Judging
from .finetune_options import Finetune, check, preset_of
from .finetune_presets import FinetunePreset
from .finetune_setup import Setup, recipe_of, set_up


def finetune(options: Finetune) -> int:
    """Run or resume the job. Returns 0, or 130 / 143 when SIGINT / SIGTERM made it save and stop.

    Raises UsageError, before any work, where the options, the encoder, the data or RUN do not allow
    it; RunError where a run that was going cannot go on.
    """
    check(options)
    preset = preset_of(options)
    check_data(options.data, options.modality)
    setup = set_up(options, preset)
    ranks.start(setup.device)
    try:
        recipe = recipe_of(options, setup)
        plan, folder = begin(options, recipe, options.data, options.out, setup.device)
        task = FineTuning(setup.with_measured(plan.measured), options, plan)
        return Loop(task, plan, setup.device, options.out, folder).run()
    except StoppedBySignal as stopped:
        return 128 + stopped.number
    finally:
        ranks.stop()


class FineTuning:
    """The Task: classes or numbers from all patches of a sample."""

    pictures = None  # the curves are drawn when it is over
    watch = None

    def __init__(self, setup: Setup, options: Finetune, plan: Plan) -> None:
        assert plan.labels is not None
        self.setup, self.plan, self.labels = setup, plan, plan.labels
        preset, device = setup.preset, setup.device
        self.name = setup.input_name
        kind = self.labels.kind
        # What follows from classes does not hold for numbers; `_check_labels` has refused what was
        # asked for by an option.
        self.mix = replace(preset.mix, cutmix=0.0) if kind == "number" else preset.mix
        self.smoothing = preset.label_smoothing if kind == "class" else 0.0
        self.head = _head(self.labels, plan, preset)
        self.padding = _padding(setup, plan.files)
        self.dataset = SampleDataset(
            options.data,
            plan.files,
            setup.clip,
            options.seed,
            self.padding,
            _order(preset, self.labels, plan),
        )
        self.normalise = Normalisation(setup.inputs, device)
        encoder = setup.pretrained.encoder
        self.sampler: MaskSampler | None = None
        if preset.mask is not None:
            self.sampler = preset.mask.sampler(encoder.grid, options.seed).to(device)
        model = Classifier(
            encoder.train(),
            self.head,
            drop_path=preset.drop_path,
            head_std=preset.head_std,
            seed=options.seed,
        )
        encoder.checkpoint_activations = options.checkpoint_activations
        self.model = model.to(device)
        self.optimizer = layerwise_adamw(
            self.model,
            preset.optimisation,
            model.layer_of,
            model.depth + 1,
            preset.layer_decay,
        )
        self.evaluations = Judging(self, options)
        self._best_step: int | None = None  # once the best weights have been taken

    def step(
        self, forward: Callable[..., Any], batch: Batch, clock: StepClock
    ) -> dict[str, Tensor]:
        ids, real = batch.sample_ids.tolist(), batch.real.get(self.name)
        with clock.measure("mix_ms"):
            x = batch.inputs[self.name]
            targets = moved(self._targets(batch.file_numbers.tolist()), x.device)
            x, targets, real = self._mixed(x, targets, real, ids)
            keep = None
            if self.sampler is not None:
                keep = self.sampler.masks(moved(batch.sample_ids, x.device)).ids_keep
        outputs = forward(x, keep, real if self.setup.hides_padding else None)
        return {"loss": loss_of(self.labels.kind, outputs, targets)}

    def _targets(self, file_numbers: Sequence[int]) -> Tensor:
        """float32 [B, k], what the outputs of samples of these files are compared with. Made for
        each batch: those of all files of AudioSet would take gigabytes."""
        targets = self.labels.targets([self.plan.files[number] for number in file_numbers])
        if self.labels.kind == "class":
            return soft_targets(targets, len(self.labels.names), self.smoothing)
        if self.labels.kind == "classes":
            return targets
        return ((targets - self.head.offset) / self.head.scale)[:, None].float()

    def _mixed(
        self, raw: Tensor, targets: Tensor, real: Tensor | None, ids: list[int]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Normalised inputs, targets, and how much of them is no padding. Powers of sounds are
        mixed, and their bands masked, before they are normalised; pictures are mixed after."""
        bands, seed = self.setup.preset.bands, self.setup.seed
        height, width = raw.shape[3:]
        drawn = None
        if self.mix.on:
            drawn = self.mix.draw(seed, ids, height, width).to(raw.device)
            targets = self.mix.targets(targets, drawn)
            if self.mix.powers:
                raw = self.mix.values(raw, drawn, real)
                real = None if real is None else self.mix.real(real, drawn)
        if bands is not None:
            drawn_bands = moved(bands.draw(seed, ids, height, width), raw.device)
            raw = bands.values(raw, drawn_bands)
        x = self.normalise(raw)
        if drawn is not None and not self.mix.powers:
            x = self.mix.values(x, drawn)
            real = None if real is None else self.mix.real(real, drawn)
        return x, targets, real

    def outputs(self, forward: Callable[..., Any], batch: Batch) -> Tensor:
        """Probabilities or numbers [B, k] of a batch, nothing masked or mixed."""
        x = self.normalise(batch.inputs[self.name])
        real = batch.real.get(self.name) if self.setup.hides_padding else None
        return self.head.predictions(forward(x, None, real))

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass

    def metadata(self, step: int) -> dict[str, str]:
        setup = self.setup
        clip = asdict(setup.clip)
        return {
            "modality": setup.clip.name,
            "step": str(step),
            "mean": json.dumps(setup.inputs.mean),
            "scale": json.dumps(setup.inputs.scale),
            "preset": json.dumps({"clip": clip}),
            "labels": json.dumps({"kind": self.labels.kind, "names": self.labels.names}),
            "finetuned_from": setup.pretrained.origin,
        }

    def export(self, path: Path, step: int) -> None:
        """The encoder as it is now; it has no final norm where the head has one of its own. Of the
        best model the file has the step, not that of the run's end."""
        encoder, step = self.model.encoder, self._best_step or step
        save_tensors(encoder, path, encoder_metadata(encoder, **self.metadata(step)))

    def exported_step(self, path: Path) -> int | None:
        return step_of(path)

    def save(self, path: Path, step: int) -> None:
        save_classifier(self.model, path, self.metadata(step))

    def load(self, path: Path) -> None:
        self.model.load_state_dict(load_file(str(path)))
        self._best_step = step_of(path)


def _head(labels: Labels, plan: Plan, preset: FinetunePreset) -> HeadSettings:
    if labels.kind != "number":
        return HeadSettings(labels.kind, labels.names, preset.pool)
    numbers = labels.targets([plan.files[number] for number in plan.trained_on]).double()
    deviation = numbers.std(correction=0).item()
    return HeadSettings("number", (), preset.pool, numbers.mean().item(), deviation or 1.0)


def _order(preset: FinetunePreset, labels: Labels, plan: Plan) -> Order:
    draws = preset.optimisation.most_per_epoch
    if draws is None:
        return Passes(plan.trained_on, preset.optimisation.repeats)
    draws = min(draws, len(plan.trained_on))
    if labels.kind == "number":
        return Balanced(plan.trained_on, np.ones(len(plan.trained_on)), draws)
    found = [plan.files[number]["label"] for number in plan.trained_on]
    several = [[label] if labels.kind == "class" else label for label in found]
    weights = label_weights(several, len(labels.names))
    return Balanced(plan.trained_on, weights, draws)


def _padding(setup: Setup, files: Sequence[Record]) -> Padding | None:
    """What these files leave of their windows, whether a model sees it or not; None where they fill
    them."""
    clip = setup.clip
    if any(field.name == "padding" for field in fields(clip)):
        clip = replace(clip, padding="hide")
    tokens = TokenGrid(setup.inputs.size[1:], setup.pretrained.encoder.grid, n_keep=None)
    padding = Padding(clip, {setup.input_name: tokens}, files)
    return padding if padding.padded else None

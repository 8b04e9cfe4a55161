"""Fine-tuning of an encoder on labelled files, from a folder of files to an accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
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
from smnm_kernels.train.data.orders import Balanced, Drawn, Order, Passes, label_weights
from smnm_kernels.train.data.padding import Padding
from smnm_kernels.train.models.classifier import HeadSettings, is_head, loss_of
from smnm_kernels.train.models.encoder_file import step_of
from smnm_kernels.train.models.objective import Facts
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.meter import StepClock
from smnm_kernels.train.run.optimisation import layerwise
from smnm_kernels.train.run.options import check_data
from smnm_kernels.train.run.plan import Plan, begin
from smnm_kernels.train.run.signals import StoppedBySignal

from .finetune_evaluation import Judging
from .finetune_forms import Given
from .finetune_options import Finetune, check, preset_of
from .finetune_presets.preset import FinetunePreset
from .finetune_settled import Setup
from .finetune_setup import recipe_of, set_up
from .preset_options import settings_of, with_settings


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


SOUND = "audio"  # the name of inputs that are spectrograms


class FineTuning:
    """The Task: classes or numbers from all patches of a sample."""

    pictures = None  # the curves are drawn when it is over
    watch = None

    def __init__(self, setup: Setup, options: Finetune, plan: Plan) -> None:
        assert plan.labels is not None
        self.setup, self.plan, self.labels = setup, plan, plan.labels
        preset, device, self.form = setup.preset, setup.device, setup.form
        kind = self.labels.kind
        # What follows from classes does not hold for numbers; `_check_labels` has refused what was
        # asked for by an option.
        self.mix = replace(preset.mix, cutmix=0.0) if kind == "number" else preset.mix
        self.mixes = {
            name: self.mix.of_sounds() if name == SOUND and len(setup.formats) > 1 else self.mix
            for name in setup.inputs
        }
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
        self.normalisations = {
            name: Normalisation(given, device) for name, given in setup.inputs.items()
        }
        self.samplers: dict[str, MaskSampler] = {}
        if preset.mask is not None:
            ((name, grid),) = setup.grids.items()
            self.samplers[name] = preset.mask.sampler(grid, options.seed).to(device)
        model = self.form.build(self.head, preset, options.seed, options.checkpoint_activations)
        self.form.to(device)
        self.model = model.to(device)
        self.optimizer = layerwise(
            self.model,
            preset.optimisation,
            model.layer_of,
            model.depth + 1,
            preset.layer_decay,
            is_head,
            preset.head_rate,
        )
        self.evaluations = Judging(self, options)
        self._best_step: int | None = None  # once the best weights have been taken

    def step(
        self, forward: Callable[..., Any], batch: Batch, clock: StepClock
    ) -> dict[str, Tensor]:
        with clock.measure("mix_ms"):
            targets = self._targets(batch.file_numbers.tolist())
            x, targets, given = self._mixed(batch, moved(targets, self.setup.device))
        outputs, others, weighted = self.form.learn(forward, x, given)
        loss = loss_of(self.labels.kind, outputs, targets)
        if not others:
            return {"loss": loss}
        of_each = {f"loss_{name}": value for name, value in others.items()}
        return {"loss": loss + weighted, "loss_labels": loss, **of_each}

    def _targets(self, file_numbers: Sequence[int]) -> Tensor:
        """float32 [B, k], what the outputs of samples of these files are compared with. Made for
        each batch: those of all files of AudioSet would take gigabytes."""
        targets = self.labels.targets([self.plan.files[number] for number in file_numbers])
        if self.labels.kind == "class":
            return soft_targets(targets, len(self.labels.names), self.smoothing)
        if self.labels.kind == "classes":
            return targets
        return ((targets - self.head.offset) / self.head.scale)[:, None].float()

    def _mixed(self, batch: Batch, targets: Tensor) -> tuple[dict[str, Tensor], Tensor, Given]:
        """Normalised inputs, targets, and what belongs to the mixtures. All inputs of a sample are
        mixed with those of the same other one, by the same share. Powers of sounds are mixed, and
        their bands masked, before they are normalised, and jittered after; pictures are mixed
        after."""
        seed, ids = self.setup.seed, batch.sample_ids.tolist()
        raw = {name: batch.inputs[name] for name in self.normalisations}
        device, real, valid = self.setup.device, dict(batch.real), dict(batch.valid)
        drawn, files = None, batch.file_numbers[:, None]
        if self.mix.on:
            drawn = self.mix.draw(seed, ids, *next(iter(raw.values())).shape[3:])
            files = self.mix.files(batch.file_numbers, drawn)
            drawn = drawn.to(device)
            targets = self.mix.targets(targets, drawn)
            real = {name: self.mix.real(sides, drawn) for name, sides in real.items()}
            valid = {name: self.mix.valid(tokens, drawn) for name, tokens in valid.items()}
        x, plain = {}, dict[str, Tensor]()
        hidden = real if self.setup.hides_padding else {}
        for name, values in raw.items():
            mix = self.mixes[name]
            if drawn is not None and mix.powers:
                values = mix.values(values, drawn, batch.real.get(name))
            if name == SOUND:
                x[name], without = self._sounds(values, ids, hidden.get(name))
                plain |= {} if without is None else {name: without}
            else:
                x[name] = self.normalisations[name](values)
            if drawn is not None and not mix.powers:
                x[name] = mix.values(x[name], drawn)
        sample_ids = moved(batch.sample_ids, device)
        keep = {name: of.masks(sample_ids).ids_keep for name, of in self.samplers.items()}
        return x, targets, Given(batch.sample_ids, keep, Facts(files, hidden), valid, plain)

    def _sounds(
        self, values: Tensor, ids: Sequence[int], real: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised: with masked bands, noise and shifts; and, where the form finds sounds and
        could take either for one, with the shifts alone."""
        seed, device, sides = self.setup.seed, self.setup.device, values.shape[3:]
        bands, jitter = self.setup.preset.bands, self.setup.preset.jitter
        normalise, plain = self.normalisations[SOUND], None
        if self.form.finds_sounds and (bands is not None or jitter is not None):
            plain = normalise(values)
        if bands is not None:
            values = bands.values(values, moved(bands.draw(seed, ids, *sides), device))
        x = normalise(values)
        if jitter is not None:
            noise, rolled = (moved(one, device) for one in jitter.draw(seed, ids, *sides))
            x = jitter.values(x, noise, rolled, real)
            if plain is not None:
                plain = jitter.values(plain, noise.new_zeros(()), rolled, real)
        return x, plain

    def outputs(self, forward: Callable[..., Any], batch: Batch) -> Tensor:
        """Probabilities or numbers [B, k] of a batch, nothing masked or mixed."""
        x = {name: of(batch.inputs[name]) for name, of in self.normalisations.items()}
        real = batch.real if self.setup.hides_padding else {}
        return self.head.predictions(self.form.outputs(forward, x, real))

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
            "mean": json.dumps(setup.of_formats("mean")),
            "scale": json.dumps(setup.of_formats("scale")),
            "preset": json.dumps({"clip": clip}),
            "labels": json.dumps({"kind": self.labels.kind, "names": self.labels.names}),
            "finetuned_from": setup.origin,
        }

    def export(self, path: Path, step: int) -> None:
        """The encoder as it is now. Of the best model the file has the step, not that of the run's
        end."""
        self.form.export(self.model, path, self.metadata(self._best_step or step))

    def exported_step(self, path: Path) -> int | None:
        return step_of(path)

    def save(self, path: Path, step: int) -> None:
        self.form.save(self.model, path, self.metadata(step))

    def load(self, path: Path) -> None:
        self.form.kept(self.model).load_state_dict(load_file(str(path)))
        self._best_step = step_of(path)


def _head(labels: Labels, plan: Plan, preset: FinetunePreset) -> HeadSettings:
    if labels.kind != "number":
        return HeadSettings(labels.kind, labels.names, preset.pool)
    numbers = labels.targets([plan.files[number] for number in plan.trained_on]).double()
    deviation = numbers.std(correction=0).item()
    return HeadSettings("number", (), preset.pool, numbers.mean().item(), deviation or 1.0)


def _order(preset: FinetunePreset, labels: Labels, plan: Plan) -> Order:
    draws = preset.optimisation.most_per_epoch
    if preset.with_replacement and labels.kind != "number":
        return Drawn(plan.trained_on, _weights(labels, plan))
    if draws is None:
        return Passes(plan.trained_on, preset.optimisation.repeats)
    draws = min(draws, len(plan.trained_on))
    if labels.kind == "number":
        return Balanced(plan.trained_on, np.ones(len(plan.trained_on)), draws)
    return Balanced(plan.trained_on, _weights(labels, plan), draws)


def _weights(labels: Labels, plan: Plan) -> np.ndarray:
    """By which files with rare labels are drawn sooner."""
    found = [plan.files[number]["label"] for number in plan.trained_on]
    several = [[label] if labels.kind == "class" else label for label in found]
    return label_weights(several, len(labels.names))


def _padding(setup: Setup, files: Sequence[Record]) -> Padding | None:
    """What these files leave of their windows, whether a model sees it or not; None where they fill
    them."""
    clip = setup.clip
    if "padding" in settings_of(clip):
        clip = with_settings(clip, padding="hide")
    padding = Padding(clip, setup.form.tokens(setup.sizes), files)
    return padding if padding.padded else None

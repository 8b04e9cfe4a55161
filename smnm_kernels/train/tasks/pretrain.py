"""Pretraining on masked inputs, from a folder of files to an exported encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from smnm_kernels.errors import Unusable
from smnm_kernels.train.data.loader import Batch, Failure, SampleDataset
from smnm_kernels.train.data.modality import Normalisation, of_inputs
from smnm_kernels.train.models.encoder_file import step_of
from smnm_kernels.train.models.guide import guide_of
from smnm_kernels.train.models.objective import Facts
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.loop import Loop
from smnm_kernels.train.run.meter import StepClock
from smnm_kernels.train.run.optimisation import optimizer_of
from smnm_kernels.train.run.options import check_data
from smnm_kernels.train.run.plan import Plan, begin
from smnm_kernels.train.run.signals import StoppedBySignal

from .masking import looked_at
from .options import Pretrain
from .presets.preset import Preset
from .pretrain_setup import Setup, padding_of, recipe_of, set_up, words_of_init
from .reconstruction import restored_by

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
            for given, found in (
                (words_of_init(options), setup.start),
                (f"--target {options.target}", setup.target),
            ):
                for line in found.said if found else ():
                    print(f"{given}: {line}", flush=True)
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
        self.guide = guide_of(model, plan.autocast)
        self.optimizer = optimizer_of(self.model, preset.optimisation)
        self.optimizer.register_step_post_hook(lambda *_: self.objective.after_update(self.model))
        self.watch = self.objective.watch()

    def step(
        self, forward: Callable[..., Any], batch: Batch, clock: StepClock
    ) -> dict[str, Tensor]:
        x = self._normalised(batch.inputs)
        with clock.measure("mask_ms"):
            self.masking.set_step(int(batch.sample_ids[0]) // self.batch_size)
            data = looked_at(self.masking, x, batch.real, batch.valid, self.guide)
            masks = self.masking.draw(len(batch), data, batch.valid)
        facts = Facts(batch.file_numbers[:, None], batch.real)
        return self.objective.losses(forward, x, masks, batch.valid, facts)

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
        data = looked_at(self.masking, x, real, valid, self.guide)
        masks = self.masking.of_ids(ids, data, valid)
        picture = restored_by(
            self.objective,
            self.model,
            x,
            masks,
            valid,
            self.inputs,
            self.normalisations,
            self.grids,
        )
        assert picture is not None  # there are pictures only where something is masked
        return picture

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
        "mean": json.dumps(of_inputs({n: i.mean for n, i in inputs.items()})),
        "scale": json.dumps(of_inputs({n: i.scale for n, i in inputs.items()})),
        "preset": json.dumps(asdict(preset)),
    }

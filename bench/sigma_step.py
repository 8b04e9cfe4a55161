"""A step of SIGMA beside a step of VideoMAE of the same size, and the share that masks have of it.

    python bench/sigma_step.py --presets tiny small --batch-size 2 --steps 10

One process and one device take turns: a step of each, then the next of each. A step draws masks,
goes forward and backward and updates the weights, on clips of noise that are there already. Printed
are medians of the steps' ratios to VideoMAE's beside them, the 5th and the 95th percentile, and the
median share of the masks: of CPU time on a CPU, of wall time on a GPU. A frozen target is an
untrained encoder of pictures of the model's size, as DINO's ViT-B is in the method's scripts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from timed_step import TimedStep

from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.settings import MAE
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.models.sigma_target import FrozenSettings
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.run.optimisation import optimizer_of
from smnm_kernels.train.tasks.masking import masking_of
from smnm_kernels.train.tasks.objectives import sigma_of
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.presets.preset import Preset

VIDEOMAE, PROJECTION, FROZEN = "VideoMAE", "SIGMA, projection", "SIGMA, frozen encoder"


class Step(TimedStep):
    """One objective's model with all that a step needs."""

    def __init__(self, preset: Preset, batch_size: int, device: torch.device) -> None:
        inputs = preset.clip.inputs
        self.objective, self.batch_size = preset.objective, batch_size
        super().__init__(self.objective.build(inputs, 0), device)
        self.optimizer = optimizer_of(self.model, preset.optimisation)
        masks, grids = preset.masks, self.objective.grids(inputs)
        self.masking = masking_of(masks, grids, preset.hidden_time, 0, 1, device)
        noise = torch.Generator().manual_seed(0)
        self.x = {
            name: torch.randn((batch_size, *given.size), generator=noise).to(device)
            for name, given in inputs.items()
        }

    def __call__(self) -> tuple[float, float]:
        """Seconds of a step, and of its masks."""
        begin = self.now()
        masks = self.masking.draw(self.batch_size, {}, {})
        drawn = self.now()
        losses = self.objective.losses(self.forward, self.x, masks, {})
        losses["loss"].backward()
        self.optimizer.step()
        self.objective.after_update(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        return self.now() - begin, drawn - begin


def steps_of(preset: Preset, batch_size: int, device: torch.device) -> dict[str, Step]:
    model = preset.objective.model  # type: ignore[attr-defined]
    encoder = model.encoder
    sizes = {"dim": encoder.dim, "depth": encoder.depth, "heads": encoder.heads}
    teacher = replace(MAE.encoder, **sizes)
    (given,) = preset.clip.inputs.values()
    channels = given.size[0]
    frozen = FrozenSettings(
        teacher, (channels, 1, *given.size[2:]), (1.0,) * channels, (0.0,) * channels
    )
    sigma = sigma_of(model)
    objectives: dict[str, MaskedAutoencoding | Sigma] = {
        VIDEOMAE: MaskedAutoencoding(model),
        PROJECTION: sigma,
        FROZEN: replace(sigma, frozen=frozen),
    }
    return {
        name: Step(replace(preset, objective=objective), batch_size, device)
        for name, objective in objectives.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presets", nargs="+", default=["tiny"], choices=list(PRESETS["video"]))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = find_device(given.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| preset | objective | a step, of VideoMAE's | masks, of the step |\n|---|---|---|---|")
    for name in given.presets:
        for row in rows(name, given.batch_size, given.steps, device):
            print(row, flush=True)


def rows(name: str, batch_size: int, count: int, device: torch.device) -> list[str]:
    steps = steps_of(PRESETS["video"][name], batch_size, device)
    return timed_rows(f"{name}, {batch_size} clips", steps, count)


def timed_rows(label: str, steps: dict[str, Step], count: int) -> list[str]:
    """Of steps in turns, beside VideoMAE's."""
    for warm_up in steps.values():
        warm_up()
        warm_up()
    taken = {kind: np.empty((count, 2)) for kind in steps}
    for i in range(count):
        for kind, step in steps.items():
            taken[kind][i] = step()
    return [_row(label, kind, taken) for kind in steps]


def _row(label: str, kind: str, taken: dict[str, np.ndarray]) -> str:
    ratios = taken[kind][:, 0] / taken[VIDEOMAE][:, 0]
    low, middle, high = np.percentile(ratios, (5, 50, 95))
    share = np.median(taken[kind][:, 1] / taken[kind][:, 0])
    return f"| {label} | {kind} | {middle:.2f} ({low:.2f} to {high:.2f}) | {100 * share:.3f}% |"


if __name__ == "__main__":
    main()

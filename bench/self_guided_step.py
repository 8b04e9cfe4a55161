"""What self-guided masks cost: a step with them beside a step with random masks.

    python bench/self_guided_step.py --presets tiny dwm --batch-size 2 --steps 5

One process takes turns: a step with each kind, on spectrograms of noise that are there already.
A step looks at the input, draws masks, goes forward and backward, and updates the weights. Printed
are medians of the ratios to the step beside it, and the masks' share of the step: of CPU time on a
CPU, of wall time on a GPU.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from timed_step import TimedStep

from smnm_kernels.train.models.guide import guide_of
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.run.optimisation import optimizer_of
from smnm_kernels.train.tasks.masking import looked_at, masking_of
from smnm_kernels.train.tasks.presets import PRESETS

KINDS = ("random", "dispersion", "self_guided")


class Step(TimedStep):
    """One kind of mask with a model of its own."""

    def __init__(self, name: str, kind: str, batch_size: int, device: torch.device) -> None:
        preset = PRESETS["audio"][name]
        self.objective, self.batch_size = preset.objective, batch_size
        inputs = preset.clip.inputs
        super().__init__(self.objective.build(inputs, 0), device)
        self.optimizer = optimizer_of(self.model, preset.optimisation)
        masks = {"audio": replace(preset.masks["audio"], kind=kind, hint=None)}
        grids = self.objective.grids(inputs)
        self.masking = masking_of(masks, grids, None, 0, 1, device)
        size = inputs["audio"].size
        self.x = {"audio": torch.randn(batch_size, *size).to(device)}
        self.guide = guide_of(self.model, self.dtype)

    def __call__(self) -> tuple[float, float]:
        """Seconds of a step, and of its masks."""
        begin = self.now()
        data = looked_at(self.masking, self.x, {}, {}, self.guide)
        masks = self.masking.draw(self.batch_size, data, {})
        drawn = self.now()
        self.objective.losses(self.forward, self.x, masks, {})["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.now() - begin, drawn - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--presets", nargs="+", default=["tiny"], choices=list(PRESETS["audio"]))
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = find_device(given.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| preset | masks | a step, of that with random masks | masks, of the step |")
    print("|---|---|---|---|")
    for name in given.presets:
        steps = {kind: Step(name, kind, given.batch_size, device) for kind in KINDS}
        for warm_up in steps.values():
            warm_up()
        taken = np.array([[step() for step in steps.values()] for _ in range(given.steps)])
        for i, kind in enumerate(KINDS):
            ratio = np.median(taken[:, i, 0] / taken[:, 0, 0])
            share = np.median(taken[:, i, 1] / taken[:, i, 0])
            label = f"{name}, batch {given.batch_size}"
            print(f"| {label} | {kind} | {ratio:.2f} | {100 * share:.2f}% |", flush=True)


if __name__ == "__main__":
    main()

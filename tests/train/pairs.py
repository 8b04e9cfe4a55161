"""A kind of data with two inputs and an objective with two losses, quick and exact."""

from dataclasses import dataclass, replace

import torch
from safetensors.torch import save_file
from torch import nn

from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.picture_rows import spectrograms
from smnm_kernels.train.models.objective import Objective
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.masking import MaskSettings
from smnm_kernels.train.tasks.presets.preset import Preset


@dataclass(frozen=True)
class Pairs:
    """Files with one number; two pictures of slopes are made of it."""

    length: int

    name = "pairs"
    suffixes = frozenset([".txt"])

    @property
    def inputs(self):
        left = InputFormat((1, 1, self.length, 8), (0.0,), (1.0,), spectrograms)
        return {"left": left, "right": replace(left, mean=(1.0,), scale=(2.0,))}

    def probe(self, source):
        return {"slope": float(source.open().read())}

    def read(self, source, record, randomness):
        ramp = torch.arange(self.length * 8).view(1, 1, self.length, 8) / (8 * self.length)
        offset = float(randomness.uniforms(1)[0])
        return {"left": record["slope"] * ramp + offset, "right": record["slope"] * ramp}

    def padded(self, record):
        return {}

    def remarks(self, records):
        return [f"{len(records)} slopes"]


class Means(nn.Module):
    """Predicts an input's masked values from the mean of its visible ones."""

    def __init__(self):
        super().__init__()
        self.lines = nn.ModuleDict({name: nn.Linear(1, 1) for name in ("left", "right")})

    def forward(self, inputs, masks):
        found = {}
        for name, x in inputs.items():
            values, visible = x.flatten(1), masks[name].visible
            mean = (values * visible).sum(1, keepdim=True) / visible.sum(1, keepdim=True)
            found[name] = (self.lines[name](mean) - values)[~visible].square().mean()
        return found


@dataclass(frozen=True)
class FillWithMeans(Objective):
    weight: float

    def grids(self, inputs):
        return {name: given.size[1:] for name, given in inputs.items()}

    def build(self, inputs, seed, checkpoint_activations=False):
        torch.manual_seed(seed)
        return Means()

    def losses(self, forward, inputs, masks, valid, facts=None):
        found = forward(inputs, masks)
        return {"loss": found["left"] + self.weight * found["right"], **found}

    def restore(self, model, inputs, masks, valid):
        return inputs

    def export(self, model, path, metadata):
        save_file(model.state_dict(), path, metadata)


PRESET = Preset(
    Pairs(length=16),
    {"left": MaskSettings("green2d", 0.5), "right": MaskSettings("random", 0.75)},
    FillWithMeans(weight=0.5),
    Optimisation(
        batch_size=4, base_lr=3.2, base_min_lr=0.0, weight_decay=0.0, betas=(0.9, 0.95),
        steps=6, warmup_steps=0, checkpoint_every=2,
    ),
)  # fmt: skip

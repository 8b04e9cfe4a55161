"""A kind of data with two inputs and an objective with two losses: one file each, and a preset."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from clips import losses, rows
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.picture_rows import spectrograms
from smnm_kernels.train.run.optimisation import Optimisation
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS, MaskSettings, Preset
from smnm_kernels.train.tasks.pretrain import pretrain


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
        return {"slope": float(source.path.read_text())}

    def read(self, source, record, randomness):
        ramp = torch.arange(self.length * 8).view(1, 1, self.length, 8) / (8 * self.length)
        offset = float(randomness.uniforms(1)[0])
        return {"left": record["slope"] * ramp + offset, "right": record["slope"] * ramp}

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
class FillWithMeans:
    weight: float

    def grids(self, inputs):
        return {name: given.size[1:] for name, given in inputs.items()}

    def build(self, inputs, seed, checkpoint_activations=False):
        torch.manual_seed(seed)
        return Means()

    def losses(self, forward, inputs, masks):
        found = forward(inputs, masks)
        return {"loss": found["left"] + self.weight * found["right"], **found}

    def restore(self, model, inputs, masks):
        return inputs

    def export(self, model, path, metadata):
        save_file(model.state_dict(), path, metadata)


@pytest.fixture
def job(tmp_path, monkeypatch):
    preset = Preset(
        Pairs(length=16),
        {"left": MaskSettings("green2d", 0.5), "right": MaskSettings("random", 0.75)},
        FillWithMeans(weight=0.5),
        Optimisation(
            batch_size=4, base_lr=3.2, base_min_lr=0.0, weight_decay=0.0, betas=(0.9, 0.95),
            steps=6, warmup_steps=0, checkpoint_every=2,
        ),
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "pairs", {"tiny": preset})
    data = tmp_path / "data"
    data.mkdir()
    for i in range(3):
        (data / f"{i}.txt").write_text(str(i))
    return Pretrain(modality="pairs", data=data, out=tmp_path / "run", workers=0, threads=1)


def test_both_inputs_have_masks_and_both_losses_are_logged(job, capsys):
    assert pretrain(job) == 0
    said = capsys.readouterr().out
    assert "3 slopes" in said
    assert "memory of a step, 4 samples at a time: not computed, because the model's work" in said
    for row in rows(job.out):
        assert row["loss"] == pytest.approx(row["left"] + 0.5 * row["right"], rel=1e-5)
        assert row["mask_ms"] > 0
    saved = torch.load(job.out / "last.pt", weights_only=True)["task"]["mask_samplers"]
    assert {name: int(state["next_id"]) for name, state in saved.items()} == {
        "left": 24,
        "right": 24,
    }
    config = json.loads((job.out / "config.json").read_text())["run"]
    assert config["mask"] == {"left": "green2d", "right": "random"}
    assert config["objective"] == {"name": "FillWithMeans", "weight": 0.5}
    with safe_open(job.out / "encoder.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["scale"]) == {"left": [1.0], "right": [2.0]}
    with Image.open(job.out / "reconstruction.png") as picture:
        assert picture.size[1] == 3 * (3 * (8 + 4) + 8)


def test_it_is_resumed_and_refused_like_any_other(job, tmp_path):
    assert pretrain(job) == 0
    halves = replace(job, out=tmp_path / "halves")
    assert pretrain(replace(halves, steps=2, schedule_steps=6)) == 0
    assert pretrain(replace(halves, steps=6, schedule_steps=6)) == 0
    assert losses(halves.out) == losses(job.out)
    with pytest.raises(UsageError, match=r"mask\.left is 'green2d' there, 'blue2d' was asked for"):
        pretrain(replace(job, mask="blue2d"))

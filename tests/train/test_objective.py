"""A kind of data with two inputs and an objective with two losses: one file each, and a preset."""

import json
from dataclasses import replace

import pytest
import torch
from clips import losses, rows
from pairs import PRESET
from PIL import Image
from safetensors import safe_open

from smnm_kernels.errors import UsageError
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain import pretrain


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "pairs", {"tiny": PRESET})
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
        assert picture.size[1] == 2 * 3 * (3 * (8 + 4) + 8)  # of both inputs


def test_it_is_resumed_and_refused_like_any_other(job, tmp_path):
    assert pretrain(job) == 0
    halves = replace(job, out=tmp_path / "halves")
    assert pretrain(replace(halves, steps=2, schedule_steps=6)) == 0
    assert pretrain(replace(halves, steps=6, schedule_steps=6)) == 0
    assert losses(halves.out) == losses(job.out)
    with pytest.raises(UsageError, match=r"mask\.left is 'green2d' there, 'blue2d' was asked for"):
        pretrain(replace(job, mask="blue2d"))

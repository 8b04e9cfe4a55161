"""A cell in this process: what is measured is the encoder that was trained, as it was trained."""

import json
from dataclasses import replace

import torch
from clips import write_samples
from safetensors import safe_open

from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.studying import measuring
from smnm_kernels.train.tasks.studying.cells import cells_of
from smnm_kernels.train.tasks.studying.folders import CellFolder
from smnm_kernels.train.tasks.studying.measuring import Machine, run_cell
from smnm_kernels.train.tasks.studying.plan_file import load_plan

SOUNDS = """
modality = "audio"
n_keep = 2

[pretrain]
preset = "tiny"
frames = 64
steps = 2
batch_size = 2

[data.sounds]
held_out_share = 0.4

[runs]
random = { mask = "random" }
untrained = { untrained = true }

[measures.loss]
with = "loss"
masks = 1
"""


def cells(tmp_path, text, **data):
    (tmp_path / "tiny.toml").write_text(text)
    plan = load_plan(tmp_path / "tiny.toml")
    return plan, [CellFolder(tmp_path / "out", cell) for cell in cells_of(plan, data)]


def ran(plan, folder):
    assert run_cell(plan, folder, Machine("cpu", 1, 0)) == 0
    return folder.result


def test_inputs_are_normalised_by_what_the_run_measured(tmp_path, monkeypatch):
    """As of presets that measure mean and deviation in the files that they train on."""
    tiny, front = PRESETS["audio"]["tiny"], PRESETS["audio"]["msm-mae"].clip.front
    measures = replace(tiny, clip=replace(tiny.clip, front=front, mean=None, std=None))
    monkeypatch.setitem(PRESETS["audio"], "tiny", measures)
    torch.manual_seed(0)
    (tmp_path / "data").mkdir()
    for number in range(5):
        write_samples(tmp_path / f"data/{number}.wav", torch.randn(16000).numpy() / 20)
    setups, losses = [], measuring.heldout_loss
    monkeypatch.setattr(
        measuring,
        "heldout_loss",
        lambda model, setup, *rest: setups.append(setup) or losses(model, setup, *rest),
    )
    plan, folders = cells(tmp_path, SOUNDS, sounds=tmp_path / "data")
    for folder in folders:
        ran(plan, folder)
    measured = json.loads((folders[0].run / "config.json").read_text())["run"]["measured"]
    assert [setup.preset.clip.mean for setup in setups] == [tuple(measured["mean"])] * 2
    for folder in folders:
        with safe_open(folder.run / "encoder.safetensors", "pt") as file:
            assert json.loads(file.metadata()["mean"]) == measured["mean"]
    assert (folders[0].path / "restored.png").exists()
    assert not (folders[1].path / "restored.png").exists()

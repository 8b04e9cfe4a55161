"""A cell in this process: what is measured is the encoder that was trained, as it was trained."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from clips import write_samples
from safetensors import safe_open
from testing import ROOT, with_path
from tiny_study import PLAN, write_pictures

from smnm_kernels.cli import main
from smnm_kernels.train.tasks import study
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.studying import commands, measuring, reuse
from smnm_kernels.train.tasks.studying.cells import cells_of
from smnm_kernels.train.tasks.studying.environment import Machine
from smnm_kernels.train.tasks.studying.folders import CellFolder, last_step
from smnm_kernels.train.tasks.studying.measuring import run_cell
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


# One cell, long enough to be killed in the middle.
ONE = """
modality = "image"
n_keep = 4
pretrain = { preset = "tiny", size = 64, steps = 30, batch_size = 2 }
data.colours.make = "paint them"
runs.random = { mask = "random" }
measures.loss = { with = "loss", clips = 2, masks = 1 }
"""


class Killed(BaseException):
    """Nothing catches it."""


def test_a_cell_that_dies_in_any_of_its_parts_ends_with_the_same_row(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 2)
    plan, (straight, *_) = cells(tmp_path, PLAN, colours=tmp_path / "data")
    expected = ran(plan, straight)
    dies = CellFolder(tmp_path / "other", straight.cell)
    write, parts = measuring.write_json, list(expected["seconds"])
    assert parts == ["train", "loss", "class", "class@2"]
    for at in range(1, 1 + len(parts)):

        def dying(path, content, at=at):
            if path.name == "parts.json" and len(content) == at:
                raise Killed
            write(path, content)

        monkeypatch.setattr(measuring, "write_json", dying)
        with pytest.raises(Killed):
            ran(plan, dies)
        assert dies.result is None
    monkeypatch.setattr(measuring, "write_json", write)
    found = ran(plan, dies)
    for key in ("id", "settings", "values", "data_fingerprints"):
        assert found[key] == expected[key], key
    assert found["about"]["data_fingerprint"] == expected["about"]["data_fingerprint"]
    assert not [*dies.path.glob("*/last.pt"), *dies.path.glob("features")]
    kept = [path.name for path in dies.run.glob("encoders/*")]
    assert kept == ["step-00000002.safetensors"]  # not that of the step which `at` does not name


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_where_its_data_moved_to(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 2)
    plan, folders = cells(tmp_path, ONE, colours=tmp_path / "data")
    expected, out = ran(plan, folders[0]), tmp_path / "killed"
    given = ["study", str(tmp_path / "tiny.toml"), "--out", str(out), "--device", "cpu"]
    given += ["--data", f"colours={tmp_path / 'data'}", "--threads", "1", "--workers", "0"]
    one = CellFolder(out, folders[0].cell)
    command = [sys.executable, "-m", "smnm_kernels.cli", *given, "--cell", one.cell.id]
    process = subprocess.Popen(command, env=with_path(ROOT))
    until = time.monotonic() + 240
    while last_step(one.run) < 2 and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert one.state() == "begun"
    (tmp_path / "data").rename(tmp_path / "moved")
    given[given.index(f"colours={tmp_path / 'data'}")] = f"colours={tmp_path / 'moved'}"
    # The rest in this process, which has everything imported.
    monkeypatch.setattr(
        study, "run_all", lambda folders, jobs, share, of: max(main(of(one)[3:]) for one in folders)
    )
    assert main(given) == 0
    assert one.result["values"] == expected["values"]


def test_where_a_part_was_begun_is_kept_too(tmp_path):
    write_pictures(tmp_path / "data", 2)
    plan, folders = cells(tmp_path, ONE, colours=tmp_path / "data")
    folders[0].path.mkdir(parents=True)
    gpu = {"device": "NVIDIA H100"}
    assert folders[0].note("pretraining", "pretrain", gpu) == []
    result = ran(plan, folders[0])
    assert result["environment"]["device"] == "cpu"
    assert result["environments"] == {"train, begun 1": gpu}


MORE = PLAN.replace(
    "[measures.class]",
    '[measures.nearest]\nwith = "probe"\nprobes = ["knn"]\nfew_shot = []\ndraws = 2\n\n'
    "[measures.class]",
)


def test_a_measure_that_is_added_takes_the_encoder_that_is_there(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 2)
    plan, folders = cells(tmp_path, PLAN, colours=tmp_path / "data")
    for folder in folders[:3]:  # random, green2d and untrained
        ran(plan, folder)
    plan, more = cells(tmp_path, MORE, colours=tmp_path / "data")
    alone = CellFolder(tmp_path / "other", more[0].cell)
    expected = ran(plan, alone)
    write = measuring.write_json

    def dying(path, content):
        if path.name == "parts.json":
            raise Killed
        write(path, content)

    monkeypatch.setattr(measuring, "write_json", dying)
    with pytest.raises(Killed):  # between the copy and the note that it is there
        ran(plan, more[0])
    monkeypatch.setattr(measuring, "write_json", write)
    made = parts_made(monkeypatch)
    for folder in more[:3]:
        ran(plan, folder)
    assert made == ["nearest"] * 3
    found = more[0].result
    for key in ("id", "settings", "data_fingerprints"):
        assert found[key] == expected[key], key
    assert found["values"] == pytest.approx(expected["values"])
    assert sorted(found["seconds"]) == sorted(expected["seconds"])
    assert found["encoder_of"] == folders[0].cell.id
    assert (more[0].path / "restored.png").exists()
    assert (more[0].path / "class/results.json").exists()
    assert not (more[2].path / "restored.png").exists()


def parts_made(monkeypatch):
    """Filled with the names of the parts that are not there yet."""
    made, parts = [], measuring._Work._part

    def noting(self, name, doing, make):
        made.extend([] if name in self._parts else [name])
        parts(self, name, doing, make)

    monkeypatch.setattr(measuring._Work, "_part", noting)
    return made


@pytest.mark.parametrize(
    ("old", "new", "made"),
    [
        ("clips = 3", "clips = 4", ["train", "loss", "class", "class@2"]),  # needs the decoder
        ("at = [2]", "at = [1]", ["train", "loss", "class", "class@1"]),  # is not kept
        ("few_shot = [2]", "few_shot = [1]", ["class", "class@2"]),
        ("at = [2]", "at = []", []),
        ("steps = 3", "steps = 4", ["train", "loss", "class", "class@2"]),
    ],
)
def test_an_encoder_is_taken_where_it_suffices(tmp_path, monkeypatch, old, new, made):
    write_pictures(tmp_path / "data", 2)
    plan, (folder, *_) = cells(tmp_path, PLAN, colours=tmp_path / "data")
    ran(plan, folder)
    text = PLAN.replace(old, new).replace(', "class.linear@2"', "")
    plan, (other, *_) = cells(tmp_path, text, colours=tmp_path / "data")
    found = parts_made(monkeypatch)
    ran(plan, other)
    assert found == made


def test_a_cell_whose_measure_failed_lends_its_encoder_with_the_decoder(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 2)
    plan, (folder, *_) = cells(tmp_path, PLAN, colours=tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setitem(commands.MAKERS, "probe", lambda asked: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ran(plan, folder)
    text = PLAN.replace("clips = 3", "clips = 4")
    plan, (other, *_) = cells(tmp_path, text, colours=tmp_path / "data")
    made = parts_made(monkeypatch)
    ran(plan, other)
    assert made == ["loss", "class", "class@2"]
    assert (other.path / "restored.png").exists()


def test_a_cell_that_is_gone_or_at_work_lends_nothing(tmp_path, monkeypatch, capsys):
    write_pictures(tmp_path / "data", 2)
    plan, (folder, *_) = cells(tmp_path, PLAN, colours=tmp_path / "data")
    ran(plan, folder)
    plan, (other, *_) = cells(tmp_path, MORE, colours=tmp_path / "data")
    made = parts_made(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "is_locked", lambda cell: True)
        assert reuse.take_over(other, ()) == {}
    with monkeypatch.context() as patch:
        patch.setattr(reuse.shutil, "copytree", lambda *given: (folder.path / "gone").stat())
        ran(plan, other)
    assert made == ["train", "loss", "nearest", "class", "class@2"]
    assert other.result["encoder_of"] is None
    assert "cannot be copied (" in capsys.readouterr().out


def test_what_a_copy_that_was_cut_short_left_is_gone_before_the_cell_measures(tmp_path):
    write_pictures(tmp_path / "data", 2)
    plan, (folder, *_) = cells(tmp_path, PLAN, colours=tmp_path / "data")
    for name in ("class", "class@2"):
        (folder.path / name).mkdir(parents=True)
        (folder.path / name / "config.json").write_text("{}")  # as of another cell's run
    ran(plan, folder)
    assert not [*folder.path.glob("class*/config.json")]

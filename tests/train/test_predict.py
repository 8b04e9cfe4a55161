"""smnm predict: what a fine-tuned model says of files, as in the evaluation of its run."""

import csv
import json
from dataclasses import asdict, replace

import labelled_sets as sets
import numpy as np
import pytest
import torch
from clips import ROUNDING, main
from labelled_sets import finetune

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.crops import ResizedCrop
from smnm_kernels.train.run import forward
from smnm_kernels.train.tasks import finetune_evaluation
from smnm_kernels.train.tasks.finetune_presets import PRESETS
from smnm_kernels.train.tasks.predict import Tuned, _clip_of_one, predictions


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Runs on pictures, and on sounds that are shorter than their window."""
    folder = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_evaluation, "write_curves", lambda *given: None)
        patch.setattr(finetune_evaluation, "write_confusion_matrix", lambda *given: None)
        patch.setattr(forward, "step_memory", lambda *given: "not")
        for modality, made in (("image", sets.pictures), ("audio", sets.sounds)):
            data = made(folder / modality)
            assert finetune(modality, data, folder / f"{modality}-run", "--steps", 3) == 0
    return folder


def table(path):
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_it_says_what_the_evaluation_said(tuned, modality, tmp_path, capsys):
    run, out = tuned / f"{modality}-run", tmp_path / "new" / "said.csv"
    words = ["predict", run, tuned / modality, "--out", out, "--workers", 0, "--batch-size", 5]
    assert main([str(word) for word in words]) == 0
    judged, said = table(run / "predictions.csv"), table(out)
    assert len(said) > len(judged) > 0
    for name, row in judged.items():
        assert said[name]["predicted"] == row["predicted"]
        for column in row:
            if column.startswith("p "):
                assert float(said[name][column]) == pytest.approx(float(row[column]), abs=ROUNDING)
    assert "label" not in next(iter(said.values()))
    assert str(out) in capsys.readouterr().out


@pytest.mark.slow
def test_padding_of_short_sounds_counts_as_in_training(tuned, monkeypatch):
    model = Tuned.load(tuned / "audio-run")
    assert model.clip.padding == "hide"
    found = predictions(model, tuned / "audio", workers=0)
    assert torch.allclose(found.values.sum(1), torch.ones(len(found.names)))
    monkeypatch.setattr(Tuned, "padding", lambda self, listing: None)
    seen = predictions(model, tuned / "audio", workers=0)
    assert not np.allclose(seen.values, found.values, atol=1e-3)


@pytest.mark.slow
def test_several_views_are_averaged_and_files_that_fail_are_named(tuned, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    some = sorted((tuned / "image").rglob("*.png"))[:2]
    for i, path in enumerate(some):
        (data / f"{i}.png").write_bytes(path.read_bytes())
    (data / "broken.png").write_bytes(b"none")
    found = predictions(tuned / "image-run" / "classifier.safetensors", data, (1, 3))
    assert found.names == ["0.png", "1.png"]
    assert list(found.failed) == ["broken.png"]
    assert "skipped broken.png: does not decode" in capsys.readouterr().out
    words = ["predict", tuned / "image-run", data, "--out", tmp_path / "a.csv", "--workers", 0]
    assert main([str(word) for word in words]) == 1
    assert set(table(tmp_path / "a.csv")) == {"0.png", "1.png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gone"}, "gone: is not there"),
        ({"model": "."}, r"holds no classifier\.safetensors, as runs of smnm finetune do"),
        ({"model": "image-run/encoder.safetensors"}, "is no fine-tuned model"),
        ({"data": "gone"}, "DATA .*gone: does not exist"),
        ({"data": "audio"}, "no usable file"),
        ({"views": "3"}, "--views must be CLIPSxCROPS"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"out": "image-run"}, "is a folder; a name for the CSV file is needed"),
    ],
)
def test_wrong_options(tuned, change, message):
    from smnm_kernels.train.tasks.predict import Predict, predict

    given = {"model": "image-run", "data": "image", "out": "said.csv", "views": "1x1"} | change
    paths = {name: tuned / given[name] for name in ("model", "data", "out")}
    with pytest.raises(UsageError, match=message):
        predict(Predict(**given | paths, workers=0))
    assert not (tuned / "said.csv").exists()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_frames_are_resized_as_in_the_evaluation(interpolation):
    clip = PRESETS["video"]["tiny"].clip
    crop = ResizedCrop((0.5, 1.0), interpolation=interpolation)
    trained = replace(clip, crop=crop)
    size = trained.inputs["video"].size
    held = {"modality": "video", "preset": json.dumps({"clip": asdict(trained)})}
    assert _clip_of_one(held, size).fixed_crop == trained.fixed_crop

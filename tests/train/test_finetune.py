"""smnm finetune: runs on files that are easy to tell apart, and what they leave."""

import csv
import json
from dataclasses import replace

import labelled_sets as sets
import numpy as np
import pytest
import torch
from clips import ROUNDING, losses, pretrain, rows, write_picture
from finetuned import same_results
from labelled_sets import evaluations, finetune, results
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, mean_absolute_error

from smnm_kernels.errors import RunError
from smnm_kernels.train.data.modality import Normalisation
from smnm_kernels.train.data.views import Views, views_of
from smnm_kernels.train.models.classifier import load_classifier
from smnm_kernels.train.models.encoder_file import encoder_metadata, load_encoder
from smnm_kernels.train.run import forward
from smnm_kernels.train.run.evaluating import Outputs
from smnm_kernels.train.tasks import finetune_evaluation
from smnm_kernels.train.tasks.finetune_evaluation import Judging, mean_of_views
from smnm_kernels.train.tasks.finetune_presets import PRESETS


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return sets.pictures(tmp_path_factory.mktemp("sets") / "pictures")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return sets.sounds(tmp_path_factory.mktemp("sets") / "sounds")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    return sets.pictures_with_numbers(tmp_path_factory.mktemp("sets") / "numbered")


STEPS = ("--steps", 12, "--evaluate-every", 5)


@pytest.fixture(autouse=True)
def _quick(run, monkeypatch):
    """What takes half the time of such short runs, and is tested with one of them."""
    monkeypatch.setattr(finetune_evaluation, "write_curves", lambda *given: None)
    monkeypatch.setattr(finetune_evaluation, "write_confusion_matrix", lambda *given: None)
    monkeypatch.setattr(forward, "step_memory", lambda *given: "not")


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """One that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert finetune("image", pictures, run, *STEPS) == 0
    return run


def test_dark_and_light_are_told_apart(run):
    found = results(run)
    assert [row["step"] for row in evaluations(run)] == [5, 10, 12]
    assert found["measures"]["top1"]["value"] == 1
    assert found["measures"]["top1"]["low"] == 1
    assert (found["split"], found["files"], found["failed"]) == ("test", 8, {})
    assert found["labels"] == {"kind": "class", "names": ["dark", "light"]}
    assert found["encoder"] == "untrained, seed 0"
    assert found["settings"]["preset"] == "tiny"
    assert losses(run)[-1] < losses(run)[0]
    for name in ("curves.png", "confusion.png"):
        with Image.open(run / name) as picture:
            assert picture.width > 200
    assert sorted(p.name for p in run.iterdir() if p.name[0] != ".") == [
        "classifier-last.safetensors", "classifier.safetensors", "config.json", "confusion.png",
        "curves.png", "encoder.safetensors", "evaluations.jsonl", "files.json", "labels.json",
        "last.pt", "metrics.jsonl", "predictions.csv", "results.json", "skipped.json",
    ]  # fmt: skip


def test_the_classifier_that_is_kept_predicts_what_the_table_says(run, pictures):
    model = load_classifier(run / "classifier.safetensors")
    assert model.head_settings.names == ("dark", "light")
    clip = PRESETS["image"]["tiny"].clip.sized(model.encoder.input_size)
    with (run / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 8
    files = json.loads((run / "files.json").read_text())["usable"]
    numbers = [i for i, record in enumerate(files) if record["split"] == "test"]
    views = Views(pictures, files, clip, numbers, views_of())
    normalise = Normalisation(clip.inputs["image"])
    for place, row in enumerate(table):
        raw = views.sample(place, lambda number: None).inputs["image"]
        p = model.predict(normalise(raw[None]))[0]
        assert row["name"] == files[numbers[place]]["name"]
        assert row["label"] == row["name"].split("/")[1]
        assert float(row["p light"]) == pytest.approx(p[1].item(), abs=ROUNDING)
        assert row["predicted"] == ("light" if p[1] > p[0] else "dark")


def test_its_encoder_is_fine_tuned_again(run, pictures, tmp_path):
    encoder = load_encoder(run / "encoder.safetensors")
    best = load_classifier(run / "classifier.safetensors").encoder
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, best.state_dict()[name])
    assert finetune("image", pictures, tmp_path / "run", "--steps", 2, encoder=run) == 0
    assert results(tmp_path / "run")["encoder"] == f"{run}, step {results(run)['best_step']}"


def test_training_begins_with_the_encoders_weights(run, pictures, tmp_path):
    given = ("--steps", 1, "--lr", 0, "--warmup-steps", 0)
    assert finetune("image", pictures, tmp_path / "run", *given, encoder=run) == 0
    ours, theirs = (
        load_encoder(r / "encoder.safetensors").state_dict() for r in (tmp_path / "run", run)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_best_on_val_is_judged_on_test_and_not_the_last(run, pictures):
    found, kept = results(run), evaluations(run)
    best = max(kept, key=lambda row: (row["top1"], -row["step"]))
    assert found["best_step"] == best["step"]
    assert [row["step"] for row in kept if row["best"]][-1] == best["step"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "phase",
    [
        "keep",
        pytest.param("outputs", marks=pytest.mark.exhaustive),
        pytest.param("row", marks=pytest.mark.exhaustive),
        pytest.param("finish", marks=pytest.mark.exhaustive),
    ],
)
def test_killed_in_an_evaluation_or_while_the_best_is_saved(
    run, pictures, tmp_path, monkeypatch, phase
):
    calls = {"row": 2, "outputs": 3, "keep": 1, "finish": 1}[phase]
    whole = getattr(Judging, phase)

    def ending(self, *arguments, **more):
        nonlocal calls
        calls -= 1
        if calls == 0:
            raise Killed
        return whole(self, *arguments, **more)

    ended = tmp_path / "run"
    monkeypatch.setattr(Judging, phase, ending)
    with pytest.raises(Killed):
        finetune("image", pictures, ended, *STEPS)
    monkeypatch.undo()
    assert not (ended / "results.json").exists()
    assert finetune("image", pictures, ended, *STEPS) == 0
    same_results(ended, run)


def test_stopped_between_steps_it_goes_on_with_all_that_it_draws(sounds, tmp_path):
    """Masks, mixing, bands, dropped paths."""
    drawing = (
        "--mixup", 0.8, "--drop-path", 0.5, "--schedule-steps", 8, "--evaluate-every", 3,
    )  # fmt: skip
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    assert finetune("audio", sounds, straight, *drawing, "--steps", 8) == 0
    assert finetune("audio", sounds, halves, *drawing, "--steps", 6) == 0
    assert finetune("audio", sounds, halves, *drawing, "--steps", 8) == 0
    same_results(halves, straight)


@pytest.mark.slow
def test_parts_of_a_batch_are_mixed_as_the_whole(pictures, tmp_path):
    given = ("--steps", 4, "--batch-size", 8, "--mixup", 0.8, "--cutmix", 1.0, "--repeats", 2)
    for name, parts in (("whole", 1), ("parts", 4)):
        more = (*given, "--accumulate", parts)
        assert finetune("image", pictures, tmp_path / name, *more) == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_padding_of_short_recordings_is_hidden_or_seen(sounds, tmp_path, capsys):
    for padding, steps in (("hide", 12), ("see", 1)):
        given = ("--steps", steps, "--schedule-steps", 12, "--padding", padding)
        assert finetune("audio", sounds, tmp_path / padding, *given) == 0
    said = capsys.readouterr().out
    assert "their padding is hidden from the model" in said
    assert "their padding is seen as if it were sound" in said
    assert losses(tmp_path / "hide")[:1] != losses(tmp_path / "see")
    assert results(tmp_path / "hide")["measures"]["top1"]["value"] >= 0.75


def test_numbers(numbered, tmp_path):
    run = tmp_path / "run"
    given = ("--labels", "number", "--label-column", "brightness", "--steps", 25, "--lr", 0.003)
    assert finetune("image", numbered, run, *given) == 0
    found = results(run)
    with (run / "predictions.csv").open() as file:
        table = [(float(r["label"]), float(r["predicted"])) for r in csv.DictReader(file)]
    truth, predicted = np.array(table).T
    mae = found["measures"]["mae"]
    assert mae["value"] == pytest.approx(mean_absolute_error(truth, predicted), rel=1e-3)
    assert mae["low"] < mae["value"] < mae["high"]
    assert mae["value"] < 0.6 * abs(truth - truth.mean()).mean()
    assert (found["split"], found["chosen_by"]) == ("val", "mae on val")
    best = min(evaluations(run), key=lambda row: (row["mae"], row["step"]))
    assert found["best_step"] == best["step"]
    assert not (run / "confusion.png").exists()


def test_several_labels(numbered, tmp_path, capsys):
    run = tmp_path / "run"
    given = ("--labels", "classes", "--label-column", "channels", "--steps", 25, "--lr", 0.003)
    assert finetune("image", numbered, run, *given, "--balanced", 10) == 0
    assert "not used for labels of this kind: label smoothing" in capsys.readouterr().out
    with (run / "predictions.csv").open() as file:
        table = list(csv.DictReader(file))
    truth = np.array([[name in json.loads(row["label"]) for name in "rgb"] for row in table])
    scores = np.array([[float(row[f"p {name}"]) for name in "rgb"] for row in table])
    expected = average_precision_score(truth, scores, average="macro")
    found = results(run)["measures"]["mAP"]["value"]
    assert found == pytest.approx(expected, abs=1e-4)
    assert found > 0.8
    assert len(rows(run)) == 25


def test_without_val_the_last_model_counts(pictures, tmp_path, capsys):
    folder = tmp_path / "data"
    sets.pictures(folder, {"train": 3, "test": 2})
    run = tmp_path / "run"
    assert finetune("image", folder, run, "--steps", 2, "--val-share", 0) == 0
    assert "the last model counts, not the best" in capsys.readouterr().out
    assert not (run / "evaluations.jsonl").exists()
    found = results(run)
    assert (found["chosen_by"], found["best_step"], found["split"]) == ("the last step", 2, "test")
    ours, last = (
        load_classifier(run / name).state_dict()
        for name in ("classifier.safetensors", "classifier-last.safetensors")
    )
    assert all(torch.equal(ours[name], last[name]) for name in last)


def test_without_val_and_test_nothing_is_evaluated(pictures, tmp_path, capsys):
    sets.pictures(tmp_path / "data", {"train": 3})
    run = tmp_path / "run"
    assert finetune("image", tmp_path / "data", run, "--steps", 2, "--val-share", 0) == 0
    assert "nothing is evaluated" in capsys.readouterr().out
    assert "measures" not in results(run)
    assert load_classifier(run / "classifier.safetensors")


def test_the_mean_over_views_leaves_out_files_of_which_one_failed(tmp_path):
    views = Views(tmp_path, [{}] * 9, None, [7, 3, 5], views_of(2, 1))
    values = torch.tensor([[1.0, 3], [3, 5], [7, 7], [2, 4], [4, 8]])
    outputs = Outputs([0, 1, 2, 4, 5], values, {"b": "is gone"})
    numbers, means = mean_of_views(views, outputs)
    assert numbers == [7, 5]
    assert means.tolist() == [[2, 4], [3, 6]]
    with pytest.raises(RunError, match="of each of 3 files a view cannot be read"):
        mean_of_views(views, replace(outputs, sample_ids=[0], values=values[:1]))


@pytest.mark.slow
def test_an_encoder_of_pretraining_brings_its_size_and_stride(tmp_path, capsys):
    data = sets.videos(tmp_path / "data", {"train": 3, "val": 2})
    before = tmp_path / "pretrained"
    assert pretrain(data, "--out", before, "--steps", 1, "--stride", 1) == 0
    run = tmp_path / "run"
    given = ("--steps", 2, "--views", "2x2")
    assert finetune("video", data, run, *given, encoder=before) == 0
    clip = results(run)["settings"]["clip"]
    assert (clip["frames"], clip["size"], clip["stride"]) == (16, 96, 1)
    assert results(run)["views"] == 4
    assert results(run)["clips_x_crops"] == [2, 2]
    other = tmp_path / "other"
    given = ("--steps", 1, "--size", 48, "--stride", 2)
    assert finetune("video", data, other, *given, encoder=before) == 0
    assert load_encoder(other / "encoder.safetensors").input_size == (3, 16, 48, 48)
    said = capsys.readouterr().out
    assert f"--encoder {before}: " in said
    assert "--preset tiny: inputs are as the encoder was trained, stride 1, not 2; " in said
    # Another encoder in the same RUN is refused.
    assert finetune("video", data, run, "--steps", 3) == 2
    assert "holds a run with other settings: encoder is" in capsys.readouterr().err
    # So is one with the same weights and other settings, which is another function.
    encoder = load_encoder(before / "encoder.safetensors")
    encoder.settings = replace(encoder.settings, heads=encoder.settings.heads * 2)
    with safe_open(before / "encoder.safetensors", framework="pt") as file:
        about = file.metadata()
    about |= encoder_metadata(encoder)
    save_file(encoder.state_dict(), tmp_path / "other.safetensors", about)
    given = ("--steps", 3, "--views", "2x2")
    assert finetune("video", data, run, *given, encoder=tmp_path / "other.safetensors") == 2
    assert "other settings: encoder_settings.heads is" in capsys.readouterr().err


@pytest.mark.slow
def test_a_test_file_that_vanishes_is_named_and_not_counted(pictures, tmp_path, monkeypatch):
    import shutil

    data = shutil.copytree(pictures, tmp_path / "data")
    whole = Judging.row

    def row(self, *arguments):
        (data / "test" / "dark" / "2.png").unlink(missing_ok=True)
        return whole(self, *arguments)

    monkeypatch.setattr(Judging, "row", row)
    assert finetune("image", data, tmp_path / "run", "--steps", 2) == 0
    found = results(tmp_path / "run")
    assert list(found["failed"]) == ["test/dark/2.png"]
    assert found["files"] == 7


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("modality", "preset"),
    [(m, name) for m, table in PRESETS.items() for name in table if name != "tiny"],
)
def test_every_preset_runs(modality, preset, pictures, sounds, tmp_path):
    """On a small encoder."""
    data = {"image": pictures, "audio": sounds}.get(modality)
    data = data or sets.videos(tmp_path / "data", {"train": 4, "val": 2})
    small = tmp_path / "small"
    assert finetune(modality, data, small, "--steps", 1) == 0
    run = tmp_path / "run"
    given = ("--preset", preset, "--steps", 3, "--warmup-steps", 1)
    assert finetune(modality, data, run, *given, encoder=small) == 0
    assert results(run)["clips_x_crops"] == list(PRESETS[modality][preset].views)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "given", [("--compile",), ("--precision", "bfloat16"), ("--checkpoint-activations",)]
)
def test_ways_to_compute_change_losses_by_no_more_than_rounding(given, sounds, tmp_path):
    """With all that a model is given: masks and padding."""
    more = ("--steps", 3, "--evaluate-every", 2)
    for name, way in (("plain", ()), ("other", given)):
        assert finetune("audio", sounds, tmp_path / name, *more, *way) == 0
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), abs=5e-3)


def test_wrong_encoders_are_refused_before_any_work(pictures, run, tmp_path, capsys):
    def refused(encoder, *more, modality="image"):
        assert finetune(modality, pictures, tmp_path / "new", *more, encoder=encoder) == 2
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    assert "is not there" in refused(tmp_path / "nothing")
    assert "holds no weights" in refused(tmp_path)
    write_picture(tmp_path / "a.png")
    assert "a.png" in refused(tmp_path / "a.png")
    assert "is of image, and audio was asked for" in refused(run, modality="audio")
    assert "--encoder" in refused(run, "--size", 40)
    assert "has no final norm; --pool mean" in refused(run, "--pool", "class")
    assert finetune("image", pictures, run, encoder=run) == 2
    assert "is the run of --encoder" in capsys.readouterr().err
    assert finetune("image", pictures, pictures) == 2
    assert "is DATA itself" in capsys.readouterr().err


def test_other_settings_in_the_same_run_are_refused(run, pictures, capsys):
    assert finetune("image", pictures, run, *STEPS, "--layer-decay", 0.5) == 2
    assert "layer_decay is 0.75 there, 0.5 was asked for" in capsys.readouterr().err


def test_a_finished_run_says_so_and_touches_nothing(run, pictures, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in run.iterdir()}
    assert finetune("image", pictures, run, *STEPS) == 0
    assert "already finished: 12 steps" in capsys.readouterr().out
    for name in ("last.pt", "classifier.safetensors", "results.json", "predictions.csv"):
        assert (run / name).stat().st_mtime_ns == before[name]

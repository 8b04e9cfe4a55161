"""smnm pretrain audio-video --objective avt: losses, options, going on, what it leaves."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import labelled_sets as sets
import pytest
import torch
from clips import losses, rows
from clips import pretrain as pretrain_words
from labelled_sets import finetune, results
from PIL import Image

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.avt_encoder import load_fused_encoder
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.encoder_file import encoder_metadata, save_tensors
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.resizing import at_size
from smnm_kernels.train.run import forward
from smnm_kernels.train.tasks import finetune_evaluation
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain_setup import set_up

TINY = CAV_MAE.with_clips().resized(
    dim=32, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    counts = {"train": 3, "val": 1}
    return sets.films(tmp_path_factory.mktemp("sets") / "films", counts)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    tiny = PRESETS["audio-video"]["tiny"]
    monkeypatch.setitem(PRESETS["audio-video"], "tiny", replace(tiny, objective=CavMae(TINY)))
    for name in ("write_curves", "write_confusion_matrix"):
        monkeypatch.setattr(finetune_evaluation, name, lambda *given: None)


def pretrain(films, run, *words):
    given = ("--objective", "avt", "--batch-size", 4, "--fusion-blocks", 2, "--warmup-steps", 1)
    return pretrain_words(films, "--out", run, *given, *words, modality="audio-video")


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        tiny = PRESETS["audio-video"]["tiny"]
        patch.setitem(PRESETS["audio-video"], "tiny", replace(tiny, objective=CavMae(TINY)))
        run = tmp_path_factory.mktemp("runs") / "run"
        assert pretrain(films, run, "--steps", 4, "--schedule-steps", 4) == 0
    return run


def test_a_run_leaves_its_losses_a_picture_of_the_sound_and_an_encoder(run):
    for row in rows(run):
        parts = 0.5 * row["loss_contrast"] + 0.1 * row["loss_matching"] + 0.01 * row["loss_segment"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
    with Image.open(run / "reconstruction.png") as picture:
        assert picture.height == 3 * (3 * 132 + 8)
    encoder = load_fused_encoder(run / "encoder.safetensors")
    assert encoder.settings.fusion.blocks == 2
    assert encoder.input_sizes["audio"] == (1, 1, 128, 128)


def test_it_goes_on_after_a_stop_as_if_there_had_been_none(run, films, tmp_path):
    halves = tmp_path / "halves"
    assert pretrain(films, halves, "--steps", 2, "--schedule-steps", 4) == 0
    assert pretrain(films, halves, "--steps", 4, "--schedule-steps", 4) == 0
    assert losses(halves) == losses(run)
    name = "encoder.safetensors"
    states = [load_fused_encoder(folder / name).state_dict() for folder in (run, halves)]
    if not torch.cuda.is_available():  # there the losses say as much
        torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)


def test_its_encoder_is_fine_tuned_with_the_same_losses(run, films, tmp_path, capsys):
    tuned = tmp_path / "tuned"
    given = ("--objective", "avt", "--steps", 1, "--warmup-steps", 0)
    assert finetune("audio-video", films, tuned, *given, encoder=run) == 0
    assert results(tuned)["encoder"] == f"{run}, step 4"
    assert results(tuned)["settings"]["encoder_settings"]["fusion"]["blocks"] == 2
    wrong = (*given, "--fusion", "late")
    assert finetune("audio-video", films, tmp_path / "no", *wrong, encoder=run) == 2
    said = capsys.readouterr().err
    assert "--fusion late: " in said
    assert "was trained with bottleneck fusion of 2 blocks and 4 tokens" in said


def test_without_a_segment_nothing_is_masked_and_nothing_pictured(films, tmp_path):
    assert pretrain(films, tmp_path, "--segment-weight", 0, "--steps", 1) == 0
    assert "loss_segment" not in rows(tmp_path)[0]
    assert not (tmp_path / "reconstruction.png").exists()
    assert (tmp_path / "encoder.safetensors").exists()


def test_without_a_segment_padding_is_hidden_all_the_same(tmp_path):
    """Contrast hears what it hears where a segment is restored, too."""
    short = sets.films(tmp_path / "short", {"train": 2}, seconds=1.02)
    given = ("--steps", 1, "--matching-weight", 0)
    found = []
    for weight in (0, 0.01):
        run = tmp_path / f"run-{weight}"
        assert pretrain(short, run, "--segment-weight", weight, *given) == 0
        found.append(rows(run)[0]["loss_contrast"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("objective", ["avt", "cav-mae"])
def test_a_file_is_not_compared_with_itself(objective, tmp_path, capsys):
    one = sets.films(tmp_path / "one", {"train": 1})
    for film in [path for path in sorted(one.rglob("*")) if path.is_file()][1:]:
        film.unlink()
    run, given = tmp_path / "run", ("--objective", objective, "--steps", 1, "--batch-size", 2)
    words = ("--out", run, "--warmup-steps", 1, *given)
    assert pretrain_words(one, *words, modality="audio-video") == 0
    (row,) = rows(run)
    assert row["loss_contrast"] == 0
    assert row.get("loss_matching", 0) == 0
    losses = "contrast and of matching" if objective == "avt" else "contrast"
    assert f"one usable file: the loss of {losses}, which compares" in capsys.readouterr().out


def job(**options):
    given = {"objective": "avt"} | options
    return Pretrain(modality="audio-video", data=Path("DATA"), out=Path("RUN"), **given)


def test_options_reach_the_model_its_losses_and_masks():
    given = {"fusion": "bottleneck", "bottleneck": 7, "fusion_blocks": 3, "matching_weight": 0.0}
    objective = set_up(job(**given)).preset.objective
    fusion = objective.model.fusion
    assert (fusion.kind, fusion.tokens, fusion.blocks) == ("bottleneck", 7, 3)
    weights = objective.weights
    assert (weights.contrast, weights.matching, weights.segment) == (0.5, 0, 0.01)
    masks = set_up(job(audio_mask_ratio=0.25)).preset.masks
    assert {name: (m.kind, m.ratio) for name, m in masks.items()} == {"audio": ("activity", 0.25)}
    assert set_up(job(preset="cav-mae")).preset.objective.model.video.depth == 11


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"video_mask": "tube"}, "--video-mask: this objective masks audio only"),
        ({"video_mask": "tube", "segment_weight": 0}, "this objective masks nothing"),
        ({"hidden_time": 0.5}, "--hidden-time: this objective masks audio only"),
        ({"objective": "cav-mae", "fusion": "late"}, "--fusion late: is for --objective avt"),
        ({"fusion": "sum"}, "--fusion must be bottleneck, concat or late, got 'sum'"),
        ({"batch_size": 2, "accumulate": 2}, "contrast and matching compare samples"),
        (
            {"contrast_weight": 0, "matching_weight": 0, "segment_weight": 0},
            "must not all be 0",
        ),
        (
            {"contrast_weight": 0, "matching_weight": 0, "fusion": "late"},
            "segment alone, with late fusion of 4 blocks, learns nothing of the video",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        set_up(job(**options))


def encoder_of(modality, path, dim=32, depth=1, **clip):
    """An untrained one of its own, as a run leaves it."""
    preset = PRESETS[modality]["tiny"]
    model, given = preset.objective.model, replace(preset.clip, **clip)
    settings = replace(model, encoder=replace(model.encoder, dim=dim, depth=depth, heads=2))
    (inputs,) = given.inputs.values()
    encoder = build_model(settings, inputs.size, seed=4).encoder
    about = {"modality": modality, "step": "9", "preset": json.dumps({"clip": asdict(given)})}
    about |= {name: json.dumps(getattr(inputs, name)) for name in ("mean", "scale")}
    save_tensors(encoder, path, encoder_metadata(encoder, **about))
    return path, encoder


def test_it_begins_with_encoders_of_video_and_of_sound(films, tmp_path, capsys):
    video, of_video = encoder_of("video", tmp_path / "v.safetensors", depth=2)
    audio, of_audio = encoder_of("audio", tmp_path / "a.safetensors", frames=256)
    setup = set_up(job(init=video, init_audio=audio, fusion_blocks=2))
    objective, inputs = setup.preset.objective, setup.preset.clip.inputs
    model = objective.build(inputs, seed=0)
    setup.start.load(model)
    x = {name: torch.randn(2, *of.size) for name, of in inputs.items()}
    with torch.no_grad():
        assert torch.equal(model.encoder.own("video", x["video"]), of_video(x["video"]))
        shorter = at_size(of_audio, inputs["audio"].size)
        assert torch.equal(model.encoder.own("audio", x["audio"]), shorter(x["audio"]))
    assert (objective.model.video.depth, objective.model.audio.depth) == (2, 1)
    assert objective.model.fusion.blocks == 2
    run, given = tmp_path / "run", ("--init", video, "--init-audio", audio, "--steps", 1)
    assert pretrain(films, run, *given) == 0
    said = capsys.readouterr().out
    assert f"--init {video} --init-audio {audio}: audio: the encoder is of 1 x 16 x 8" in said
    assert load_fused_encoder(run / "encoder.safetensors").settings.video.depth == 2
    config = json.loads((run / "config.json").read_text())
    assert config["runtime"]["init_audio"] == str(audio)


def test_encoders_that_cannot_be_fused_are_refused(tmp_path):
    video, _ = encoder_of("video", tmp_path / "v.safetensors")
    audio, _ = encoder_of("audio", tmp_path / "a.safetensors", dim=48)
    for options, said in (
        ({"init": video, "init_audio": audio}, "equally wide, got video's 32 and audio's 48"),
        ({"init": video}, "avt begins with two encoders; give --init, of video, and --init-audio"),
        ({"init_audio": audio}, "--init-audio .*a.safetensors: avt begins with two encoders"),
        ({"init": audio, "init_audio": audio}, "--init .*a.safetensors: is of audio, and video"),
        ({"init_audio": audio, "objective": "cav-mae"}, "a.safetensors: is for --objective avt"),
    ):
        with pytest.raises(UsageError, match=said):
            set_up(job(**options))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("weights", "alone"),
    [(("--matching-weight", 0), ()), (("--contrast-weight", 0), ("--accumulate", 2))],
)
def test_two_processes_learn_as_one(weights, alone, films, tmp_path, monkeypatch):
    """Contrast compares the samples of both, matching those of one process, as those of one part.
    Six files in batches of eight: some come twice."""
    monkeypatch.undo()
    given = [
        "pretrain", "audio-video", films, "--objective", "avt", "--batch-size", 8, "--steps", 3,
        *weights, "--fusion-blocks", 1, "--fusion", "concat", "--workers", 0,
        "--threads", 1, "--warmup-steps", 1,
    ]  # fmt: skip
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for run, before, more in (("one", [], alone), ("two", launcher, ())):
        words = [*before, "-m", "smnm_kernels.cli", *given, *more, "--out", tmp_path / run]
        done = subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-3)


@pytest.mark.exhaustive
@pytest.mark.parametrize("given", [("--compile",), ("--precision", "bfloat16")])
def test_ways_to_compute_change_losses_by_no_more_than_rounding(given, run, films, tmp_path):
    assert pretrain(films, tmp_path, "--steps", 4, "--schedule-steps", 4, *given) == 0
    if "--compile" in given:
        assert losses(tmp_path) == pytest.approx(losses(run), rel=1e-4)
    else:  # the negatives of another rounding may be others from some step on
        assert losses(tmp_path)[:2] == pytest.approx(losses(run)[:2], rel=0.03)


def test_the_memory_of_a_step_is_computed(films, tmp_path, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(forward.Forward, "_memory", _remembered(said))
    assert pretrain(films, tmp_path, "--steps", 1) == 0
    assert said[0].startswith("computed ")


def _remembered(said):
    whole = forward.Forward._memory

    def memory(self, arguments):
        said.append(whole(self, arguments))
        return said[-1]

    return memory

"""smnm pretrain audio-video: masks of both inputs, options, resuming, the encoder it leaves."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Started, losses, rows
from clips import pretrain as pretrain_words
from flashes import write_flashes
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from testing import made_once

from smnm_kernels import AudioVideoSampler, MaskSampler
from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.audio_video_encoder import load_audio_video_encoder
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.encoder_file import encoder_metadata, save_tensors
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import MAE
from smnm_kernels.train.tasks.mask_options import masks_of
from smnm_kernels.train.tasks.masking import MaskSettings, PairedMasks
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.presets.audio_video import AUDIO_VIDEO
from smnm_kernels.train.tasks.pretrain_setup import set_up

TINY = CAV_MAE.with_clips().resized(
    dim=16, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Three films with sound, of two and three seconds."""

    def make(folder):
        for i in range(3):
            write_flashes(folder / f"{i}.mp4", n=60 + 15 * i, fps=30)

    return made_once(tmp_path_factory, "films", make)


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
    small = replace(AUDIO_VIDEO["tiny"], objective=CavMae(TINY))
    monkeypatch.setitem(PRESETS, "audio-video", {**AUDIO_VIDEO, "tiny": small})


def pretrain(*words):
    return pretrain_words(*words, modality="audio-video")


def job(**options):
    given = {"data": Path("DATA"), "out": Path("RUN"), "device": "cpu", **options}
    return Pretrain(modality="audio-video", **given)


def test_a_run_leaves_both_losses_both_pictures_and_an_encoder(films, tmp_path):
    run = tmp_path / "run"
    assert pretrain(films, "--out", run, "--steps", 3) == 0
    for row in rows(run):
        parts = row["loss_video"] + row["loss_audio"] + 0.01 * row["loss_contrast"]
        assert row["loss"] == pytest.approx(parts, rel=1e-6)
        assert row["contrast_accuracy"] in (0, 0.5, 1)
        assert row["mask_ms"] > 0
    config = json.loads((run / "config.json").read_text())["run"]
    assert config["mask"] == {"video": "green3d", "audio": "rbn"}
    assert config["mask_ratio"] == {"video": 0.9, "audio": 0.8}
    assert config["hidden_time"] is None
    saved = torch.load(run / "last.pt", weights_only=True)["task"]["mask_samplers"]
    assert int(saved["audio-video"]["next_id"]) == 6
    with Image.open(run / "reconstruction.png") as picture:
        assert picture.width == 84 + 8 * 96 + 4
        of_both = 3 * (3 * 100 + 8) + 3 * (3 * 132 + 8)
        assert of_both < picture.height < of_both + 40  # a line on what is restored
        sound = np.asarray(picture)[of_both - 8 - 128 : of_both - 8, 84:-4]
        assert (sound < 255).any(axis=-1).all()  # as wide as the frames
        assert (sound[:, ::6] == sound[:, 5::6]).all()
    with safe_open(run / "encoder.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["modality"] == "audio-video"
    assert json.loads(metadata["scale"]).keys() == {"video", "audio"}
    encoder = load_audio_video_encoder(run / "encoder.safetensors")
    embedded = encoder.embed({"audio": torch.randn(2, 1, 1, 128, 128)})
    assert embedded["audio"].shape == (2, 16)


def test_a_run_that_was_stopped_ends_like_one_that_was_not(films, tmp_path):
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    words = ("--schedule-steps", 5, "--warmup-steps", 1)
    assert pretrain(films, "--out", straight, "--steps", 5, *words) == 0
    for steps in (2, 5):
        assert pretrain(films, "--out", halves, "--steps", steps, *words) == 0
    assert losses(halves) == losses(straight)
    ours, theirs = (
        load_audio_video_encoder(run / "encoder.safetensors").state_dict()
        for run in (halves, straight)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_masks_are_those_of_an_audio_video_sampler():
    masking = set_up(job(seed=5)).masking(10)
    assert isinstance(masking, PairedMasks)
    expected = AudioVideoSampler(
        {"kind": "green3d", "grid": (8, 6, 6), "mask_ratio": 0.9},
        {"kind": "rbn", "grid": (1, 8, 8), "mask_ratio": 0.8},
        seed=5,
    )
    for _ in range(2):
        for ours, theirs in zip(masking.draw(3, {}, {}).values(), expected(3), strict=True):
            assert torch.equal(ours.visible, theirs.visible)
    alone = MaskSampler("green3d", (8, 6, 6), 0.9, seed=5)(3)
    ids = torch.arange(3)
    assert torch.equal(masking.of_ids(ids, {}, {})["video"].visible, alone.visible)
    again = set_up(job(seed=5)).masking(10)
    again.load_state(masking.state())
    assert torch.equal(again.draw(2, {}, {})["audio"].visible, expected(2).audio.visible)


def test_hidden_time_hides_the_same_moments_of_both():
    setup = set_up(job(hidden_time=0.5))
    masks = setup.masking(1).draw(16, {}, {})
    seen_video = masks["video"].visible.view(16, 8, 36).any(2)
    seen_audio = masks["audio"].visible.view(16, 8, 8).any(2)
    assert ((~seen_video & ~seen_audio).sum(1) >= 4).all()
    assert masks["video"].n_keep == 28


def test_options_of_each_input_reach_its_masks():
    setup = set_up(
        job(
            video_mask="motion", video_mask_ratio=0.8, audio_mask="dispersion",
            audio_mask_options=("metric=variance", "hint_ratio=0.3"),
        )
    )  # fmt: skip
    assert (setup.kinds["video"].name, setup.kinds["video"].n_keep) == ("motion", 57)
    assert setup.preset.masks["audio"].parameters == {"metric": "variance", "hint_ratio": 0.3}
    masking = setup.masking(1)
    assert masking.needs_data == {"video", "audio"}
    inputs = {n: torch.randn(2, *i.size) for n, i in setup.preset.clip.inputs.items()}
    valid = torch.ones(2, 64, dtype=torch.bool)
    valid[:, 40:] = False
    masks = masking.draw(2, inputs, {"audio": valid})
    assert not (masks["audio"].visible & ~valid).any()
    clip = set_up(job(stride=1, padding="see", flip=False)).preset.clip
    assert (clip.video.stride, clip.video.flip, clip.audio.padding) == (1, False, "see")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": "tube"}, r"--mask: is for one input.* give --video-mask or --audio-mask"),
        ({"mask_ratio": 0.5}, "give --video-mask-ratio or --audio-mask-ratio"),
        ({"hint_schedule": "dwm"}, "--hint-schedule: is for one input"),
        ({"video_mask": "purple"}, r"--video-mask purple .* on a grid of \(8, 6, 6\)"),
        ({"audio_mask_ratio": 1.0}, r"--audio-mask rbn --audio-mask-ratio 1\.0"),
        (
            {"audio_mask_options": ("kind=x",)},
            "--audio-mask-options kind=x: --audio-mask sets it",
        ),
        ({"audio_mask_options": ("sigma=1",)}, "--audio-mask-options sigma=1 on a grid"),
        ({"hidden_time": 0.99}, r"--hidden-time 0\.99: hidden_time must hide some"),
        ({"hidden_time": 1.5}, r"--hidden-time 1\.5: hidden_time must be a number in \(0, 1\)"),
        ({"hidden_time": 0.5, "video_mask": "tube"}, r"--hidden-time 0\.5: .* may change"),
        ({"hidden_time": 0.5, "audio_mask": "bands"}, r"--hidden-time 0\.5: .* noise or R-BN"),
        ({"init": Path("x")}, "--init x"),
        ({"batch_size": 1}, "--batch-size 1: cav-mae compares samples with each other, and 1 goes"),
        ({"batch_size": 4, "accumulate": 4}, "--batch-size 4: cav-mae compares samples"),
        ({"preset": "cav-mae", "stride": 3}, "--stride 3: --preset cav-mae spreads 10 frames"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_option(options, said):
    with pytest.raises(UsageError, match=said):
        set_up(job(**options))


def test_it_begins_with_a_model_of_pictures_and_no_other(films, tmp_path, capsys):
    settings = MAE.resized(
        dim=16, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    picture, sound = tmp_path / "picture", tmp_path / "sound"
    for folder, modality, size in ((picture, "image", (3, 1, 96, 96)), (sound, "audio", None)):
        folder.mkdir()
        encoder = build_model(settings, size or (1, 1, 64, 128), 0).encoder
        mean, scale = ([0.5] * 3, [1] * 3) if size else ([0], [1])
        norm = {"mean": json.dumps(mean), "scale": json.dumps(scale)}
        about = encoder_metadata(encoder, modality=modality, step="7", **norm)
        save_tensors(encoder, folder / "encoder.safetensors", about)
    run = tmp_path / "run"
    assert pretrain(films, "--out", run, "--steps", 1, "--init", picture) == 0
    said = capsys.readouterr().out
    assert f"--init {picture}: the decoder starts anew: there is none" in said
    assert "it was trained on inputs (raw - (0.5, 0.5, 0.5))" in said
    assert json.loads((run / "config.json").read_text())["run"]["init"]
    assert pretrain(films, "--out", run, "--steps", 2) == 2
    assert "init is" in capsys.readouterr().err
    for other, why in ((sound, "is of audio"), (run, "is an encoder of clips with their sound")):
        assert pretrain(films, "--out", tmp_path / "other", "--init", other) == 2
        error = capsys.readouterr().err
        assert f"--init {other}: {why}" in error
        assert "audio-video begins with a model of pictures (MAE)" in error


def test_options_of_two_inputs_are_refused_for_one():
    options = Pretrain(modality="audio", data=Path("D"), out=Path("R"), audio_mask="rbn")
    with pytest.raises(UsageError, match="--audio-mask: is for audio-video; audio has one input"):
        set_up(options)
    # Of an objective that masks one of the two.
    with pytest.raises(UsageError, match="--video-mask: this objective masks audio only"):
        masks_of(job(video_mask="tube"), {"audio": MaskSettings("rbn", 0.8)})
    with pytest.raises(UsageError, match="--hidden-time: this objective masks audio only"):
        masks_of(job(hidden_time=0.5), {"audio": MaskSettings("rbn", 0.8)})


def test_padding_is_hidden_but_not_with_hidden_time(films, tmp_path, capsys):
    short = tmp_path / "short"
    short.mkdir()
    for i, film in enumerate(sorted(films.iterdir())):
        (short / film.name).write_bytes(film.read_bytes())
        write_flashes(short / f"short{i}.mp4", n=25, fps=30, seconds=0.8)
    words = (short, "--steps", 2, "--batch-size", 4)
    assert pretrain(*words, "--out", tmp_path / "a", "--hidden-time", 0.5) == 2
    said = capsys.readouterr()
    assert "--hidden-time 0.5: cannot leave out the padding of 3 short files" in said.err
    assert pretrain(*words, "--out", tmp_path / "b", "--hidden-time", 0.5, "--padding", "see") == 0
    assert pretrain(*words, "--out", tmp_path / "c") == 0
    assert all(row["loss_audio"] > 0 for row in rows(tmp_path / "c"))
    assert losses(tmp_path / "b") != losses(tmp_path / "c")


def test_parts_of_a_batch_are_contrasted_by_themselves(films, tmp_path):
    """The same reconstruction, and the mean of the parts' contrasts."""
    found = []
    for parts in (1, 2):
        run = tmp_path / str(parts)
        words = ("--steps", 1, "--batch-size", 4, "--accumulate", parts)
        assert pretrain(films, "--out", run, *words) == 0
        found += rows(run)
    for name in ("loss_video", "loss_audio"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4)
    # Untrained means are much alike: then the loss is near the log of the number of samples.
    assert found[1]["loss_contrast"] < found[0]["loss_contrast"] - 0.3


@pytest.mark.exhaustive
def test_killed_and_started_again_it_ends_like_one_that_was_not(films, tmp_path):
    """Also while a checkpoint is being written."""
    straight, run = tmp_path / "straight", tmp_path / "run"
    words = ("--steps", 9, "--checkpoint-every", 2, "--workers", 1, "--batch-size", 4)
    words += ("--hidden-time", 0.5)
    code, said = Started(
        straight, films, "--out", straight, *words, modality="audio-video"
    ).finish()
    assert code == 0, said
    for wait in (
        lambda started: started.wait_for_rows(1),
        lambda started: started.wait_for_checkpoint_write(),
        lambda started: started.wait_for_rows(6),
    ):
        started = Started(run, films, "--out", run, *words, modality="audio-video")
        wait(started)
        started.process.kill()
        started.finish()
    code, said = Started(run, films, "--out", run, *words, modality="audio-video").finish()
    assert code == 0, said
    for row, same in zip(rows(run), rows(straight), strict=True):
        for name in ("loss", "loss_video", "loss_audio", "loss_contrast", "contrast_accuracy"):
            assert row[name] == same[name]
    ours, theirs = (load_file(folder / "encoder.safetensors") for folder in (run, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


_SMALL = """
import sys
from dataclasses import replace
from smnm_kernels.cli import main
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.tasks.presets.audio_video import AUDIO_VIDEO
model = CAV_MAE.with_clips().resized(
    dim=16, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
)
AUDIO_VIDEO["tiny"] = replace(AUDIO_VIDEO["tiny"], objective=CavMae(model, contrast_weight=1.0))
sys.exit(main(["pretrain", "audio-video", *sys.argv[1:]]))
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("more", [(), ("--accumulate", "2"), ("--hidden-time", "0.5")])
def test_two_processes_do_what_one_does(films, tmp_path, more):
    script = tmp_path / "small.py"
    script.write_text(_SMALL)
    words = [str(films), "--steps", "4", "--batch-size", "8", "--warmup-steps", "0", *more]
    words += ["--workers", "0", "--threads", "1"]
    found = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [sys.executable, *(launcher if processes == 2 else []), str(script)]
        done = subprocess.run(
            [*command, *words, "--out", str(run)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        found.append((rows(run), load_audio_video_encoder(run / "encoder.safetensors")))
    (one, encoder), (two, other) = found
    for row, same in zip(one, two, strict=True):
        for name in ("loss", "loss_video", "loss_audio", "loss_contrast", "contrast_accuracy"):
            assert row[name] == pytest.approx(same[name], rel=1e-4, abs=1e-6), (row["step"], name)
    for name, tensor in encoder.state_dict().items():
        same = other.state_dict()[name]
        if name.endswith("attn.qkv.bias"):  # keys have no gradient but rounding, which Adam scales
            tensor, same = (torch.cat(t.tensor_split(3)[::2]) for t in (tensor, same))
        torch.testing.assert_close(tensor, same, rtol=1e-3, atol=1e-4)
    assert losses(tmp_path / "1")[-1] != losses(tmp_path / "1")[0]

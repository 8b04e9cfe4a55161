"""smnm pretrain video --objective sigma: what a run does, refuses and leaves."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import losses, on_two_ranks, pretrain, rows
from PIL import Image
from safetensors.torch import load_file
from testing import made_once

from smnm_kernels.train.models.encoder_file import encoder_metadata, load_encoder, save_tensors
from smnm_kernels.train.models.formats.original import to_mae
from smnm_kernels.train.models.formats.state import encoder_state
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.pretrained import read_weights
from smnm_kernels.train.models.settings import MAE, VIDEOMAE
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.tasks.export import Export, export
from smnm_kernels.train.tasks.presets import PRESETS

SIZES = {
    "dim": 24, "depth": 1, "heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
SIGMA = ("--objective", "sigma")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A preset whose steps take no time, on clips of 4 x 48 x 48."""
    tiny = PRESETS["video"]["tiny"]
    preset = replace(
        tiny,
        clip=replace(tiny.clip, frames=4, size=48),
        masks={"video": replace(tiny.masks["video"], ratio=0.75)},
        objective=MaskedAutoencoding(VIDEOMAE.resized(**SIZES)),
        optimisation=replace(tiny.optimisation, checkpoint_every=2),
    )
    monkeypatch.setitem(PRESETS["video"], "tiny", preset)


@pytest.fixture
def pictures(tmp_path_factory):
    """The encoder of a masked autoencoder of pictures, of another size."""

    def make(folder):
        encoder = build_model(MAE.resized(**SIZES), (3, 1, 64, 64), seed=3).encoder
        about = {"modality": "image", "mean": "[0.5, 0.5, 0.5]", "scale": "[0.5, 0.5, 0.5]"}
        save_tensors(encoder, folder / "x.safetensors", encoder_metadata(encoder, **about))

    return made_once(tmp_path_factory, "encoder-of-pictures", make) / "x.safetensors"


def run(data, out, *more, steps=4):
    return pretrain(data, "--out", out, *SIGMA, "--steps", steps, "--schedule-steps", 4, *more)


def test_a_run_from_files_to_an_encoder_that_others_load(videos, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(videos, out) == 0
    assert "computed" in capsys.readouterr().out  # memory of a step
    for row in rows(out):
        assert 0 <= row["entropy"] <= 1
        assert 0 <= row["target_entropy"] <= 1
    config = json.loads((out / "config.json").read_text())["run"]
    assert config["objective"]["name"] == "Sigma"
    assert config["target"] is None
    saved = torch.load(out / "last.pt", map_location="cpu", weights_only=True)["model"]
    assert torch.allclose(saved["prototypes"].norm(dim=1), torch.ones(32), atol=1e-5)
    encoder = load_encoder(out / "encoder.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, saved[f"encoder.{name}"])
    # What its colours mean stands below: black letters on white.
    picture = np.asarray(Image.open(out / "reconstruction.png"))
    below = picture[3 * (3 * (48 + 4) + 8) :]
    assert 20 < len(below) < 200
    assert (below == 255).all(-1).mean() > 0.6
    assert (below == 0).all(-1).any(axis=1).sum() > 20

    assert export(Export(run=out, to="hf-videomae", out=tmp_path / "hf")) == 0
    said = capsys.readouterr().out
    assert "note: what stands behind its encoder restores no patches and is left out" in said
    assert "hf: encoder, " in said
    theirs = read_weights(tmp_path / "hf").state
    for name, tensor in encoder.state_dict().items():
        if name != "pos_embed":  # made by a rule
            assert torch.equal(theirs[f"encoder.{name}"], tensor)


@pytest.mark.parametrize("target", [False, True])
def test_it_goes_on_with_the_losses_of_a_run_that_was_never_stopped(
    videos, pictures, target, tmp_path, capsys
):
    more = ("--target", pictures) if target else ()
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert run(videos, whole, *more) == 0
    said = capsys.readouterr().out
    assert run(videos, halves, *more, steps=2) == 0
    assert run(videos, halves, *more) == 0
    assert losses(halves) == losses(whole)
    ours, theirs = (load_file(r / "encoder.safetensors") for r in (halves, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    if target:
        asked = f"--target {pictures}"
        assert f"{asked}: the target is 24 features a token, of frames 0, 2, ... of a clip" in said
        assert f"{asked}: the encoder is of 1 x 4 x 4 patches" in said
        held = torch.load(whole / "last.pt", weights_only=True)["model"]
        assert not [name for name in held if "frozen" in name]


def test_another_target_is_refused_by_name(videos, pictures, tmp_path, capsys):
    out, other = tmp_path / "run", tmp_path / "other.safetensors"
    assert run(videos, out, "--target", pictures, steps=1) == 0
    assert "notes" not in json.loads((out / "config.json").read_text())
    assert json.loads((out / "config.json").read_text())["runtime"]["target"] == str(pictures)
    encoder = load_encoder(pictures)
    with torch.no_grad():
        encoder.patch_embed.bias.add_(1e-3)
    about = {"modality": "image", "mean": "[0.5, 0.5, 0.5]", "scale": "[0.5, 0.5, 0.5]"}
    save_tensors(encoder, other, encoder_metadata(encoder, **about))
    assert run(videos, out, "--target", other) == 2
    assert re.search(r"target is '\w{32}' there, '\w{32}' was asked for", capsys.readouterr().err)
    other.write_bytes(pictures.read_bytes())  # the same from another place
    assert run(videos, out, "--target", other, steps=2) == 0


def test_a_run_begins_with_the_encoder_of_another(videos, tmp_path, capsys):
    first, out = tmp_path / "first", tmp_path / "run"
    assert pretrain(videos, "--out", first, "--steps", 1) == 0
    assert run(videos, out, "--init", first, "--lr", 1e-20, steps=1) == 0
    assert "the decoder starts anew: it is to predict other things" in capsys.readouterr().out
    ours, theirs = (load_file(r / "encoder.safetensors") for r in (out, first))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-12) for name in theirs)


def test_parts_of_a_batch_are_balanced_each_by_itself(videos, tmp_path):
    """The gradients are means over parts, whose losses are of as many tokens."""
    torch.manual_seed(0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(videos, whole, "--batch-size", 4, steps=1) == 0
    assert run(videos, parts, "--batch-size", 4, "--accumulate", 2, steps=1) == 0
    assert losses(parts) != losses(whole)
    assert losses(parts) == pytest.approx(losses(whole), rel=0.2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("parts", [1, 2])
def test_two_processes_do_what_one_does(videos, parts, tmp_path, monkeypatch):
    """Of the preset as it is, which other processes know."""
    monkeypatch.undo()
    arguments = (*SIGMA, "--batch-size", 4, "--steps", 4, "--accumulate", parts)
    assert pretrain(videos, "--out", tmp_path / "one", *arguments) == 0
    on_two_ranks(videos, tmp_path / "two", *arguments)
    for name in ("loss", "entropy", "target_entropy"):
        one, two = ([row[name] for row in rows(tmp_path / run)] for run in ("one", "two"))
        assert two == pytest.approx(one, abs=5e-3), name


def test_collapse_is_said_by_name(videos, pictures, tmp_path, capsys, monkeypatch):
    """Every patch has one feature: the model's own, and the target."""
    monkeypatch.setattr("smnm_kernels.train.models.collapse.PATIENCE", 3)
    flat = ("--warmup-steps", 0)
    assert run(videos, tmp_path / "healthy", "--target", pictures, *flat) == 0
    assert all(row["entropy"] > 0.1 for row in rows(tmp_path / "healthy"))
    healthy = capsys.readouterr().out
    build = Sigma.build

    def collapsed(self, *arguments):
        model = build(self, *arguments)
        with torch.no_grad():
            for last in (model.projection[-1], model.decoder.pred):
                last.weight.zero_()
                last.bias.fill_(1)
        return model

    monkeypatch.setattr(Sigma, "build", collapsed)
    assert run(videos, tmp_path / "run", "--lr", 1e-6, *flat) == 0
    said = capsys.readouterr().out
    assert "warning" not in healthy
    assert "at step 4: target_entropy 0.000 and entropy 0.000 of the largest, below" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--objective", "mae", "--target", "X"), "--target X: is for --objective sigma"),
        (("--sinkhorn-epsilon", "0.03"), "--sinkhorn-epsilon 0.03: is for --objective sigma"),
        ((*SIGMA, "--sinkhorn-epsilon", "0"), "must be a finite number above 0, got 0.0"),
        ((*SIGMA, "--target", "nowhere"), "--target nowhere: is not there"),
    ],
)
def test_wrong_options_are_refused(videos, more, said, tmp_path, capsys):
    assert pretrain(videos, "--out", tmp_path / "run", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_is_left_out_of_a_target_is_said(videos, tmp_path, capsys):
    """As of an encoder of other people's, which has a head for classes."""
    encoder = build_model(MAE.resized(**SIZES | {"dim": 64}), (3, 1, 48, 48), seed=0).encoder
    state, head = encoder_state(encoder), {"head.weight": torch.zeros(5, 64)}
    torch.save(to_mae(state, (1, 16, 16)) | head, tmp_path / "vit.pth")
    assert run(videos, tmp_path / "run", "--target", tmp_path / "vit.pth", steps=1) == 0
    said = capsys.readouterr().out
    assert "1 of its tensors are no part of the encoder and are left out: head.weight" in said


@pytest.mark.parametrize(
    ("settings", "size", "modality", "said"),
    [
        (MAE, (1, 1, 64, 64), "audio", "is of audio; image or video is needed"),
        (MAE, (1, 1, 64, 64), "image", "takes inputs of 1 channels, and the model's have 3"),
        (
            "patch 5",
            (3, 1, 40, 40),
            "image",
            "input length 48 along H is not a multiple of patch 5",
        ),
        ("tubelet 4", (3, 4, 48, 48), "video", "has 1 tubelets of 4 frames, and the model 2"),
        ("one mean", (3, 1, 48, 48), "image", "x.safetensors: does not say what it was trained on"),
        ("scale 0", (3, 1, 48, 48), "image", "x.safetensors: does not say what it was trained on"),
    ],
)
def test_targets_that_do_not_fit_are_named(
    videos, settings, size, modality, said, tmp_path, capsys
):
    patches = {"patch 5": (1, 5, 5), "tubelet 4": (4, 16, 16)}
    family = (VIDEOMAE if modality == "video" else MAE).resized(**SIZES)
    if settings in patches:
        family = replace(family, encoder=replace(family.encoder, patch=patches[settings]))
    if size[0] == 1:
        family = replace(family, pixel_mean=(), pixel_std=())
    encoder = build_model(family, size, seed=0).encoder
    ones = json.dumps([1.0] * size[0])
    about = {"modality": modality, "mean": ones, "scale": ones}
    about |= {"one mean": {"mean": "[1.0]"}, "scale 0": {"scale": "[0, 1, 1]"}}.get(settings, {})
    path = tmp_path / "x.safetensors"
    save_tensors(encoder, path, encoder_metadata(encoder, **about))
    assert run(videos, tmp_path / "run", "--target", path) == 2
    assert f"--target {path}: {said}" in capsys.readouterr().err


def test_other_modalities_have_no_sigma(sounds, tmp_path, capsys):
    assert pretrain(sounds, "--out", tmp_path / "run", *SIGMA, modality="audio") == 2
    assert "--objective sigma: audio has mae" in capsys.readouterr().err

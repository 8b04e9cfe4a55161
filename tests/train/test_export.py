"""smnm export: folders that other codebases load, and that come back with the same bits."""

import json
import math
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import pretrain
from safetensors import safe_open
from safetensors.torch import load_file
from testing import made_once, need_biases_of_videomae, need_packages

from smnm_kernels import MaskSampler
from smnm_kernels.cli import main
from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.spectrogram import log_mel
from smnm_kernels.train.data.statistics import AUDIOSET_MEAN, AUDIOSET_STD
from smnm_kernels.train.model import load_encoder
from smnm_kernels.train.models import pretrained
from smnm_kernels.train.models.mae import MaskedAutoencoder
from smnm_kernels.train.models.pretrained import find_encoder, read_weights
from smnm_kernels.train.run import folder
from smnm_kernels.train.tasks import export as export_module
from smnm_kernels.train.tasks import finetune_evaluation, model_card
from smnm_kernels.train.tasks.export import Export, export

CLOSE = dict(rtol=1e-5, atol=1e-5)
FORMATS = [
    ("video", "hf-videomae"),
    ("video", "mae"),
    ("image", "hf-vitmae"),
    ("image", "timm"),
    ("image", "mae"),
    ("audio", "timm"),
    ("audio", "mae"),
]
pytestmark = pytest.mark.slow  # they share runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory, videos, sounds, images):
    """RUN of each modality, of one step."""

    def make(folder):
        for modality, data in (("video", videos), ("audio", sounds), ("image", images)):
            run = folder / modality
            assert pretrain(data, "--out", run, "--steps", 1, modality=modality) == 0

    folder = made_once(tmp_path_factory, "runs-to-export", make)
    return {modality: folder / modality for modality in ("video", "audio", "image")}


@pytest.fixture
def exported(runs, tmp_path):
    def made(modality, to):
        out = tmp_path / f"{modality}-{to}"
        assert main(["export", str(runs[modality]), "--to", to, "--out", str(out)]) == 0
        return out

    return made


def model_of(run):
    weights = read_weights(run, whole=True)
    model = MaskedAutoencoder(weights.model, weights.input_size).eval()
    model.load_state_dict(weights.state)
    return model


def found(path, encoder, modality):
    channels = encoder.input_size[0]
    inputs = InputFormat(encoder.input_size, (0.0,) * channels, (1.0,) * channels, None)
    return find_encoder(path, modality, inputs, None, 0, lambda line: None)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("modality", "to"), FORMATS)
@torch.no_grad()
def test_every_format_comes_back_with_the_same_bits(modality, to, runs, exported):
    out, run = exported(modality, to), runs[modality]
    encoder = load_encoder(run / "encoder.safetensors")
    got, own = found(out, encoder, modality), found(run, encoder, modality)
    for field in ("mean", "scale", "modality", "clip"):
        assert getattr(got, field) == getattr(own, field)
    assert got.encoder.settings == encoder.settings
    assert not got.unmapped or set(n.split(".")[0] for n in got.unmapped) == {"decoder"}
    for name, t in encoder.state_dict().items():
        assert torch.equal(got.encoder.state_dict()[name], t), name
    if to == "timm":
        return
    there, back = read_weights(run, whole=True), read_weights(out, whole=True)
    eps = 1e-5 if to == "hf-videomae" else 1e-6  # of transformers' last norm
    decoder = replace(there.model.decoder, final_norm_eps=eps)
    assert back.model == replace(there.model, decoder=decoder)
    for name, t in there.state.items():
        if modality != "video" or not name.endswith("pos_embed"):  # VideoMAE makes them by rule
            assert torch.equal(back.state[name], t), name


def test_names_of_files_in_a_run_are_the_same_in_all_rooms():
    in_models = (pretrained.ENCODER, pretrained.CHECKPOINT, pretrained.CONFIG)
    assert in_models == (folder.ENCODER, folder.CHECKPOINT, folder.CONFIG)
    assert pretrained.CLASSIFIER == finetune_evaluation.BEST
    assert model_card.RESULTS == finetune_evaluation.RESULTS


@pytest.mark.parametrize(("modality", "to"), FORMATS)
def test_what_was_exported_can_be_exported(modality, to, exported, tmp_path):
    """As transformers or timm would say it, without what this package left beside."""
    once = exported(modality, to)
    export(Export(run=once, to=to, out=tmp_path / "twice"))
    weights = "checkpoint.pth" if to == "mae" else "model.safetensors"
    read = torch.load if to == "mae" else load_file
    first, second = (read(folder / weights) for folder in (once, tmp_path / "twice"))
    first, second = first.get("model", first), second.get("model", second)
    assert first.keys() == second.keys()
    assert all(torch.equal(t, second[name]) for name, t in first.items())


def test_versions_of_transformers_without_biases_are_named(runs, tmp_path, capsys):
    export(Export(run=runs["video"], to="hf-videomae", out=tmp_path / "out"))
    said = "transformers 5.5 to 5.17 leave the biases of queries and values at zero"
    assert f"note: {said}" in capsys.readouterr().out
    assert said in (tmp_path / "out/README.md").read_text()


@torch.no_grad()
def test_transformers_loads_video(runs, exported):
    need_biases_of_videomae()
    from transformers import VideoMAEForPreTraining, VideoMAEImageProcessor, VideoMAEModel

    out, run = exported("video", "hf-videomae"), runs["video"]
    ours = model_of(run)
    x = torch.randn(2, *ours.encoder.input_size)
    for kind in (VideoMAEModel, VideoMAEForPreTraining):
        theirs, report = kind.from_pretrained(out, output_loading_info=True)
        assert not report["missing_keys"]
        assert all(name.startswith(("decoder", "mask_token", "encoder_to_decoder"))
                   for name in report["unexpected_keys"])  # fmt: skip
        base = getattr(theirs.eval(), "videomae", theirs)
        assert torch.allclose(base(x.transpose(1, 2))[0], ours.encoder(x), **CLOSE)
    assert not report["unexpected_keys"]
    norms = [m for m in theirs.videomae.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}  # transformers' own default is 1e-12
    masks = MaskSampler("green3d", ours.encoder.grid, 0.9)(2)
    theirs.decoder.norm.eps = 1e-6  # which no configuration sets
    loss = theirs(x.transpose(1, 2), bool_masked_pos=masks.masked).loss
    assert torch.allclose(ours(x, masks), loss, **CLOSE)

    frames = [np.full((96, 96, 3), 51 * i, dtype=np.uint8) for i in range(4)]
    pixels = VideoMAEImageProcessor.from_pretrained(out)(frames, return_tensors="pt").pixel_values
    expected = torch.tensor([51 * i / 255 for i in range(4)])[:, None] - torch.tensor(
        [0.485, 0.456, 0.406]
    )
    assert torch.allclose(pixels[0, :, :, 0, 0], expected / torch.tensor([0.229, 0.224, 0.225]))


def test_transformers_fine_tunes_it(exported):
    """As VideoMAE is fine-tuned: mean pooling puts the final norm away. Up from down."""
    need_biases_of_videomae()
    from transformers import VideoMAEForVideoClassification

    model, report = VideoMAEForVideoClassification.from_pretrained(
        exported("video", "hf-videomae"),
        num_labels=2,
        use_mean_pooling=True,
        output_loading_info=True,
    )
    assert {n.split(".")[0] for n in report["missing_keys"]} == {"fc_norm", "classifier"}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    brighter = torch.linspace(-2, 2, 16).view(1, 16, 1, 1, 1).expand(2, 16, 3, 96, 96)
    labels = torch.tensor([0, 1])
    clips = torch.where(labels.view(2, 1, 1, 1, 1) == 1, brighter.flip(1), brighter)
    losses = []
    for _ in range(8):
        loss = model(clips + 0.1 * torch.randn_like(clips), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@torch.no_grad()
def test_transformers_loads_pictures(runs, exported):
    need_packages("transformers")
    from transformers import ViTMAEForPreTraining, ViTMAEModel

    out, ours = exported("image", "hf-vitmae"), model_of(runs["image"])
    x = torch.randn(2, *ours.encoder.input_size)
    model, report = ViTMAEModel.from_pretrained(out, mask_ratio=0.0, output_loading_info=True)
    assert not report["missing_keys"]
    in_order = torch.arange(36.0).expand(2, -1)
    theirs = model.eval()(x[:, :, 0], noise=in_order).last_hidden_state[:, 1:]
    assert torch.allclose(theirs, ours.encoder(x), **CLOSE)

    masks = MaskSampler("random", ours.encoder.grid, 0.75)(2)
    model, report = ViTMAEForPreTraining.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]  # noqa: PT018
    loss = model.eval()(x[:, :, 0], noise=masks.vitmae_noise).loss
    assert torch.allclose(ours(x, masks), loss, **CLOSE)


def test_transformers_computes_the_same_spectrogram(exported):
    need_packages("transformers")
    from transformers import ASTFeatureExtractor

    extract = ASTFeatureExtractor.from_pretrained(exported("audio", "timm"))
    samples = (0.1 * np.random.default_rng(0).standard_normal(48000)).astype(np.float32)
    samples -= samples.mean()
    theirs = extract(samples, sampling_rate=16000, return_tensors="np")["input_values"][0]
    ours = (log_mel(samples, 128) - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)
    assert theirs.shape == (512, 128)
    np.testing.assert_allclose(theirs[: len(ours)], ours, atol=1e-4)


# The folder


def test_the_card_says_what_it_is(runs, exported):
    card = (exported("video", "hf-videomae") / "README.md").read_text()
    for words in (
        "license:  # choose one",
        "library_name: transformers",
        "transformers.VideoMAEForPreTraining.from_pretrained(DIR)",
        "| files | 4 |",
        "| fingerprint | ",
        "| mask | green3d |",
        "| mask_ratio | 0.9 |",
        "| preset | tiny |",
        "| steps done | 1 |",
        "| only step | ",
        "| torch | ",
        "has an eps of 1e-05, this model's 1e-06",
    ):
        assert words in card
    assert str(runs["video"]) not in card


def test_an_encoder_alone_goes_out_too(runs, tmp_path, capsys):
    export(Export(run=runs["video"] / "encoder.safetensors", to="hf-videomae", out=tmp_path / "o"))
    assert "o: encoder, 64 tensors in model.safetensors" in capsys.readouterr().out
    config = json.loads((tmp_path / "o/config.json").read_text())
    assert config["architectures"] == ["VideoMAEModel"]


def test_the_current_folder_can_be_filled(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(Export(run=runs["image"] / "encoder.safetensors", to="timm", out="."))
    assert (tmp_path / "model.safetensors").exists()


def test_processors_of_pictures_do_what_evaluation_does(exported):
    """7/8 of the short side, bicubic, and what cannot be told is a difference."""
    config = json.loads((exported("image", "timm") / "config.json").read_text())
    assert config["pretrained_cfg"]["crop_pct"] == 0.875
    config = json.loads((exported("audio", "timm") / "config.json").read_text())
    assert config["pretrained_cfg"]["crop_pct"] == 1
    out = exported("image", "hf-vitmae")
    assert json.loads((out / "preprocessor_config.json").read_text())["resample"] == 3
    card = (out / "README.md").read_text()
    assert "squashes the whole picture" in card
    assert "pipeline_tag: image-feature-extraction" in card


def full(tensors, *more):
    raise OSError(28, "no space")


def test_only_an_untouched_export_is_replaced(runs, tmp_path, monkeypatch):
    run, out = runs["image"] / "encoder.safetensors", tmp_path / "deep/out"
    export(Export(run=run, to="timm", out=out))
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]
    export(Export(run=run, to="mae", out=out))  # again, in its place
    names = ["README.md", "checkpoint.pth", "preprocessor_config.json", "smnm_export.json"]
    assert sorted(p.name for p in out.iterdir()) == names

    monkeypatch.setattr(export_module, "safetensors_bytes", full)
    with pytest.raises(UsageError, match="the disk is full"):
        export(Export(run=run, to="timm", out=out))
    assert sorted(p.name for p in out.iterdir()) == names  # as it was
    assert sorted(p.name for p in out.parent.iterdir()) == ["out"]
    monkeypatch.undo()

    (out / "README.md").write_text("license: mine")
    with pytest.raises(UsageError, match=r"out: is an export, but README.md came or changed since"):
        export(Export(run=run, to="timm", out=out))
    (out / "smnm_export.json").write_text("{}")
    with pytest.raises(UsageError, match=r"its smnm_export.json cannot be read"):
        export(Export(run=run, to="timm", out=out))
    (out / "smnm_export.json").unlink()
    with pytest.raises(UsageError, match="holds files that are not of smnm export"):
        export(Export(run=run, to="timm", out=out))
    with pytest.raises(UsageError, match=r"README.md: is there and no folder"):
        export(Export(run=run, to="timm", out=out / "README.md"))


def test_what_killed_exports_left_is_removed(runs, tmp_path, monkeypatch):
    dead = subprocess.Popen(["true"])
    dead.wait()
    run, out = runs["image"] / "encoder.safetensors", tmp_path / "out"
    names = [f".out.{dead.pid}.tmp", f".out.{dead.pid}.old", f".other.{dead.pid}.tmp"]
    names += [f".out.{os.getppid()}.tmp", f".out.{os.getppid()}.old", ".out.x.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    monkeypatch.setattr(export_module, "safetensors_bytes", full)
    with pytest.raises(UsageError, match="disk is full"):
        export(Export(run=run, to="timm", out=out))
    monkeypatch.undo()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == set(names[1:])  # the folder that was being replaced might be the only one
    export(Export(run=run, to="timm", out=out))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"out", *names[2:]}


@pytest.mark.parametrize(
    ("modality", "to", "cause"),
    [
        ("video", "timm", "--to timm: is for image and audio, and this model is of video"),
        ("video", "hf-vitmae", "--to hf-vitmae: is for image, and this model is of video"),
        ("audio", "hf-videomae", "--to hf-videomae: is for video, and this model is of audio"),
        ("audio", "hf-vitmae", "--to hf-vitmae: is for image, and this model is of audio"),
        ("image", "hf-videomae", "--to hf-videomae: is for video, and this model is of image"),
    ],
)
def test_formats_that_cannot_hold_a_model_are_refused(modality, to, cause, runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(runs[modality]), "--to", to, "--out", str(out)]) == 2
    assert f"smnm: error: {cause}" in capsys.readouterr().err
    assert not out.exists()
    assert main(["export", str(tmp_path), "--to", to, "--out", str(out)]) == 2
    assert f"error: RUN {tmp_path}: holds no weights" in capsys.readouterr().err


def test_the_checkpoint_is_a_file_of_its_own(exported):
    """With memory of its own for each tensor, and nothing but tensors."""
    path = exported("audio", "mae") / "checkpoint.pth"
    state = torch.load(path, weights_only=True)["model"]
    values = sum(4 * math.prod(t.shape) for t in state.values())
    assert values < path.stat().st_size < 1.1 * values + 1e5
    with safe_open(str(exported("audio", "timm") / "model.safetensors"), "pt") as file:
        assert file.metadata() == {"format": "pt"}

"""Fine-tuned models as folders: heads and class names go along."""

import json

import pytest
import torch
from families import shaken
from other_models import found, ours
from safetensors.torch import load_file
from testing import need_biases_of_videomae, need_packages

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.classifier import Classifier, HeadSettings, save_classifier
from smnm_kernels.train.models.pretrained import read_weights
from smnm_kernels.train.tasks.export import Export, export

CLOSE = dict(rtol=1e-5, atol=1e-5)
NAMES = ("dog", "cat | grey", "vögel")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def classifier(modality, **head):
    head = HeadSettings(**({"kind": "class", "names": NAMES} | head))
    return shaken(Classifier(ours(modality).encoder, head, head_std=0.5))


def run_of(model, modality, folder):
    folder.mkdir()
    channels = model.encoder.input_size[0]
    more = {
        "modality": modality,
        "step": "5",
        "mean": json.dumps([0.5] * channels),
        "scale": json.dumps([0.25] * channels),
        "preset": json.dumps({"clip": {"frames": 4}}),
    }
    save_classifier(model, folder / "classifier.safetensors", more)
    return folder


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ({}, "single_label_classification"),
        ({"kind": "classes"}, "multi_label_classification"),
        ({"kind": "number", "names": (), "offset": 7.0, "scale": 3.0}, "regression"),
    ],
)
@torch.no_grad()
def test_transformers_gives_the_same_outputs(head, problem, tmp_path):
    need_biases_of_videomae()
    from transformers import VideoMAEForVideoClassification

    model, out = classifier("video", **head), tmp_path / "out"
    export(Export(run=run_of(model, "video", tmp_path / "run"), to="hf-videomae", out=out))
    theirs, report = VideoMAEForVideoClassification.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.problem_type == problem
    assert theirs.config.id2label == dict(enumerate(model.head_settings.names or ["number"]))
    x = torch.randn(2, *model.encoder.input_size)
    theirs.eval().fc_norm.eps = 1e-6  # which no configuration sets
    s = model.head_settings
    expected = s.offset + s.scale * model(x) if s.kind == "number" else model(x)
    assert torch.allclose(theirs(x.transpose(1, 2)).logits, expected, **CLOSE)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "fc_norm has an eps of 1e-05, this model's 1e-06" in card
    if s.names:
        assert "dog, cat \\| grey, vögel" in card


@torch.no_grad()
def test_transformers_has_heads_on_a_pictures_class_token(tmp_path):
    need_packages("transformers")
    from transformers import ViTForImageClassification

    model, out = classifier("image", pool="class"), tmp_path / "out"
    run = run_of(model, "image", tmp_path / "run")
    export(Export(run=run, to="hf-vitmae", out=out))
    theirs, report = ViTForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.config.label2id == {name: i for i, name in enumerate(NAMES)}
    x = torch.randn(2, *model.encoder.input_size)
    assert torch.allclose(theirs.eval()(x[:, :, 0]).logits, model(x), **CLOSE)
    back = found(out, "image", model.encoder.input_size)
    assert torch.equal(back.encoder(x), model.encoder(x))
    pooled = run_of(classifier("image"), "image", tmp_path / "mean")
    with pytest.raises(UsageError, match="has no head on the mean of a picture's patches"):
        export(Export(run=pooled, to="hf-vitmae", out=tmp_path / "no"))


@pytest.mark.parametrize("modality", ["video", "image", "audio"])
def test_the_codes_of_the_methods_get_their_own_names(modality, tmp_path):
    model, out = classifier(modality), tmp_path / "out"
    run = run_of(model, modality, tmp_path / "run")
    export(Export(run=run, to="mae", out=out))
    state = torch.load(out / "checkpoint.pth", weights_only=True)["model"]
    assert torch.equal(state["head.weight"], model.head.weight)
    assert torch.equal(state["fc_norm.bias"], model.fc_norm.bias)
    assert "norm.weight" not in state
    last = "q_bias" if modality == "video" else "qkv.bias"
    assert f"blocks.1.attn.{last}" in state
    back = found(out, modality, model.encoder.input_size)
    for name, t in model.encoder.state_dict().items():
        assert torch.equal(back.encoder.state_dict()[name], t), name
    assert len(back.unmapped) == 4
    assert back.clip == {"frames": 4}


@pytest.mark.parametrize("pool", ["mean", "class"])
@torch.no_grad()
def test_timm_gets_heads_of_both_kinds(pool, tmp_path):
    model, out = classifier("audio", pool=pool), tmp_path / "out"
    export(Export(run=run_of(model, "audio", tmp_path / "run"), to="timm", out=out))
    config = json.loads((out / "config.json").read_text())
    assert config["label_names"] == list(NAMES)
    assert config["num_classes"] == 3
    assert config["global_pool"] == ("avg" if pool == "mean" else "token")
    state = load_file(out / "model.safetensors")
    assert ("fc_norm.weight" in state) == (pool == "mean") != ("norm.weight" in state)


@torch.no_grad()
def test_the_encoder_in_a_classifier_is_read(tmp_path):
    model = classifier("image")
    run = run_of(model, "image", tmp_path / "run")
    path = run / "classifier.safetensors"
    got = found(path, "image", model.encoder.input_size)
    x = torch.randn(2, *model.encoder.input_size)
    assert torch.equal(got.encoder(x), model.encoder(x))
    assert got.scale == (0.25,) * 3
    weights = read_weights(run, whole=True)
    assert weights.head.settings.names == NAMES
    assert weights.step == 5

"""timm's VisionTransformer: a listing of its tensors, and the class itself where timm is there."""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from enum import Enum
from pathlib import Path

import pytest
import torch
from families import shaken
from other_models import found, ours
from safetensors.torch import save_file

from smnm_kernels.train.models.classifier import Classifier, HeadSettings, save_classifier
from smnm_kernels.train.models.encoder_file import encoder_metadata
from smnm_kernels.train.models.formats import encoder_state, to_mae
from smnm_kernels.train.models.settings import AUDIOMAE, MAE
from smnm_kernels.train.models.vit import Encoder
from smnm_kernels.train.tasks.export import Export, export

CLOSE = dict(rtol=1e-5, atol=1e-5)
LISTING = json.loads(Path(__file__).with_name("data").joinpath("timm_vit_base.json").read_text())


@pytest.mark.parametrize(
    ("listed", "settings", "size"),
    [("image", MAE, (3, 1, 224, 224)), ("audio", AUDIOMAE, (1, 1, 1024, 128))],
)
def test_names_and_shapes_are_those_of_a_vit_base(listed, settings, size):
    with torch.device("meta"):
        state = to_mae(encoder_state(Encoder(settings.encoder, size)), (1, 16, 16))
    assert {name: list(t.shape) for name, t in state.items()} == LISTING[listed]


def test_names_and_shapes_are_those_of_a_fine_tuned_vit_base():
    with torch.device("meta"):
        encoder = Encoder(AUDIOMAE.encoder, (1, 1, 1024, 128))
    model = Classifier(encoder, HeadSettings("classes", tuple(map(str, range(527)))))
    state = to_mae(encoder_state(model.encoder), (1, 16, 16))
    state |= {n: t for n, t in model.state_dict().items() if not n.startswith("encoder.")}
    assert {n: list(t.shape) for n, t in state.items()} == LISTING["audio, fine-tuned"]


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision, whose names timm imports and whose functions its ViT never
    calls."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        names = "NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS"
        module.InterpolationMode = Enum("InterpolationMode", {n: n.lower() for n in names.split()})
        module.__getattr__ = lambda name: _anything(name)
        return module

    def exec_module(self, module):
        pass


def _anything(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


@pytest.fixture
def timm(monkeypatch):
    if not importlib.util.find_spec("timm"):
        pytest.skip("needs timm (pip install --no-deps timm)")
    if not importlib.util.find_spec("torchvision"):
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, _Torchvision()])
    import timm

    return timm


def about(encoder, modality):
    channels = encoder.input_size[0]
    mean, scale = (json.dumps([value] * channels) for value in (0.5, 0.25))
    return {"modality": modality, "mean": mean, "scale": scale, "step": "5"}


@pytest.mark.parametrize("modality", ["image", "audio"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_token": False},
        {"final_norm": False},
        {"class_token": False, "final_norm": False},
        {"mlp_ratio": 2.0},
        {"key_bias": False},
    ],
)
@torch.no_grad()
def test_encoders_of_all_kinds(modality, changes, tmp_path, timm):
    encoder, path = ours(modality, **changes).encoder, tmp_path / "encoder.safetensors"
    save_file(encoder.state_dict(), path, encoder_metadata(encoder, **about(encoder, modality)))
    export(Export(run=path, to="timm", out=tmp_path / "out"))
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    x = torch.randn(2, *encoder.input_size)
    assert torch.allclose(theirs(x[:, :, 0]), encoder(x).mean(1), **CLOSE)
    # And back, as timm itself stores it.
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    back = found(tmp_path / "vit.safetensors", modality, encoder.input_size).encoder
    assert torch.allclose(back(x), encoder(x), **CLOSE)


@pytest.mark.parametrize("pool", ["mean", "class"])
@torch.no_grad()
def test_heads_of_both_kinds(pool, tmp_path, timm):
    head = HeadSettings("class", ("one", "two", "three"), pool)
    model = shaken(Classifier(ours("audio").encoder, head, head_std=0.5))
    path = tmp_path / "classifier.safetensors"
    save_classifier(model, path, about(model.encoder, "audio"))
    export(Export(run=path, to="timm", out=tmp_path / "out"))
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    x = torch.randn(2, *model.encoder.input_size)
    assert torch.allclose(theirs(x[:, :, 0]), model(x), **CLOSE)

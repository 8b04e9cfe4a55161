"""A head on encoders of clips with sound: pooling, padding, inputs alone, rates by layer, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from avt_models import SIZES, fused_settings
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from smnm_kernels.train.models.audio_video_encoder import AudioVideoSettings
from smnm_kernels.train.models.avt_learner import LossWeights
from smnm_kernels.train.models.avt_supervised import SupervisedAvt
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.classifier import HeadSettings, is_head
from smnm_kernels.train.models.joint_classifier import (
    JointClassifier,
    inputs_of,
    load_joint_classifier,
    save_joint_classifier,
)
from smnm_kernels.train.models.joint_encoders import (
    JointEncoder,
    load_joint_encoder,
    new_joint_encoder,
)

CLASSES = HeadSettings("class", ("a", "b", "c"))
ENCODERS = ("cav-mae", "avt")
INPUTS = [("video", "audio"), ("audio",), ("video",)]


def encoder(kind: str, **changes: int) -> JointEncoder:
    settings = fused_settings()
    if kind == "cav-mae":
        branches = CAV_MAE.with_clips().encoder
        settings = AudioVideoSettings(
            replace(branches.video, dim=16, depth=2, heads=2),
            replace(branches.audio, dim=16, depth=2, heads=2),
            joint_depth=2,
        )
    made = new_joint_encoder(settings, SIZES, seed=0)
    for name, parameter in made.named_parameters():  # norms of each way through differ
        if "norm" in name:
            generator = torch.Generator().manual_seed(sum(name.encode()))
            nn.init.normal_(parameter, 1.0, 0.3, generator=generator)
    return made


def classifier(kind: str, inputs: tuple[str, ...] = ("video", "audio"), **more: float):
    return JointClassifier(encoder(kind), CLASSES, inputs, **{"head_std": 0.1} | more)


def samples(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(batch, *size, generator=generator) for name, size in SIZES.items()}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_the_mean_of_all_tokens_goes_through_a_norm_and_a_head(kind, inputs) -> None:
    model, x = classifier(kind, inputs).eval(), samples()
    tokens = encoder(kind).tokens({name: x[name] for name in inputs})
    mean = torch.cat([tokens[name] for name in inputs], dim=1).mean(1)
    expected = model.head(functional.layer_norm(mean, (16,), eps=1e-6))
    torch.testing.assert_close(model(x), expected)  # what it does not look at may be there
    torch.testing.assert_close(model.predict(x), expected.softmax(1))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("inputs", INPUTS[:2])
def test_padding_is_neither_attended_to_nor_in_the_mean(kind, inputs) -> None:
    model, x = classifier(kind, inputs).eval(), samples()
    real = {"audio": torch.tensor([[1, 33, 32], [1, 128, 32], [1, 16, 32]])}
    found = model(x, real)
    louder = x["audio"].clone()
    louder[0, :, :, 48:], louder[2, :, :, 16:] = 9, 9
    torch.testing.assert_close(model(x | {"audio": louder}, real), found)
    assert not torch.allclose(model(x | {"audio": louder}), found, atol=1e-3)
    torch.testing.assert_close(model(x)[1], found[1])


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_whatever_is_trained_gets_a_gradient_and_nothing_else(kind, inputs) -> None:
    model = classifier(kind, inputs)
    model(samples()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    others = {"video", "audio"} - set(inputs)
    if kind == "avt":
        assert all(any(f".{other}." in name for other in others) for name in frozen)
        assert bool(frozen) == bool(others)
    else:
        assert frozen  # norms of the other ways through the joint blocks


LAYERS = {
    "cav-mae": {
        "encoder.branches.audio.modality": 0,
        "encoder.branches.video.patch_embed.weight": 0,
        "encoder.branches.video.blocks.0.attn.proj.weight": 1,
        "encoder.branches.audio.blocks.1.norm1.bias": 2,
        "encoder.joint.0.mlp.fc1.weight": 3,
        "encoder.joint.1.norms.audio.norm1.weight": 4,
        "encoder.norm.weight": 5,
        "encoder.norms.video.weight": 5,
        "fc_norm.weight": 5,
        "head.bias": 5,
    },
    "avt": {
        "encoder.encoders.audio.cls_token": 0,
        "encoder.encoders.video.patch_embed.bias": 0,
        "encoder.encoders.audio.blocks.0.attn.proj.weight": 1,
        "encoder.encoders.audio.norm.weight": 1,
        "encoder.fusion.bottleneck": 2,
        "encoder.fusion.blocks.video.0.norm1.weight": 2,
        "encoder.fusion.blocks.audio.1.norm1.weight": 3,
        "encoder.norm.weight": 4,
        "head.weight": 4,
    },
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_layers_count_from_the_patches_to_the_head(kind) -> None:
    model = classifier(kind)
    names = {name for name, _ in model.named_parameters()}
    for name, layer in LAYERS[kind].items():
        assert name in names
        assert model.layer_of(name) == layer, name
    assert {model.layer_of(name) for name in names} == set(range(model.depth + 2))


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_head_is_fc_norm_and_head_alone(kind) -> None:
    """As CAV-MAE's script has it: its mlp_head is a norm and a linear layer."""
    expected = {f"{part}.{name}" for part in ("fc_norm", "head") for name in ("weight", "bias")}
    model = classifier(kind)
    assert {name for name, _ in model.named_parameters() if is_head(name)} == expected
    if kind == "avt":
        whole = SupervisedAvt(model, LossWeights(), seed=0)
        found = {name for name, _ in whole.named_parameters() if is_head(name)}
        assert found == {f"classifier.{name}" for name in expected}


def test_of_own_blocks_that_are_fewer_the_last_count_as_the_last() -> None:
    settings = fused_settings()
    deeper = replace(settings, video=replace(settings.video, depth=3))
    model = JointClassifier(new_joint_encoder(deeper, SIZES, 0), CLASSES, ("video", "audio"))
    assert model.layer_of("encoder.encoders.video.blocks.2.norm1.bias") == 3
    assert model.layer_of("encoder.encoders.audio.blocks.0.norm1.bias") == 3
    assert model.layer_of("encoder.encoders.audio.patch_embed.bias") == 0
    assert model.layer_of("encoder.fusion.bottleneck") == 4


@pytest.mark.parametrize("kind", ENCODERS)
def test_drop_path_rises_from_block_to_block(kind) -> None:
    model = classifier(kind, drop_path=0.3)
    rates: dict[int, set[float]] = {}
    for name, module in model.encoder.named_modules():
        if hasattr(module, "drop_path"):
            rates.setdefault(model.layer_of(f"encoder.{name}."), set()).add(module.drop_path)
    ordered = [rates[layer] for layer in sorted(rates)]
    assert all(len(of_layer) == 1 for of_layer in ordered)
    values = [of_layer.pop() for of_layer in ordered]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0.3)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("inputs", INPUTS[:2])
def test_the_file_gives_the_classifier_back(kind, inputs, tmp_path: Path) -> None:
    model, x, path = classifier(kind, inputs).eval(), samples(), tmp_path / "c.safetensors"
    save_joint_classifier(model, path, {"step": "3"})
    back = load_joint_classifier(path)
    assert back.inputs == inputs
    assert back.head_settings == CLASSES
    assert not back.training
    assert torch.equal(back.predict(x), model.predict(x))


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"format": "smnm-classifier-1"})
    with pytest.raises(ValueError, match=r"other\.safetensors of format 'smnm-classifier-1'"):
        load_joint_classifier(path)
    with pytest.raises(ValueError, match=r"other\.safetensors of format 'smnm-classifier-1'"):
        load_joint_encoder(path)
    save_file({"x": torch.zeros(1)}, path, {"format": "smnm-audio-video-classifier-1"})
    with pytest.raises(ValueError, match=r"other\.safetensors: its tensors do not fit"):
        load_joint_classifier(path)


def test_wrong_settings_are_named() -> None:
    assert inputs_of("both") == ("video", "audio")
    assert inputs_of("audio") == ("audio",)
    with pytest.raises(ValueError, match="modalities must be one of both, audio, video, got 'all'"):
        inputs_of("all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pool must be mean for clips with sound, got 'class'"):
        JointClassifier(encoder("avt"), replace(CLASSES, pool="class"), ("audio",))

"""An encoder with a head: pooling, padding, drop path, rates by layer, the file."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from smnm_kernels import MaskSampler
from smnm_kernels.train.models.classifier import (
    Classifier,
    HeadSettings,
    drop_path_rates,
    load_classifier,
    loss_of,
    save_classifier,
)
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, VIDEOMAE
from smnm_kernels.train.models.vit import Encoder, drop_path
from smnm_kernels.train.run.optimisation import Optimisation, adamw, layerwise, set_rate

SIZES = {"video": (3, 4, 32, 32), "audio": (1, 1, 64, 32), "image": (3, 1, 32, 48)}
MODELS = {"video": VIDEOMAE, "audio": AUDIOMAE, "image": MAE}
CLASSES = HeadSettings("class", ("a", "b", "c"))


def encoder(modality="audio", depth=3):
    torch.manual_seed(0)
    settings = replace(MODELS[modality].tiny().encoder, dim=48, depth=depth)
    return Encoder(settings, SIZES[modality])


def classifier(modality="audio", depth=3, head=CLASSES, **more):
    return Classifier(encoder(modality, depth), head, **{"head_std": 0.1} | more)


@pytest.mark.parametrize("modality", SIZES)
def test_the_mean_of_the_patches_goes_through_a_new_norm_and_a_head(modality):
    before, model = encoder(modality), classifier(modality).eval()
    x = torch.randn(2, *SIZES[modality])
    before.norm = nn.Identity()
    features = before(x)  # the class token, where there is one, is attended to and left out
    expected = model.head(F.layer_norm(features.mean(1), (48,), eps=1e-6))
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert not model.encoder.settings.final_norm
    assert not any(name.startswith("encoder.norm") for name in model.state_dict())


def test_the_class_token_keeps_the_final_norm():
    before = encoder("image")
    model = Classifier(encoder("image"), replace(CLASSES, pool="class"), head_std=0.1)
    x = torch.randn(2, *SIZES["image"])
    token = before.encode(before.patchify(x), None)[:, 0]
    assert torch.allclose(model(x), model.head(token), atol=1e-6)
    with pytest.raises(ValueError, match="needs an encoder with a class token"):
        Classifier(encoder("video"), replace(CLASSES, pool="class"))


def test_padding_is_neither_attended_to_nor_in_the_mean():
    model = classifier().eval()
    x = torch.randn(3, *SIZES["audio"])
    real = torch.tensor([[1, 33, 32], [1, 64, 32], [1, 16, 32]])  # 3, 4 and 1 rows of patches
    found = model(x, None, real)
    changed = x.clone()
    changed[0, :, :, 48:], changed[2, :, :, 16:] = 9, 9
    assert torch.allclose(model(changed, None, real), found, atol=1e-6)
    assert not torch.allclose(model(changed), found, atol=1e-3)
    # Which tokens are looked at alone gives the same: those of the first rows.
    ids = torch.arange(6).expand(1, 6)
    assert torch.allclose(model(x[:1], ids), found[:1], atol=1e-5)
    assert torch.allclose(model(x[1:2]), found[1:2], atol=1e-5)


def test_masked_patches_are_left_out_and_padding_among_the_others_too():
    model = classifier().eval()
    masks = MaskSampler("time_frequency", (1, 4, 2), n_keep=4, seed=1).masks(torch.arange(3))
    x = torch.randn(3, *SIZES["audio"])
    real = torch.tensor([[1, 32, 32], [1, 64, 32], [1, 1, 32]])
    found = model(x, masks.ids_keep, real)
    for i in range(3):
        rows = -(-int(real[i, 1]) // 16)
        ids = [t for t in masks.ids_keep[i].tolist() if t // 2 < rows]
        if not ids:  # where nothing real is left, all count
            ids = masks.ids_keep[i].tolist()
        alone = model(x[i : i + 1], torch.tensor([ids]))
        assert torch.allclose(found[i : i + 1], alone, atol=1e-5)


def test_drop_path_rises_in_equal_steps():
    assert drop_path_rates(12, 0.1) == pytest.approx([0.1 * i / 11 for i in range(12)])
    assert drop_path_rates(1, 0.1) == [0.1]
    model = classifier(depth=3, drop_path=0.4)
    assert [block.drop_path for block in model.encoder.blocks] == pytest.approx([0, 0.2, 0.4])


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(20000, 2, 3), 0.3)
    of_sample = dropped.flatten(1)
    assert ((of_sample == 0).all(1) | (of_sample == 1 / 0.7).all(1)).all()
    assert dropped.mean() == pytest.approx(1, abs=0.02)


def test_paths_are_dropped_in_training_alone():
    model = classifier(drop_path=0.9)
    x = torch.randn(2, *SIZES["audio"])
    torch.manual_seed(1)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_rates_fall_from_layer_to_layer():
    model = classifier("image", depth=3)
    how = Optimisation(
        batch_size=8, base_lr=1, base_min_lr=0, weight_decay=0.05, betas=(0.9, 0.999)
    )
    optimizer = layerwise(model, how, model.layer_of, model.depth + 1, 0.75)
    set_rate(optimizer, 2.0)
    of_name = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            of_name[names[id(p)]] = (group["lr"], group["weight_decay"], p.ndim)
    assert of_name.keys() == dict(model.named_parameters()).keys()
    for name, (rate, decay, ndim) in of_name.items():
        if name.startswith("encoder.blocks."):
            layer = 1 + int(name.split(".")[2])
        else:
            layer = 4 if name.startswith(("fc_norm", "head")) else 0
        assert rate == pytest.approx(2.0 * 0.75 ** (4 - layer)), name
        assert decay == (0.05 if ndim > 1 else 0), name
    assert of_name["head.weight"][0] == 2.0
    assert of_name["encoder.cls_token"] == (2.0 * 0.75**4, 0, 1)


def test_the_weight_of_a_single_output_decays_as_others_do():
    model = classifier(head=HeadSettings("number"))
    model.token = torch.nn.Parameter(torch.zeros(1, 1, 8))
    how = Optimisation(
        batch_size=8, base_lr=1, base_min_lr=0, weight_decay=0.05, betas=(0.9, 0.999)
    )
    for optimizer in (adamw(model, how), layerwise(model, how, model.layer_of, 4, 0.75)):
        decayed = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
        assert any(p is model.head.weight for p in decayed)
        assert not any(p is model.token or p is model.head.bias for p in decayed)


def test_losses():
    torch.manual_seed(0)
    outputs = torch.randn(5, 3)
    labels = torch.tensor([0, 2, 1, 1, 0])
    hard = F.one_hot(labels, 3).float()
    assert torch.allclose(loss_of("class", outputs, hard), F.cross_entropy(outputs, labels))
    soft = 0.9 * hard + 0.1 / 3
    expected = F.cross_entropy(outputs, labels, label_smoothing=0.1)
    assert torch.allclose(loss_of("class", outputs, soft), expected)
    several = (torch.rand(5, 3) > 0.5).float()
    p = outputs.sigmoid()
    expected = -(several * p.log() + (1 - several) * (1 - p).log()).mean()
    assert torch.allclose(loss_of("classes", outputs, several), expected, atol=1e-6)
    error = torch.tensor([[0.5], [-3.0]])
    assert loss_of("number", error, torch.zeros(2, 1)).item() == pytest.approx((0.125 + 2.5) / 2)


def test_predictions():
    outputs = torch.tensor([[0.0, 1.0]])
    assert torch.allclose(
        HeadSettings("class", ("a", "b")).predictions(outputs).sum(), torch.ones(())
    )
    assert torch.equal(HeadSettings("classes", ("a", "b")).predictions(outputs), outputs.sigmoid())
    number = HeadSettings("number", offset=10, scale=4)
    assert number.outputs == 1
    assert number.predictions(torch.tensor([[0.5]])).item() == 12


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_the_file_gives_the_model_back(tmp_path, pool):
    model = classifier("image", head=replace(CLASSES, pool=pool)).eval()
    path = tmp_path / "classifier.safetensors"
    save_classifier(model, path, {"modality": "image"})
    loaded = load_classifier(path)
    x = torch.randn(2, *SIZES["image"])
    assert torch.equal(loaded(x), model(x))
    assert torch.equal(loaded.predict(x), model(x).softmax(1))
    assert loaded.head_settings == model.head_settings
    assert not loaded.training


def test_other_files_are_refused_by_name(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors of format None"):
        load_classifier(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing of this kind")
    with pytest.raises(ValueError, match=r"b.safetensors: not a safetensors file"):
        load_classifier(tmp_path / "b.safetensors")


def test_the_head_is_the_seeds():
    one, same, other = (classifier(seed=seed).head.weight for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    many = HeadSettings("class", tuple(map(str, range(1000))))
    assert classifier(head=many, head_std=2e-5).head.weight.std().item() == pytest.approx(
        2e-5, rel=0.02
    )

"""AVT's encoder and its file, and the objective of its pretraining."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from avt_models import SIZES, fused_settings
from safetensors.torch import save_file
from torch import Tensor

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.models.avt import Avt
from smnm_kernels.train.models.avt_encoder import load_fused_encoder
from smnm_kernels.train.models.avt_learner import LossWeights

INPUTS = {
    name: InputFormat(size, (0.0,) * size[0], (1.0,) * size[0], lambda *_: [])
    for name, size in SIZES.items()
}


def samples(batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = {name: torch.randn(batch, *size, generator=generator) for name, size in SIZES.items()}
    x["audio"][:, :, :, 32:64] += 3
    return x


def masks_of(x: dict[str, Tensor]):
    sampler = MaskSampler("activity", (1, 8, 2), 0.4, seed=0)
    return {"audio": sampler.masks(torch.arange(len(x["audio"])), x["audio"])}


def test_an_objective_that_restores_nothing_masks_nothing() -> None:
    assert Avt(fused_settings()).grids(INPUTS) == {"audio": (1, 8, 2)}
    without = Avt(fused_settings(), LossWeights(segment=0))
    assert without.grids(INPUTS) == {}
    model, x = without.build(INPUTS, seed=0), samples()
    found = without.losses(model, x, {}, {})
    assert list(found) == ["loss", *without.reported] == ["loss", "loss_contrast", "loss_matching"]
    assert without.restore(model, x, {}, {}) == {}


def test_the_loss_is_the_weighted_sum() -> None:
    objective, x = Avt(fused_settings(), LossWeights(2, 3, 4)), samples()
    model = objective.build(INPUTS, seed=0)
    found = objective.losses(model, x, masks_of(x), {})
    by_hand = 2 * found["loss_contrast"] + 3 * found["loss_matching"] + 4 * found["loss_segment"]
    torch.testing.assert_close(found["loss"], by_hand)
    assert list(found) == ["loss", *objective.reported]
    found["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_seed_makes_the_weights() -> None:
    objective = Avt(fused_settings())
    before = torch.random.get_rng_state()
    first, again, other = (objective.build(INPUTS, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.fusion.bottleneck"], other["encoder.fusion.bottleneck"])


def test_what_is_shown_is_not_restored() -> None:
    objective, x = Avt(fused_settings()), samples()
    model, masks = objective.build(INPUTS, seed=0), masks_of(x)
    restored = objective.restore(model, x, masks, {})["audio"]
    shown = masks["audio"].visible.view(3, 1, 1, 8, 2)
    shown = shown.repeat_interleave(16, 3).repeat_interleave(16, 4)
    assert torch.equal(restored[shown], x["audio"][shown])
    torch.manual_seed(0)
    values = model(x, {}, masks["audio"]).restored
    patches = model.encoder.branch("audio").patchify(restored)
    for row, ids in enumerate(masks["audio"].ids_masked):
        torch.testing.assert_close(patches[row, ids], values[row])


@pytest.mark.parametrize("kind", ["bottleneck", "concat", "late"])
def test_the_file_gives_the_encoder_back(kind: str, tmp_path: Path) -> None:
    objective = Avt(fused_settings(kind))
    model, x = objective.build(INPUTS, seed=0).eval(), samples()
    path = tmp_path / "encoder.safetensors"
    objective.export(model, path, {"modality": "audio-video"})
    encoder = load_fused_encoder(path)
    assert not encoder.training
    assert encoder.settings == objective.model
    for given in (x, {"audio": x["audio"]}, {"video": x["video"]}):
        found, before = encoder(given), model.encoder(given)
        assert list(found) == list(given)
        assert all(torch.equal(found[name], before[name]) for name in given)
    embedded = encoder.embed(x)
    by_hand = encoder.branch("video")(x["video"]).mean(1)
    torch.testing.assert_close(embedded["video"], by_hand / by_hand.norm(dim=1, keepdim=True))


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"format": "smnm-encoder-2"})
    with pytest.raises(ValueError, match=r"other\.safetensors of format 'smnm-encoder-2'"):
        load_fused_encoder(path)
    save_file({"x": torch.zeros(1)}, path, {"format": "smnm-avt-encoder-1", "encoder": "{}"})
    with pytest.raises(ValueError, match=r"other\.safetensors: its tensors do not fit"):
        load_fused_encoder(path)
    encoder = Avt(fused_settings()).build(INPUTS, seed=0).encoder
    with pytest.raises(ValueError, match=r"inputs must have video, audio or both, got \['text'\]"):
        encoder({"text": torch.zeros(1)})


def test_padding_is_attended_to_by_none() -> None:
    encoder, x = Avt(fused_settings()).build(INPUTS, seed=0).encoder.eval(), samples()
    valid = torch.ones(3, 16, dtype=torch.bool)
    valid[1, 8:] = False
    louder = x["audio"].clone()
    louder[1, :, :, 64:] += 5
    first, second = (
        encoder(x | {"audio": sound}, {"audio": valid}) for sound in (x["audio"], louder)
    )
    assert torch.equal(first["video"], second["video"])
    assert torch.equal(first["audio"][valid], second["audio"][valid])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bottleneck", "concat"])
def test_it_compiles_as_one_graph_with_the_same_losses(kind: str) -> None:
    objective, x = Avt(fused_settings(kind)), samples()
    model, masks = objective.build(INPUTS, seed=0), masks_of(x)
    valid = {"audio": torch.ones(3, 16, dtype=torch.bool)}
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found = []
    for forward in (model, compiled):
        torch.manual_seed(0)
        found.append(objective.losses(forward, x, masks, valid))
    torch.testing.assert_close(*found)


def test_bfloat16_gives_about_the_same_losses_in_float32() -> None:
    objective, x = Avt(fused_settings()), samples()
    model, masks = objective.build(INPUTS, seed=0), masks_of(x)

    def in_bfloat16(*arguments: object) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return model(*arguments)

    found = []
    for forward in (model, in_bfloat16):
        torch.manual_seed(0)
        found.append(objective.losses(forward, x, masks, {}))
    assert all(loss.dtype == torch.float32 for loss in found[1].values())
    torch.testing.assert_close(*found, rtol=0.05, atol=0.02)


def test_settings_survive_json() -> None:
    settings = fused_settings("concat")
    assert type(settings).from_dict(json.loads(json.dumps(asdict(settings)))) == settings

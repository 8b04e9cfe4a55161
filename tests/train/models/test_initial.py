"""Pretraining that begins with the weights of another model."""

from dataclasses import replace

import pytest
import torch
from families import shaken
from other_models import SIZE, file_of, inputs_of, ours

from smnm_kernels.train.models.formats import encoder_state, with_key_bias
from smnm_kernels.train.models.formats.weights import Weights
from smnm_kernels.train.models.initial import start_from
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.pretrained import read_weights

MODALITIES = ["video", "image", "audio"]


def weights_of(model, modality, path, like=None):
    file_of(model, modality, path)
    return read_weights(path, like or SIZE[modality])


def begun(start, size):
    model = build_model(start.model, size, seed=9)
    fresh = {name: t.clone() for name, t in model.state_dict().items()}
    start.load(model)
    return model.state_dict(), fresh


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_whole_model_goes_over(modality, tmp_path):
    source, size = ours(modality), SIZE[modality]
    weights = weights_of(source, modality, tmp_path / "c.pth")
    start = start_from(weights, source.settings, inputs_of(size))
    assert start.model == source.settings
    state, _ = begun(start, size)
    for name, t in source.state_dict().items():
        assert torch.equal(state[name], t), name
    assert "the decoder's weights are taken" in start.said
    other = start_from(weights_of(shaken(source), modality, tmp_path / "d.pth"), source.settings,
                       inputs_of(size))  # fmt: skip
    assert other.digest != start.digest


def test_positions_are_those_that_the_weights_were_trained_with(tmp_path):
    """AudioMAE's into a model of this package's own presets, which order them as the tokens."""
    source, size = ours("audio"), SIZE["audio"]
    weights = weights_of(source, "audio", tmp_path / "c.pth")
    wanted = replace(
        source.settings,
        encoder=replace(source.settings.encoder, positions="rows_columns"),
        decoder=replace(source.settings.decoder, positions="rows_columns"),
    )
    start = start_from(weights, wanted, inputs_of(size))
    assert start.model == source.settings
    # Elsewhere a decoder of ours keeps its own.
    alone = replace(weights, model=None)
    assert start_from(alone, wanted, inputs_of(size)).model.decoder == wanted.decoder


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_decoder_of_another_shape_starts_anew(modality, tmp_path):
    source, size = ours(modality), SIZE[modality]
    wanted = source.settings
    wanted = replace(wanted, decoder=replace(wanted.decoder, depth=1))
    weights = weights_of(source, modality, tmp_path / "c.pth")
    start = start_from(weights, wanted, inputs_of(size))
    state, fresh = begun(start, size)
    for name, t in state.items():
        expected = source.state_dict()[name] if name.startswith("encoder.") else fresh[name]
        assert torch.equal(t, expected), name
    assert "the decoder starts anew: it has depth 2, and the model depth 1" in start.said


def test_an_encoder_alone_without_a_final_norm(tmp_path):
    source, size = ours("video", final_norm=False, key_bias=True, norm_eps=1e-12), SIZE["video"]
    state, settings = encoder_state(source.encoder), source.settings.encoder
    weights = Weights(state, settings, size, "video", (0.5,) * 3, (1.0,) * 3)
    wanted = ours("video").settings
    start = start_from(weights, wanted, inputs_of(size))
    assert "the norm behind its last block starts anew: it has none" in start.said
    assert "the decoder starts anew: there is none" in start.said
    # What changes no shape, and what the weights were trained with, is theirs.
    assert (start.model.encoder.norm_eps, start.model.decoder.norm_eps) == (1e-12, 1e-12)
    got, fresh = begun(start, size)
    for name, t in with_key_bias(state, False).items():
        assert torch.equal(got[name], t), name
    assert torch.equal(got["encoder.norm.weight"], fresh["encoder.norm.weight"])
    different = start_from(replace(weights, mean=(0.4,) * 3), wanted, inputs_of(size))
    assert any("it was trained on inputs (raw - (0.4, 0.4, 0.4))" in one for one in different.said)


@pytest.mark.parametrize(
    ("modality", "size", "positions"),
    [
        ("video", (3, 8, 32, 32), "flat"),
        ("image", (3, 1, 64, 64), "given"),
        ("audio", (1, 1, 64, 16), "rows_columns_transposed"),
    ],
)
def test_at_another_size(modality, size, positions, tmp_path):
    """Positions of encoder and decoder follow, and the model's settings say how."""
    source = ours(modality)
    weights = weights_of(source, modality, tmp_path / "c.pth")
    if modality == "video":  # whose files do not say their size
        weights = replace(weights, input_size=SIZE["video"])
    start = start_from(weights, source.settings, inputs_of(size))
    assert any("patches (time, rows, columns), used at" in line for line in start.said)
    assert start.model.encoder.positions == positions
    assert start.model.decoder.positions == positions
    model = build_model(start.model, size, seed=9)
    start.load(model)
    assert model.encoder.pos_embed.any()
    assert model.decoder.pos_embed.any()
    for name, t in source.state_dict().items():
        assert name.endswith("pos_embed") or torch.equal(model.state_dict()[name], t), name


def test_another_encoder_is_refused(tmp_path):
    weights = weights_of(ours("image"), "image", tmp_path / "c.pth")
    wanted = ours("image").settings
    wanted = replace(wanted, encoder=replace(wanted.encoder, depth=3, patch=(1, 4, 4)))
    with pytest.raises(ValueError, match=r"its encoder has patch \(1, 8, 8\), depth 2, the model "):
        start_from(weights, wanted, inputs_of(SIZE["image"]))

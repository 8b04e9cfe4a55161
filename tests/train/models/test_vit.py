"""The encoder: token order, what it sees, and where its weights start."""

import math

import pytest
import torch
from families import FAMILIES, input_and_masks, small
from hypothesis import given
from hypothesis import strategies as st

from smnm_kernels.train.models.settings import (
    AUDIOMAE,
    MAE,
    VIDEOMAE,
    EncoderSettings,
    ModelSettings,
)
from smnm_kernels.train.models.vit import Encoder


def encoder_of(input_size, patch, dim=8, depth=0):
    settings = EncoderSettings(patch, dim, depth, 1, "flat", class_token=False, key_bias=True)
    return Encoder(settings, input_size)


@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 3))
def test_patches_go_back_where_they_came_from(grid, patch, channels):
    shape = (channels, *(g * p for g, p in zip(grid, patch, strict=True)))
    encoder = encoder_of(shape, patch)
    x = torch.arange(2 * math.prod(shape), dtype=torch.float32).view(2, *shape)
    assert torch.equal(encoder.unpatchify(encoder.patchify(x)), x)


def test_tokens_are_in_row_major_grid_order_and_channels_apart():
    model = small()
    encoder = model.encoder
    for t, y, x, channel in [(0, 0, 1, 0), (0, 2, 0, 1), (1, 1, 3, 2)]:
        clip = torch.zeros(1, *encoder.input_size)
        clip[:, channel, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 1
        patches = encoder.patchify(clip)[0].view(24, 3, 32)
        assert patches.mean(-1).nonzero().tolist() == [[(t * 3 + y) * 4 + x, channel]]
        assert patches.sum() == 32


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_sees_visible_tokens_only(family):
    model = small(family).eval()
    x, masks = input_and_masks(model)
    latent = model.forward_encoder(x, masks)
    assert latent.shape == (2, masks.n_keep + (family != "videomae"), 24)
    values = model.encoder.patchify(x).shape[-1]
    shown = model.encoder.unpatchify(
        masks.visible.unsqueeze(-1).float().expand(-1, -1, values)
    ).bool()
    elsewhere = torch.where(shown, x, torch.full_like(x, float("nan")))
    assert torch.equal(model.forward_encoder(elsewhere, masks), latent)
    assert not torch.allclose(model.forward_encoder(torch.where(shown, x + 1, x), masks), latent)
    assert torch.equal(model.encoder(x, masks.ids_keep), latent[:, -masks.n_keep :])


@pytest.mark.parametrize("family", FAMILIES)
def test_visible_tokens_keep_their_own_positions(family):
    # Attention does not know the order of tokens, so only their positions can tell them apart.
    model = small(family).eval()
    x, masks = input_and_masks(model)
    n = masks.visible.shape[1]
    order = torch.stack([torch.randperm(n) for _ in range(2)])
    expected = model.encoder(x).gather(1, order.unsqueeze(-1).expand(-1, -1, 24))
    assert torch.allclose(model.encoder(x, order), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_computed_again_give_the_same_gradients(family):
    model = small(family)
    x, masks = input_and_masks(model)

    def gradients(again):
        model.checkpoint_activations = again
        model.zero_grad()
        torch.manual_seed(3)  # of the position bias's dropout
        loss = model(x, masks)
        loss.backward()
        return loss, [p.grad.clone() for p in model.parameters()]

    (loss, kept), (same, computed) = gradients(False), gradients(True)
    assert torch.equal(loss, same)
    assert all(torch.equal(a, b) for a, b in zip(kept, computed, strict=True))


def test_computing_again_keeps_less():
    model = small()
    x, masks = input_and_masks(model)

    def saved_bytes(again):
        model.checkpoint_activations = again
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.setdefault(t.untyped_storage().data_ptr(), (t, t.numel()))[0],
            lambda t: t,
        ):
            loss = model(x, masks)
        assert loss.requires_grad
        return sum(n for _, n in kept.values())

    assert saved_bytes(True) < 0.7 * saved_bytes(False)


def test_weights_start_as_in_each_codebase():
    def xavier(layer):
        fan_out, fan_in = layer.weight.shape
        return (layer.weight.abs().max() * math.sqrt((fan_in + fan_out) / 6)).item()

    def torchs_own(layer):
        return (layer.weight.abs().max() * math.sqrt(layer.weight.shape[1])).item()

    for family in FAMILIES:
        model = small(family)
        encoder, decoder = model.encoder, model.decoder
        for layer in (
            encoder.blocks[0].attn.qkv,
            encoder.blocks[1].mlp.fc1,
            decoder.blocks[0].attn.proj,
            decoder.pred,
        ):
            assert 0.97 < xavier(layer) <= 1.0001
        for layer in (encoder.patch_embed, decoder.embed):
            measure = torchs_own if family == "videomae" else xavier
            assert 0.97 < measure(layer) <= 1.0001
        bound = 0.02 if family == "videomae" else 0.1
        assert 0 < decoder.mask_token.abs().max() <= bound
        assert not decoder.blocks[0].attn.proj.bias.any()
        if family != "videomae":
            assert 0 < encoder.cls_token.abs().max() < 0.1


def test_settings_survive_json():
    import json

    for settings in (VIDEOMAE, MAE, AUDIOMAE):
        assert ModelSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_errors_name_what_came_and_what_is_allowed():
    model = small()
    x, _ = input_and_masks(model)
    with pytest.raises(ValueError, match=r"C, T, H, W = \(3, 4, 12, 16\), got \(2, 3, 4, 12\)"):
        model.encoder(x[..., 0])
    with pytest.raises(ValueError, match=r"patches must be \[B, 24, 96\], got \(2, 24, 95\)"):
        model.encoder.unpatchify(torch.zeros(2, 24, 95))
    with pytest.raises(ValueError, match="input length 10 along H is not a multiple of patch 4"):
        encoder_of((3, 4, 10, 16), (2, 4, 4))
    with pytest.raises(ValueError, match="heads must divide dim 24, got 5"):
        VIDEOMAE.resized(dim=24, depth=1, heads=5, decoder_dim=12, decoder_depth=1, decoder_heads=2)
    with pytest.raises(ValueError, match=r"positions must be one of flat, .*, got 'learned'"):
        EncoderSettings((1, 4, 4), 8, 1, 1, "learned", class_token=False, key_bias=True)

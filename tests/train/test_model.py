"""The masked autoencoder: token order, what the encoder sees, what the loss is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smnm_kernels import Masks, MaskSampler
from smnm_kernels.train.model import (
    Encoder,
    MaskedAutoencoder,
    encoder_metadata,
    load_encoder,
    sincos_positions,
)

GRID = (2, 3, 4)
SHAPE = (3, 4, 12, 16)  # patches of 2 x 4 x 4


def small(decoder_depth=1):
    torch.manual_seed(0)
    return MaskedAutoencoder(Encoder(SHAPE, (2, 4, 4), 24, 2, 2), 12, decoder_depth, 2)


def clips_and_masks(batch=2, ratio=0.75):
    return torch.randn(batch, *SHAPE), MaskSampler("random", GRID, ratio)(batch)


@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 3))
def test_patches_go_back_where_they_came_from(grid, patch, channels):
    shape = (channels, *(g * p for g, p in zip(grid, patch, strict=True)))
    encoder = Encoder(shape, patch, 8, 0, 1)
    x = torch.arange(2 * math.prod(shape), dtype=torch.float32).view(2, *shape)
    assert torch.equal(encoder.unpatchify(encoder.patchify(x)), x)


def test_tokens_are_in_row_major_grid_order():
    encoder = small().encoder
    for t, y, x in [(0, 0, 1), (0, 2, 0), (1, 1, 3)]:
        clip = torch.zeros(1, *SHAPE)
        clip[:, :, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 1
        full = encoder.patchify(clip).mean(-1)[0]
        assert full.nonzero().flatten().tolist() == [(t * 3 + y) * 4 + x]


def test_the_encoder_sees_visible_tokens_only():
    model = small().eval()
    x, masks = clips_and_masks()
    latent = model.forward_encoder(x, masks)
    assert latent.shape == (2, masks.n_keep, 24)
    shown = model.encoder.unpatchify(
        masks.visible.unsqueeze(-1).float().expand(-1, -1, model.encoder.patch_values)
    ).bool()
    elsewhere = torch.where(shown, x, torch.full_like(x, float("nan")))
    assert torch.equal(model.forward_encoder(elsewhere, masks), latent)
    assert not torch.allclose(model.forward_encoder(torch.where(shown, x + 1, x), masks), latent)


def test_visible_tokens_keep_their_own_positions():
    # Attention does not know the order of tokens, so only their positions can tell them apart.
    encoder = small().encoder.eval()
    x, _ = clips_and_masks()
    order = torch.stack([torch.randperm(24) for _ in range(2)])
    expected = encoder(x).gather(1, order.unsqueeze(-1).expand(-1, -1, 24))
    assert torch.allclose(encoder(x, order), expected, atol=1e-5)


def test_the_decoder_puts_tokens_back_in_grid_order():
    # Without blocks a masked token's prediction is that of the mask token at its own place.
    model = small(decoder_depth=0).eval()
    x, masks = clips_and_masks()
    pred = model.forward_decoder(model.forward_encoder(x, masks), masks)
    alone = model.decoder_pred(
        model.decoder_norm(model.mask_token + model.decoder_pos_embed[masks.ids_masked])
    )
    assert torch.allclose(pred, alone, atol=1e-6)


def test_the_loss_is_the_normalised_error_of_masked_patches():
    model = small()
    x, masks = clips_and_masks()
    pred = torch.randn(2, len(masks.ids_masked[0]), model.encoder.patch_values)
    errors = []
    for b in range(2):
        for i, token in enumerate(masks.ids_masked[b].tolist()):
            t, y, c = token // 12, token // 4 % 3, token % 4
            tube = x[b, :, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 4 * c : 4 * c + 4]
            for channel in range(3):
                values = tube[channel].flatten()
                target = (values - values.mean()) / (values.var() + 1e-6).sqrt()
                errors.append(((pred[b, i].view(-1, 3)[:, channel] - target) ** 2).mean())
    expected = torch.stack(errors).mean()
    assert torch.allclose(model.forward_loss(x, pred, masks), expected, rtol=1e-5)


def test_a_perfect_prediction_restores_the_input():
    model = small()
    x, masks = clips_and_masks()
    patches = model.encoder.patchify(x)
    hidden = patches.gather(1, masks.ids_masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    mean, std = model.patch_moments(hidden)
    assert torch.allclose(model.restore(x, (hidden - mean) / std, masks), x, atol=1e-5)
    # Visible patches are the input's whatever is predicted, and masked ones are not.
    wrong = model.restore(x, torch.full_like(hidden, 7.0), masks)
    same = (model.encoder.patchify(wrong) == patches).all(-1)
    assert torch.equal(same, masks.visible)


def test_flat_patches_have_a_finite_loss():
    model = small()
    _, masks = clips_and_masks()
    loss = model(torch.ones(2, *SHAPE), masks)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("grid", [(8, 14, 14), (1, 64, 8), (8, 6, 6), (1, 1, 1)])
@pytest.mark.parametrize("dim", [128, 192])
def test_every_place_has_a_code_of_its_own(grid, dim):
    codes = sincos_positions(grid, dim)
    assert codes.shape == (math.prod(grid), dim)
    assert len(codes.unique(dim=0)) == math.prod(grid)


def test_shape_errors_name_what_came_and_what_is_allowed():
    model = small()
    x, masks = clips_and_masks()
    with pytest.raises(ValueError, match=r"C, T, H, W = \(3, 4, 12, 16\), got \(2, 3, 4, 12\)"):
        model(x[..., 0], masks)
    with pytest.raises(ValueError, match="masks must be for 1 samples of 24 tokens"):
        model(x[:1], masks)
    with pytest.raises(ValueError, match="input length 10 along H is not a multiple of patch 4"):
        Encoder((3, 4, 10, 16), (2, 4, 4), 24, 1, 2)
    with pytest.raises(ValueError, match="heads must divide dim 24, got 5"):
        Encoder(SHAPE, (2, 4, 4), 24, 1, 5)


def test_exported_encoder_is_the_same_function(tmp_path):
    from safetensors.torch import save_file

    encoder = small().encoder.eval()
    path = tmp_path / "encoder.safetensors"
    save_file(encoder.state_dict(), path, encoder_metadata(encoder))
    loaded = load_encoder(path)
    x, masks = clips_and_masks()
    assert torch.equal(loaded(x), encoder(x))
    assert torch.equal(loaded(x, masks.ids_keep), encoder(x, masks.ids_keep))
    save_file(encoder.state_dict(), path)
    with pytest.raises(ValueError, match="smnm-encoder-1"):
        load_encoder(path)


def test_masks_of_the_wrong_grid_are_refused():
    model = small()
    x, _ = clips_and_masks()
    visible = torch.zeros(2, 10, dtype=torch.bool)
    visible[:, :2] = True
    with pytest.raises(ValueError, match="24 tokens"):
        model(x, Masks.from_visible(visible, 2))

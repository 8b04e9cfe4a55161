"""The masked autoencoder: what the decoder gets, what the loss is, and what a restored input is."""

import math
from dataclasses import replace

import pytest
import torch
from families import FAMILIES, input_and_masks, shaken, sized, small
from torch.nn.functional import mse_loss

from smnm_kernels import Masks, MaskSampler
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, VIDEOMAE, ModelSettings
from smnm_kernels.train.models.vit import select_tokens

TARGETS = ["pixels", "patch", "channel"]


def patches_of(model, x):
    """[B, N, C, values], one by one."""
    (t, h, w), (pt, ph, pw) = model.encoder.grid, model.encoder.settings.patch
    return torch.stack(
        [
            x[:, :, i * pt : i * pt + pt, j * ph : j * ph + ph, k * pw : k * pw + pw].flatten(2)
            for i in range(t)
            for j in range(h)
            for k in range(w)
        ],
        dim=1,
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_error_of_masked_patches(family, target):
    model = small(family, target=target, pixel_mean=(), pixel_std=())
    x, masks = input_and_masks(model)
    pred = model.forward_decoder(model.forward_encoder(x, masks), masks).detach()
    errors = []
    for b in range(2):
        for i, token in enumerate(masks.ids_masked[b].tolist()):
            patch = patches_of(model, x)[b, token]
            if target == "patch":
                patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            if target == "channel":
                patch = torch.stack([(c - c.mean()) / (c.std() + 1e-6) for c in patch])
            errors.append((pred[b, i] - patch.flatten()).square().mean())
    expected = torch.stack(errors).mean()
    assert torch.allclose(model.forward_loss(x, pred, masks), expected, rtol=1e-5)
    assert torch.allclose(model.eval()(x, masks), model.forward_loss(
        x, model.forward_decoder(model.forward_encoder(x, masks), masks), masks))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_the_mean_squared_error(dtype):
    model = small()
    x, masks = input_and_masks(model)
    pred = torch.randn(2, masks.ids_masked.shape[1], 96, dtype=dtype, requires_grad=True)
    (3 * model.forward_loss(x, pred, masks)).backward()
    hidden = select_tokens(model.encoder.patchify(x), masks.ids_masked)
    same = pred.detach().requires_grad_()
    (3 * mse_loss(same.float(), model.target(hidden))).backward()
    assert pred.grad.dtype == dtype
    assert torch.allclose(pred.grad, same.grad, rtol=1e-5)


def test_targets_are_of_the_pixels_and_not_of_the_input():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.02, 2.0)
    model = small(target="pixels", pixel_mean=mean, pixel_std=std)
    x, _ = input_and_masks(model)
    pixels = x * torch.tensor(std).view(3, 1, 1, 1) + torch.tensor(mean).view(3, 1, 1, 1)
    target = model.target(model.encoder.patchify(x))
    assert torch.allclose(target, patches_of(model, pixels).flatten(2), atol=1e-6)


@pytest.mark.parametrize("target", ["patch", "channel"])
def test_nearly_flat_patches_show_what_the_eps_is_added_to(target):
    std = torch.tensor((0.2, 0.02, 2.0))
    model = small(target=target, pixel_mean=(0.5, 0.4, 0.3), pixel_std=tuple(std.tolist()))
    x, _ = input_and_masks(model)
    x = 1e-4 * x
    made = model.target(model.encoder.patchify(x))
    if target == "patch":  # of the input's variance
        patches = patches_of(model, x).flatten(2)
        scale = (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    else:  # of the pixels' standard deviation
        patches = patches_of(model, x * std.view(3, 1, 1, 1))
        scale = patches.std(-1, keepdim=True) + 1e-6
    expected = ((patches - patches.mean(-1, keepdim=True)) / scale).flatten(2)
    assert torch.allclose(made, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_puts_tokens_where_they_belong(family):
    # Without blocks a masked token's prediction is that of the mask token at its own place.
    settings, input_size = FAMILIES[family]
    settings = replace(settings, decoder=replace(settings.decoder, depth=0))
    model = shaken(build_model(settings, input_size, seed=0))
    x, masks = input_and_masks(model)
    decoder = model.decoder
    pred = model.forward_decoder(model.forward_encoder(x, masks), masks)
    positions = decoder.pos_embed[model.encoder.class_tokens :]
    alone = decoder.pred(decoder.norm(decoder.mask_token + positions[masks.ids_masked]))
    assert torch.allclose(pred, alone, atol=1e-5)


@pytest.mark.parametrize("family", ["videomae", "mae"])
@torch.no_grad()
def test_leaving_tokens_out_of_the_last_block_changes_nothing(family):
    model = shaken(small(family))
    block = model.decoder.blocks[-1]
    x = torch.randn(2, 20, 12)
    assert torch.allclose(block(x, 7), block(x)[:, 7:], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_tells_visible_places_apart(family):
    """What it gets from the encoder counts at the place that it is of."""
    model = shaken(small(family))
    x, masks = input_and_masks(model)
    latent = model.forward_encoder(x, masks)
    first = model.encoder.class_tokens
    swapped = latent.clone()
    swapped[:, [first, first + 1]] = swapped[:, [first + 1, first]]
    pred = model.forward_decoder(latent, masks)
    assert not torch.allclose(model.forward_decoder(swapped, masks), pred, atol=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_perfect_prediction_restores_the_input(family, target):
    channels = FAMILIES[family][1][0]
    scale = {"pixel_mean": (0.4,) * channels, "pixel_std": (0.3,) * channels}
    model = small(family, target=target, **scale)
    x, masks = input_and_masks(model)
    patches = model.encoder.patchify(x)
    hidden = patches.gather(1, masks.ids_masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    perfect = model.target(hidden)
    assert torch.allclose(model.restore(x, perfect, masks), x, atol=1e-5)
    # Visible patches are the input's whatever is predicted, and masked ones are not.
    wrong = model.restore(x, torch.full_like(hidden, 7.0), masks)
    same = (model.encoder.patchify(wrong) == patches).all(-1)
    assert torch.equal(same, masks.visible)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_of_flat_patches_is_zero(family):
    """And not the rounding of their mean, which an eps as small would make visible."""
    model = small(family)
    x, _ = input_and_masks(model)
    patches = model.encoder.patchify(x)
    values = torch.rand_like(patches[..., :1]).expand_as(patches)
    assert (model.target(values) == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_flat_patches_have_a_finite_loss(family):
    model = small(family)
    x, masks = input_and_masks(model)
    loss = model(torch.full_like(x, 0.3), masks)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_learns(family):
    model = small(family)
    x, masks = input_and_masks(model)
    model(x, masks).backward()
    for name, p in model.named_parameters():
        keys_alone = name.endswith("attn.qkv.bias")
        gradient = p.grad[: len(p) // 3] if keys_alone else p.grad
        assert gradient.any(), name


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("family", "again"), [*((family, False) for family in FAMILIES), ("videomae", True)]
)
def test_compiled_it_is_one_graph_and_the_same(family, again):
    model = small(family).eval()
    model.checkpoint_activations = again
    x, masks = input_and_masks(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    loss, expected = compiled(x, masks), model(x, masks)
    assert torch.allclose(loss, expected, rtol=1e-5)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_masks_of_the_wrong_grid_are_refused():
    model = small()
    x, masks = input_and_masks(model)
    with pytest.raises(ValueError, match="masks must be for 1 samples of 24 tokens"):
        model(x[:1], masks)
    visible = torch.zeros(2, 10, dtype=torch.bool)
    visible[:, :2] = True
    with pytest.raises(ValueError, match="24 tokens"):
        model(x, Masks.from_visible(visible, 2))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="pixel_std must have one value for each of 1 channels"):
        build_model(sized(VIDEOMAE, (2, 4, 4)), (1, 4, 12, 16), 0)
    with pytest.raises(ValueError, match=r"window needs a grid of \(1, H, W\), got \(2, 4, 4\)"):
        build_model(
            replace(
                sized(VIDEOMAE, (2, 4, 4)),
                decoder=replace(sized(AUDIOMAE, (1, 4, 4)).decoder, positions="flat"),
            ),
            (3, 4, 16, 16),
            0,
        )
    with pytest.raises(ValueError, match="target must be one of pixels, patch, channel, got 'x'"):
        replace(MAE, target="x")
    with pytest.raises(ValueError, match="must each have one value a channel"):
        replace(MAE, pixel_mean=(0.5,))


def test_the_seed_decides_the_weights_and_leaves_the_callers_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    settings, input_size = FAMILIES["audiomae"]
    one, same, other = (build_model(settings, input_size, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(t, same[name]) for name, t in one.items())
    assert not torch.equal(one["decoder.pred.weight"], other["decoder.pred.weight"])


@pytest.mark.parametrize(
    ("settings", "input_size", "grid", "millions"),
    [
        # Published: 94.21 M of VideoMAE's ViT-B, and 111.65 M of MAE's without its fixed positions.
        (VIDEOMAE, (3, 16, 224, 224), (8, 14, 14), 94.2),
        (MAE, (3, 1, 224, 224), (1, 14, 14), 111.65),
        (AUDIOMAE, (1, 1, 1024, 128), (1, 64, 8), None),
    ],
)
def test_the_families_own_sizes(settings: ModelSettings, input_size, grid, millions):
    with torch.device("meta"):
        model = build_model(settings, input_size, 0)
    assert model.encoder.grid == grid
    assert len(model.encoder.pos_embed) == math.prod(grid) + model.encoder.class_tokens
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert MaskSampler("random", grid, 0.75).n_keep == math.prod(grid) // 4

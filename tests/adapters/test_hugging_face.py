"""Masks go into the models of Hugging Face's transformers and mean there what they mean here."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import VIT, WIDTH
from testing import assert_same, require
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from smnm_kernels.adapters import hf_sampler
from smnm_kernels.masks import Masks

try:
    import transformers
except ModuleNotFoundError:
    transformers = None

BATCH = 3


@pytest.fixture(autouse=True)
def _transformers_on_one_thread(n_threads):
    require(transformers, "transformers")
    n_threads(1)  # models this small only wait for more
    torch.manual_seed(0)


# Height and width differ where the model allows it: a grid of (T, W, H) would not pass.


def videomae(**changes):
    """2 x 3 x 4 patches."""
    sizes = {"image_size": [24, 32], "num_frames": 4, "tubelet_size": 2}
    config = transformers.VideoMAEConfig(**{**VIT, **sizes, **changes})
    return transformers.VideoMAEForPreTraining(config).eval()


def vit_mae(**changes):
    """1 x 4 x 4 patches; another mask_ratio or image_size may come in."""
    config = transformers.ViTMAEConfig(**{**VIT, "image_size": 32, **changes})
    return transformers.ViTMAEForPreTraining(config).eval()


def hiera(**changes):
    """1 x 2 x 3 mask units of 4 x 4 tokens; with num_query_pool=1, the decoder sees 4 for each."""
    config = transformers.HieraConfig(
        image_size=[32, 48],
        patch_stride=[4, 4],
        masked_unit_size=[4, 4],
        depths=[1, 1, 1],
        num_heads=[1, 1, 1],
        masked_unit_attention=[True, False, False],
        embed_dim=8,
        decoder_hidden_size=16,
        decoder_depth=1,
        decoder_num_heads=2,
        **{"num_query_pool": 2, **changes},
    )
    return transformers.HieraForPreTraining(config).eval()


def vjepa2():
    """2 x 4 x 4 patches."""
    config = transformers.VJEPA2Config(
        **WIDTH,
        pred_hidden_size=16,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        tubelet_size=2,
    )
    return transformers.VJEPA2Model(config).eval()


def pixels(config):
    """What a model takes: [B, frames, 3, H, W], or [B, 3, H, W] for images."""
    size = getattr(config, "image_size", None) or config.crop_size
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    frames = [frames] if frames else []
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return torch.randn(BATCH, *frames, 3, height, width)


def seen_by(module):
    """The first argument of each call of this module, in a list that fills as it is called."""
    seen = []
    module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    return seen


def masked_by_hand(masks):
    """bool [B, N], True = masked, from nothing but ids_keep."""
    masked = np.ones(masks.visible.shape, bool)
    for row, kept in zip(masked, masks.ids_keep.tolist(), strict=True):
        row[kept] = False
    return torch.from_numpy(masked)


# VideoMAE


@pytest.mark.parametrize("kind", ["green3d", "tube", "random"])
def test_videomae_encodes_the_visible_tokens_and_no_others(kind):
    model = videomae()
    x, masks = pixels(model.config), hf_sampler(model.config, kind)(BATCH)
    tokens, seen = model.videomae.embeddings(x, None), seen_by(model.videomae.encoder)
    loss = model(x, bool_masked_pos=masks.masked).loss
    [encoded] = seen
    assert torch.isfinite(loss)
    assert encoded.shape == (BATCH, 2, 16)  # of 24, at VideoMAE's 0.9
    rows = [row[kept] for row, kept in zip(tokens, masks.ids_keep, strict=True)]
    assert_same(encoded, torch.stack(rows))
    assert_same(model(x, bool_masked_pos=masked_by_hand(masks)).loss, loss)


def test_videomae_takes_an_integer_mask_without_a_word():
    model = videomae()
    masks, seen = hf_sampler(model.config, "green3d")(BATCH), seen_by(model.videomae.encoder)
    wrong = masks.masked.long()
    assert torch.isfinite(model(pixels(model.config), bool_masked_pos=wrong).loss)
    # ~0 and ~1 are -1 and -2: every token of the mask picked one of the last two videos.
    assert seen[0].shape == (BATCH, 24 * 24, 16)
    with pytest.raises(TypeError, match=r"masked must be a bool tensor.*got torch\.int64.*\.bool"):
        Masks.from_masked(wrong)


def test_videomae_mixes_up_videos_whose_counts_differ():
    model = videomae()
    x, seen = pixels(model.config), seen_by(model.videomae.encoder)
    tokens = model.videomae.embeddings(x, None)
    masked = hf_sampler(model.config, "green3d")(BATCH).masked
    visible, hidden = (~masked[0]).nonzero()[0], masked[1].nonzero()[0]
    masked[0, visible] = True
    what = "masked must leave the same number of tokens visible in every row, got 1 in row 0 and 2"
    with pytest.raises(ValueError, match=what):
        Masks.from_masked(masked)
    with pytest.raises(RuntimeError, match="shape"):
        model(x, bool_masked_pos=masked)
    # As many in all as two for each: no error, and a token of the second video in the first.
    masked[1, hidden] = False
    assert torch.isfinite(model(x, bool_masked_pos=masked).loss)
    assert_same(seen[-1][0, -1], tokens[1, ~masked[1]][0])
    with pytest.raises(ValueError, match="got 1 in row 0 and 3 in row 1"):
        Masks.from_masked(masked)


def test_from_masked_knows_the_other_polarity_by_its_count():
    sampler = hf_sampler(videomae().config, "green3d")
    masks = sampler(BATCH)
    assert_same(tuple(Masks.from_masked(masked_by_hand(masks), sampler.n_keep)), tuple(masks))
    with pytest.raises(ValueError, match=r"n_keep=2.*got 22 of 24.*complement.*Masks\.from_vis"):
        Masks.from_masked(masks.visible, sampler.n_keep)
    with pytest.raises(ValueError, match=r"n_keep=2.*got 22 of 24.*complement.*Masks\.from_masked"):
        Masks.from_visible(masks.masked, sampler.n_keep)


# ViTMAE


@pytest.mark.parametrize("kind", ["green2d", "random", "rbn"])
def test_vitmae_sorts_the_noise_into_our_masks(kind):
    model = vit_mae()
    x, masks = pixels(model.config), hf_sampler(model.config, kind)(BATCH)
    seen = seen_by(model.vit.layers[0])
    out = model(x, noise=masks.vitmae_noise)
    assert torch.isfinite(out.loss)
    assert seen[0].shape == (BATCH, 1 + 4, 16)  # a class token before the visible ones
    assert_same(out.ids_restore, masks.ids_restore)
    assert_same(out.mask.bool(), masks.masked)
    noise = np.empty(masks.visible.shape, np.float32)
    for row, kept, masked in zip(noise, masks.ids_keep, masked_by_hand(masks), strict=True):
        order = np.concatenate([kept, masked.nonzero()[:, 0]])
        row[order] = np.sort(np.random.default_rng(0).normal(size=len(order)))
    assert_same(model(x, noise=torch.from_numpy(noise)).loss, out.loss)


@pytest.mark.parametrize("size", [32, 40, 80, 112])
@pytest.mark.parametrize("ratio", [0.75, 0.9, 0.6])
def test_the_count_of_vitmae_is_its_own(ratio, size):
    model = vit_mae(mask_ratio=ratio, image_size=size)
    n_tokens = (size // 8) ** 2
    kept, _, _ = model.vit.embeddings.random_masking(torch.zeros(1, n_tokens, 1))
    sampler = hf_sampler(model.config, "green2d")
    assert sampler.n_keep == kept.shape[1] == int(n_tokens * (1 - ratio))
    out = model(pixels(model.config), noise=sampler(BATCH).vitmae_noise)
    assert out.mask.sum(1).tolist() == [n_tokens - sampler.n_keep] * BATCH


def test_another_count_than_vitmaes_is_refused():
    config = vit_mae(mask_ratio=0.9, image_size=80).config
    # 100 * (1 - 0.9) is 9.999999999999998 in floating point.
    assert hf_sampler(config, "green2d", n_keep=9).n_keep == 9
    for other in ({"mask_ratio": 0.9}, {"n_keep": 10}):
        with pytest.raises(
            ValueError, match=r"ViTMAEConfig keeps 9 of 100.*mask_ratio=0\.9, got 1"
        ):
            hf_sampler(config, "green2d", **other)
    with pytest.raises(ValueError, match=r"HieraConfig keeps 2 of 6.*mask_ratio=0\.6, got 1: chan"):
        hf_sampler(hiera().config, "green2d", 0.75)


class Sampling(nn.Module):
    """ViTMAE with its masks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = vit_mae()
        self.sampler = hf_sampler(self.model.config, "green2d", seed=2)

    def forward(self, x):
        return self.model(x, noise=self.sampler(x.shape[0]).vitmae_noise)


@pytest.mark.slow
def test_vitmae_compiles_once_with_its_sampler():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    eager, other = Sampling(), Sampling()
    compiled = torch.compile(other, fullgraph=True, backend=counter)
    for _ in range(3):
        x = pixels(eager.model.config)
        expected, out = eager(x), compiled(x)
        assert_same(out.ids_restore, expected.ids_restore)
        torch.testing.assert_close(out.loss, expected.loss)
        for model, loss in ((eager, expected.loss), (other, out.loss)):
            model.zero_grad()
            loss.backward()
        gradients = [[p.grad for p in model.parameters()] for model in (other, eager)]
        torch.testing.assert_close(*gradients)
    assert counter.frame_count == 1
    assert int(other.sampler.next_id) == 3 * BATCH


# Hiera


@pytest.mark.parametrize("num_query_pool", [1, 2])
def test_hieras_mask_is_true_where_it_keeps(num_query_pool):
    model = hiera(num_query_pool=num_query_pool)
    x, masks = pixels(model.config), hf_sampler(model.config, "green2d")(BATCH)
    assert masks.n_keep == 2
    encoder = model.hiera(x, noise=masks.vitmae_noise)
    assert_same(encoder.bool_masked_pos, masks.visible)
    assert_same(encoder.ids_restore, masks.ids_restore)
    out = model(x, noise=masks.vitmae_noise)
    assert torch.isfinite(out.loss)
    units = masks.visible.unflatten(1, (2, 3))
    for _ in range(2 - num_query_pool):  # the decoder's tokens are halves of a unit then
        units = units.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert_same(out.bool_masked_pos, units.flatten(1))


# What all models that restore pixels have in common


@pytest.mark.parametrize(
    ("make", "kind", "view", "key"),
    [
        ("videomae", "green3d", "masked", "bool_masked_pos"),
        ("videomae", "tube", "masked", "bool_masked_pos"),
        ("vit_mae", "green2d", "vitmae_noise", "noise"),
        ("hiera", "green2d", "vitmae_noise", "noise"),
    ],
)
def test_only_visible_pixels_reach_the_output(make, kind, view, key):
    model = globals()[make]()
    x, sampler = pixels(model.config), hf_sampler(model.config, kind)
    masks = sampler(BATCH)
    grid = masks.visible.view(BATCH, 1, *sampler.grid).float()
    shape = (x.shape[1] if x.dim() == 5 else 1, *x.shape[-2:])
    shown = F.interpolate(grid, shape).view(BATCH, *shape[: x.dim() - 4], 1, *x.shape[-2:])
    assert shown.unique().tolist() == [0, 1]
    given = {key: getattr(masks, view)}
    logits, others = model(x, **given).logits, torch.randn_like(x)
    assert_same(model(x * shown + others * (1 - shown), **given).logits, logits)
    changed = model(x * (1 - shown) + others * shown, **given).logits
    assert not torch.allclose(changed, logits, atol=1e-3)


# V-JEPA 2


def test_vjepa2_gathers_context_and_target():
    model = vjepa2()
    sampler = hf_sampler(model.config, "green3d", 0.75)
    masks = sampler(BATCH)
    context, target = masks.jepa
    out = model(pixels(model.config), context_mask=context, target_mask=target)
    predicted, tokens = out.predictor_output, out.last_hidden_state
    assert out.masked_hidden_state.shape == (BATCH, 8, 16)
    assert predicted.target_hidden_state.shape == predicted.last_hidden_state.shape
    assert predicted.last_hidden_state.shape == (BATCH, 24, 16)
    assert torch.isfinite(predicted.last_hidden_state).all()
    masked = masked_by_hand(masks)
    for i in range(BATCH):
        assert_same(out.masked_hidden_state[i], tokens[i][~masked[i]])
        assert_same(predicted.target_hidden_state[i], tokens[i][masked[i]])


def test_vjepa2_predicts_from_the_context_alone():
    model = vjepa2()
    masks = hf_sampler(model.config, "green3d", 0.75)(BATCH)
    context, target = masks.jepa
    tokens, others = torch.randn(BATCH, 32, 16), torch.randn(BATCH, 32, 16)

    def predicted(shown):
        mixed = torch.where(shown[..., None], tokens, others)
        out = model.predictor(mixed, context_mask=context, target_mask=target)
        return out.last_hidden_state

    everything = predicted(torch.ones_like(masks.visible))
    assert_same(predicted(masks.visible), everything)
    assert not torch.allclose(predicted(masks.masked), everything, atol=1e-3)


# Models with bool_masked_pos that see all tokens, masked ones as a mask token


IMAGE = {**WIDTH, "intermediate_size": 32, "image_size": [24, 32], "patch_size": 8}
SWIN = {"embed_dim": 8, "depths": [1], "num_heads": [2], "image_size": 32, "patch_size": 4}
WIDE = {"initializer_range": 0.3}


def image_models():
    """For each model, what makes it, and its grid."""
    t, square = transformers, {**IMAGE, "image_size": 32}
    focal = {"embed_dim": 8, "depths": [1], "hidden_sizes": [8], "focal_levels": [1]}
    mask_token = {"use_mask_token": True}
    return {
        "ViT": (lambda: t.ViTModel(t.ViTConfig(**IMAGE), **mask_token), (1, 3, 4)),
        "DeiT": (lambda: t.DeiTModel(t.DeiTConfig(**IMAGE), **mask_token), (1, 3, 4)),
        "IJepa": (lambda: t.IJepaModel(t.IJepaConfig(**IMAGE), **mask_token), (1, 3, 4)),
        "Beit": (lambda: t.BeitModel(t.BeitConfig(**square, **mask_token)), (1, 4, 4)),
        "Data2VecVision": (
            lambda: t.Data2VecVisionModel(t.Data2VecVisionConfig(**square, **mask_token)),
            (1, 4, 4),
        ),
        "Swin": (
            lambda: t.SwinModel(t.SwinConfig(**SWIN, **WIDE, window_size=4), **mask_token),
            (1, 8, 8),
        ),
        "Swinv2": (
            lambda: t.Swinv2Model(t.Swinv2Config(**SWIN, **WIDE, window_size=4), **mask_token),
            (1, 8, 8),
        ),
        "FocalNet": (
            lambda: t.FocalNetModel(
                t.FocalNetConfig(**focal, **WIDE, image_size=32, patch_size=8), **mask_token
            ),
            (1, 4, 4),
        ),
        "Dinov2": (lambda: t.Dinov2Model(t.Dinov2Config(**square, **mask_token)), (1, 4, 4)),
        "Dinov2WithRegisters": (
            lambda: t.Dinov2WithRegistersModel(
                t.Dinov2WithRegistersConfig(**square, num_register_tokens=4)
            ),
            (1, 4, 4),
        ),
        "DINOv3ViT": (
            lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**square, num_register_tokens=4)),
            (1, 4, 4),
        ),
        "ViTMSN": (
            lambda: t.ViTMSNModel(t.ViTMSNConfig(**IMAGE), **mask_token),
            (1, 3, 4),
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("ViT", "DeiT", "IJepa", "Beit", "Data2VecVision", "Swin", "Swinv2", "FocalNet", "Dinov2"),
        *("Dinov2WithRegisters", "DINOv3ViT", "ViTMSN"),
    ],
)
def test_pixels_of_masked_patches_do_not_reach_models_with_a_mask_token(name):
    make, grid = image_models()[name]
    model = make().eval()
    sampler = hf_sampler(model.config, "green2d", 0.5, seed=3)
    assert sampler.grid == grid
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("mask_token"):
            torch.nn.init.normal_(parameter)
    x, masks = pixels(model.config), sampler(BATCH)
    shown = masks.visible.view(BATCH, 1, *grid[1:]).float()
    shown = F.interpolate(shown, x.shape[-2:])
    others = torch.randn_like(x)

    def seen(x, masked=masks.masked):
        with torch.no_grad():
            return model(x, bool_masked_pos=masked).last_hidden_state

    expected = seen(x)
    assert_same(seen(x * shown + others * (1 - shown)), expected)
    assert not torch.allclose(seen(x * (1 - shown) + others * shown), expected, atol=1e-3)
    assert not torch.allclose(seen(x, masks.visible), expected, atol=1e-3)


@pytest.mark.parametrize("name", ["ViT", "DeiT", "Swin"])
def test_models_for_masked_images_give_a_loss(name):
    sizes = {**IMAGE, "image_size": 32, "encoder_stride": 8}
    if name == "Swin":
        sizes = {**SWIN, "window_size": 4, "encoder_stride": 4}
    config = getattr(transformers, f"{name}Config")(**sizes)
    model = getattr(transformers, f"{name}ForMaskedImageModeling")(config)
    sampler = hf_sampler(config, "green2d", 0.6)
    x, masks = pixels(config), sampler(BATCH)
    out = model(x, bool_masked_pos=masks.masked)
    out.loss.backward()
    hidden = masks.masked.view(BATCH, 1, *sampler.grid[1:]).float()
    hidden = F.interpolate(hidden, x.shape[-2:]).expand_as(x).bool()
    torch.testing.assert_close(out.loss, (out.reconstruction - x)[hidden].abs().mean())


# AST takes no masks; tokens are gathered after its embeddings


def test_ast_counts_mel_bands_first():
    config = transformers.ASTConfig(
        **WIDTH,
        intermediate_size=32,
        patch_size=4,
        max_length=18,
        num_mel_bins=10,
        time_stride=2,
        frequency_stride=3,
    )
    model = transformers.ASTModel(config).eval()
    sampler = hf_sampler(config, "rbn", 0.75)
    assert sampler.grid == (1, 8, 3)
    assert sampler.settings.freq_major
    x = torch.randn(BATCH, 18, 10)
    tokens = model.embeddings(x)
    assert tokens.shape[1] == 2 + 24
    time, mel = 5, 1
    x[:, 2 * time : 2 * time + 4, 3 * mel : 3 * mel + 4] += 1
    changed = (model.embeddings(x) != tokens).any(-1)
    assert not changed[:, :2].any()
    assert changed[:, 2 + mel * 8 + time].all()
    assert not changed[:, 2 + time * 3 + mel].any()
    masks = sampler(BATCH)
    time_major = hf_sampler(config, "rbn", 0.75, freq_major=False)(BATCH).visible.view(BATCH, 8, 3)
    assert_same(masks.visible.view(BATCH, 3, 8), time_major.transpose(1, 2))
    ids = masks.with_prefix(2).ids_keep[..., None].expand(-1, -1, 16)
    assert tokens.gather(1, ids).shape == (BATCH, 2 + 6, 16)


# hf_sampler


def grids():
    video = {"num_frames": 12, "tubelet_size": 3, "patch_size": [8, 16]}
    unit = {"patch_stride": [4, 2], "masked_unit_size": [8, 8]}
    return [
        (transformers.VideoMAEConfig(), (8, 14, 14)),
        (transformers.VideoMAEConfig(image_size=(48, 160), **video), (4, 6, 10)),
        (transformers.ViTMAEConfig(), (1, 14, 14)),
        (transformers.ViTMAEConfig(image_size=[48, 160], patch_size=16), (1, 3, 10)),
        (transformers.HieraConfig(), (1, 7, 7)),
        (transformers.HieraConfig(image_size=[64, 96], **unit), (1, 2, 6)),
        (transformers.VJEPA2Config(), (32, 16, 16)),
        (transformers.VJEPA2Config(crop_size=96, frames_per_clip=6, tubelet_size=3), (2, 6, 6)),
    ]


def test_grids_are_those_of_the_configs():
    for config, grid in grids():
        ratio = 0.75 if config.model_type == "vjepa2" else None
        sampler = hf_sampler(config, "random", ratio, seed=3)
        assert sampler.grid == grid
        assert sampler.seed == 3
        # As it comes back from a config.json, where pairs are lists.
        loaded = type(config).from_dict(config.to_dict())
        assert hf_sampler(loaded, "random", ratio).grid == grid


def test_a_grid_has_as_many_patches_as_the_model():
    video, image, units, jepa = videomae(), vit_mae(), hiera(), vjepa2()
    for model, n_patches in (
        (video, video.videomae.embeddings.num_patches),
        (image, image.vit.embeddings.patch_embeddings.num_patches),
        (units, np.prod(units.hiera.embeddings.mask_spatial_shape)),
        (jepa, jepa(pixels(jepa.config)).last_hidden_state.shape[1]),
    ):
        ratio = 0.75 if model is jepa else None
        assert np.prod(hf_sampler(model.config, "random", ratio).grid) == n_patches


def test_errors_name_what_came():
    for other in (transformers.BertConfig(), None, videomae()):
        with pytest.raises(ValueError, match=f"of a model of type.*got {type(other).__name__}"):
            hf_sampler(other, "green3d")
    video, jepa = videomae().config, vjepa2().config
    with pytest.raises(ValueError, match=r"exactly one of mask_ratio.*got neither"):
        hf_sampler(jepa, "green3d")
    with pytest.raises(ValueError, match=r"exactly one of.*mask_ratio=0\.9 and n_keep=4"):
        hf_sampler(video, "green3d", 0.9, n_keep=4)
    with pytest.raises(ValueError, match="kind must be one of"):
        hf_sampler(video, "green4d")
    with pytest.raises(TypeError, match="tube masks have no parameter n_candidates"):
        hf_sampler(video, "tube", n_candidates=4)


def test_parameters_go_through():
    sampler = hf_sampler(videomae().config, "green3d", n_keep=7, sigma="variant-1")
    assert (sampler.n_keep, sampler.settings.noise.sigma) == (7, (0.5, 0.5, 2.0, 2.0))

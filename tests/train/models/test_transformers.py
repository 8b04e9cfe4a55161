"""Equal to transformers' VideoMAE and ViTMAE, and weights that go there and back."""

import json
from dataclasses import replace

import pytest
import torch
from testing import need_biases_of_videomae, need_packages

from smnm_kernels import MaskSampler

need_packages("transformers", "safetensors")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import (  # noqa: E402
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEModel,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
)

from smnm_kernels.train.models.formats import (  # noqa: E402
    encoder_part,
    encoder_state,
    from_hf_videomae,
    from_hf_vitmae,
    hf_videomae_config,
    hf_vitmae_config,
    load_weights,
    settings_of_hf_videomae,
    settings_of_hf_vitmae,
    to_hf_videomae,
    to_hf_vitmae,
    with_key_bias,
)
from smnm_kernels.train.models.mae import MaskedAutoencoder, build_model  # noqa: E402
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, VIDEOMAE  # noqa: E402

CLOSE = dict(rtol=1e-5, atol=1e-5)

VIDEO = {
    "tiny": dict(image_size=32, patch_size=16, num_frames=4, hidden_size=32, layers=(2, 1)),
    "odd": dict(image_size=(12, 20), patch_size=4, num_frames=6, hidden_size=30, layers=(3, 2),
                tubelet_size=3, num_attention_heads=5, intermediate_size=50,
                decoder_hidden_size=14, decoder_num_attention_heads=7,
                decoder_intermediate_size=20),
    "one channel, pixels of another scale": dict(image_size=16, patch_size=8, num_frames=2,
                                                 hidden_size=16, layers=(1, 1), num_channels=1),
    "no normalised target": dict(image_size=16, patch_size=8, num_frames=2, hidden_size=16,
                                 layers=(1, 1), norm_pix_loss=False),
    "no final norm": dict(image_size=16, patch_size=8, num_frames=2, hidden_size=16,
                          layers=(1, 1), use_mean_pooling=True),
}  # fmt: skip
PICTURES = {
    "tiny": dict(image_size=32, patch_size=16, hidden_size=32, layers=(2, 1), norm_pix_loss=True),
    "odd": dict(image_size=35, patch_size=5, hidden_size=60, layers=(3, 2), norm_pix_loss=True,
                num_attention_heads=5, intermediate_size=90, decoder_hidden_size=28,
                decoder_num_attention_heads=7, decoder_intermediate_size=40),
    "spectrogram, AudioMAE's global decoder": dict(image_size=32, patch_size=8, hidden_size=16,
                                                   layers=(1, 1), norm_pix_loss=True,
                                                   num_channels=1),
    "no normalised target": dict(image_size=16, patch_size=8, hidden_size=16, layers=(1, 1)),
}  # fmt: skip


def config_of(kind, hidden_size, layers, **more):
    defaults = dict(
        num_attention_heads=2,
        intermediate_size=4 * hidden_size,
        decoder_hidden_size=hidden_size // 2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=2 * hidden_size,
        num_hidden_layers=layers[0],
        decoder_num_hidden_layers=layers[1],
    )
    if kind is VideoMAEConfig:
        defaults["use_mean_pooling"] = False
    return kind(hidden_size=hidden_size, **(defaults | more))


def shaken(module):
    """Weights with nothing at zero or one, so that no bias or norm can be mixed up unseen."""
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return module.eval()


def clip(input_size, batch=3):
    return torch.randn(batch, *input_size)


def masks_of(grid, batch=3):
    return MaskSampler("random", grid, 0.6, seed=5)(batch)


def channel_fastest(pred, channels):
    """Our predictions in their order within a patch."""
    return pred.unflatten(-1, (channels, -1)).transpose(-1, -2).flatten(-2)


def loaded_from(folder, kind, config, state):
    """The class as it reads a folder with these files."""
    if kind.config_class.model_type == "videomae":
        need_biases_of_videomae()
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": kind.config_class.model_type})
    )
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.eval()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", VIDEO)
def test_videomae_is_the_same_function(name):
    theirs = shaken(VideoMAEForPreTraining(config_of(VideoMAEConfig, **VIDEO[name])))
    settings, input_size = settings_of_hf_videomae(theirs.config.to_dict())
    ours = MaskedAutoencoder(settings, input_size).eval()
    load_weights(ours, from_hf_videomae(theirs.state_dict()))
    x, masks = clip(input_size), masks_of(ours.encoder.grid)
    with torch.no_grad():
        expected = theirs(x.transpose(1, 2), bool_masked_pos=masks.masked)
        latent = ours.forward_encoder(x, masks)
        pred = ours.forward_decoder(latent, masks)
        theirs_latent = theirs.videomae(x.transpose(1, 2), bool_masked_pos=masks.masked)[0]
        assert torch.allclose(latent, theirs_latent, **CLOSE)
        assert torch.allclose(channel_fastest(pred, input_size[0]), expected.logits, **CLOSE)
        assert torch.allclose(ours(x, masks), expected.loss, **CLOSE)
        assert torch.allclose(ours.encoder(x), theirs.videomae(x.transpose(1, 2))[0], **CLOSE)


@pytest.mark.parametrize("name", PICTURES)
def test_mae_is_the_same_function(name):
    theirs = shaken(ViTMAEForPreTraining(config_of(ViTMAEConfig, **PICTURES[name])))
    settings, input_size = settings_of_hf_vitmae(theirs.config.to_dict())
    ours = MaskedAutoencoder(settings, input_size).eval()
    masks = masks_of(ours.encoder.grid)
    # The count that they work out from their ratio, (1 - ratio) * N rounded down, must be ours.
    theirs.config.mask_ratio = 1 - (masks.n_keep + 0.5) / masks.visible.shape[1]
    # Fixed positions are part of their weights: whatever they are, they are taken over.
    for table in (theirs.vit.embeddings.position_embeddings, theirs.decoder.decoder_pos_embed):
        torch.nn.init.normal_(table)
    load_weights(ours, from_hf_vitmae(theirs.state_dict()))
    x = clip(input_size)
    with torch.no_grad():
        expected = theirs(x[:, :, 0], noise=masks.vitmae_noise)
        latent = ours.forward_encoder(x, masks)
        pred = ours.forward_decoder(latent, masks)
        theirs_latent = theirs.vit(x[:, :, 0], noise=masks.vitmae_noise).last_hidden_state
        assert torch.allclose(latent, theirs_latent, **CLOSE)
        logits = expected.logits[masks.masked].view(len(x), -1, pred.shape[-1])
        assert torch.allclose(channel_fastest(pred, input_size[0]), logits, **CLOSE)
        assert torch.allclose(ours(x, masks), expected.loss, **CLOSE)


@pytest.mark.parametrize("name", ["tiny", "odd", "no final norm"])
def test_videomae_there_and_back(name, tmp_path):
    config = config_of(VideoMAEConfig, **VIDEO[name])
    settings, input_size = settings_of_hf_videomae(config.to_dict())
    ours = shaken(build_model(settings, input_size, seed=1))
    state = to_hf_videomae(ours.state_dict(), settings.encoder.patch)
    theirs = loaded_from(
        tmp_path, VideoMAEForPreTraining, hf_videomae_config(settings, input_size), state
    )
    x, masks = clip(input_size), masks_of(ours.encoder.grid)
    with torch.no_grad():
        expected = theirs(x.transpose(1, 2), bool_masked_pos=masks.masked).loss
        assert torch.allclose(ours(x, masks), expected, **CLOSE)
    theirs.save_pretrained(tmp_path / "again")
    for again in (theirs.state_dict(), load_file(tmp_path / "again" / "model.safetensors")):
        returned = build_model(settings, input_size, seed=2)
        load_weights(returned, from_hf_videomae(again))
        assert_same_state(returned, ours)


@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_mae_there_and_back(name, tmp_path):
    config = config_of(ViTMAEConfig, **PICTURES[name])
    settings, input_size = settings_of_hf_vitmae(config.to_dict())
    ours = shaken(build_model(settings, input_size, seed=1))
    state = to_hf_vitmae(ours.state_dict(), settings.encoder.patch)
    theirs = loaded_from(
        tmp_path, ViTMAEForPreTraining, hf_vitmae_config(settings, input_size), state
    )
    theirs.save_pretrained(tmp_path / "again")
    for again in (theirs.state_dict(), load_file(tmp_path / "again" / "model.safetensors")):
        returned = build_model(settings, input_size, seed=2)
        load_weights(returned, from_hf_vitmae(again))
        assert_same_state(returned, ours)


def test_encoders_alone(tmp_path):
    video, size = settings_of_hf_videomae(config_of(VideoMAEConfig, **VIDEO["odd"]).to_dict())
    encoder = shaken(build_model(video, size, seed=1).encoder)
    state = to_hf_videomae(encoder_state(encoder), video.encoder.patch)
    config = hf_videomae_config(encoder.settings, size)
    theirs = loaded_from(tmp_path, VideoMAEModel, config, state)
    x = clip(size)
    with torch.no_grad():
        assert torch.allclose(encoder(x), theirs(x.transpose(1, 2))[0], **CLOSE)
    returned = build_model(video, size, seed=2).encoder
    load_weights(returned, encoder_part(from_hf_videomae(theirs.state_dict())))
    assert_same_state(returned, encoder)

    picture, size = settings_of_hf_vitmae(config_of(ViTMAEConfig, **PICTURES["odd"]).to_dict())
    encoder = shaken(build_model(picture, size, seed=1).encoder)
    state = to_hf_vitmae(encoder_state(encoder), picture.encoder.patch)
    config = hf_vitmae_config(encoder.settings, size) | {"mask_ratio": 0.0}
    theirs = loaded_from(tmp_path, ViTMAEModel, config, state)
    x, in_order = clip(size), torch.arange(49.0).expand(3, -1)
    with torch.no_grad():
        expected = theirs(x[:, :, 0], noise=in_order).last_hidden_state[:, 1:]
        assert torch.allclose(encoder(x), expected, **CLOSE)
    returned = build_model(picture, size, seed=2).encoder
    load_weights(returned, encoder_part(from_hf_vitmae(theirs.state_dict())))
    assert_same_state(returned, encoder)


def test_a_key_bias_changes_nothing(tmp_path):
    """So a model that has one goes to VideoMAE, which has none."""
    small = VIDEOMAE.resized(
        dim=16, depth=2, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2
    )
    settings = replace(
        small,
        encoder=replace(small.encoder, patch=(2, 4, 4), key_bias=True),
        decoder=replace(small.decoder, key_bias=True),
    )
    size = (3, 4, 16, 16)
    ours = shaken(build_model(settings, size, seed=1))
    assert ours.state_dict()["encoder.blocks.0.attn.qkv.bias"][16:32].abs().min() > 1e-3
    state = to_hf_videomae(ours.state_dict(), (2, 4, 4))
    theirs = loaded_from(
        tmp_path, VideoMAEForPreTraining, hf_videomae_config(settings, size), state
    )
    x, masks = clip(size), masks_of(ours.encoder.grid)
    with torch.no_grad():
        expected = theirs(x.transpose(1, 2), bool_masked_pos=masks.masked).loss
        assert torch.allclose(ours(x, masks), expected, **CLOSE)
        returned = build_model(settings, size, seed=2).eval()
        load_weights(returned, with_key_bias(from_hf_videomae(theirs.state_dict()), True))
        assert torch.allclose(returned(x, masks), ours(x, masks), **CLOSE)


def test_what_a_class_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"input_size must be \(C, 1, H, H\) for ViTMAE, got"):
        hf_vitmae_config(MAE, (1, 1, 64, 32))
    with pytest.raises(ValueError, match="flat positions and no class token"):
        hf_videomae_config(MAE, (3, 1, 32, 32))
    with pytest.raises(ValueError, match=r"window must be None for transformers, got \(4, 4\)"):
        hf_vitmae_config(AUDIOMAE, (1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"patch must be square for transformers"):
        hf_vitmae_config(replace(MAE.encoder, patch=(1, 8, 4)), (1, 1, 64, 64))
    with pytest.raises(ValueError, match="target must be channel or pixels for this class"):
        hf_videomae_config(replace(VIDEOMAE, target="patch"), (3, 16, 32, 32))
    other = replace(VIDEOMAE, decoder=replace(VIDEOMAE.decoder, positions="axes"))
    with pytest.raises(ValueError, match="flat positions in the decoder for VideoMAE, got axes"):
        hf_videomae_config(other, (3, 16, 32, 32))
    other = replace(VIDEOMAE, decoder=replace(VIDEOMAE.decoder, norm_eps=1e-5))
    with pytest.raises(ValueError, match=r"norm_eps must be the same .* got 1e-06 and 1e-05"):
        hf_videomae_config(other, (3, 16, 32, 32))
    with pytest.raises(ValueError, match=r"patch must be \(1, ph, pw\) for ViTMAE"):
        to_hf_vitmae({}, (2, 16, 16))
    with pytest.raises(ValueError, match=r"got unknown classifier\.weight"):
        from_hf_videomae({"classifier.weight": torch.zeros(1)})


def test_weights_of_another_model_are_refused():
    settings = MAE.resized(
        dim=16, depth=2, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2
    )
    model = MaskedAutoencoder(settings, (3, 1, 32, 32))
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"none for encoder\.blocks\.1\.norm1\.weight"):
        load_weights(model, {n: t for n, t in state.items() if "blocks.1" not in n})
    with pytest.raises(ValueError, match=r"shape \(5, 16\) in this model, got \(17, 16\)"):
        load_weights(model, {**state, "encoder.pos_embed": torch.zeros(17, 16)})


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, t in one.items():
        assert torch.equal(t, other[name]), name

"""Weights in the names of MAE, AudioMAE, timm and VideoMAE, and back."""

import pytest
import torch
from families import FAMILIES, shaken, sized, small

from smnm_kernels.train.models.formats import (
    encoder_state,
    from_mae,
    from_videomae,
    load_weights,
    to_hf_videomae,
    to_hf_vitmae,
    to_mae,
    to_videomae,
    with_key_bias,
)
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import VIDEOMAE


def linear(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name, dim):
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def mlp_and_norms(name, dim):
    return (
        norm(f"{name}.norm1", dim)
        | norm(f"{name}.norm2", dim)
        | linear(f"{name}.attn.proj", dim, dim)
        | linear(f"{name}.mlp.fc1", 4 * dim, dim)
        | linear(f"{name}.mlp.fc2", dim, 4 * dim)
    )


def mae_block(name, dim):
    return mlp_and_norms(name, dim) | linear(f"{name}.attn.qkv", 3 * dim, dim)


def videomae_block(name, dim):
    return mlp_and_norms(name, dim) | {
        f"{name}.attn.qkv.weight": (3 * dim, dim),
        f"{name}.attn.q_bias": (dim,),
        f"{name}.attn.v_bias": (dim,),
    }


def local_block(name, dim, heads):
    return (
        mae_block(name, dim)
        | {f"{name}.attn.tau": (heads,)}
        | linear(f"{name}.attn.meta_mlp.fc1", 384, 2)
        | linear(f"{name}.attn.meta_mlp.fc2", heads, 384)
    )


def blocks(kind, name, dim, *more):
    return {k: v for i in (0, 1) for k, v in kind(f"{name}.{i}", dim, *more).items()}


def vit(tokens, channels):
    return {
        "cls_token": (1, 1, 24),
        "pos_embed": (1, 1 + tokens, 24),
        "patch_embed.proj.weight": (24, channels, 4, 4),
        "patch_embed.proj.bias": (24,),
        **blocks(mae_block, "blocks", 24),
        **norm("norm", 24),
    }


def mae_decoder(tokens, channels):
    return {
        **linear("decoder_embed", 12, 24),
        "mask_token": (1, 1, 12),
        "decoder_pos_embed": (1, 1 + tokens, 12),
        **norm("decoder_norm", 12),
        **linear("decoder_pred", 16 * channels, 12),
    }


#: What the public code's own `state_dict()` holds at these sizes, written down from its classes.
PUBLISHED = {
    "mae": vit(24, 3) | mae_decoder(24, 3) | blocks(mae_block, "decoder_blocks", 12),
    "audiomae": vit(32, 1) | mae_decoder(32, 1) | blocks(local_block, "decoder_blocks", 12, 2),
    "videomae": {
        "encoder.patch_embed.proj.weight": (24, 3, 2, 4, 4),
        "encoder.patch_embed.proj.bias": (24,),
        **blocks(videomae_block, "encoder.blocks", 24),
        **norm("encoder.norm", 24),
        "encoder_to_decoder.weight": (12, 24),
        "mask_token": (1, 1, 12),
        **blocks(videomae_block, "decoder.blocks", 12),
        **norm("decoder.norm", 12),
        **linear("decoder.head", 96, 12),
    },
}
TO = {"mae": to_mae, "audiomae": to_mae, "videomae": to_videomae}
FROM = {"mae": from_mae, "audiomae": from_mae, "videomae": from_videomae}


def shapes(state):
    return {name: tuple(t.shape) for name, t in state.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_and_shapes_are_the_published_ones(family):
    model = small(family)
    state = TO[family](model.state_dict(), model.encoder.settings.patch)
    assert shapes(state) == PUBLISHED[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_the_same_bits(family):
    model = shaken(small(family))
    theirs = TO[family](model.state_dict(), model.encoder.settings.patch)
    settings, input_size = FAMILIES[family]
    returned = build_model(settings, input_size, seed=3)
    load_weights(returned, FROM[family](theirs))
    for name, t in model.state_dict().items():
        assert torch.equal(returned.state_dict()[name], t), name


def test_an_encoder_alone_has_timms_names():
    encoder = shaken(small("audiomae")).encoder
    state = to_mae(encoder_state(encoder), (1, 4, 4))
    assert shapes(state) == vit(32, 1)
    back = from_mae(state)
    for name, t in encoder_state(encoder).items():
        assert torch.equal(back[name], t), name


def test_values_go_where_the_official_conversions_put_them():
    """Those of transformers, from the originals to its own: q, k and v apart, the rest renamed."""
    model = shaken(small("mae"))
    original = to_mae(model.state_dict(), (1, 4, 4))
    converted = to_hf_vitmae(model.state_dict(), (1, 4, 4))
    for part, rows in (("query", slice(24)), ("key", slice(24, 48)), ("value", slice(48, 72))):
        for kind in ("weight", "bias"):
            name = f"vit.encoder.layer.1.attention.attention.{part}.{kind}"
            assert torch.equal(converted[name], original[f"blocks.1.attn.qkv.{kind}"][rows])
    for theirs, ours in (
        ("vit.embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
        ("decoder.decoder_pred.weight", "decoder_pred.weight"),
        ("decoder.decoder_layers.0.intermediate.dense.bias", "decoder_blocks.0.mlp.fc1.bias"),
        ("decoder.decoder_layers.0.output.dense.bias", "decoder_blocks.0.mlp.fc2.bias"),
        ("decoder.decoder_layers.1.attention.output.dense.bias", "decoder_blocks.1.attn.proj.bias"),
        ("decoder.decoder_layers.1.layernorm_before.bias", "decoder_blocks.1.norm1.bias"),
        ("decoder.decoder_layers.1.layernorm_after.bias", "decoder_blocks.1.norm2.bias"),
    ):
        assert torch.equal(converted[theirs], original[ours])

    model = shaken(small("videomae"))
    original = to_videomae(model.state_dict(), (2, 4, 4))
    converted = to_hf_videomae(model.state_dict(), (2, 4, 4))
    for theirs, ours in (
        ("videomae.encoder.layer.0.attention.attention.q_bias", "encoder.blocks.0.attn.q_bias"),
        ("decoder.decoder_layers.1.attention.attention.v_bias", "decoder.blocks.1.attn.v_bias"),
        ("videomae.layernorm.weight", "encoder.norm.weight"),
        ("decoder.norm.weight", "decoder.norm.weight"),
        ("decoder.head.bias", "decoder.head.bias"),
    ):
        assert torch.equal(converted[theirs], original[ours])


def test_key_biases_are_put_in_as_zeros_and_left_out():
    settings, size = sized(VIDEOMAE, (2, 4, 4)), FAMILIES["videomae"][1]
    state = shaken(build_model(settings, size, seed=0)).state_dict()
    with_bias = with_key_bias(state, True)
    bias = with_bias["encoder.blocks.1.attn.qkv.bias"]
    assert torch.equal(bias[:24], state["encoder.blocks.1.attn.q_bias"])
    assert not bias[24:48].any()
    assert torch.equal(bias[48:], state["encoder.blocks.1.attn.v_bias"])
    without = with_key_bias(with_bias, False)
    assert without.keys() == state.keys()
    assert all(torch.equal(without[name], t) for name, t in state.items())


def test_unknown_names_and_patches_are_refused():
    with pytest.raises(ValueError, match=r"got unknown head\.bias, head\.weight"):
        from_mae({"head.bias": torch.zeros(1), "head.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"patch must be \(1, ph, pw\) for MAE, got \(2, 4, 4\)"):
        to_mae(small().state_dict(), (2, 4, 4))

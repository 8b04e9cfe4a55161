"""CAV-MAE's model and losses against slow definitions, and its encoder file."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from families import shaken
from safetensors.torch import save_file

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.picture_rows import spectrograms
from smnm_kernels.train.models.audio_video_encoder import (
    AudioVideoSettings,
    load_audio_video_encoder,
    mean_of,
)
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.encoder_file import load_encoder

NAMES = ("video", "audio")
TINY = CAV_MAE.resized(dim=16, depth=3, heads=2, decoder_dim=12, decoder_depth=2, decoder_heads=2)
SIZES = {"video": (3, 1, 32, 48), "audio": (1, 1, 64, 32)}  # grids (1, 2, 3) and (1, 4, 2)
CLIP_SIZES = {"video": (3, 4, 32, 32), "audio": (1, 1, 64, 32)}


def formats(sizes):
    return {
        name: InputFormat(size, (0.0,) * size[0], (1.0,) * size[0], spectrograms)
        for name, size in sizes.items()
    }


def made(sizes=SIZES, model=TINY, batch=3, **changes):
    """(objective, model, inputs, masks)"""
    objective = CavMae(model, **changes)
    torch.manual_seed(0)
    built = shaken(objective.build(formats(sizes), seed=0))
    inputs = {name: torch.randn(batch, *sizes[name]) for name in NAMES}
    masks = {
        name: MaskSampler("random", grid, 0.5, seed=i)(batch)
        for i, (name, grid) in enumerate(objective.grids(formats(sizes)).items())
    }
    return objective, built, inputs, masks


def slow_block(block, norm1, norm2, x):
    """One sample [n, D]: attention by its formula."""
    d = x.shape[1]
    heads, size = block.attn.heads, d // block.attn.heads
    q, k, v = F.linear(norm1(x), block.attn.qkv.weight, block.attn.qkv.bias).split(d, dim=1)
    parts = []
    for h in range(heads):
        a, b, c = (part[:, h * size : (h + 1) * size] for part in (q, k, v))
        parts.append((a @ b.T / math.sqrt(size)).softmax(1) @ c)
    x = x + block.attn.proj(torch.cat(parts, dim=1))
    return x + block.mlp(norm2(x))


def slow_patch(x, grid, patch, token):
    """[C, T, H, W] -> the values of a token's patch, the channel running slowest."""
    t, rest = divmod(token, grid[1] * grid[2])
    h, w = divmod(rest, grid[2])
    (a, b, c) = patch
    return x[:, t * a : (t + 1) * a, h * b : (h + 1) * b, w * c : (w + 1) * c].flatten()


def slow_losses(model, inputs, masks):
    """(error of each modality, of each the mean embeddings), sample by sample, token by token."""
    encoder, decoder = model.encoder, model.decoder
    errors = {name: [] for name in NAMES}
    means = {name: [] for name in NAMES}
    for i in range(len(inputs["video"])):
        own, patches = {}, {}
        for name in NAMES:
            branch = encoder.branches[name]
            patch, n = branch.settings.patch, math.prod(branch.grid)
            patches[name] = [slow_patch(inputs[name][i], branch.grid, patch, t) for t in range(n)]
            x = torch.stack(
                [
                    branch.patch_embed(patches[name][t]) + branch.pos_embed[t] + branch.modality
                    for t in masks[name].ids_keep[i].tolist()
                ]
            )
            for block in branch.blocks:
                x = slow_block(block, block.norm1, block.norm2, x)
            own[name] = x
            for block in encoder.joint:
                x = slow_block(block, block.norms[name].norm1, block.norms[name].norm2, x)
            means[name].append(encoder.norms[name](x).mean(0))
        x = torch.cat([own["audio"], own["video"]])  # CAV-MAE's order, which changes nothing
        for block in encoder.joint:
            x = slow_block(block, block.norm1, block.norm2, x)
        x = decoder.embed(encoder.norm(x)).split([len(own["audio"]), len(own["video"])])
        sequence = []
        for name, visible in zip(("audio", "video"), x, strict=True):
            tokens = decoder.mask_token.expand(len(patches[name]), -1).clone()
            tokens[masks[name].ids_keep[i]] = visible
            places = decoder.get_buffer(f"pos_embed_{name}")
            sequence.append(tokens + places + decoder.modality[name])
        x = torch.cat(sequence)
        for block in decoder.blocks:
            x = slow_block(block, block.norm1, block.norm2, x)
        x = decoder.norm(x).split([len(patches["audio"]), len(patches["video"])])
        for name, tokens in zip(("audio", "video"), x, strict=True):
            for t in masks[name].ids_masked[i].tolist():
                target = patches[name][t]
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
                errors[name].append((decoder.pred[name](tokens[t]) - target).square().mean())
    return (
        {name: torch.stack(found).mean() for name, found in errors.items()},
        {name: torch.stack(found) for name, found in means.items()},
    )


@pytest.mark.parametrize("sizes", [SIZES, CLIP_SIZES])
@torch.no_grad()
def test_each_part_of_the_loss_is_its_definition(sizes):
    model = TINY if sizes is SIZES else TINY.with_clips()
    objective, built, inputs, masks = made(
        sizes, model, video_weight=2.0, audio_weight=3.0, contrast_weight=0.5
    )
    found = objective.losses(built, inputs, masks, {})
    assert list(found) == ["loss", *objective.reported]
    errors, means = slow_losses(built, inputs, masks)
    for name in NAMES:
        torch.testing.assert_close(found[f"loss_{name}"], errors[name], rtol=1e-4, atol=1e-5)
    video, audio = (F.normalize(means[name], dim=1) for name in NAMES)
    likeness = audio @ video.T / 0.05  # over audio, for each video
    contrast = -likeness.log_softmax(0).diagonal().mean()
    torch.testing.assert_close(found["loss_contrast"], contrast, rtol=1e-4, atol=1e-4)
    hits = likeness.argmax(0) == torch.arange(3)
    assert found["contrast_accuracy"] == hits.float().mean()
    total = 2 * errors["video"] + 3 * errors["audio"] + 0.5 * contrast
    torch.testing.assert_close(found["loss"], total, rtol=1e-4, atol=1e-4)


def test_the_defaults_are_those_of_cav_maes_code():
    objective = CavMae(CAV_MAE)
    weights = (objective.video_weight, objective.audio_weight, objective.contrast_weight)
    assert weights == (1, 1, 0.01)
    assert (objective.temperature, objective.directions) == (0.05, "a_to_b")
    sizes = {"video": (3, 1, 224, 224), "audio": (1, 1, 1024, 128)}
    with torch.device("meta"):
        model = objective.build(formats(sizes), 0)
    encoder = model.encoder
    assert [len(encoder.branch(name).blocks) for name in NAMES] == [11, 11]
    assert len(encoder.joint) == 1
    assert [encoder.branch(name).grid for name in NAMES] == [(1, 14, 14), (1, 64, 8)]
    assert [model.decoder.pred[name].out_features for name in NAMES] == [768, 256]
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5}
    # Blocks of ViT-B: 7.09 M each; 23 of them, and two more norms in the joint one for each.
    blocks = [*encoder.joint, *(b for name in NAMES for b in encoder.branch(name).blocks)]
    n_values = sum(p.numel() for block in blocks for p in block.parameters())
    assert n_values == 23 * 7_087_872 + 2 * 2 * 2 * 768


def test_every_parameter_learns():
    objective, model, inputs, masks = made()
    model.train()
    objective.losses(model, inputs, masks, {})["loss"].backward()
    for name, p in model.named_parameters():
        keys_alone = name.endswith("attn.qkv.bias")
        assert (p.grad[: len(p) // 3] if keys_alone else p.grad).any(), name


@torch.no_grad()
def test_what_is_masked_of_one_modality_enters_nothing():
    _, model, inputs, masks = made()
    before = model(inputs, masks)
    patches = {n: model.encoder.branch(n).patchify(x).clone() for n, x in inputs.items()}
    for name in NAMES:
        patches[name][masks[name].masked] += 5 * torch.randn(1)
    other = {n: model.encoder.branch(n).unpatchify(x) for n, x in patches.items()}
    after = model(other, masks)
    assert all(torch.equal(before.means[n], after.means[n]) for n in NAMES)


def test_padding_is_in_no_loss_and_in_no_mean():
    objective, model, inputs, _ = made()
    valid = torch.ones(3, 8, dtype=torch.bool)
    valid[1, 5:] = False
    masks = {
        "video": MaskSampler("random", (1, 2, 3), 0.5)(3),
        "audio": MaskSampler("random", (1, 4, 2), 0.5)(3, valid=valid),
    }
    assert not (masks["audio"].visible & ~valid).any()
    found = objective.losses(model, inputs, masks, {"audio": valid})
    branch = model.encoder.branch("audio")
    target = model.target_of("audio").target(branch.patchify(inputs["audio"]))
    own = {n: model.encoder.branch(n)(inputs[n], masks[n].ids_keep) for n in NAMES}
    latent = model.encoder.together(torch.cat([own[n] for n in NAMES], dim=1))
    pred = model.decoder(latent, masks)["audio"]
    means = []
    for i in range(3):
        errors = [
            (pred[i, j] - target[i, t]).square().mean()
            for j, t in enumerate(masks["audio"].ids_masked[i].tolist())
            if valid[i, t]
        ]
        means.append(torch.stack(errors).mean())
    torch.testing.assert_close(found["loss_audio"], torch.stack(means).mean())
    padded = {"audio": inputs["audio"].clone(), "video": inputs["video"]}
    padded["audio"][1, :, :, 48:] = 9  # the last row of patches: tokens 6 and 7
    again = objective.losses(model, padded, masks, {"audio": valid})
    for name, value in found.items():
        assert torch.equal(again[name], value), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("again", [False, True])
def test_compiled_it_is_one_graph_and_the_same(again):
    objective, model, inputs, masks = made()
    model.checkpoint_activations = again
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    valid = {"audio": torch.ones(3, 8, dtype=torch.bool)}
    found = objective.losses(compiled, inputs, masks, valid)
    for name, value in objective.losses(model, inputs, masks, valid).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    found["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_in_bfloat16_the_losses_are_near_and_in_float32():
    objective, model, inputs, masks = made()
    exact = objective.losses(model, inputs, masks, {})
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.losses(model, inputs, masks, {})
    for name, value in found.items():
        assert value.dtype == torch.float32
        if name != "contrast_accuracy":
            assert value.item() == pytest.approx(exact[name].item(), rel=0.1)


def test_activations_computed_again_give_the_same_gradients():
    grads = []
    for again in (False, True):
        objective, model, inputs, masks = made()
        model.checkpoint_activations = again
        assert model.checkpoint_activations == again
        objective.losses(model, inputs, masks, {})["loss"].backward()
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_restored_input_keeps_what_was_visible():
    objective, model, inputs, masks = made()
    restored = objective.restore(model, inputs, masks, {})
    for name in NAMES:
        branch = model.encoder.branch(name)
        same = (branch.patchify(restored[name]) == branch.patchify(inputs[name])).all(-1)
        assert torch.equal(same, masks[name].visible)


# The encoder by itself.


@torch.no_grad()
def test_the_encoder_takes_both_modalities_or_one():
    _, model, inputs, _ = made()
    encoder = model.encoder
    both = encoder(inputs)
    assert {name: x.shape for name, x in both.items()} == {
        "video": (3, 6, 16),
        "audio": (3, 8, 16),
    }
    embedded = encoder.embed(inputs)
    for name in NAMES:
        one = {name: inputs[name]}
        alone = encoder.tokens(one)[name]
        assert not torch.allclose(alone, both[name], atol=1e-3)
        expected = F.normalize(alone.mean(1), dim=1)
        torch.testing.assert_close(encoder.embed(one)[name], expected)
        torch.testing.assert_close(embedded[name], expected)
    for wrong in ({}, {"smell": inputs["video"]}):
        with pytest.raises(ValueError, match="inputs must have video, audio or both, got"):
            encoder(wrong)


@torch.no_grad()
def test_padding_changes_no_feature_of_what_is_real():
    _, model, inputs, _ = made()
    encoder = model.encoder
    valid = {"audio": torch.tensor([[True] * 6 + [False] * 2] * 3)}
    other = {"audio": inputs["audio"].clone(), "video": inputs["video"]}
    other["audio"][:, :, :, 48:] = 9
    for find in (encoder.embed, lambda x, v: encoder.tokens(x, v)):
        found, changed = (find(x, valid) for x in (inputs, other))
        for name in NAMES:
            part = slice(0, 6) if name == "audio" and found[name].ndim == 3 else slice(None)
            torch.testing.assert_close(found[name][:, part], changed[name][:, part])
    tokens = torch.randn(3, 8, 4)
    torch.testing.assert_close(mean_of(tokens, valid["audio"]), tokens[:, :6].mean(1))


def test_the_file_brings_the_encoder_back(tmp_path):
    objective, model, inputs, _ = made()
    path = tmp_path / "encoder.safetensors"
    objective.export(model, path, {"modality": "audio-video"})
    encoder = load_audio_video_encoder(path)
    assert encoder.settings == model.encoder.settings
    assert not encoder.training
    with torch.no_grad():
        for name, x in encoder.embed(inputs).items():
            assert torch.equal(x, model.encoder.embed(inputs)[name])
    with pytest.raises(ValueError, match=r"encoder\.safetensors: is an encoder of clips with"):
        load_encoder(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(1)}, path, {"format": "smnm-encoder-2"})
    with pytest.raises(ValueError, match=r"other\.safetensors of format 'smnm-encoder-2'"):
        load_audio_video_encoder(path)
    save_file(
        {"x": torch.ones(1)},
        path,
        {"format": "smnm-audio-video-encoder-1", "encoder": json.dumps({})},
    )
    with pytest.raises(ValueError, match=r"other\.safetensors: its tensors do not fit"):
        load_audio_video_encoder(path)


def test_settings_that_do_not_fit_are_refused():
    branch = TINY.encoder.video
    with pytest.raises(ValueError, match="dim must be the same in both branches, got 16 for video"):
        AudioVideoSettings(branch, replace(branch, dim=8))
    with pytest.raises(ValueError, match="class_token must be False"):
        AudioVideoSettings(*[replace(branch, class_token=True)] * 2)
    with pytest.raises(ValueError, match="joint_depth must be at least 1, got 0"):
        AudioVideoSettings(branch, branch, joint_depth=0)
    with pytest.raises(ValueError, match="window must be None"):
        replace(TINY, decoder=replace(TINY.decoder, window=(2, 2)))
    _, model, inputs, masks = made()
    with pytest.raises(ValueError, match=r"audio masks must be for 3 samples of 8 tokens"):
        model(inputs, {"video": masks["video"], "audio": masks["video"]})


def test_the_seed_decides_the_weights():
    objective = CavMae(TINY)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (objective.build(formats(SIZES), s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(t, same[name]) for name, t in one.items())
    name = "encoder.joint.0.mlp.fc1.weight"
    assert not torch.equal(one[name], other[name])

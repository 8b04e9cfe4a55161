"""AudioMAE's local decoder against a slow one, token by token, and against Swin Transformer V2."""

import math

import pytest
import torch
from families import input_and_masks, shaken, small
from testing import need_packages

from smnm_kernels.train.models.window_attention import PositionBias, WindowBlock

DIM, HEADS = 12, 3
CLOSE = dict(rtol=1e-5, atol=1e-5)


def block(grid=(8, 4), window=(4, 4), shifted=False):
    torch.manual_seed(0)
    return shaken(WindowBlock(DIM, HEADS, 4, 1e-6, grid, window, shifted)).double()


def linear(layer, vector):
    return layer.weight @ vector + layer.bias


def attended_by_token(block, x, shift):
    """Attention of one sample [N, dim], pair of tokens by pair of tokens."""
    (height, width), (h, w) = block.grid, block.window
    attn, d = block.attn, DIM // HEADS
    places = [((y - shift) % height, c) for y in range(height) for c in range(width)]
    qkv = [linear(attn.qkv, token).view(3, HEADS, d) for token in x]
    out = torch.zeros_like(x)
    for i, (yi, xi) in enumerate(places):
        near = [j for j, (yj, xj) in enumerate(places) if (yj // h, xj // w) == (yi // h, xi // w)]
        heads = []
        for head in range(HEADS):
            logits = []
            for j in near:
                yj, xj = places[j]
                q, k = qkv[i][0, head], qkv[j][1, head]
                cosine = q @ k / (q.norm() * k.norm())
                offset = torch.tensor([float(yi - yj), float(xi - xj)], dtype=x.dtype)
                offset = offset.sign() * (1 + offset.abs()).log()
                hidden = linear(attn.meta_mlp.fc1, offset).relu()
                logit = cosine / max(attn.tau[head], 0.01)
                logit = logit + linear(attn.meta_mlp.fc2, hidden)[head]
                if (yi >= height - shift) != (yj >= height - shift):
                    logit = logit - 100
                logits.append(logit)
            weights = torch.stack(logits).softmax(0)
            heads.append(sum(p * qkv[j][2, head] for p, j in zip(weights, near, strict=True)))
        out[i] = linear(attn.proj, torch.cat(heads))
    return out


@pytest.mark.parametrize(
    ("grid", "window", "shifted", "shift"),
    [
        ((8, 4), (4, 4), False, 0),
        ((8, 4), (4, 4), True, 2),
        ((12, 8), (4, 4), True, 2),
        ((6, 4), (2, 4), True, 1),
        ((4, 8), (4, 4), True, 0),  # one window along the first axis: nothing to shift
        ((3, 2), (4, 4), True, 0),  # a window that is larger than the grid
    ],
)
@torch.no_grad()
def test_a_block_is_the_slow_one(grid, window, shifted, shift):
    ours = block(grid, window, shifted)
    assert ours.shift == shift
    x = torch.randn(2, grid[0] * grid[1], DIM, dtype=torch.float64)
    expected = []
    for sample in x:
        y = sample + ours.norm1(attended_by_token(ours, sample, shift))
        expected.append(y + ours.norm2(ours.mlp(y)))
    assert torch.allclose(ours(x), torch.stack(expected), **CLOSE)


@torch.no_grad()
def test_temperatures_do_not_fall_below_a_hundredth():
    one, other = block(), block()
    one.attn.tau.fill_(0.01)
    other.attn.tau.fill_(-3.0)
    x = torch.randn(1, 32, DIM, dtype=torch.float64)
    assert torch.equal(one(x), other(x))


@torch.no_grad()
def test_without_a_shift_and_a_bias_it_is_swin_v2():
    need_packages("transformers")
    from transformers import Swinv2Config
    from transformers.models.swinv2.modeling_swinv2 import Swinv2Layer

    config = Swinv2Config(window_size=4, layer_norm_eps=1e-6)
    theirs = Swinv2Layer(config, DIM, (8, 4), HEADS).double().eval()
    ours = block()
    # Theirs is 16 * sigmoid(0) for all pairs: the same everywhere, so nothing.
    theirs.attention.self.continuous_position_bias_mlp[2].weight.zero_()
    ours.attn.meta_mlp.fc2.weight.zero_()
    ours.attn.meta_mlp.fc2.bias.zero_()
    ours.attn.qkv.bias[DIM : 2 * DIM] = 0  # theirs has no bias of the keys
    ours.attn.tau.copy_(torch.tensor([0.5, 1.0, 0.02]))
    theirs.attention.self.logit_scale.copy_(-ours.attn.tau.log().view(-1, 1, 1))
    weights, biases = ours.attn.qkv.weight.chunk(3), ours.attn.qkv.bias.chunk(3)
    for i, name in enumerate(("query", "key", "value")):
        layer = getattr(theirs.attention.self, name)
        layer.weight.copy_(weights[i])
        if layer.bias is not None:
            layer.bias.copy_(biases[i])
    for mine, other in (
        (ours.attn.proj, theirs.attention.output.dense),
        (ours.norm1, theirs.layernorm_before),
        (ours.norm2, theirs.layernorm_after),
        (ours.mlp.fc1, theirs.intermediate.dense),
        (ours.mlp.fc2, theirs.output.dense),
    ):
        other.load_state_dict(mine.state_dict())
    x = torch.randn(2, 32, DIM, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x, (8, 4))[0], **CLOSE)


@torch.no_grad()
def test_audiomaes_decoder_is_the_slow_one():
    """The whole of it: class token left out, mask tokens in the grid's order, blocks in turns."""
    model = shaken(small("audiomae")).double()
    x, masks = input_and_masks(model)
    x = x.double()
    latent, decoder = model.forward_encoder(x, masks), model.decoder
    assert [b.shift for b in decoder.blocks] == [0, 2]
    for i in range(len(x)):
        tokens = [decoder.mask_token + p for p in decoder.pos_embed[1:]]
        for place, token in zip(masks.ids_keep[i].tolist(), latent[i, 1:], strict=True):
            tokens[place] = linear(decoder.embed, token) + decoder.pos_embed[1 + place]
        tokens = torch.stack(tokens).unsqueeze(0)
        for b in decoder.blocks:
            tokens = b(tokens)
        expected = decoder.pred(decoder.norm(tokens[0]))[masks.masked[i]]
        assert torch.allclose(model.forward_decoder(latent, masks)[i], expected, **CLOSE)


def test_the_position_bias_drops_out_in_training_only():
    bias = PositionBias((4, 4), HEADS)
    torch.manual_seed(1)
    assert not torch.equal(bias.train()(), bias())
    assert torch.equal(bias.eval()(), bias())
    assert bias().shape == (HEADS, 16, 16)
    assert torch.equal(bias.distance[0, 5], -bias.distance[5, 0])
    assert bias.distance[0, 15].tolist() == pytest.approx([-math.log(4)] * 2)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="window must divide the grid's H of 6 patches, got 4"):
        block((6, 4))

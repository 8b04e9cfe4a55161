"""Fusion of token streams: what a block of each form attends to, and how much work that is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smnm_kernels.train.models.fusion import Fusion, FusionSettings
from smnm_kernels.train.models.settings import EncoderSettings

DIM, KINDS = 16, ("bottleneck", "concat", "late")


def encoder(dim: int = DIM, class_token: bool = False) -> EncoderSettings:
    return EncoderSettings(
        (1, 4, 4), dim, depth=1, heads=2, positions="axes", class_token=class_token, key_bias=True
    )


def built(kind: str, tokens: int = 3, blocks: int = 2, seed: int = 0) -> Fusion:
    torch.manual_seed(seed)
    settings = FusionSettings(kind, tokens, blocks)
    fusion = Fusion(settings, {"video": encoder(), "audio": encoder()})
    for parameter in fusion.parameters():  # biases, too
        torch.nn.init.normal_(parameter, std=0.3)
    return fusion.double()


def streams(video: int = 5, audio: int = 4, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = {"generator": generator, "dtype": torch.float64}
    return {
        "video": torch.randn(batch, video, DIM, **draw),
        "audio": torch.randn(batch, audio, DIM, **draw),
    }


def block_by_hand(block: torch.nn.Module, queries: Tensor, keys: Tensor) -> Tensor:
    """One sample's tokens [q, dim] attending to [k, dim], head by head, token by token."""
    d = DIM // block.attn.heads
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    outcome = []
    for x in queries:
        heads = []
        for head in range(block.attn.heads):
            rows = slice(head * d, (head + 1) * d)
            wq, wk, wv = (part[rows] for part in weight.view(3, DIM, DIM))
            bq, bk, bv = (part[rows] for part in bias.view(3, DIM))
            q = wq @ block.norm1(x) + bq
            scores = torch.stack([q @ (wk @ block.norm1(y) + bk) for y in keys]) / d**0.5
            values = torch.stack([wv @ block.norm1(y) + bv for y in keys])
            heads.append(scores.softmax(0) @ values)
        x = x + block.attn.proj(torch.cat(heads))
        outcome.append(x + block.mlp(block.norm2(x)))
    return torch.stack(outcome)


def fused_by_hand(fusion: Fusion, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, for one sample."""
    kind, bottleneck = fusion.settings.kind, fusion.bottleneck
    for number in range(fusion.settings.blocks):
        v_block, a_block = fusion.blocks["video"][number], fusion.blocks["audio"][number]
        if kind == "bottleneck":
            v_in, a_in = torch.cat([video, bottleneck]), torch.cat([audio, bottleneck])
            v_out, a_out = block_by_hand(v_block, v_in, v_in), block_by_hand(a_block, a_in, a_in)
            video, audio = v_out[: len(video)], a_out[: len(audio)]
            bottleneck = (v_out[len(video) :] + a_out[len(audio) :]) / 2
            continue
        together = torch.cat([video, audio])
        video, audio = (
            block_by_hand(v_block, video, together if kind == "concat" else video),
            block_by_hand(a_block, audio, together if kind == "concat" else audio),
        )
    return video, audio


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_the_definition(kind: str) -> None:
    fusion, given = built(kind), streams()
    out = fusion(given)
    for row in range(2):
        video, audio = fused_by_hand(fusion, given["video"][row], given["audio"][row])
        torch.testing.assert_close(out["video"][row], video, rtol=0, atol=1e-12)
        torch.testing.assert_close(out["audio"][row], audio, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_not_seen_are_as_if_they_were_not_there(kind: str) -> None:
    fusion, given = built(kind), streams()
    seen = torch.tensor([[True, True, False, False], [True, False, True, True]])
    out = fusion(given, {"audio": seen})
    for row in range(2):
        audio = given["audio"][row][seen[row]]
        alone = fusion({"video": given["video"][row : row + 1], "audio": audio[None]})
        torch.testing.assert_close(out["video"][row], alone["video"][0])
        torch.testing.assert_close(out["audio"][row][seen[row]], alone["audio"][0])


def attention_work(monkeypatch: pytest.MonkeyPatch, kind: str, video: int, audio: int) -> int:
    """Pairs of a query and a key that all of a fusion's attention compares, counted."""
    pairs, attention = 0, functional.scaled_dot_product_attention

    def counting(q: Tensor, k: Tensor, v: Tensor, **rest: object) -> Tensor:
        nonlocal pairs
        pairs += q.shape[-2] * k.shape[-2]
        return attention(q, k, v, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(functional, "scaled_dot_product_attention", counting)
        built(kind)(streams(video, audio))
    return pairs


@pytest.mark.parametrize(("video", "audio"), [(5, 4), (40, 8), (200, 100)])
def test_attention_grows_as_it_is_said_to(
    monkeypatch: pytest.MonkeyPatch, video: int, audio: int
) -> None:
    tokens, blocks = 3, 2
    assert attention_work(monkeypatch, "bottleneck", video, audio) == blocks * (
        (video + tokens) ** 2 + (audio + tokens) ** 2
    )
    assert attention_work(monkeypatch, "concat", video, audio) == blocks * (video + audio) ** 2
    assert attention_work(monkeypatch, "late", video, audio) == blocks * (video**2 + audio**2)


def test_all_that_passes_between_the_streams_goes_through_the_bottleneck() -> None:
    """What one block's bottleneck tokens hold of the video reaches the audio with the next."""
    given = streams()
    other = given | {"video": given["video"] + 1}
    for blocks, reaches in ((1, False), (2, True)):
        fusion = built("bottleneck", blocks=blocks)
        assert reaches != torch.equal(fusion(given)["audio"], fusion(other)["audio"])
    late = built("late")
    assert torch.equal(late(given)["audio"], late(other)["audio"])
    concat = built("concat", blocks=1)
    assert not torch.equal(concat(given)["audio"], concat(other)["audio"])


@pytest.mark.parametrize("kind", KINDS)
def test_one_stream_alone_goes_through_its_blocks(kind: str) -> None:
    fusion, given = built(kind), streams()
    out = fusion({"audio": given["audio"]})
    assert list(out) == ["audio"]
    assert out["audio"].shape == given["audio"].shape
    if kind != "bottleneck":
        x = given["audio"]
        for block in fusion.blocks["audio"]:
            x = block(x)
        torch.testing.assert_close(out["audio"], x)


def test_the_bottleneck_starts_as_it_is_said_to() -> None:
    torch.manual_seed(0)
    wide = {"video": encoder(1024), "audio": encoder(1024)}
    start = Fusion(FusionSettings(tokens=64, blocks=1), wide).bottleneck
    assert start is not None
    assert start.shape == (64, 1024)
    assert abs(start.mean().item()) < 4 * 0.02 / start.numel() ** 0.5
    assert abs(start.std().item() / 0.02 - 1) < 4 / (2 * start.numel()) ** 0.5
    assert Fusion(FusionSettings("concat", blocks=1), wide).bottleneck is None


def test_activations_that_are_computed_again_change_no_gradient() -> None:
    for kind in KINDS:
        gradients = []
        for again in (False, True):
            fusion = built(kind)
            fusion.checkpoint_activations = again
            sum(x.square().sum() for x in fusion(streams()).values()).backward()
            gradients.append([p.grad for p in fusion.parameters()])
        torch.testing.assert_close(*gradients)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of bottleneck, concat, late, got 'sum'"):
        FusionSettings("sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        FusionSettings(tokens=0)
    with pytest.raises(ValueError, match="blocks must be at least 1, got 0"):
        FusionSettings(blocks=0)
    with pytest.raises(ValueError, match="same dim, got video 16, audio 32"):
        Fusion(FusionSettings(), {"video": encoder(16), "audio": encoder(32)})

"""AVT's losses against slow definitions, and what a loss of weight 0 leaves undone."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from avt_models import SIZES, fused_settings
from torch import Tensor, nn

from smnm_kernels import MaskSampler, activity_segments
from smnm_kernels.train.data.padding import with_quiet_padding
from smnm_kernels.train.models.avt_encoder import FusedEncoder
from smnm_kernels.train.models.avt_learner import (
    TEMPERATURE,
    AvtLearner,
    LossWeights,
    Parts,
    avt_losses,
    hard_negatives,
    joined,
    pair_chances,
    segment_shares,
    weighted,
)
from smnm_kernels.train.models.objective import Facts

BATCH, PATCH = 4, (1, 16, 16)
ALL_LOSSES, NO_LOSS = LossWeights(), LossWeights(0, 0, 0)


def learner(
    weights: LossWeights = ALL_LOSSES,
    kind: str = "bottleneck",
    blocks: int = 2,
    classifies: bool = False,
) -> AvtLearner:
    torch.manual_seed(0)
    model = AvtLearner(FusedEncoder(fused_settings(kind, blocks), SIZES), weights, classifies)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    return model


def samples(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = {n: torch.randn(BATCH, *size, generator=generator) for n, size in SIZES.items()}
    sound = 0.1 * x["audio"] - 2
    for row in range(BATCH):  # two sounds each, of other lengths
        sound[row, :, :, 8 + 8 * row : 40 + 8 * row] += 3
        sound[row, :, :, 88:104] += 3
    return {"video": x["video"].to(dtype), "audio": sound.to(dtype)}


def masks_of(x: dict[str, Tensor], ratio: float = 0.4):
    sampler = MaskSampler("activity", (1, 8, 2), ratio, seed=5)
    return sampler.masks(torch.arange(BATCH), x["audio"])


def chances(seed: int = 7, files: Tensor | None = None) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return pair_chances(ALL_LOSSES, torch.empty(BATCH), files)


def losses(
    model: AvtLearner,
    x: dict[str, Tensor],
    fused: bool = False,
    seed: int = 7,
    files: Tensor | None = None,
):
    masks = masks_of(x)
    parts = model(x, {}, masks, fused, chances(seed, files))
    facts = Facts(files)
    return parts, avt_losses(parts, model.weights, PATCH, x["audio"], masks, None, facts)


# Those that samples are made of: of their own; one twice, and one in common with all others.
FILES = [
    None,
    torch.tensor([[3], [1], [3], [0]]),
    torch.tensor([[0, 1], [2, 1], [3, 0], [4, 0]]),
]


def may_be_compared(files: Tensor | None, i: int, j: int) -> bool:
    return i != j if files is None else not set(files[i].tolist()) & set(files[j].tolist())


@pytest.mark.parametrize("files", FILES)
def test_contrast_is_of_the_means_before_fusion(files: Tensor | None) -> None:
    model, x = learner(), samples()
    means = {n: model.encoder.branch(n)(x[n]).mean(1) for n in SIZES}  # leaves class tokens out
    logits = torch.zeros(BATCH, BATCH)
    for i, j in itertools.product(range(BATCH), repeat=2):
        v, a = means["video"][i], means["audio"][j]
        logits[i, j] = v @ a / (v.norm() * a.norm()) / TEMPERATURE
    by_hand = 0.0
    for i in range(BATCH):
        among = [j for j in range(BATCH) if j == i or may_be_compared(files, i, j)]
        for row in (logits[i], logits[:, i]):
            by_hand += (row[among].exp().sum().log() - row[i]) / BATCH
    torch.testing.assert_close(losses(model, x, files=files)[1]["contrast"], by_hand / 2)


@pytest.mark.parametrize(
    ("kind", "files"),
    [("bottleneck", None), ("concat", None), ("late", None), *(("concat", f) for f in FILES[1:])],
)
def test_matching_judges_each_pair_by_itself(kind: str, files: Tensor | None) -> None:
    model, x = learner(kind=kind), samples()
    parts, found = losses(model, x, files=files)
    other = hard_negatives(parts.video, parts.audio, chances(files=files)).tolist()
    terms = []
    for i in range(BATCH):
        if not any(may_be_compared(files, i, j) for j in range(BATCH)):
            terms += [0.0, 0.0]
            continue
        assert may_be_compared(files, i, other[i])
        for j, own in ((i, 1.0), (other[i], 0.0)):
            pair = {"video": x["video"][i : i + 1], "audio": x["audio"][j : j + 1]}
            logit = model.matching(joined(model.encoder(pair)).mean(1)).item()
            p = 1 / (1 + math.exp(-logit))
            terms.append(-math.log(p if own else 1 - p))
    assert found["matching"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_negatives_are_never_the_own_sound_and_the_nearer_the_likelier() -> None:
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(3, 4, generator=generator)
    audio = video + 0.9 * torch.randn(3, 4, generator=generator)
    cosines = nn.functional.cosine_similarity(video[:, None], audio[None], dim=2)
    weights = (cosines / TEMPERATURE / 20).exp()  # some chance for all of them
    torch.manual_seed(0)
    draws = 3000
    counts = torch.zeros(3, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smnm_kernels.train.models.avt_learner.TEMPERATURE", 20 * TEMPERATURE)
        for _ in range(draws):
            chance = pair_chances(ALL_LOSSES, video)
            counts[torch.arange(3), hard_negatives(video, audio, chance)] += 1
    assert counts.diagonal().sum() == 0
    for i in range(3):
        others = [j for j in range(3) if j != i]
        share = weights[i, others[0]] / weights[i, others].sum()
        assert abs(counts[i, others[0]] / draws - share) < 4 * (share * (1 - share) / draws) ** 0.5


def test_the_model_draws_nothing_itself() -> None:
    """A compiled one would draw other numbers."""
    model, x = learner(), samples()
    before = torch.random.get_rng_state()
    losses(model, x)
    assert torch.equal(before, torch.random.get_rng_state())
    assert model(x, {}, masks_of(x)).matching is None  # nobody gave it any
    torch.manual_seed(3)
    drawn = pair_chances(ALL_LOSSES, x["audio"])
    torch.manual_seed(3)
    others = ~torch.eye(BATCH, dtype=torch.bool)
    torch.testing.assert_close(
        drawn[others].double(), -(-torch.rand(BATCH, BATCH).double().log()).log()[others]
    )
    assert (drawn[~others] == -math.inf).all()
    assert pair_chances(NO_LOSS, x["audio"]) is None


def test_negatives_exist_whatever_the_similarities_are() -> None:
    for scale in (0.0, 1e-30, 1e30):
        x = scale * torch.ones(2, 8)
        assert hard_negatives(x, x, pair_chances(ALL_LOSSES, x)).tolist() == [1, 0]


def shares_by_hand(x: Tensor, masks, valid: Tensor | None) -> Tensor:
    rows = activity_segments(x, PATCH, valid=valid)
    found = torch.zeros(masks.ids_masked.shape)
    for i, ids in enumerate(masks.ids_masked.tolist()):
        there = [valid is None or bool(valid[i, token]) for token in ids]
        of = [int(rows[i, token // 2]) for token in ids]
        sizes = {k: sum(t and o == k for t, o in zip(there, of, strict=True)) for k in of if k}
        largest = max(sizes.values(), default=0)
        best = min((k for k, size in sizes.items() if size == largest), default=0)
        picked = [t and (o == best or not largest) for t, o in zip(there, of, strict=True)]
        found[i] = torch.tensor([p / max(1, sum(picked)) for p in picked])
    return found


@pytest.mark.parametrize(("ratio", "padded"), [(0.4, False), (0.4, True), (0.8, False)])
def test_one_segment_counts(ratio: float, padded: bool) -> None:
    x = samples()
    x["audio"][1] = -2.0  # nothing to be found
    valid = None
    if padded:
        valid = torch.ones(BATCH, 16, dtype=torch.bool)
        valid[2, 10:] = False
    sampler = MaskSampler("activity", (1, 8, 2), ratio, seed=5)
    masks = sampler.masks(torch.arange(BATCH), x["audio"], valid)
    shares = segment_shares(x["audio"], PATCH, masks, valid)
    torch.testing.assert_close(shares, shares_by_hand(x["audio"], masks, valid))
    torch.testing.assert_close(shares.sum(1), torch.ones(BATCH))
    assert (shares[0] == 0).any()  # of two segments, one
    if padded:
        assert not shares[2][masks.ids_masked[2] >= 10].any()


def test_the_segment_is_restored_from_what_is_shown_of_it() -> None:
    model, x = learner(), samples()
    parts, found = losses(model, x)
    masks, encoder = masks_of(x), model.encoder
    audio = encoder.branch("audio")
    patches, shares = audio.patchify(x["audio"]), shares_by_hand(x["audio"], masks, None)
    total = 0.0
    for i in range(BATCH):
        one = x["audio"][i : i + 1]
        tokens = torch.empty(1, 16, 16)  # all of the sound's, in the grid's order
        tokens[:, masks.ids_keep[i]] = encoder.own("audio", one, ids=masks.ids_keep[i : i + 1])
        hidden = masks.ids_masked[i]
        tokens[0, hidden] = model.mask_token + audio.pos_embed[1:][hidden]
        video = encoder.own("video", x["video"][i : i + 1])
        fused = encoder.norm(encoder.fusion({"video": video, "audio": tokens})["audio"])
        for place, token in enumerate(hidden.tolist()):
            error = (model.restored(fused[0, token]) - patches[i, token]).square().mean()
            total += shares[i, place] * error / BATCH
    torch.testing.assert_close(found["segment"], total)
    # A masked value enters nothing but its own target.
    changed = x["audio"].clone()
    grid = ~masks.visible.view(BATCH, 8, 2).repeat_interleave(16, 1).repeat_interleave(16, 2)
    changed[:, 0, 0][grid] += 1
    again = model(x | {"audio": changed}, {}, masks).restored
    assert torch.equal(parts.restored, again)


def test_each_loss_is_what_it_would_be_alone() -> None:
    x, whole = samples(), losses(learner(), samples())[1]
    for name, weight in {"contrast": 0.5, "matching": 0.1, "segment": 0.01}.items():
        weights = replace(NO_LOSS, **{name: weight})
        model = learner(weights)
        model.load_state_dict(
            {k: v for k, v in learner().state_dict().items() if k in model.state_dict()}
        )
        parts, found = losses(model, x)
        assert list(found) == [name]
        torch.testing.assert_close(found[name], whole[name])
        torch.testing.assert_close(weighted(found, weights), weight * whole[name])
        assert (parts.matching is None) == (name != "matching")
        assert (parts.restored is None) == (name != "segment")
    total = weighted(whole, LossWeights())
    by_hand = 0.5 * whole["contrast"] + 0.1 * whole["matching"] + 0.01 * whole["segment"]
    torch.testing.assert_close(total, by_hand)


def test_nothing_is_computed_for_a_loss_of_weight_0(monkeypatch: pytest.MonkeyPatch) -> None:
    work = {}
    attention = nn.functional.scaled_dot_product_attention
    for name, weights, fused in (
        ("contrast", replace(NO_LOSS, contrast=1), False),
        ("classes", NO_LOSS, True),
        ("matching", replace(NO_LOSS, matching=1), True),
        ("segment", replace(NO_LOSS, segment=1), False),
    ):
        rows: list[int] = []

        def counting(q: Tensor, *rest: object, rows: list[int] = rows, **more: object) -> Tensor:
            rows.append(len(q))
            return attention(q, *rest, **more)

        model = learner(weights, classifies=fused)
        with monkeypatch.context() as patch:
            patch.setattr(nn.functional, "scaled_dot_product_attention", counting)
            x = samples()
            model(x, {}, masks_of(x), fused, chances())
        work[name] = rows
    encoders = [BATCH, BATCH]  # one block each
    assert work["contrast"] == encoders
    assert work["classes"] == encoders + 4 * [BATCH]
    assert work["segment"] == encoders + 4 * [BATCH]  # the sound's is of what masks show
    assert work["matching"] == encoders + 4 * [2 * BATCH]


WEIGHTS = [LossWeights(*w) for w in itertools.product((0, 1), repeat=3)]


@pytest.mark.parametrize("kind", ["bottleneck", "concat", "late"])
def test_whatever_is_trained_gets_a_gradient(kind: str) -> None:
    for weights, blocks, classifies in itertools.product(WEIGHTS, (1, 2), (False, True)):
        deaf = kind == "late" or (kind == "bottleneck" and blocks == 1)
        read = classifies or weights.contrast or weights.matching
        if not read and (deaf or not weights.segment):
            with pytest.raises(ValueError, match=r"must not all be 0|nothing of the video"):
                learner(weights, kind, blocks, classifies)
            continue
        model = learner(weights, kind, blocks, classifies)
        parts, found = losses(model, samples(), fused=classifies)
        loss = sum(found.values())
        if classifies:
            loss = loss + parts.tokens.square().sum()
        loss.backward()
        trained = {n: p.grad is not None for n, p in model.named_parameters() if p.requires_grad}
        assert all(trained.values()), (weights, blocks, classifies, trained)


def test_padding_changes_nothing() -> None:
    model, x = learner(), samples()
    seen = torch.ones(BATCH, 16, dtype=torch.bool)
    seen[1, 8:] = False
    masks = MaskSampler("activity", (1, 8, 2), n_keep=5, seed=5).masks(
        torch.arange(BATCH), x["audio"], seen
    )
    found = []
    for value in (0.0, 4.0):
        sound = x["audio"].clone()
        sound[1, :, :, 64:] = value
        parts = model(x | {"audio": sound}, {"audio": seen}, masks, True, chances())
        kept = [parts.video, parts.audio, parts.matching, parts.tokens[parts.seen]]
        of_losses = avt_losses(parts, model.weights, PATCH, sound, masks, seen)
        found.append([*kept, *of_losses.values()])
    torch.testing.assert_close(*found)


def test_segments_are_found_beside_quiet_padding() -> None:
    """As masks find them. Padding is louder than the sound, and begins within a patch."""
    model, x = learner(replace(NO_LOSS, segment=1)), samples()
    sound = torch.full_like(x["audio"], -1.2)
    sound[:, :, :, 16:48] = -1
    sound[:, :, :, 100:] = 0.47
    valid = torch.arange(16).repeat(BATCH, 1) < 14
    real = torch.tensor([[1, 100, 32]] * BATCH)
    quiet = with_quiet_padding(sound, real)
    sampler = MaskSampler("activity", (1, 8, 2), n_keep=2, seed=5)
    masks = sampler.masks(torch.arange(BATCH), quiet, valid)
    inputs = x | {"audio": sound}
    parts = model(inputs, {"audio": valid}, masks)
    facts = Facts(real={"audio": real})
    found = avt_losses(parts, model.weights, PATCH, sound, masks, valid, facts)
    shares = shares_by_hand(quiet, masks, valid)
    assert not torch.equal(shares, shares_by_hand(sound, masks, valid))
    target = model.encoder.branch("audio").patchify(sound)
    by_hand = 0.0
    for i, ids in enumerate(masks.ids_masked.tolist()):
        for place, token in enumerate(ids):
            error = (parts.restored[i, place] - target[i, token]).square().mean()
            by_hand += shares[i, place] * error / BATCH
    torch.testing.assert_close(found["segment"], by_hand)
    # What a picture shows is what was learnt: padding is heard in neither.
    restored = model.restore(inputs, {"audio": valid}, masks)
    patches = model.encoder.branch("audio").patchify(restored)
    torch.testing.assert_close(
        patches.gather(1, masks.ids_masked[..., None].expand_as(parts.restored)), parts.restored
    )


def test_gradients_in_float64() -> None:
    model, x = learner(blocks=1).double(), samples(torch.float64)
    masks = masks_of(x)
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((BATCH, 8), (BATCH, 8), (2 * BATCH,), (BATCH, masks.ids_masked.shape[1], 256))
    ]

    def total(*of: Tensor) -> Tensor:
        parts = Parts(*of, None, None)
        found = avt_losses(parts, model.weights, PATCH, x["audio"], masks, None)
        return weighted(found, model.weights)

    assert torch.autograd.gradcheck(total, given, fast_mode=True)
    # And through the model, by a step in a random direction of all its weights.
    weights = list(model.parameters())
    along = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in weights]

    def loss() -> Tensor:
        return weighted(losses(model, x)[1], model.weights)

    slope = sum(
        (g * d).sum() for g, d in zip(torch.autograd.grad(loss(), weights), along, strict=True)
    )
    ends = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for p, d in zip(weights, along, strict=True):
                p += step * d
            ends.append(loss())
    assert ((ends[0] - ends[1]) / 2e-6).item() == pytest.approx(slope.item(), rel=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_losses_are_finite_at_extremes(scale: float) -> None:
    given = [scale * torch.ones(BATCH, 8), -scale * torch.ones(BATCH, 8), scale * torch.ones(8)]
    given = [g.requires_grad_() for g in given]
    model, x = learner(replace(LossWeights(), segment=0)), samples()
    parts = Parts(*given, None, None, None)
    found = avt_losses(parts, model.weights, PATCH, x["audio"], None, None)
    total = weighted(found, model.weights)
    total.backward()
    assert total.isfinite()
    assert all(g.grad.isfinite().all() for g in given)


def test_wrong_weights_are_named() -> None:
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="the weight of matching must be a number from 0 on"):
            LossWeights(matching=wrong)

"""Scores of tokens: motion against its definition, and the groups of self-guided masking."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from testing import assert_same

import smnm_kernels as smnm

VALUES = st.one_of(
    st.floats(-3, 3, width=32), st.sampled_from([0.0, 1e30, -math.inf, math.inf, math.nan, 5e-324])
)
DATA = torch.rand(3, 2, 6, 8, 10, generator=torch.Generator().manual_seed(0))


@examples(30)
@given(data=st.data())
def test_motion_is_that_of_the_reference(data):
    t, h, w = patch = data.draw(st.tuples(*[st.integers(1, 3)] * 3))
    frames, rows, columns = (data.draw(st.integers(1, 3)) for _ in range(3))
    shape = (data.draw(st.integers(0, 2)), data.draw(st.integers(1, 2)), max(2, frames) * t)
    shape = (*shape, rows * h, columns * w)
    numbers = data.draw(st.lists(VALUES, min_size=1, max_size=12))
    clip = torch.tensor(numbers, dtype=torch.float32).repeat(math.prod(shape) + 1)
    clip = clip[: math.prod(shape)].view(shape)
    assert_same(smnm.patch_motion(clip, patch), smnm.reference.patch_motion(clip, patch))


def test_only_what_moves_has_motion():
    clip = torch.zeros(1, 3, 8, 32, 32)
    for frame in range(8):
        clip[0, :, frame, 16:24, 2 * frame : 2 * frame + 8] = 1
    scores = smnm.patch_motion(clip, (2, 16, 16)).view(4, 2, 2)
    assert (scores[:, 0] == 0).all()
    assert scores[0, 1, 0] > 0
    masks = smnm.MaskSampler("motion", (4, 2, 2), 0.5)(1, clip)
    assert not masks.visible[scores.flatten()[None] > 0].any()


def test_integers_and_halves_give_what_their_floats_give():
    clip = (100 * DATA).to(torch.uint8)
    assert_same(smnm.patch_motion(clip, (2, 4, 5)), smnm.patch_motion(clip.float(), (2, 4, 5)))
    half = DATA.bfloat16()
    assert_same(smnm.patch_motion(half, (2, 4, 5)), smnm.patch_motion(half.float(), (2, 4, 5)))


def test_motion_masks_are_weighted_or_guided_masks():
    ids, scores = torch.arange(3), smnm.patch_motion(DATA, (2, 4, 5))
    top = smnm.MaskSampler("motion", (3, 2, 2), 0.5, deterministic=True, hint_ratio=0.5, seed=4)
    masks = smnm.guided_masks(ids, scores, 0.5, hint_ratio=0.5, seed=4)
    assert_same(top(3, DATA), masks)
    sampler = smnm.MaskSampler("motion", (3, 2, 2), 0.5, seed=4)
    masks = smnm.weighted_masks(ids, scores, 0.5, seed=4)
    assert_same(sampler(3, DATA), masks)
    for row in range(3):
        alone = sampler.masks(ids[row : row + 1], DATA[row : row + 1])
        assert_same(alone.visible, masks.visible[row : row + 1])


def test_motion_compiles_in_one_graph():
    sampler = smnm.MaskSampler("motion", (3, 2, 2), 0.5)
    ids = torch.arange(3)
    draw = torch.compile(sampler.masks, fullgraph=True, backend="aot_eager")
    assert_same(draw(ids, DATA), sampler.masks(ids, DATA))


@pytest.mark.parametrize(
    ("data", "patch", "message"),
    [
        (DATA[:, :, :1], (1, 4, 5), "at least two frames"),
        (DATA, (4, 4, 5), "patch must divide"),
        (DATA[0], (2, 4, 5), r"data must have shape \[B, C, T, H, W\]"),
    ],
)
def test_wrong_data(data, patch, message):
    with pytest.raises(ValueError, match=message):
        smnm.patch_motion(data, patch)


def in_loops(features):
    """float64 [N]"""
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    centred = unit - unit.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    side = centred @ vectors[:, -1] > 0
    centres = [unit[group].mean(0) for group in (side, ~side)]
    return torch.stack([unit @ centre / centre.norm() for centre in centres]).amax(0)


@pytest.mark.parametrize("wide", [False, True])
def test_scores_of_two_groups(wide):
    random = torch.Generator().manual_seed(1)
    centres = torch.tensor([[4.0, 0, 0, 1], [0, 4, 0, 1]])
    group = torch.arange(40) % 2
    features = centres[group] + 0.3 * torch.randn(5, 40, 4, generator=random)
    features[:, 7] = torch.tensor([2.0, 2.0, 0, 4])  # of neither
    if wide:  # more features than tokens
        features = torch.cat([features, torch.zeros(5, 40, 60)], dim=2)
    features.requires_grad_()
    scores = smnm.self_guided_scores(features)
    assert not scores.requires_grad
    assert (scores.argmin(1) == 7).all()
    for row in range(5):
        expected = in_loops(features[row].detach())
        torch.testing.assert_close(scores[row].double(), expected, atol=1e-5, rtol=0)
    masks = smnm.guided_masks(torch.arange(5), scores, 0.5, masked="lowest")
    assert not masks.visible[:, 7].any()


def test_tokens_that_are_no_part():
    """Scores are those of the others alone, and what stands in their place changes nothing."""
    random = torch.Generator().manual_seed(2)
    for n, dim in ((9, 4), (6, 20)):
        features = torch.randn(4, n, dim, generator=random)
        valid = torch.rand(4, n, generator=random) < 0.7
        scores = smnm.self_guided_scores(features, valid)
        features[~valid] = 100.0
        assert_same(smnm.self_guided_scores(features, valid), scores)
        for row in range(4):
            expected = in_loops(features[row][valid[row]])
            torch.testing.assert_close(
                scores[row][valid[row]].double(), expected, atol=1e-5, rtol=0
            )
        everything = torch.ones_like(valid)
        assert_same(
            smnm.self_guided_scores(features, everything), smnm.self_guided_scores(features)
        )


@pytest.mark.parametrize("freq_major", [False, True])
def test_the_kind_masks_by_scores(freq_major):
    random = torch.Generator().manual_seed(3)
    grid, ids = (2, 3, 4), torch.arange(5)
    features = torch.randn(5, 24, 7, generator=random)
    sampler = smnm.MaskSampler(
        "self_guided", grid, n_keep=6, hint_ratio=0.5, freq_major=freq_major, seed=3
    )
    masks = sampler.masks(ids, features.mT.unflatten(2, grid))
    scores = smnm.self_guided_scores(features)
    expected = smnm.guided_masks(ids, scores, n_keep=6, masked="lowest", hint_ratio=0.5, seed=3)
    assert_same(masks, expected.freq_major(grid) if freq_major else expected)


def test_features_that_are_not_finite_count_as_zero():
    features = torch.randn(2, 7, 2, 3, 4, generator=torch.Generator().manual_seed(4))
    zero = features.clone()
    for place, value in ((0, math.nan), (3, math.inf), (5, -math.inf)):
        features[:, place, 1, 1, 1], zero[:, place, 1, 1, 1] = value, 0
    sampler = smnm.MaskSampler("self_guided", (2, 3, 4), 0.75)
    ids = torch.arange(2)
    assert_same(sampler.masks(ids, features), sampler.masks(ids, zero))


def test_tokens_that_are_alike():
    assert_same(smnm.self_guided_scores(torch.ones(2, 5, 4)), torch.ones(2, 5))
    assert smnm.self_guided_scores(torch.zeros(0, 5, 4)).shape == (0, 5)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (torch.ones(2, 5, 4, dtype=torch.int64), TypeError, "features must be a floating-point"),
        (torch.full((2, 5, 4), math.nan), ValueError, "features must be finite.* in row 0"),
        (torch.ones(5, 4), ValueError, r"features must have shape \[B, N, D\], got \[5, 4\]"),
    ],
)
def test_wrong_features(features, error, message):
    with pytest.raises(error, match=message):
        smnm.self_guided_scores(features)


@pytest.mark.parametrize(
    ("valid", "error", "message"),
    [
        (torch.ones(2, 5), TypeError, r"valid must be a bool tensor \[B, N\], got torch.float32"),
        (torch.ones(2, 4, dtype=torch.bool), ValueError, r"shape \[2, 5\], got \[2, 4\]"),
    ],
)
def test_wrong_valid(valid, error, message):
    with pytest.raises(error, match=message):
        smnm.self_guided_scores(torch.ones(2, 5, 4), valid)

"""Models that mask in their own method: theirs, written here from their definitions, and ours."""

import copy
import pickle

import pytest
import torch
from mae_models import Mae, m2d_random_mask, sampler
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels.adapters import M2dMasking, RandomMasking


def model_with(sampler):
    model = Mae()
    model.mask_sampler = sampler
    model.random_masking = RandomMasking(model.mask_sampler)
    return model


def test_the_triple_is_of_the_same_form_and_takes_our_masks():
    x = torch.randn(3, 16, 6)
    theirs = Mae().random_masking(x, 0.75)
    ours = RandomMasking(sampler())(x, 0.75)
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in theirs]
    masks = sampler()(3)
    x_masked, removed, ids_restore = ours
    for row in range(3):
        assert_same(x_masked[row], x[row][masks.visible[row]])
    assert_same(removed, masks.masked.float())
    assert_same(ids_restore, masks.ids_restore)


def test_a_model_trains_with_it_and_the_loss_is_that_of_the_masks_by_hand():
    model, plain, masks = model_with(sampler()), Mae(), sampler()
    x = torch.randn(3, 16, 6)
    for _ in range(2):
        visible = masks(3).visible
        tokens = torch.where(visible[..., None], plain.embed(x), plain.mask_token)
        error = ((plain.predict(tokens + plain.positions) - x) ** 2).mean(dim=-1)
        torch.testing.assert_close(model(x), error[~visible].mean())


def test_the_sampler_is_part_of_the_model():
    model = model_with(sampler())
    assert {"mask_sampler.seed", "mask_sampler.next_id"} <= model.state_dict().keys()
    first = model(torch.ones(2, 16, 6))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert int(copied.mask_sampler.next_id) == 2
        copied(torch.ones(2, 16, 6))
        assert (int(copied.mask_sampler.next_id), int(model.mask_sampler.next_id)) == (4, 2)
    model.mask_sampler.reset()
    assert torch.equal(model(torch.ones(2, 16, 6)), first)


@pytest.mark.slow
def test_the_model_compiles_without_a_break():
    torch._dynamo.reset()
    eager, other = model_with(sampler()), model_with(sampler())
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        x = torch.randn(3, 16, 6)
        torch.testing.assert_close(compiled(x), eager(x))
    assert int(other.mask_sampler.next_id) == 9


def test_cav_mae_masks_audio_and_video_with_one_method():
    audio = smnm.MaskSampler("rbn", (1, 64, 8), 0.75, freq_major=True)
    video = smnm.MaskSampler("green2d", (1, 14, 14), 0.75)
    masking = RandomMasking(audio, video)
    a, v = torch.randn(2, 512, 4), torch.randn(2, 196, 4)
    for mode in ("time", "freq", "tf"):
        a_masked, mask_a, _ = masking(a, 0.75, t=64, f=8, mode=mode)
        v_masked, mask_v, _ = masking(v, 0.75)
        assert (a_masked.shape, v_masked.shape) == ((2, 128, 4), (2, 49, 4))
    assert_same(mask_a, audio.masks(torch.tensor([4, 5])).masked.float())
    assert_same(mask_v, video.masks(torch.tensor([4, 5])).masked.float())


def test_audio_mae_in_two_dimensions():
    # int(64 * 0.3) columns and int(8 * 0.7) rows stay: 19 * 5 tokens.
    masking = RandomMasking(smnm.MaskSampler("rbn", (1, 64, 8), n_keep=95))
    x_masked, removed, _ = masking.random_masking_2d(
        torch.randn(2, 512, 4), mask_t_prob=0.7, mask_f_prob=0.3
    )
    assert x_masked.shape == (2, 95, 4)
    assert removed.sum(1).tolist() == [417, 417]
    with pytest.raises(ValueError, match=r"mask_t_prob=0.6.*keep 125 of 64 x 8.*n_keep=125"):
        masking.random_masking_2d(torch.randn(2, 512, 4), 0.6, 0.3)


def test_m2d():
    made = smnm.MaskSampler("rbn", (1, 38, 5), 0.7, freq_major=True)
    shape = (2, 5, 38)
    theirs, their_count = m2d_random_mask(shape, 0.7, "cpu")
    ids_shuffle, len_keep = M2dMasking(made)(shape, 0.7, torch.device("cpu"))
    assert (ids_shuffle.shape, ids_shuffle.dtype) == (theirs.shape, theirs.dtype)
    assert len_keep == their_count == 57
    assert_same(ids_shuffle.sort(dim=1).values, torch.arange(190).expand(2, 190))
    masks = made.masks(torch.arange(2))
    assert_same(ids_shuffle[:, :57], masks.ids_keep)
    assert_same(ids_shuffle.argsort(dim=1), masks.ids_restore)
    # Frequency-major: token = mel * T + time.
    time_major = smnm.rbn_masks(torch.arange(2), (1, 38, 5), 0.7).visible.view(2, 38, 5)
    assert_same(masks.visible, time_major.transpose(1, 2).flatten(1))


X = torch.zeros(2, 16, 6)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: RandomMasking(sampler())(X[:, 1:], 0.75), ["16 tokens", "[2, 15, 6]"]),
        (lambda: RandomMasking(sampler())(X, 0.5), ["0.5", "keeps 8", "n_keep=8"]),
        (lambda: RandomMasking(sampler(), sampler()), ["samplers", "[16, 16]"]),
        (lambda: RandomMasking(), ["samplers", "[]"]),
        (lambda: RandomMasking("green2d"), ["sampler", "str"]),
        (lambda: RandomMasking(smnm.MaskSampler("dispersion", (4, 4), 0.75)), ["at the input"]),
        (lambda: RandomMasking(sampler())(X.to("meta")), ["cpu", "meta"]),
        (lambda: M2dMasking(sampler())((2, 4, 4), 0.75, "cpu"), ["(1, 4, 4)", "freq_major=True"]),
        (lambda: M2dMasking(sampler(freq_major=True))((2, 5, 4), 0.75, "cpu"), ["(1, 4, 5)"]),
        (lambda: M2dMasking(sampler(freq_major=True))((2, 4, 4), 0.5, "cpu"), ["n_keep=8"]),
    ],
)  # fmt: skip
def test_errors_name_what_came(call, parts):
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    for part in parts:
        assert part in str(raised.value)


def test_a_count_rounded_as_mae_rounds_is_allowed():
    """int(1000 * (1 - 0.9)) is 99."""
    for n_keep in (99, 100):
        masking = RandomMasking(smnm.MaskSampler("random", (1, 20, 50), n_keep=n_keep))
        assert masking(torch.zeros(1, 1000, 2), 0.9)[0].shape == (1, n_keep, 2)

"""Mixup, cutmix, soft targets and bands against their formulas."""

import math

import numpy as np
import pytest
import torch

from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_jitter import Jitter
from smnm_kernels.train.data.augment_mix import Mix, neighbours, soft_targets
from smnm_kernels.train.data.padding import TokenGrid

IDS = list(range(64))


def test_soft_targets():
    targets = soft_targets(torch.tensor([2, 0]), 4, 0.1)
    assert targets.tolist() == [
        pytest.approx([0.025, 0.025, 0.925, 0.025]),
        pytest.approx([0.925, 0.025, 0.025, 0.025]),
    ]
    assert torch.equal(soft_targets(torch.tensor([1]), 3, 0.0), torch.tensor([[0.0, 1.0, 0.0]]))


def test_neighbours_are_exchanged():
    assert neighbours(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0, 10.0])
def test_shares_are_of_the_beta_distribution(alpha):
    drawn = Mix(mixup=alpha).draw(0, list(range(8000)), 8, 8)
    share = drawn.share[::2].double().numpy()
    assert np.array_equal(drawn.share[::2], drawn.share[1::2])
    variance = 1 / (4 * (2 * alpha + 1))
    assert share.mean() == pytest.approx(0.5, abs=4 * math.sqrt(variance / len(share)))
    assert share.var() == pytest.approx(variance, rel=0.08)
    assert not drawn.boxes.any()


def test_mixup_by_its_formula():
    x, y = torch.randn(64, 3, 2, 8, 8), torch.rand(64, 5)
    mix = Mix(mixup=0.8)
    drawn = mix.draw(0, IDS, 8, 8)
    mixed, targets = mix.values(x, drawn), mix.targets(y, drawn)
    for i in range(64):
        other, share = i ^ 1, drawn.share[i]
        assert torch.allclose(mixed[i], share * x[i] + (1 - share) * x[other], atol=1e-6)
        assert torch.allclose(targets[i], share * y[i] + (1 - share) * y[other], atol=1e-6)


def test_cutmix_by_its_formula():
    x, y = torch.randn(64, 3, 2, 12, 20), torch.rand(64, 5)
    mix = Mix(cutmix=1.0)
    drawn = mix.draw(0, IDS, 12, 20)
    mixed, targets = mix.values(x, drawn), mix.targets(y, drawn)
    seen = 0
    for i in range(64):
        top, bottom, left, right = drawn.boxes[i].tolist()
        expected = x[i].clone()
        expected[:, :, top:bottom, left:right] = x[i ^ 1][:, :, top:bottom, left:right]
        assert torch.equal(mixed[i], expected)
        # The share is that of the picture that is its own, as far as the box lies in it.
        own = 1 - (bottom - top) * (right - left) / (12 * 20)
        assert drawn.share[i] == pytest.approx(own)
        assert torch.allclose(targets[i], own * y[i] + (1 - own) * y[i ^ 1], atol=1e-6)
        seen += bottom > top
    assert seen > 40


def test_boxes_have_the_sides_that_the_share_asks_for():
    # Of a box in the middle, timm's rand_bbox: sides times the root of 1 - share.
    share, box = Mix(cutmix=1.0)._of_pair(np.array([0, 0, 0.36, 0.5, 0.5]), 100, 200)
    assert box == (10, 90, 20, 180)
    assert share == pytest.approx(0.36)
    # Of one at the corner a quarter is left.
    share, box = Mix(cutmix=1.0)._of_pair(np.array([0, 0, 0.36, 0, 0]), 100, 200)
    assert box == (0, 40, 0, 80)
    assert share == pytest.approx(1 - 0.16)


def test_switch_and_probability():
    mix = Mix(mixup=0.8, cutmix=1.0, prob=0.6, switch=0.25)
    drawn = mix.draw(0, list(range(8000)), 32, 32)
    cut = (drawn.boxes[:, 1] > drawn.boxes[:, 0])[::2].double().mean().item()
    untouched = (drawn.share == 1)[::2].double().mean().item()
    assert untouched == pytest.approx(0.4, abs=0.035)  # and a few empty boxes
    assert cut == pytest.approx(0.6 * 0.25, abs=0.03)


def test_what_becomes_of_a_pair_depends_on_seed_and_ids_alone():
    mix = Mix(mixup=0.8, cutmix=1.0)
    x = torch.randn(64, 3, 1, 8, 8)
    whole = mix.values(x, mix.draw(7, IDS, 8, 8))
    for start, size in ((0, 16), (16, 2), (18, 46)):
        part = IDS[start : start + size]
        found = mix.values(x[part], mix.draw(7, part, 8, 8))
        assert torch.equal(found, whole[part])
    assert not torch.equal(whole, mix.values(x, mix.draw(8, IDS, 8, 8)))


@pytest.mark.parametrize("ids", [[0], [1, 2], [0, 2], [0, 1, 2]])
def test_half_pairs_are_refused(ids):
    with pytest.raises(ValueError, match="sample_ids must be pairs 2k, 2k"):
        Mix(mixup=1.0).draw(0, ids, 8, 8)


def test_powers_of_spectrograms_add_up():
    x = torch.randn(64, 1, 1, 16, 8)
    mix = Mix(mixup=10.0, powers=True)
    drawn = mix.draw(0, IDS, 16, 8)
    mixed = mix.values(x, drawn)
    for i in range(64):
        share = drawn.share[i].double()
        powers = share**2 * x[i].double().exp() + (1 - share) ** 2 * x[i ^ 1].double().exp()
        assert torch.allclose(mixed[i].double(), powers.log(), atol=1e-5)


def test_mixtures_are_made_of_two_files():
    ids = list(range(40))
    numbers = torch.tensor([i * i for i in ids])
    mix = Mix(mixup=0.5, prob=0.5)
    drawn = mix.draw(3, ids, 8, 8)
    for i, (own, other) in enumerate(mix.files(numbers, drawn).tolist()):
        mixed = drawn.share[i] < 1
        assert (own, other) == (i * i, (i ^ 1) ** 2 if mixed else i * i)
    assert 0 < (drawn.share < 1).sum() < 40


def test_what_is_not_mixed_stays_to_the_bit():
    x = torch.randn(64, 1, 1, 16, 8)
    mix = Mix(mixup=10.0, prob=0.5, powers=True)
    drawn = mix.draw(0, IDS, 16, 8)
    alone = drawn.share == 1
    assert 10 < alone.sum() < 54
    assert torch.equal(mix.values(x, drawn)[alone], x[alone])


def test_padding_is_silent_in_a_mixture_and_stays_padding_where_both_pad():
    x = torch.randn(2, 1, 1, 16, 8)
    real = torch.tensor([[1, 4, 8], [1, 10, 8]])
    x[0, ..., 4:, :], x[1, ..., 10:, :] = 0, 0
    mix = Mix(mixup=10.0, powers=True)
    drawn = mix.draw(0, [0, 1], 16, 8)
    mixed = mix.values(x, drawn, real)
    share = drawn.share[0]
    assert not mixed[..., 10:, :].any()
    assert torch.allclose(mixed[0, ..., 4:10, :], x[1, ..., 4:10, :] + 2 * (1 - share).log())
    assert torch.allclose(mixed[1, ..., 4:10, :], x[1, ..., 4:10, :] + 2 * share.log())
    assert mix.real(real, drawn).tolist() == [[1, 10, 8], [1, 10, 8]]


def test_masks_may_show_of_a_mixture_what_they_may_show_of_the_longer_of_the_two():
    tokens = TokenGrid((1, 128, 32), (1, 8, 2), n_keep=3)
    sides = [(1, int(n), 32) for n in np.random.default_rng(0).integers(1, 129, 64)]
    mix = Mix(mixup=10.0, prob=0.5, powers=True)
    drawn = mix.draw(0, IDS, 128, 32)
    valid = torch.stack([tokens.valid(of_one) for of_one in sides])
    longest = mix.real(torch.tensor(sides), drawn).tolist()
    expected = torch.stack([tokens.valid(tuple(of_one)) for of_one in longest])
    assert torch.equal(mix.valid(valid, drawn), expected)
    assert not torch.equal(valid, expected)


def test_power_mixing_is_close_to_that_of_waveforms():
    from smnm_kernels.train.data.spectrogram import log_mel

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(16000).astype(np.float32) * s for s in (0.1, 0.3))
    share = 0.4
    waves = log_mel(share * a + (1 - share) * b, 64)
    mels = [log_mel(w, 64).astype(np.float64) for w in (a, b)]
    powers = np.log(share**2 * np.exp(mels[0]) + (1 - share) ** 2 * np.exp(mels[1]))
    assert abs((waves - powers).mean()) < 0.05


def rolled_by_hand(x, noise, share, real):
    found = x.clone()
    for i in range(len(x)):
        n = real[i]
        shift = math.floor(np.float32(share[i]) * np.float32(n))
        found[i, 0, 0, :n] = torch.roll(x[i, 0, 0, :n] + noise[i, 0, 0, :n], shift, 0)
        found[i, 0, 0, n:] += noise[i, 0, 0, n:]
    return found


def test_jitter_adds_noise_and_rolls_what_is_real():
    jitter, x = Jitter(noise=0.1), torch.randn(64, 1, 1, 30, 7)
    noise, share = jitter.draw(3, IDS, 30, 7)
    lengths = np.random.default_rng(0).integers(1, 31, 64).tolist()
    real = torch.tensor([[1, n, 7] for n in lengths])
    assert torch.equal(jitter.values(x, noise, share), rolled_by_hand(x, noise, share, [30] * 64))
    found = jitter.values(x, noise, share, real)
    assert torch.equal(found, rolled_by_hand(x, noise, share, lengths))
    assert not torch.equal(found, jitter.values(x, noise, share))


def test_jitter_is_drawn_as_cav_mae_draws_it_for_each_sample_by_itself():
    noise, share = Jitter(noise=0.1).draw(3, range(2000), 12, 5)
    assert noise.shape == (2000, 1, 1, 12, 5)
    assert 0 <= noise.min() < noise.max() < 0.1
    largest = noise.flatten(1).amax(1) * 61 / 60  # of 60 numbers, on average
    assert largest.mean() == pytest.approx(0.05, abs=0.003)
    assert (noise.flatten(1).mean(1) / largest).mean() == pytest.approx(0.5, abs=0.01)
    assert 0 <= share.min() < share.max() < 1
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    some = Jitter(noise=0.1).draw(3, [7, 1990], 12, 5)
    assert torch.equal(some[0], noise[[7, 1990]])
    assert torch.equal(some[1], share[[7, 1990]])
    assert not torch.equal(Jitter(noise=0.1).draw(4, [7], 12, 5)[0], noise[7:8])


def test_bands():
    bands = Bands(time=20, mel=5)
    drawn = bands.draw(3, IDS, 64, 16)
    x = torch.randn(64, 1, 1, 64, 16)
    masked = bands.values(x, drawn)
    for i in range(64):
        begin, end, low, high = drawn[i].tolist()
        assert 0 <= begin <= end <= 64
        assert 0 <= low <= high <= 16
        assert end - begin < 20
        assert high - low < 5
        expected = x[i].clone()
        expected[..., begin:end, :] = 0
        expected[..., low:high] = 0
        assert torch.equal(masked[i], expected)
    assert (drawn[:, 1] - drawn[:, 0]).float().mean() == pytest.approx(9.5, abs=2.5)
    assert torch.equal(bands.draw(3, IDS[10:12], 64, 16), drawn[10:12])


def test_bands_longer_than_the_input_are_cut_to_it():
    drawn = Bands(time=400, mel=400).draw(0, IDS, 32, 8)
    assert drawn[:, 1].max() <= 32
    assert drawn[:, 3].max() <= 8

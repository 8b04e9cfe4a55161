"""Video and audio masks of the same clips, in one call: independent, or hiding the same moments."""

import math
import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples
from testing import assert_same, devices
from torch._dynamo.testing import CompileCounterWithBackend

import smnm_kernels as smnm
from smnm_kernels.samplers.audio_video import _AUDIO_SEED, _MOMENTS_SEED

VIDEO = {"kind": "green3d", "grid": (8, 6, 5), "mask_ratio": 0.8}
AUDIO = {"kind": "rbn", "grid": (1, 32, 4), "mask_ratio": 0.75}


def flat(masks):
    return [*masks.video, *masks.audio]


def moments_shown(masks, n, audio_grid=(1, 32, 4), freq_major=False):
    """bool [B, n] for each modality: does a moment show any token?"""
    audio = masks.audio.visible
    if freq_major:
        _, height, width = audio_grid
        audio = audio.unflatten(1, (width, height)).transpose(1, 2).flatten(1)
    return [m.unflatten(1, (n, -1)).any(dim=2) for m in (masks.video.visible, audio)]


def test_independent_masks_are_those_of_two_samplers():
    both = smnm.AudioVideoSampler(VIDEO, AUDIO, seed=3)
    video = smnm.MaskSampler(**VIDEO, seed=3)
    for _ in range(3):
        masks = both(4)
        assert_same(masks.video, video(4))
    # Audio and video of equal grids do not show the same places.
    same = {"kind": "green3d", "grid": (1, 16, 16), "mask_ratio": 0.5}
    masks = smnm.AudioVideoSampler(same, same)(64)
    together = (masks.video.visible & masks.audio.visible).float().mean()
    assert abs(together - 0.25) < 0.02


@given(
    frames=st.sampled_from([2, 4, 8, 6]),
    per_frame=st.integers(1, 3),
    hidden=st.sampled_from([0.1, 0.25, 0.5, 0.7]),
    kinds=st.sampled_from([("green3d", "rbn"), ("random", "rbn"), ("red3d", "blue3d")]),
    freq_major=st.booleans(),
    seed=st.integers(-5, 5),
)
@examples(40)
def test_the_same_moments_are_hidden_and_the_counts_stay_exact(
    frames, per_frame, hidden, kinds, freq_major, seed
):
    shown = math.floor(round(frames * (1 - hidden), 6))
    assume(shown > 0)
    video = {"kind": kinds[0], "grid": (frames, 5, 4), "n_keep": frames * 2}
    rows = frames * per_frame
    audio = {"kind": kinds[1], "grid": (1, rows, 6), "n_keep": rows, "freq_major": freq_major}
    sampler = smnm.AudioVideoSampler(video, audio, hidden_time=hidden, seed=seed)
    masks = sampler(5)
    video_shown, audio_shown = moments_shown(masks, frames, (1, rows, 6), freq_major)
    # A moment that is not hidden may happen to show nothing; none shows where it must not.
    assert (video_shown | audio_shown).sum(1).max() <= shown
    assert masks.video.visible.sum(1).tolist() == [frames * 2] * 5
    assert masks.audio.visible.sum(1).tolist() == [rows] * 5
    for part, n_keep in ((masks.video, frames * 2), (masks.audio, rows)):
        assert_same(part, smnm.Masks.from_visible(part.visible, n_keep))


def by_hand(sample_id, seed):
    """The definition, in loops over the reference: video and audio, bool, of hidden_time=0.5."""
    ids, reference = torch.tensor([sample_id]), smnm.reference
    shown = reference.noise_masks(ids, (1, 1, 8), "red", n_keep=4, seed=seed ^ _MOMENTS_SEED)
    moments = shown.ids_keep[0].tolist()
    noise = reference.noise(ids, (8, 6, 5), "green", seed=seed)[0]
    largest = sorted(
        (-noise[t, y, x].item(), (t * 6 + y) * 5 + x)
        for t in moments
        for y in range(6)
        for x in range(5)
    )
    video = torch.zeros(240, dtype=torch.bool)
    video[[token for _, token in largest[:48]]] = True
    left = reference.rbn_masks(ids, (1, 16, 4), n_keep=32, seed=seed ^ _AUDIO_SEED).visible
    audio = torch.zeros(32, 4, dtype=torch.bool)
    for i, moment in enumerate(moments):
        audio[4 * moment : 4 * moment + 4] = left.view(16, 4)[4 * i : 4 * i + 4]
    return video, audio.flatten()


@given(first=st.integers(-(2**62), 2**62), seed=st.integers(-(2**63), 2**63 - 1))
@examples(15)
def test_hidden_moments_by_hand(first, seed):
    sampler = smnm.AudioVideoSampler(VIDEO, AUDIO, hidden_time=0.5, seed=seed)
    masks = sampler.masks(torch.arange(first, first + 3))
    for row in range(3):
        video, audio = by_hand(first + row, seed)
        assert_same(masks.video.visible[row], video)
        assert_same(masks.audio.visible[row], audio)


def test_every_moment_is_hidden_as_often_and_hidden_ones_hang_together():
    masks = smnm.AudioVideoSampler(VIDEO, AUDIO, hidden_time=0.5)(4000)
    video_shown, audio_shown = moments_shown(masks, 8)
    shown = video_shown | audio_shown
    assert shown.sum(1).tolist() == [4] * 4000
    assert torch.allclose(shown.float().mean(0), torch.tensor(0.5), atol=0.04)
    changes = (shown[:, 1:] != shown[:, :-1]).float().mean()
    assert changes < 0.5  # 4/7 where the moments are independent


def test_a_row_of_a_batch_is_its_ids():
    sampler = smnm.AudioVideoSampler(VIDEO, AUDIO, hidden_time=0.5, seed=2**62)
    whole = sampler(7)
    ids = torch.tensor([5, 0, 6])
    assert_same(flat(sampler.masks(ids)), [form[ids] for form in flat(whole)])
    again = pickle.loads(pickle.dumps(sampler))
    assert_same(flat(again(2)), flat(sampler.masks(torch.tensor([7, 8]))))
    assert set(sampler.state_dict()) == {"seed", "next_id"}


def test_without_a_hidden_moment_video_is_as_ever():
    """Hiding moments only takes places away: what is visible without is visible with, where there
    is room."""
    plain = smnm.AudioVideoSampler(VIDEO, AUDIO, seed=1)(16)
    hiding = smnm.AudioVideoSampler(VIDEO, AUDIO, hidden_time=0.25, seed=1)(16)
    shown = moments_shown(hiding, 8)[0].repeat_interleave(30, dim=1)
    assert (hiding.video.visible | ~(plain.video.visible & shown)).all()


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("hidden_time", [None, 0.5])
def test_devices_and_compiled_code_agree(device, hidden_time):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    eager, other = (
        smnm.AudioVideoSampler(VIDEO, AUDIO, hidden_time=hidden_time, seed=4) for _ in range(2)
    )
    compiled = torch.compile(other.to(device), fullgraph=True, backend=counter)
    for _ in range(20):
        assert_same(flat(compiled(3)), flat(eager(3)))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("video", "audio", "hidden_time", "parts"),
    [
        ({"grid": (1, 6, 5)}, {}, 0.5, ["common", "1 video", "32 audio"]),
        ({"kind": "tube"}, {}, 0.5, ["repeats one mask", "'tube'"]),
        ({}, {"kind": "inverse_block"}, 0.5, ["noise or R-BN", "'inverse_block'"]),
        ({}, {}, 1.0, ["hidden_time", "1.0", "(0, 1)"]),
        ({}, {}, 0, ["hidden_time", "leaves 8"]),
        ({}, {}, 0.95, ["hidden_time", "0.95"]),
        ({}, {}, 0.85, ["video shows 48", "have 30"]),
        ({"mask_ratio": 0.95}, {"mask_ratio": 0.5}, 0.6, ["audio shows 64", "have 48"]),
        ({"kind": "grene"}, {}, None, ["video: kind", "grene"]),
        ({}, {"seed": 3}, None, ["audio takes no seed"]),
        ({}, {"kind": "green3d", "grid": (2, 16, 4)}, None, ["audio grid", "(1, T, F)"]),
        ("green3d", {}, None, ["video must be a dict", "str"]),
    ],
)  # fmt: skip
def test_errors_name_what_came(video, audio, hidden_time, parts):
    video = {**VIDEO, **video} if isinstance(video, dict) else video
    with pytest.raises((ValueError, TypeError)) as raised:
        smnm.AudioVideoSampler(video, {**AUDIO, **audio}, hidden_time=hidden_time)
    for part in parts:
        assert part in str(raised.value)

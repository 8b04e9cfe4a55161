"""Activity masks: the definition, what is masked of sounds with known places, and counts."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import IDS, SEEDS, examples
from testing import assert_same, devices, need_packages

import smnm_kernels as smnm
from smnm_kernels.kinds import activity
from smnm_kernels.tables.constants import MAX_FRAME, MAX_SMOOTHING, NOISE_FACTOR

pytestmark = pytest.mark.usefixtures("poisoned_memory")

SOUND, QUIET = -2.0, -8.0


def spectrogram(sounds, frames, bands=4, batch=1):
    """[batch, 1, 1, frames, bands]: a constant level in the sounds, (first, behind the last)."""
    data = torch.full((batch, 1, 1, frames, bands), QUIET)
    for begin, end in sounds:
        data[:, :, :, begin:end] = SOUND
    return data


@st.composite
def inputs(draw):
    """(data, patch): steps and noise at any level; silence, and values that are no numbers."""
    n_rows, n_bands = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    h, w = draw(st.sampled_from([1, 2, 3, 5])), draw(st.integers(1, 2))
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = (batch, channels, 1, n_rows * h, n_bands * w)
    data = torch.randn(shape, generator=generator) * draw(st.sampled_from([0.0, 1e-5, 0.1, 1.0]))
    changes = torch.rand((batch, 1, 1, n_rows * h, 1), generator=generator) < 0.2
    data = data + draw(st.sampled_from([0.0, 1e-4, 1.0, 500.0])) * (changes.cumsum(3) % 2)
    if draw(st.booleans()):
        special = torch.tensor([math.nan, math.inf, -math.inf, 1e30, 1024.0, -0.0, 1e-42])
        which = torch.randint(0, 40, shape, generator=generator)
        data = torch.where(which < 7, special[which.clamp(max=6)], data)
    if draw(st.booleans()):  # ties
        data = data.round()
    return data, (1, h, w)


DETECTION = st.fixed_dictionaries(
    {
        "smoothing": st.sampled_from([1, 2, 3, 7, 20]),
        "theta": st.sampled_from([0, 0.1, 0.25, 0.999, 1]),
        "min_length": st.sampled_from([1, 2, 5, 8]),
    }
)


@pytest.mark.parametrize("device", devices())
@given(made=inputs(), detection=DETECTION, seed=SEEDS, freq_major=st.booleans(), data=st.data())
def test_equals_the_definition(device, made, detection, seed, freq_major, data):
    x, patch = made
    ids = torch.tensor(data.draw(st.lists(IDS, min_size=len(x), max_size=len(x))))
    n_rows, n_bands = x.shape[3] // patch[1], x.shape[4] // patch[2]
    n_keep = data.draw(st.integers(1, n_rows * n_bands))
    options = {"n_keep": n_keep, "freq_major": freq_major, "seed": seed, **detection}
    ours = smnm.activity_masks(ids.to(device), x.to(device), patch, **options)
    assert_same(ours, smnm.reference.activity_masks(ids, x, patch, **options))
    assert_same(ours.masks, smnm.Masks.from_visible(ours.visible, n_keep))
    assert_same(smnm.activity_segments(x.to(device), patch, **detection), ours.segments)
    sampler = smnm.MaskSampler(
        "activity", (n_rows, n_bands), n_keep=n_keep, freq_major=freq_major, **detection
    ).to(device)
    sampler.seed.fill_(seed)
    assert_same(sampler.masks(ids.to(device), x.to(device)), ours.masks)
    for row in range(len(x)):
        own = smnm.activity_masks(ids[row : row + 1], x[row : row + 1], patch, **options)
        assert_same(own, smnm.ActivityMasks(*(part[row : row + 1].cpu() for part in ours)))


@given(made=inputs(), detection=DETECTION, seed=SEEDS, freq_major=st.booleans(), data=st.data())
@examples(60)
def test_invalid_tokens_are_masked_as_in_the_definition(made, detection, seed, freq_major, data):
    x, patch = made
    n_rows, n_bands = x.shape[3] // patch[1], x.shape[4] // patch[2]
    n_keep = data.draw(st.integers(1, n_rows * n_bands))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    valid = torch.rand(len(x), n_rows, n_bands, generator=generator) < 0.5
    # Whole rows, too, as padding is.
    valid[:, data.draw(st.integers(0, n_rows)) :] = False
    valid = valid.flatten(1)
    for row in valid:
        row[torch.randperm(len(row), generator=generator)[:n_keep]] = True
    ids = torch.arange(len(x))
    options = {"n_keep": n_keep, "freq_major": freq_major, "seed": seed, **detection}
    ours = smnm.activity_masks(ids, x, patch, valid=valid, **options)
    assert_same(ours, smnm.reference.activity_masks(ids, x, patch, valid=valid, **options))
    assert not (ours.visible & ~valid).any()
    assert_same(ours.masks, smnm.Masks.from_visible(ours.visible, n_keep))
    everything = torch.ones_like(valid)
    assert_same(
        smnm.activity_masks(ids, x, patch, valid=everything, **options),
        smnm.activity_masks(ids, x, patch, **options),
    )


def test_sounds_are_found_where_they_are():
    data = spectrogram([(32, 64), (100, 109), (150, 157), (200, 240)], 256)
    segments = smnm.activity_segments(data, (1, 1, 4))[0]
    expected = torch.zeros(256, dtype=torch.int64)
    expected[32:64], expected[100:109], expected[200:240] = 1, 2, 3  # 7 frames are too few
    assert torch.equal(segments, expected)
    in_rows = smnm.activity_segments(data, (1, 16, 4))[0]
    # 100 to 109 lie in one row of patches; 200 to 240 in two and in half of another.
    assert in_rows.tolist() == [0, 0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 3, 3, 3, 0]
    assert smnm.activity_segments(data, (1, 16, 4), min_length=1)[0].max() == 4


def test_a_recording_may_begin_and_end_in_a_sound():
    data = spectrogram([(0, 40), (90, 128)], 128)
    assert smnm.activity_segments(data, (1, 16, 4)).tolist() == [[1, 1, 1, 0, 0, 2, 2, 2]]


@pytest.mark.parametrize("value", [0.0, -15.9, math.nan, 1e30])
def test_nothing_is_found_in_what_does_not_change(value):
    data = torch.full((1, 1, 1, 64, 4), value)
    assert not smnm.activity_segments(data, (1, 16, 4)).any()


def test_level_and_scale_do_not_matter():
    """A power of two and multiples of a unit: here bit for bit."""
    data = spectrogram([(40, 90), (130, 180)], 256) + torch.randn(256, 4).mul(64).round() / 64
    expected = smnm.activity_segments(data, (1, 16, 4))
    assert expected.max() == 2
    for other in (data / 8, data * 4 + 100, (data + 6) / 16):
        assert torch.equal(smnm.activity_segments(other, (1, 16, 4)), expected)


def rows_masked(masks, n_rows):
    return masks.masks.masked.unflatten(1, (n_rows, -1)).sum(2)


def test_whole_sounds_are_masked_in_random_order():
    """Three sounds of 2, 3 and 4 rows, and room for one of the longest."""
    n, data = 600, spectrogram([(32, 64), (96, 144), (192, 256)], 320, batch=600)
    masks = smnm.activity_masks(torch.arange(n), data, (1, 16, 1), n_keep=16 * 4)
    rows = rows_masked(masks, 20)
    assert masks.segments[0].tolist() == [0, 0, 1, 1, 0, 0, 2, 2, 2, 0, 0, 0, *[3] * 4, *[0] * 4]
    expected = {  # by the order in which two are drawn; the second one is cut at its end
        (2, 3, 6, 7), (2, 3, 12, 13), (6, 7, 8, 2), (6, 7, 8, 12), (12, 13, 14, 15),
    }  # fmt: skip
    seen = [tuple(row.nonzero()[:, 0].tolist()) for row in rows]
    assert {tuple(sorted(rows)) for rows in expected} == set(seen)
    # The longest is the first one in a third of all.
    assert abs(seen.count((12, 13, 14, 15)) / n - 1 / 3) < 0.06
    assert set(rows.unique().tolist()) == {0, 4}


def test_sounds_grow_at_both_edges_where_they_are_too_few():
    n, data = 400, spectrogram([(64, 96)], 192, batch=400)
    masks = smnm.activity_masks(torch.arange(n), data, (1, 16, 1), n_keep=12 * 4 - 5 * 4)
    rows = rows_masked(masks, 12) == 4
    assert rows[:, 3:7].all()  # two of the sound, and one on each side
    assert (rows[:, 2] ^ rows[:, 7]).all()
    assert abs(rows[:, 2].float().mean() - 0.5) < 0.1


def test_the_last_row_is_masked_in_random_bands():
    n, data = 2000, spectrogram([(32, 64)], 128, batch=2000)
    masks = smnm.activity_masks(torch.arange(n), data, (1, 16, 1), n_keep=8 * 4 - 6)
    bands = masks.masks.masked.unflatten(1, (8, 4)).float().mean(0)
    assert bands[2].tolist() == [1] * 4
    assert (bands[3] - 0.5).abs().max() < 0.05
    assert bands.sum() == 6


def test_a_block_is_masked_where_nothing_is_found():
    n, data = 3000, torch.zeros(3000, 1, 1, 128, 4)
    masks = smnm.activity_masks(torch.arange(n), data, (1, 16, 1), n_keep=8 * 4 - 10)
    assert not masks.segments.any()
    rows = rows_masked(masks, 8)
    begin = (rows > 0).long().argmax(1)
    lengths = torch.tensor([4, 4, 2])
    for row, first in zip(rows[:100], begin.tolist(), strict=False):
        assert torch.equal(row[first : first + 3], lengths)
    shares = torch.bincount(begin, minlength=8) / n
    assert (shares[:6] - 1 / 6).abs().max() < 0.03
    assert not shares[6:].any()


def test_padding_is_not_heard():
    """A pad of zeros is loud among log-mel values: alone it would be the only sound."""
    padded = spectrogram([(32, 64), (80, 100)], 256, batch=2)
    padded[:, :, :, 128:] = 60.0
    valid = torch.ones(2, 16, 4, dtype=torch.bool)
    valid[:, 8:] = False
    assert smnm.activity_segments(padded, (1, 16, 1)).tolist() == [[0] * 8 + [1] * 8] * 2
    found = smnm.activity_segments(padded, (1, 16, 1), valid=valid.flatten(1))
    assert found.tolist() == [[0, 0, 1, 1, 0, 2, 2, 0] + [0] * 8] * 2
    masks = smnm.activity_masks(torch.arange(2), padded, (1, 16, 1), n_keep=16, valid=valid)
    assert rows_masked(masks, 16).tolist() == [[0, 0, 4, 4, 0, 4, 4, 0] + [4] * 8] * 2


#: Of what `python bench/activity_rates.py` prints, with a margin.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "ratio", "frames_hit", "frames_false"),
    [("notes", 5, 0.95, 0.02), ("words", 20, 0.85, 0.02), ("bursts", 10, 0.97, 0.02)],
)
def test_sounds_in_noise_are_found(kind, ratio, frames_hit, frames_false):
    need_packages("kaldi_native_fbank", "av")
    import activity_rates

    made = [activity_rates.recording(kind, "pink", ratio, seed, frames=512) for seed in range(3)]
    found = activity_rates.segments(made)
    rates = activity_rates.rates(made, found)
    assert rates.frames_hit > frames_hit
    assert rates.frames_false < frames_false
    assert (found == activity_rates.segments(made, normalised=True)).mean() > 0.99


def test_what_it_returns():
    data = spectrogram([(32, 64)], 128, batch=3).requires_grad_()
    masks = smnm.activity_masks(torch.arange(3), data, (1, 16, 2), 0.5)
    assert type(masks.masks) is smnm.Masks
    assert_same(masks[:3], masks.masks)
    assert not any(part.requires_grad for part in masks)
    assert masks.segments.dtype == torch.int64
    shifted = torch.utils._pytree.tree_map(lambda part: part, masks)
    assert type(shifted) is smnm.ActivityMasks
    none = smnm.activity_masks(torch.empty(0, dtype=torch.int64), data[:0], (1, 16, 2), 0.5)
    assert [list(part.shape) for part in none] == [[0, 16], [0, 8], [0, 16], [0, 8]]
    assert smnm.activity_masks(torch.arange(3), data, (1, 16, 2), 0).visible.all()
    on_meta = smnm.activity_masks(
        torch.arange(3, device="meta"), data.to("meta"), (1, 16, 2), 0.5, freq_major=True
    )
    assert [part.shape for part in on_meta] == [part.shape for part in masks]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_types(dtype):
    data = spectrogram([(32, 64)], 128, batch=2).to(dtype)
    ids = torch.tensor([1, 2])
    assert_same(
        smnm.activity_masks(ids, data, (1, 16, 2), 0.5),
        smnm.activity_masks(ids, data.float(), (1, 16, 2), 0.5),
    )


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_compiled_equals_eager(dynamic):
    torch._dynamo.reset()
    data = spectrogram([(32, 64), (80, 90)], 128, batch=5)
    data = data + torch.randn(data.shape, generator=torch.Generator().manual_seed(0)) / 8
    valid = torch.ones(5, 16, dtype=torch.bool)
    valid[1:, 12:] = False
    options = {"n_keep": 3, "freq_major": True, "theta": 0.3}
    eager, other = (smnm.MaskSampler("activity", (8, 2), **options) for _ in range(2))

    def masks(ids, data, valid):
        return smnm.activity_masks(ids, data, (1, 16, 2), valid=valid, seed=7, **options)

    compile_ = partial(torch.compile, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    call = (torch.arange(5), data, valid)
    made = compile_(masks)(*call)
    assert type(made) is smnm.ActivityMasks
    assert_same(made, masks(*call))
    assert_same(compile_(other)(5, data), eager(5, data))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_in_a_cuda_graph():
    data = spectrogram([(32, 64), (80, 90)], 128, batch=4).cuda()
    sampler, twin = (smnm.MaskSampler("activity", (8, 2), 0.6, seed=3) for _ in range(2))
    sampler.cuda()
    sampler(4, data)
    sampler.reset()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masks = sampler(4, data)
    for row in (0, 3):
        data[row] = QUIET
        graph.replay()
        assert_same(masks, twin(4, data.cpu()))


def test_limits_keep_64_bits():
    """What the comments of the constants say, with the highest values there are."""
    smoothing = MAX_SMOOTHING
    data = torch.full((1, 1, 1, 3 * smoothing, MAX_FRAME), -1e30)
    data[:, :, :, smoothing : 2 * smoothing] = 1e30
    options = {"smoothing": smoothing, "theta": 0.999}
    found = smnm.activity_segments(data, (1, smoothing, MAX_FRAME), **options)
    assert found.tolist() == [[0, 1, 0]]
    change = 2 * 2**26 * MAX_FRAME
    assert change * smoothing * 1000 < 2**63
    assert change * math.isqrt(NOISE_FACTOR**2 * smoothing * 10**6) < 2**63


DATA = torch.zeros(2, 1, 1, 64, 8)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"data": [1.0]}, TypeError, "data must be a tensor of numbers, got list"),
        ({"data": DATA[0]}, ValueError, r"data must have shape \[B, C, T, H, W\]"),
        ({"data": DATA[:1]}, ValueError, "data must have a row for each"),
        ({"data": DATA.expand(2, 1, 2, 64, 8)}, ValueError, r"grid for activity .*\(2, 4, 4\)"),
        (
            {"data": DATA.expand(2, 1, 2, 64, 8), "patch": (2, 16, 2)},
            ValueError, r"data for activity masks must have T = 1.*got \[2, 1, 2, 64, 8\]",
        ),
        (
            {"data": DATA.expand(2, MAX_FRAME, 1, 64, 8)},
            ValueError, "data must have at most 8192 values in a frame",
        ),
        ({"patch": (1, 5, 2)}, ValueError, r"patch must divide the sides \(1, 64, 8\) of data"),
        ({"patch": (16, 2)}, ValueError, "patch must be three positive ints"),
        ({"smoothing": 0}, ValueError, r"smoothing must be an int of frames in \[1, 256\], got 0"),
        ({"smoothing": 257}, ValueError, r"smoothing .* got 257"),
        ({"smoothing": 1.5}, TypeError, r"smoothing .* got 1.5"),
        ({"min_length": 0}, ValueError, "min_length must be a positive int of frames, got 0"),
        ({"min_length": True}, TypeError, "min_length .* got True"),
        ({"theta": 1.1}, ValueError, r"theta must be a decimal in \[0, 1\] .* got 1.1"),
        ({"theta": 0.1234}, ValueError, "theta .* at most three places, got 0.1234"),
        ({"theta": math.nan}, ValueError, "theta .* got nan"),
        ({"theta": "high"}, TypeError, "theta .* got 'high'"),
        ({"mask_ratio": 1.0}, ValueError, "mask_ratio"),
        ({"n_keep": 3}, ValueError, "exactly one"),
        ({"freq_major": 1}, TypeError, "freq_major must be True or False"),
        ({"valid": torch.ones(2, 3)}, TypeError, r"valid must be a bool tensor \[B, 16\]"),
        ({"valid": torch.ones(2, 16) < 0}, ValueError, "at least n_keep=8 .* got 0 in row 0"),
        ({"seed": None}, TypeError, "seed"),
    ],
)  # fmt: skip
def test_mistakes_are_named(change, error, named):
    arguments = {"sample_ids": torch.arange(2), "data": DATA, "patch": (1, 16, 2)}
    arguments |= {"mask_ratio": 0.5} | change
    for function in (smnm.activity_masks, smnm.reference.activity_masks):
        with pytest.raises(error, match=named):
            function(**arguments)


def test_mistakes_of_the_sampler_are_named():
    with pytest.raises(ValueError, match=r"grid for activity masks .* got \(2, 4, 4\)"):
        smnm.MaskSampler("activity", (2, 4, 4), 0.5)
    sampler = smnm.MaskSampler("activity", (4, 4), 0.5)
    with pytest.raises(TypeError, match="data must be a tensor: activity masks"):
        sampler(2)
    with pytest.raises(ValueError, match=r"multiples of the grid \(1, 4, 4\)"):
        sampler(2, torch.ones(2, 1, 1, 63, 8))


def test_defaults_are_written_once():
    kind = activity.ActivityKind.parse((4, 4), 0.5)
    assert (kind.smoothing, kind.theta, kind.min_length) == (20, 200, 8)

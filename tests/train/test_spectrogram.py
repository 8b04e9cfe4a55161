"""Front ends of sound: each equals its formula, and excerpts are what they say."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from clips import write_samples

from smnm_kernels.train.data import sound
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.modality import FixedView, InputFormat, Normalisation
from smnm_kernels.train.data.sample_randomness import SampleRandomness
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.spectrogram import AUDIOMAE, Spectrogram, log_mel

PLAIN = Spectrogram(
    rate=16000, fft=400, window=400, hop=160, low=50, high=8000, mel="slaney", offset=1.19e-7
)
RICH = Spectrogram(
    rate=32000, fft=1024, window=800, hop=320, low=0, high=15000, mel="kaldi", offset=1e-5,
    periodic=False, preemphasis=0.97, jitter=(10, 2000), pads_samples=True, by_band=True,
)  # fmt: skip


def slow_log_mel(front, x, bands, low, high):
    """From the formulas, in float64: one frame, one band at a time."""
    x = x.astype(np.float64)
    if front.preemphasis:
        x = np.array([x[n + 1] - front.preemphasis * x[n] for n in range(len(x) - 1)])
    n, size, last = len(x), front.fft, len(x) - 1
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(size)) / size)
    left = (size - front.window) // 2
    period = front.window - (not front.periodic)
    frames = []
    for middle in range(0, n + 1, front.hop):
        part = np.zeros(size)
        for k in range(front.window):
            at = middle - size // 2 + left + k
            at = -at if at < 0 else 2 * last - at if at > last else at
            part[left + k] = x[at] * np.sin(np.pi * k / period) ** 2
        power = abs(fourier @ part) ** 2
        frames.append([np.log(front.offset + m) for m in slow_mel(front, power, bands, low, high)])
    return np.array(frames)


def slow_mel(front, power, bands, low, high):
    hertz = np.arange(len(power)) * front.rate / front.fft
    if front.mel == "kaldi":
        places = 1127 * np.log(1 + hertz / 700)
        a, b = (1127 * np.log(1 + f / 700) for f in (low, high))
        edges = [a + (b - a) * i / (bands + 1) for i in range(bands + 2)]
        power = power[:-1]
    else:

        def mel(f):
            return f * 3 / 200 if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4)

        def back(m):
            return m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

        step = (mel(high) - mel(low)) / (bands + 1)
        places, edges = hertz, [back(mel(low) + step * i) for i in range(bands + 2)]
    for i in range(bands):
        a, b, c = edges[i : i + 3]
        height = 1.0 if front.mel == "kaldi" else 2 / (c - a)
        total = 0.0
        for p, place in zip(power, places, strict=False):
            if a < place < c:
                total += p * height * min((place - a) / (b - a), (c - place) / (c - b))
        yield total


@pytest.mark.parametrize(("front", "bands"), [(PLAIN, 80), (RICH, 128)])
def test_a_front_end_equals_its_formula(front, bands):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 12 * front.hop + 7).astype(np.float32)
    x += np.sin(np.arange(len(x)) * 0.3).astype(np.float32)
    for edges in (None, (front.low + 7, front.high - 333)):
        got = front.log_mel(x, bands, edges)
        expected = slow_log_mel(front, x, bands, *(edges or (front.low, front.high)))
        assert got.dtype == np.float32
        assert got.shape == expected.shape == (front.frames(len(x)), bands)
        assert abs(got - expected).max() < 2e-3
        assert abs(got - expected).mean() < 2e-5


@pytest.mark.parametrize("front", [PLAIN, RICH])
def test_numbers_of_samples_and_frames(front):
    for frames in (1, 2, 62):
        samples = front.samples(frames)
        assert front.frames(samples) >= frames
        # What lies behind changes none of these frames.
        x = np.random.default_rng(1).normal(size=samples + 500).astype(np.float32)
        inside, all_of_it = front.log_mel(x[:samples], 8), front.log_mel(x, 8)
        assert np.array_equal(inside[:frames], all_of_it[:frames])
    assert front.log_mel(np.zeros(front.fft // 2, np.float32), 8).shape == (0, 8)
    # Ten seconds are a thousand frames of MaskSpec's, and one more of MSM-MAE's.
    assert front.frames(10 * front.rate) == 1001 - bool(front.preemphasis)


def test_jitter_is_maskspecs():
    assert RICH.edges(np.array([0.0, 0.0])) == (0, 16000)
    assert RICH.edges(np.array([0.99, 0.9999])) == (9, 14001)
    assert PLAIN.edges(np.array([0.99, 0.99])) == (50, 8000)


def test_settings_are_refused_by_name():
    for change, message in (
        ({"mel": "htk"}, "mel must be one of kaldi, slaney, got 'htk'"),
        ({"window": 401}, r"window must be in \[1, fft 400\], got 401"),
        ({"fft": 401}, "fft must be even, got 401"),
        ({"high": 8001}, r"low and high must be in \[0, 8000\] Hz and rise, got 50 and 8001"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(PLAIN, **change)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """(source, samples) of 0.9 s of noise at 32 kHz."""
    path = tmp_path_factory.mktemp("front-ends") / "noise.wav"
    samples = np.random.default_rng(2).uniform(-0.5, 0.5, 28800)
    write_samples(path, samples, rate=32000)
    source = Source(path)
    return source, sound.read_all(source)[0]


def test_an_excerpt_is_the_front_end_of_its_samples(recording):
    source, samples = recording
    for front in (PLAIN, RICH):
        clip = Audio(frames=32, bands=16, front=front)
        record = clip.probe(source)
        got = clip.read_fixed(source, record, FixedView())["audio"]
        count = front.samples(32) * (32000 // front.rate)
        start = (len(samples) - count) // 2
        part = sound.resample(samples[start : start + count], 32000, front.rate)
        assert got.shape == (1, 1, 32, 16)
        assert np.array_equal(got[0, 0], front.log_mel(part, 16)[:32])
        assert clip.padded(record) == {}


def test_jitter_follows_from_the_sample_and_is_off_in_evaluation(recording):
    source, _ = recording
    clip = Audio(frames=80, bands=16, front=RICH)  # about as long as the recording
    record = clip.probe(source)
    read = [clip.read(source, record, SampleRandomness(3, i))["audio"] for i in (0, 0, 1)]
    assert torch.equal(read[0], read[1])
    without = replace(clip, front=replace(RICH, jitter=(1, 1)))
    calm = [without.read(source, record, SampleRandomness(3, i))["audio"] for i in (0, 1)]
    # At the same places; only the bands' edges have moved.
    assert not torch.equal(read[0], calm[0])
    assert not torch.equal(read[2], calm[1])
    fixed = [one.read_fixed(source, record, FixedView())["audio"] for one in (clip, without)]
    assert torch.equal(*fixed)


@pytest.mark.parametrize("front", [None, PLAIN, RICH])
def test_short_recordings_are_padded_as_the_front_end_says(recording, front):
    source, samples = recording
    clip = Audio(frames=128, bands=16, front=front)
    record = clip.probe(source)
    got = clip.read_fixed(source, record, FixedView())["audio"][0, 0]
    (_, real, _) = clip.padded(record)["audio"]
    there = clip.front_end.frames(len(sound.resample(samples, 32000, clip.front_end.rate)))
    assert real in (there, there - 1)
    padding = got[there + 2 :]
    assert len(padding) > 20
    assert (got[:real] != 0).all()
    assert torch.all(padding == (np.log(np.float32(1e-5)) if front is RICH else 0.0))
    assert replace(clip, padding="see").padded(record) == {}
    seconds = clip.front_end.samples(128) / clip.front_end.rate
    assert f"shorter than {seconds:.2f} s" in clip.remarks([record])[0]


def test_audiomaes_front_end_is_the_default(recording):
    source, samples = recording
    clip = Audio(frames=64, bands=128)
    assert clip.front_end is AUDIOMAE
    got = clip.read_fixed(source, clip.probe(source), FixedView())["audio"][0, 0]
    start = (len(samples) - 2 * AUDIOMAE.samples(64)) // 2
    part = samples[start : start + 2 * AUDIOMAE.samples(64)]
    assert np.array_equal(got, log_mel(sound.resample(part, 32000), 128)[:64])
    # Runs that were begun before there were others have none of these settings: they go on.
    new = {name: value for name, value in asdict(clip).items() if value is None}
    assert set(new) == {"front", "mean", "std"}


def test_settings_come_back_from_json():
    clip = Audio(992, 128, front=RICH, mean=(0.5,) * 128, std=(2.0,) * 128)
    assert Audio(**json.loads(json.dumps(asdict(clip)))) == clip


def test_inputs_are_normalised_by_band_or_by_one_value():
    x = torch.randn(2, 1, 1, 5, 3)
    mean, scale = (1.0, 2.0, 3.0), (0.5, 2.0, 4.0)
    given = InputFormat((1, 1, 5, 3), mean, scale, lambda *rows: [])
    of_bands = Normalisation(given)
    assert torch.equal(of_bands(x), (x - torch.tensor(mean)) / torch.tensor(scale))
    assert torch.allclose(of_bands.undo(of_bands(x)), x, atol=1e-6)
    one = Normalisation(replace(given, mean=(1.0,), scale=(2.0,)))
    assert torch.equal(one(x), (x - 1) / 2)
    pictures = Normalisation(InputFormat((3, 1, 4, 3), mean, scale, lambda *rows: []))
    y = torch.randn(2, 3, 1, 4, 3)
    assert torch.equal(pictures(y)[:, 1], (y[:, 1] - 2) / 2)
    with pytest.raises(ValueError, match=r"must have 1 or 3 values for an input of \(1, 1, 5, 3\)"):
        replace(given, mean=(1.0, 2.0))
    clip = Audio(5, 3, mean=(1.0,), std=(2.0,))
    assert (clip.inputs["audio"].mean, clip.inputs["audio"].scale) == ((1.0,), (4.0,))
    clip = replace(clip, front=PLAIN)
    assert (clip.inputs["audio"].mean, clip.inputs["audio"].scale) == ((1.0,), (2.0,))
    assert not clip.measures
    assert replace(clip, mean=None, std=None).measures

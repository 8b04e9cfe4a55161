"""Which files are used, which samples they become, and that nothing but (seed, index) decides."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import pretrain, write_samples, write_sound, write_video
from hypothesis import given
from hypothesis import strategies as st

from smnm_kernels.train.data import crops, sound, spectrogram, video
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.crops import MultiScaleCrop, ResizedCrop
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.loader import BatchNumbers, Failure, SampleDataset
from smnm_kernels.train.data.sample_randomness import SampleRandomness, file_of
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.tasks.presets import PRESETS

TINY = {modality: PRESETS[modality]["tiny"].clip for modality in PRESETS}


def uniforms(seed, index, n):
    return SampleRandomness(seed, index).uniforms(n)


def dataset(folder, modality, seed=0):
    listing = scan(folder, TINY[modality], {}, threads=2)
    return SampleDataset(folder, listing.usable, TINY[modality], seed)


@given(st.integers(0, 2**63 - 1), st.integers(1, 50), st.integers(0, 2**40))
def test_an_epoch_reads_every_file_once(seed, n_files, epoch):
    start = epoch * n_files
    order = [file_of(seed, start + i, n_files) for i in range(n_files)]
    assert sorted(order) == list(range(n_files))
    replacements = {file_of(seed, start, n_files, attempt) for attempt in range(n_files)}
    assert len(replacements) == n_files


def test_epochs_and_seeds_are_shuffled_differently():
    orders = {tuple(file_of(s, 50 * e + i, 50) for i in range(50)) for s in (0, 1) for e in (0, 1)}
    assert len(orders) == 4


def test_draws_are_uniform_and_each_samples_own():
    draws = np.array([uniforms(7, i, 6) for i in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert len(np.unique(draws)) == draws.size
    assert abs(draws.mean(0) - 0.5).max() < 5 / math.sqrt(12 * 4000)
    assert abs(np.corrcoef(draws[:-1].T, draws[1:].T)[:6, 6:]).max() < 0.1
    # Fixed for good: a change here changes every run.
    assert uniforms(7, 3, 2).tolist() == [0.34038383804135663, 0.11123498753933492]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modality", "folder"), [("video", "videos"), ("audio", "sounds"), ("image", "images")]
)
def test_batches_do_not_depend_on_workers_or_on_where_they_start(modality, folder, request):
    source = dataset(request.getfixturevalue(folder), modality)

    def batches(start, workers, rank=0, world=1):
        numbers = BatchNumbers(start, 5, 4, rank=rank, world=world)
        batches = Batches(source, numbers, workers)
        return [b.inputs[modality] for b in batches]

    whole = batches(0, workers=0)
    assert len(whole) == 5
    for workers in (1, 2):
        assert all(map(torch.equal, batches(0, workers), whole))
    assert all(map(torch.equal, batches(3, workers=0), whole[3:]))
    halves = zip(batches(0, 0, rank=0, world=2), batches(0, 0, rank=1, world=2), strict=True)
    assert all(torch.equal(torch.cat(h), w) for h, w in zip(halves, whole, strict=True))
    assert len({clip.numpy().tobytes() for batch in whole for clip in batch}) == 20


@pytest.mark.parametrize(
    "crop",
    [ResizedCrop((0.5, 1.0)), ResizedCrop((0.2, 1.0), interpolation="bicubic"), MultiScaleCrop()],
)
@given(
    st.integers(1, 200), st.integers(1, 200), st.lists(st.floats(0, 0.999), min_size=4, max_size=4)
)
def test_any_crop_is_inside_the_frame(crop, height, width, u):
    part = crop.part(height, width, 32, np.array(u[: crop.n_uniforms]))
    assert 0 <= part.y < part.y + part.height <= height
    assert 0 <= part.x < part.x + part.width <= width
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    assert part.of(pixels, 32).shape == (3, 32, 32)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_frames_are_resized_one_by_one_as_all_at_once(interpolation, height, width, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (3, height, width, 3)).astype(np.uint8)
    together = torch.nn.functional.interpolate(
        torch.from_numpy(frames).permute(0, 3, 1, 2), (32, 32), mode=interpolation, antialias=True
    )
    for frame, expected in zip(frames, together, strict=True):
        assert torch.equal(crops.resize(frame, 32, interpolation), expected)


def test_multi_scale_crops_are_videomaes():
    """All sizes at all places of a frame, each as often; and what is near the size becomes it."""
    height, width, size = 240, 320, 224

    def parts(height, width, u):
        part = MultiScaleCrop().part(height, width, size, np.array(u))
        return part.height, part.width, part.y, part.x

    steps = (np.arange(130) + 0.5) / 130
    seen = {parts(height, width, (u, v)) for u in steps for v in steps[::10]}
    sides = [240, 210, 180, 158]
    expected = set()
    for i, h in enumerate(sides):
        for j, w in enumerate(sides):
            if abs(i - j) <= 1:
                down, right = (height - h) // 4, (width - w) // 4
                quarters = [(a, b) for a in (0, 2, 4) for b in (0, 2, 4)]
                quarters += [(a, b) for a in (1, 3) for b in (1, 3)]
                expected |= {(h, w, a * down, b * right) for a, b in quarters}
    assert seen == expected
    assert parts(226, 226, (0, 0)) == (224, 224, 0, 0)


def test_crops_and_flips_differ_from_sample_to_sample(videos):
    source = dataset(videos, "video")
    clips = [source.read(0, i)["video"] for i in range(12)]
    assert len({clip.numpy().tobytes() for clip in clips}) == 12
    assert clips[0].shape == (3, 16, 96, 96)
    assert clips[0].dtype == torch.uint8
    unflipped = SampleDataset(videos, source.files, replace(TINY["video"], flip=False), 0)
    plain = [unflipped.read(0, i)["video"] for i in range(12)]
    mirrored = [
        torch.equal(p.flip(3), clip) and not torch.equal(p, clip)
        for p, clip in zip(plain, clips, strict=True)
    ]
    assert 0 < sum(mirrored) < 12


def broken_videos(folder):
    whole = folder / "faststart.mp4"
    write_video(whole, n=60, muxer={"movflags": "faststart"})
    (folder / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_video(whole, n=60)
    (folder / "cut-index.mp4").write_bytes(whole.read_bytes()[:-2000])
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "empty.mp4").touch()
    write_video(folder / "short.mp4", n=15)
    write_video(folder / "just.mp4", n=16)
    write_sound(folder / "sound.wav")
    shutil.move(folder / "sound.wav", folder / "sound.mkv")


def test_broken_videos_are_named_with_the_reason(tmp_path):
    broken_videos(tmp_path)
    listing = scan(tmp_path, TINY["video"], {}, 2)
    assert [r["name"] for r in listing.usable] == ["faststart.mp4", "just.mp4"]
    reasons = {r["name"]: r["reason"] for r in listing.skipped}
    assert reasons.pop("cut.mp4").startswith("is truncated: ")
    assert reasons.pop("short.mp4") == "is too short: 15 frames, 16 are needed"
    assert reasons.pop("sound.mkv") == "has no video stream"
    assert set(reasons) == {"cut-index.mp4", "text.mp4", "empty.mp4"}
    assert all(reason.startswith("does not decode (") for reason in reasons.values())


def test_broken_recordings_are_named_with_the_reason(tmp_path):
    write_sound(tmp_path / "good.wav")
    write_sound(tmp_path / "good.mp3")
    write_sound(tmp_path / "good.flac")
    write_sound(tmp_path / "silent.wav", silent=True)
    write_sound(tmp_path / "short.wav", seconds=0.1)
    write_samples(tmp_path / "constant.wav", np.full(16000, 0.5))
    nan = np.full(16000, np.nan, dtype=np.float32)
    write_samples(tmp_path / "nan.wav", nan, codec="pcm_f32le")
    (tmp_path / "text.wav").write_text("not a recording\n" * 50)
    flac = (tmp_path / "good.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(flac[: len(flac) // 2])
    listing = scan(tmp_path, TINY["audio"], {}, 2)
    assert [r["name"] for r in listing.usable] == ["good.flac", "good.mp3", "good.wav"]
    reasons = {r["name"]: r["reason"] for r in listing.skipped}
    assert reasons["silent.wav"] == reasons["constant.wav"] == "is silent"
    assert reasons["short.wav"] == "is too short: 0.100 s, 0.175 s are needed"
    assert reasons["nan.wav"] == "holds values that are not finite numbers"
    assert reasons["text.wav"].startswith("does not decode (")
    assert reasons["cut.flac"].startswith(("does not decode (", "is truncated: "))


def test_files_are_found_below_the_folder_in_order(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    names = ["b/c/2.MP4", "b/1.mkv", "a.mp4", "z.txt", ".hidden.mp4"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [entry.name for entry in find(tmp_path, video.SUFFIXES).entries]
    assert found == ["a.mp4", "b/1.mkv", "b/c/2.MP4"]


def test_a_file_that_fails_after_the_scan_is_replaced_the_same_way_each_time(tmp_path, videos):
    folder = shutil.copytree(videos, tmp_path / "videos")
    source = dataset(folder, "video")
    index = next(i for i in range(4) if file_of(0, i, 4) == 2)
    (folder / source.files[2]["name"]).write_bytes(b"gone bad")
    sample = source[index]
    assert [failure.name for failure in sample.failures] == ["clip2.mp4"]
    number = file_of(0, index, 4, 1)
    assert sample.file_number == number
    assert torch.equal(sample.inputs["video"], source.read(number, index)["video"])
    assert source[index].failures == sample.failures
    # Once in every epoch, and the three other samples are what they were.
    for later in range(4, 12):
        broken = file_of(0, later, 4) == 2
        assert source[later].failures == (sample.failures if broken else [])
        number = file_of(0, later, 4, broken)
        assert torch.equal(source[later].inputs["video"], source.read(number, later)["video"])
    for file in source.files:
        (folder / file["name"]).write_bytes(b"gone bad")
    sample = source[0]
    assert sample.inputs == {}
    assert [type(failure) for failure in sample.failures] == [Failure] * 4


def test_a_batch_says_which_samples_and_files_it_is_made_of(videos):
    source = dataset(videos, "video")
    numbers = BatchNumbers(0, 3, 4, accumulate=2)
    batches = list(Batches(source, numbers, workers=0))
    assert [len(batch) for batch in batches] == [2] * 6
    assert torch.cat([batch.sample_ids for batch in batches]).tolist() == list(range(12))
    for batch in batches:
        for i, (sample, number) in enumerate(
            zip(batch.sample_ids, batch.file_numbers, strict=True)
        ):
            assert number == file_of(0, int(sample), 4)
            read = source.read(int(number), int(sample))["video"]
            assert torch.equal(batch.inputs["video"][i], read)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_parts_and_ranks_together_read_what_one_process_reads(accumulate, world, share, start):
    batch_size = accumulate * world * share
    of_ranks = [
        list(BatchNumbers(start, start + 2, batch_size, accumulate, rank, world))
        for rank in range(world)
    ]
    assert [len(numbers) for numbers in of_ranks] == [2 * accumulate] * world
    read = [i for parts in zip(*of_ranks, strict=True) for part in parts for i in part]
    (first, second) = BatchNumbers(start, start + 2, batch_size)
    assert read == first + second


def kaldi_log_mel(samples, bands):
    """The textbook definition, window by window in float64."""
    window, hop, size = 400, 160, 512

    def mel(hertz):
        return 1127.0 * np.log(1.0 + hertz / 700.0)

    edges = np.linspace(mel(20.0), mel(8000.0), bands + 2)
    bins = mel(np.arange(size // 2) * 16000 / size)
    rise = (bins[None] - edges[:-2, None]) / (edges[1] - edges[0])
    fall = (edges[2:, None] - bins[None]) / (edges[1] - edges[0])
    triangles = np.maximum(0, np.minimum(rise, fall))
    samples = samples.astype(np.float64) - samples.mean()
    rows = []
    for start in range(0, len(samples) - window + 1, hop):
        part = samples[start : start + window]
        part = part - part.mean()
        part = part - 0.97 * np.concatenate([part[:1], part[:-1]])
        part = part * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1)))
        power = abs(np.fft.rfft(part, size)[:-1]) ** 2
        rows.append(np.log(np.maximum(triangles @ power, np.finfo(np.float32).eps)))
    return np.stack(rows)


def test_log_mel_is_kaldis():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    got = spectrogram.log_mel(noise, 128)
    expected = kaldi_log_mel(noise, 128)
    assert got.shape == expected.shape == (98, 128)
    filled = expected > -15  # the lowest bands are narrower than a bin and may be empty
    assert filled.mean() > 0.9
    assert abs(got - expected)[filled].max() < 0.01


def test_other_rates_are_resampled(tmp_path):
    def tone(rate):
        t = np.arange(rate) / rate
        return np.sin(2 * np.pi * 1000 * t).astype(np.float32)

    expected = tone(16000)
    for rate in (8000, 22050, 44100, 48000):
        got = sound.resample(tone(rate), rate)
        assert abs(len(got) - 16000) < 50
        n = min(len(got), 16000)
        assert np.corrcoef(got[200 : n - 200], expected[200 : n - 200])[0, 1] > 0.999


def test_excerpts_move_and_short_recordings_are_padded(tmp_path):
    write_sound(tmp_path / "long.wav", seconds=9, rate=44100)
    write_sound(tmp_path / "short.wav", seconds=1)
    source = dataset(tmp_path, "audio")
    long, short = 0, 1
    excerpts = [source.read(long, i)["audio"] for i in range(4)]
    assert all(e.shape == (1, 1, 512, 128) and e.dtype == torch.float32 for e in excerpts)
    assert len({e.numpy().tobytes() for e in excerpts}) == 4
    assert all((e[0, 0, 511] != 0).any() for e in excerpts)
    padded = source.read(short, 0)["audio"][0, 0]
    assert (padded[98:] == 0).all()
    assert (padded[:98] != 0).all()


def test_a_gain_is_the_same_for_the_whole_excerpt(tmp_path):
    write_sound(tmp_path / "a.wav", seconds=9)
    source = dataset(tmp_path, "audio")
    loud = SampleDataset(tmp_path, source.files, replace(TINY["audio"], gain=True), 0)
    gains = []
    for i in range(5):
        plain, changed = (d.read(0, i)["audio"] for d in (source, loud))
        shift = (changed - plain)[plain > 0]  # 2 log(gain), where the floor of the log is far
        assert shift.std() < 1e-3
        gains.append(float((shift.mean() / 2).exp()))
    assert len(set(gains)) == 5
    middles = [0.5 + np.sort(uniforms(0, i, 20)[1:])[9] for i in range(5)]
    assert gains == pytest.approx(middles, rel=1e-3)
    # Beta(10, 10) has mean 1/2 and variance 1/84.
    many = np.array([np.sort(uniforms(0, i, 20)[1:])[9] for i in range(4000)])
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert many.var() == pytest.approx(1 / 84, rel=0.1)


def test_a_run_below_its_data_is_not_data(images, tmp_path):
    data = tmp_path / "pictures"
    shutil.copytree(images, data)
    out = data / "runs" / "a"
    for steps in (1, 2):  # the first makes a picture, which the second must not find
        assert pretrain(data, "--out", out, "--steps", steps, modality="image") == 0
    assert (out / "reconstruction.png").exists()
    assert pretrain(data, "--out", data, "--steps", 1, modality="image") == 2

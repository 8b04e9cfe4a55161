"""Picture and sound of one moment: what flashes when it clicks is read so."""

import json
import tarfile
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import write_samples, write_video
from flashes import CLICK, write_flashes

from smnm_kernels.train.data import audio_video, media, sound
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.crops import CentreCrop
from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.data.modality import FixedView
from smnm_kernels.train.data.sample_randomness import SampleRandomness
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import Video

HOP = 0.01
PICTURE = Video(frames=16, size=16, stride=1, crop=CentreCrop(), flip=False)
#: A window of 0.645 s, in which 16 frames at 25 a second have 5 ms to spare.
CLIPS = AudioVideo(PICTURE, Audio(frames=63, bands=32))
SPREAD = AudioVideo(replace(PICTURE, frames=1), Audio(frames=98, bands=32), spread=10)


CASES = {
    "h264-aac.mp4": {},
    "h264-opus.mkv": {},
    "vp9-opus.webm": {},
    "vp8-vorbis.webm": {"codecs": ("libvpx", "vorbis")},
    "mpeg4-pcm.avi": {},
    "h264-mp3.mp4": {"codecs": ("libx264", "libmp3lame")},
    "h264-pcm.mov": {},
    "h264-aac.ts": {},
    "h264-flac-44100.mkv": {"codecs": ("libx264", "flac"), "rate": 44100},
    "ntsc.mp4": {"fps": Fraction(30000, 1001), "n": 120},
    "ntsc.mkv": {"fps": Fraction(30000, 1001), "n": 120},
    "sound-late.mp4": {"sound_at": 0.5},
    "sound-late.ts": {"sound_at": 0.5},
    "sound-early.mkv": {"picture_at": 0.52},
    "sound-early.mp4": {"picture_at": 0.52},
    "pause.mkv": {"pause": (1.5, 2.3)},
    "cut-by-an-edit-list.mp4": {"picture_at": -0.4},
    "uneven.mp4": {"times": [40 * k + (k % 3) * 9 for k in range(100)]},
    "uneven.mkv": {"times": [40 * k + (k % 3) * 9 for k in range(100)]},
}


def first_stamp(path):
    """Of the picture, by which the file's clock differs from that of `write_flashes`."""
    with media.opened(Source(path), "video") as reader:
        for _, frames, _ in reader.steps():
            if frames:
                return float(frames[0].pts * reader.stream.time_base)
    raise AssertionError


def bright(sample):
    """Which frames of a clip flash."""
    return [k for k, mean in enumerate(sample["video"].float().mean((0, 2, 3))) if mean > 128]


def clicks(sample, bands=32):
    """Seconds from the window's beginning: the middle of the loudest spectra of 25 ms."""
    loud = sample["audio"][0, 0].mean(1)
    peaks = [
        k
        for k in range(len(loud))
        if loud[k] > -3.5 and loud[k] == loud[max(0, k - 5) : k + 6].max()
    ]
    return np.array([HOP * k + 0.0125 - CLICK / 2 for k in peaks])


#: They repeat what others show.
REPEATING = {"vp8-vorbis.webm", "sound-late.ts", "ntsc.mkv", "uneven.mp4", "sound-early.mp4"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.exhaustive] * (n in REPEATING)) for n in CASES],
)
def test_what_flashes_clicks(name, tmp_path):
    path = tmp_path / name
    given = CASES[name]
    flashes = write_flashes(path, **given)
    step = 1 / given.get("fps", 25)
    # At its ends a window begins or ends with the file; uneven frames are not at their place.
    allowed = abs(0.645 - 16 * step) / 2 + 0.025 * ("times" in given)
    # What an edit list cuts off is not decoded.
    shift = first_stamp(path) - max(0, given.get("picture_at", 0.0))
    source = Source(path)
    record = CLIPS.probe(source)
    seen = 0
    for number in range(3):
        view = FixedView(number, 3)
        sample, moment = CLIPS.read_fixed(source, record, view), CLIPS.fixed_moment(record, view)
        # The file's clock says which flashes are in the window, and where.
        inside = [at + shift - moment.begin for at in flashes]
        heard = clicks(sample)
        for at in inside:
            is_paused = "pause" in given and 1.4 < at + moment.begin < 2.4
            if 0.06 < at < 0.56 and not is_paused:
                assert abs(heard - at).min() < HOP
                seen += 1
        # A frame has its place in the window.
        for k in bright(sample):
            at = 0.645 / 2 + (k - 8) * step
            assert min(abs(at - t) for t in inside) < HOP + allowed
    assert seen >= 3
    # Of any moment, by chance: frame k of a clip that lies in the middle of the window.
    seen = 0
    for index in range(4):
        sample = CLIPS.read(source, record, SampleRandomness(0, index))
        heard = clicks(sample)
        for k in bright(sample):
            at = 0.645 / 2 + (k - 8) * step
            if 0.06 < at < 0.56 and len(heard) and "pause" not in given:
                assert abs(heard - at).min() < HOP + allowed
                seen += 1
    assert seen >= 2 or "pause" in given
    assert len(json.dumps(record)) < 1500


def test_reading_from_restarts_late_in_a_file_is_in_time(tmp_path):
    path = tmp_path / "long.mkv"
    write_flashes(path, n=1200, rate=16000, codecs=("libx264", "flac"))
    source = Source(path)
    record = CLIPS.probe(source)
    assert record["video"]["restarts"]
    assert record["audio"]["restarts"]
    for number in (0, 6, 7, 8, 9):
        sample = CLIPS.read_fixed(source, record, FixedView(number, 10))
        heard = clicks(sample)
        for k in bright(sample):
            at = 0.0025 + k * 0.04
            if 0.06 < at < 0.56:
                assert abs(heard - at).min() < HOP
    assert len(json.dumps(record)) < 1500


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """4 s, 25 frames a second, with what its scan finds."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    write_flashes(path, rate=16000, codecs=("libx264", "flac"))
    return Source(path), CLIPS.probe(Source(path))


def test_a_clip_lies_in_the_middle_of_a_longer_window(film):
    wide = replace(CLIPS, audio=replace(CLIPS.audio, frames=198))  # 1.995 s
    moments = [wide.fixed_moment(film[1], FixedView(k, 9)) for k in range(9)]
    assert [m.numbers[0] for m in moments] == [round(k * 84 / 8 - 0.25) for k in range(9)]
    for moment in moments:
        middle = 0.04 * (moment.numbers[0] + 8)
        wanted = min(max(middle - 1.995 / 2, 0), 4 - 1.995)
        assert moment.begin == pytest.approx(wanted, abs=1e-3)
        assert np.diff(moment.numbers).tolist() == [1] * 15


def test_a_clip_too_long_for_the_window_is_read_faster(film):
    fast = replace(CLIPS, video=replace(PICTURE, frames=8, stride=5))  # 1.6 s in 0.645 s
    moment = fast.fixed_moment(film[1], FixedView())
    times = 0.04 * np.array(moment.numbers) - moment.begin
    assert abs(times - 0.645 / 8 * np.arange(8)).max() < 0.021
    assert "1 files are read with less than 5 frames" in fast.remarks([film[1]])[0]
    assert CLIPS.remarks([film[1]]) == []


def test_all_frames_that_are_spread_over_the_sound(film):
    spread = replace(CLIPS, video=replace(PICTURE, frames=8), spread=8)
    for k in range(5):
        moment = spread.fixed_moment(film[1], FixedView(k, 5))
        times = 0.04 * np.array(moment.numbers) - moment.begin
        assert abs(times - 0.645 / 8 * np.arange(8)).max() < 0.021
    with pytest.raises(ValueError, match="one or all are read, not 4"):
        replace(CLIPS, video=replace(PICTURE, frames=4), spread=8)


def test_one_frame_of_ten(film):
    """By the definition: frame i of ten lies at i tenths of the window."""
    source, record = film
    whole = SPREAD.fixed_moment(record, FixedView())  # a second in the middle
    assert whole.begin == pytest.approx(2 - 0.995 / 2, abs=0.04)
    [middle] = whole.numbers
    assert 0.04 * middle - whole.begin == pytest.approx(0.4975, abs=0.021)
    views = [SPREAD.fixed_moment(record, FixedView(k, 10)) for k in range(10)]
    for k, moment in enumerate(views):
        at = 0.04 * moment.numbers[0] - moment.begin
        assert at == pytest.approx(0.0995 * k, abs=0.021)
    shapes = {name: x.shape for name, x in SPREAD.read_fixed(source, record, FixedView()).items()}
    assert shapes == {"video": (3, 1, 16, 16), "audio": (1, 1, 98, 32)}
    short = {
        **record,
        "audio": {**record["audio"], "times": {"pieces": [[0, 0.0, 1 / 16000]], "end": 0.995}},
    }
    seen = set()
    for index in range(30):
        bright_one = bright(SPREAD.read(source, short, SampleRandomness(3, index)))
        seen.add(bool(bright_one))
    assert seen == {True, False}  # frame 7 flashes, others do not


def test_what_is_shorter_than_the_window_is_padded(tmp_path):
    path = tmp_path / "short.mkv"
    write_flashes(path, n=20, rate=16000, codecs=("libx264", "flac"), seconds=0.5)
    source = Source(path)
    wide = replace(CLIPS, video=replace(PICTURE, frames=4), audio=replace(CLIPS.audio, frames=100))
    record = wide.probe(source)
    real = 1 + (8000 - 400) // 160
    assert wide.padded(record) == {"audio": (1, real, 32)}
    for index in range(4):
        sample = wide.read(source, record, SampleRandomness(0, index))
        assert (sample["audio"][0, 0, real:] == 0).all()
        assert (sample["audio"][0, 0, :real] != 0).all()
    assert "1 recordings are shorter than 1.01 s" in wide.remarks([record])[0]
    # Frames behind the end of the sound are not read.
    assert all(max(wide.fixed_moment(record, FixedView(k, 5)).numbers) <= 12 for k in range(5))
    seen = replace(wide, audio=replace(wide.audio, padding="see"))
    assert seen.padded(record) == {}


def test_pictures_that_stand_come_several_times(tmp_path):
    path = tmp_path / "slides.mkv"
    write_flashes(path, n=16, fps=2, rate=16000, codecs=("libx264", "flac"))
    source = Source(path)
    record = CLIPS.probe(source)
    moment = CLIPS.fixed_moment(record, FixedView(1, 4))
    assert set(np.diff(moment.numbers)) <= {0, 1}
    assert 0.5 * moment.numbers[0] <= moment.begin < 0.5 * moment.numbers[0] + 0.5
    assert CLIPS.read_fixed(source, record, FixedView(1, 4))["video"].shape == (3, 16, 16, 16)
    begins = {CLIPS.fixed_moment(record, FixedView(k, 50)).begin for k in range(50)}
    assert len(begins) == 50  # of one picture, too, sound of many moments is read


def test_samples_are_a_function_of_seed_and_index_and_files_of_where_they_lie(tmp_path):
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    folder.mkdir()
    shards.mkdir()
    for k in range(2):
        write_flashes(folder / f"{k}.mkv", n=30 + k, rate=16000, codecs=("libx264", "flac"))
    with tarfile.open(shards / "0.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    datasets = [
        SampleDataset(data, scan(data, CLIPS, None, 1).usable, CLIPS, seed=7)
        for data in (folder, shards)
    ]
    for index in (5, 0, 3):
        one, other = (dataset[index].inputs for dataset in datasets)
        for name in ("video", "audio"):
            assert torch.equal(one[name], other[name])
            assert one[name].shape == CLIPS.inputs[name].size
    assert not torch.equal(datasets[0][0].inputs["video"], datasets[0][4].inputs["video"])


def write_useless(folder):
    """Files of no use, by what is said of them."""
    flac = {"rate": 16000, "codecs": ("libx264", "flac")}
    write_video(folder / "mute.mp4", size=32)
    write_flashes(folder / "silent.mkv", n=30, silent=True, **flac)
    write_samples(folder / "radio.mkv", 0.1 * np.sin(np.arange(16000.0)), codec="flac")
    (folder / "notes.mp4").write_text("no film")
    write_flashes(folder / "few.mkv", n=10, **flac)
    write_flashes(folder / "brief.mkv", n=30, seconds=0.1, **flac)
    write_flashes(folder / "apart.mkv", n=20, picture_at=1.1, seconds=1.2, **flac)
    write_flashes(folder / "cut.mp4", n=100, rate=16000)
    whole = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return {
        "mute.mp4": "has no sound stream",
        "silent.mkv": "has sound that is silent",
        "radio.mkv": "has no video stream",
        "notes.mp4": "does not decode",
        "few.mkv": "has video that is too short: 10 frames, 16 are needed",
        "brief.mkv": "has sound that is too short: 0.100 s, 0.175 s are needed",
        "apart.mkv": "has picture and sound at once for 0.080 s, 0.175 s are needed",
        "cut.mp4": "does not decode",
    }


def test_files_of_no_use_are_named(tmp_path):
    said = write_useless(tmp_path)
    write_flashes(tmp_path / "good.mkv", n=30, rate=16000, codecs=("libx264", "flac"))
    listing = scan(tmp_path, CLIPS, None, 1)
    assert [record["name"] for record in listing.usable] == ["good.mkv"]
    reasons = listing.reasons()
    assert set(reasons) == set(said)
    for name, reason in said.items():
        assert reasons[name].startswith(reason)


def test_clips_keep_clear_of_damage(film):
    source, record = film
    damaged = {**record, "video": {**record["video"], "damaged": [[40, 70]]}}
    shown = [CLIPS.read(source, damaged, SampleRandomness(1, index)) for index in range(12)]
    assert all(bright(sample) for sample in shown)
    for k in range(9):
        numbers = CLIPS.fixed_moment(damaged, FixedView(k, 9)).numbers
        assert max(numbers) < 40


def test_a_stream_whose_clock_is_slow_is_read_from_its_nearest_sample(monkeypatch):
    rate = 44100
    step = (1 + 5e-4) / rate  # the most that one clock differs from another
    n = int(1.5 * rate)
    sounding = {"pieces": [[0, 0.0, step]], "end": n * step}
    shown = {"pieces": [[0, 0.0, 0.04]], "end": 1.5}
    record = {
        "video": {"frames": 37, "times": shown, "damaged": []},
        "audio": {"samples": n, "rate": rate, "times": sounding},
    }
    monkeypatch.setattr(sound, "read", lambda source, kept, first, n: first + np.arange(n))
    file = audio_video._File(record)
    for i in range(2000):  # about half a sample behind one, where rounding decides
        begin = (1000 + i + 0.49 + i / 2000 * 0.02) * step
        samples = CLIPS._samples(None, file, begin)
        assert abs(samples[0] * step - begin) < 0.51 * step
        assert (np.diff(samples) == 1).all()


@pytest.mark.exhaustive
def test_processes_read_what_one_reads(tmp_path):
    for k in range(3):
        write_flashes(tmp_path / f"{k}.mkv", n=30 + k, rate=16000, codecs=("libx264", "flac"))
    dataset = SampleDataset(tmp_path, scan(tmp_path, CLIPS, None, 1).usable, CLIPS, seed=2)
    numbers = [[0, 1, 2], [3, 4, 5]]
    for here, there in zip(Batches(dataset, numbers, 0), Batches(dataset, numbers, 2), strict=True):
        for name in ("video", "audio"):
            assert torch.equal(here.inputs[name], there.inputs[name])

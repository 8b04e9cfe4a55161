"""Picture and sound of one moment: what flashes when it clicks is read so."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from flashes import CLICK, write_flashes

from smnm_kernels.train.data import media
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.crops import CentreCrop
from smnm_kernels.train.data.modality import FixedView
from smnm_kernels.train.data.sample_randomness import SampleRandomness
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


@pytest.mark.parametrize("name", CASES)
def test_what_flashes_clicks(name, tmp_path):
    path = tmp_path / name
    given = CASES[name]
    flashes = write_flashes(path, **given)
    step = 1 / given.get("fps", 25)
    # At its ends a window begins or ends with the file; uneven frames are not at their place.
    allowed = abs(0.645 - 16 * step) / 2 + 0.025 * ("times" in given)
    shift = first_stamp(path) - given.get("picture_at", 0.0)
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

"""Sounds come out as FFmpeg decodes them, whole and in parts; what is no sound is named."""

import wave

import av
import numpy as np
import pytest
from clips import write_samples, write_sound
from hypothesis import given, settings
from hypothesis import strategies as st

from smnm_kernels.errors import Unusable
from smnm_kernels.train.data import media, sound
from smnm_kernels.train.data.source import Source

SECONDS = 26  # with two points from which reading may start


def noisy(seconds, rate=16000, channels=1, seed=0):
    """A rising tone in noise: no part is like another."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, (channels, len(t)))
    return 0.4 * np.sin(2 * np.pi * t * (200 + 30 * t)) + noise


def probe(path):
    return sound.probe(Source(path), 0.175)


def reason(path):
    with pytest.raises(Unusable) as caught:
        probe(path)
    return str(caught.value)


FILES = {
    "a.wav": {},
    "float.wav": {"codec": "pcm_f32le"},
    "double.wav": {"codec": "pcm_f64le"},
    "a.mp3": {},
    "no-header.mp3": {"muxer": {"write_xing": "0"}},
    "a.m4a": {},
    "noise.m4a": {"options": {"aac_pns": "1"}},
    "a.aac": {},
    "a.ogg": {},
    "a.opus": {"rate": 48000},
    "a.flac": {},
    "a.wma": {"rate": 44100, "options": {"b": "64000"}},
    "a.mka": {},
    "opus.mka": {"rate": 48000, "codec": "libopus"},
    "a.webm": {"rate": 48000},
    "a.ac3": {"rate": 48000},
    "a.mp2": {},
    "a.ts": {},
    "a.aiff": {},
    "a.au": {},
    "a.caf": {},
    "a.tta": {},
    "a.wv": {},
    "a.avi": {"codec": "libmp3lame"},
    "alac.m4a": {"codec": "alac"},
}


@pytest.fixture(scope="module")
def sounds_of_all_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name, how in FILES.items():
        how = dict(how)
        rate = how.pop("rate", 16000)
        write_samples(folder / name, noisy(SECONDS, rate), rate, **how)
    return folder


# Their decoders draw noise or keep a state for good: a start in the middle would differ.
FROM_THE_BEGINNING = {"a.ac3", "a.mp2", "noise.m4a"}


@pytest.mark.parametrize("name", FILES)
def test_a_part_is_what_lies_there_in_the_whole(sounds_of_all_kinds, name):
    source = Source(sounds_of_all_kinds / name)
    record = probe(source.path)
    whole, rate = sound.read_all(source)
    assert (len(whole), rate) == (record["samples"], record["rate"])
    assert abs(len(whole) / rate - SECONDS) < 0.2
    if name not in FROM_THE_BEGINNING:
        assert record["restarts"]
    rng = np.random.default_rng(len(name))
    starts = [0, *rng.integers(0, len(whole) - 2 * rate, 6), len(whole) - 2 * rate]
    for start in map(int, starts):
        count = int(rng.integers(1, 2 * rate))
        assert np.array_equal(sound.read(source, record, start, count), whole[start:][:count])
    end = sound.read(source, record, len(whole) - 100, 9999)
    assert np.array_equal(end, whole[-100:])


@pytest.mark.parametrize("name", FILES)
def test_plain_samples_are_read_without_a_search_for_others(sounds_of_all_kinds, name, monkeypatch):
    source, asked, opened = Source(sounds_of_all_kinds / name), [], media.opened

    def noting(source, kind, direct=False):
        asked.append(direct)
        return opened(source, kind, direct)

    record = probe(source.path)
    plain = name.endswith((".wav", ".aiff", ".au", ".caf"))
    assert record.get("direct", False) is plain
    monkeypatch.setattr(media, "opened", noting)
    found = sound.read(source, record, 100, 16000)
    assert asked == [plain]
    record.pop("direct", None)
    assert np.array_equal(sound.read(source, record, 100, 16000), found)


def test_the_search_stays_where_it_finds_another_codec(tmp_path, monkeypatch):
    """As of DTS in a WAV file, whose header says PCM."""
    write_samples(tmp_path / "a.wav", noisy(1))
    assert probe(tmp_path / "a.wav")["direct"]
    for searched, header in ((None, ("pcm_s16le",)), (("pcm_s16le",), ("pcm_s24le",))):
        found = iter([searched, header])
        monkeypatch.setattr(sound, "_uncompressed", lambda reader, found=found: next(found))
        assert "direct" not in probe(tmp_path / "a.wav")


def test_ffmpeg_finds_dts_behind_plain_samples(tmp_path):
    """What the search is for: two seconds of noise, then frames of 2048 bytes with DTS headers
    (ETSI TS 102 114, 5.3), all in a WAV file whose header says PCM."""
    # Sync word, normal frame, no CRC, blocks, bytes of a frame, 2 channels, 48 kHz, a bit rate; the
    # rest are flags.
    fields = [(0x7FFE8001, 32), (1, 1), (31, 5), (0, 1), (15, 7), (2047, 14), (2, 6), (13, 4)]
    fields += [(24, 5), (0, 11), (1, 1), (0, 1), (7, 4), (0, 11)]
    bits = "".join(f"{value:0{width}b}" for value, width in fields).ljust(112, "0")
    header = np.array([int(bits[i : i + 16], 2) for i in range(0, 112, 16)], "<u2")
    samples = np.random.default_rng(0).integers(-9000, 9000, (200 * 1024,)).astype("<i2")
    frames = samples.reshape(-1, 1024).view("<u2").copy()
    frames[100:, : len(header)] = header
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(frames.tobytes())
    found = []
    for direct in (False, True):
        with media.opened(Source(tmp_path / "a.wav"), "audio", direct) as reader:
            found.append(reader.stream.codec_context.name)
    assert found == ["dca", "pcm_s16le"]
    assert "does not decode" in reason(tmp_path / "a.wav")


@pytest.mark.parametrize("name", FILES)
def test_samples_are_those_of_the_ffmpeg_program(sounds_of_all_kinds, name, ffmpeg):
    path = sounds_of_all_kinds / name
    theirs = np.frombuffer(ffmpeg("-i", path, "-f", "f32le", "-"), dtype=np.float32)
    ours, _ = sound.read_all(Source(path))
    if name in ("a.ogg", "a.mka"):
        theirs = theirs.reshape(-1, 2).mean(axis=1)
    assert len(ours) == len(theirs)
    assert abs(ours - theirs).max() < 1e-5


def test_reading_late_decodes_little(tmp_path, monkeypatch):
    write_samples(tmp_path / "a.mp3", noisy(60))
    source = Source(tmp_path / "a.mp3")
    record = probe(source.path)
    assert len(record["restarts"]) == 5
    mixed = 0
    original = sound.mix

    def counting(frame):
        nonlocal mixed
        mixed += frame.samples
        return original(frame)

    monkeypatch.setattr(sound, "mix", counting)
    sound.read(source, record, 55 * 16000, 16000)
    assert mixed < 14 * 16000


def test_channels_are_averaged(tmp_path):
    samples = noisy(1, channels=2, seed=3)
    write_samples(tmp_path / "a.wav", samples, codec="pcm_f32le")
    got, _ = sound.read_all(Source(tmp_path / "a.wav"))
    assert np.array_equal(got, samples.astype("f4").mean(axis=0))
    write_samples(tmp_path / "b.wav", np.stack([samples[0], -samples[0]]))
    assert reason(tmp_path / "b.wav") == "is silent"


@pytest.mark.parametrize("value", [1e20, 3e29, -9.0, np.inf, np.nan])
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_f64le"])
def test_one_value_that_is_no_sound_is_enough(tmp_path, value, codec):
    samples = noisy(1)
    samples[0, 7000] = value
    write_samples(tmp_path / "a.wav", samples, codec=codec)
    assert reason(tmp_path / "a.wav").startswith(
        "holds values beyond 8 times full scale (up to "
        if np.isfinite(value)
        else "holds values that are not finite numbers"
    )
    samples[0, 7000] = 7.5  # floating-point sound may clip
    write_samples(tmp_path / "a.wav", samples, codec=codec)
    assert probe(tmp_path / "a.wav")["samples"] == 16000


def test_the_length_is_what_decodes(tmp_path):
    """mp3 has no length of its own: FFmpeg estimates it from the first bit rate."""
    loud, quiet = noisy(10), 0.001 * noisy(20, seed=1)
    vbr = {"codec": "libmp3lame", "options": {"qscale": "2"}, "muxer": {"write_xing": "0"}}
    write_samples(tmp_path / "a.mp3", np.concatenate([loud, quiet], axis=1), **vbr)
    assert probe(tmp_path / "a.mp3")["samples"] == pytest.approx(30 * 16000, abs=3000)
    write_samples(tmp_path / "b.mp3", loud)
    parts = [tmp_path / "b.mp3", tmp_path / "a.mp3", tmp_path / "b.mp3"]
    (tmp_path / "joined.mp3").write_bytes(b"".join(p.read_bytes() for p in parts))
    source = Source(tmp_path / "joined.mp3")
    record = probe(source.path)
    assert record["samples"] == pytest.approx(50 * 16000, abs=6000)
    whole, _ = sound.read_all(source)
    for start in (0, 9 * 16000, 31 * 16000, 45 * 16000):
        assert np.array_equal(sound.read(source, record, start, 16000), whole[start:][:16000])


def test_joined_files_of_two_rates_are_brought_to_the_first(tmp_path):
    write_samples(tmp_path / "a.mp3", noisy(3, 16000))
    write_samples(tmp_path / "b.mp3", noisy(3, 24000, seed=1), 24000)
    both = (tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes()
    (tmp_path / "c.mp3").write_bytes(both)
    source = Source(tmp_path / "c.mp3")
    record = probe(source.path)
    assert record["rate"] == 16000
    assert record["samples"] == pytest.approx(6 * 16000, abs=4000)
    whole, _ = sound.read_all(source)
    assert np.array_equal(sound.read(source, record, 60000, 20000), whole[60000:80000])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.aiff", "a.tta"])
def test_a_cut_file_is_named(sounds_of_all_kinds, tmp_path, name):
    whole = (sounds_of_all_kinds / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / name).startswith(("is truncated: ", "does not decode ("))


def test_a_file_of_unknown_length_is_read(tmp_path):
    write_sound(tmp_path / "a.wav")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.find(b"data") + 4
    for size in (0, 2**31 - 37, 2**32 - 1):
        content[at : at + 4] = size.to_bytes(4, "little")
        (tmp_path / "a.wav").write_bytes(content)
        assert probe(tmp_path / "a.wav")["samples"] == 32000
    write_sound(tmp_path / "a.flac")
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # the 36 bits of the number of samples
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    record = probe(tmp_path / "a.flac")
    assert record["samples"] == 32000
    assert len(sound.read(Source(tmp_path / "a.flac"), record, 20000, 12000)) == 12000


def test_the_sound_of_a_video_is_read(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(25):
            picture = np.full((64, 64, 3), 9 * i, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(noisy(1).astype("f4"), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*audio.encode(frame), *audio.encode(None), *video.encode(None)])
    record = probe(tmp_path / "a.mp4")
    assert record["samples"] == pytest.approx(16000, abs=2048)


def test_what_holds_no_sound_is_named(tmp_path):
    (tmp_path / "text.wav").write_text("not a recording\n" * 50)
    (tmp_path / "empty.mp3").touch()
    assert reason(tmp_path / "text.wav").startswith("does not decode (")
    assert reason(tmp_path / "empty.mp3").startswith("does not decode (")
    assert reason(tmp_path / "none.mp3").startswith("does not decode (")


def test_a_damaged_file_is_named_beyond_a_share(sounds_of_all_kinds, tmp_path):
    whole = (sounds_of_all_kinds / "a.ac3").read_bytes()
    frame = 0x0B77.to_bytes(2, "big")
    at = [i for i in range(len(whole)) if whole.startswith(frame, i)]

    def damaged(n):
        """With the head of n frames spoilt; their first two bytes are what the file is cut by."""
        content = bytearray(whole)
        for i in at[10 : 10 + 3 * n : 3]:
            content[i + 4 : i + 8] = b"\xff" * 4
        (tmp_path / "a.ac3").write_bytes(content)
        return Source(tmp_path / "a.ac3")

    assert probe(damaged(2).path)["samples"] > 25 * 48000
    assert "packets are corrupt or do not decode" in reason(damaged(60).path)


def test_members_of_a_shard_are_read_alike(sounds_of_all_kinds, tmp_path):
    for name in ("a.wav", "a.mp3", "a.m4a", "a.ogg", "a.flac", "a.wma", "a.ts", "a.aac"):
        path = sounds_of_all_kinds / name
        content = path.read_bytes()
        for before in (512, 1537):
            shard = tmp_path / "shard.tar"
            shard.write_bytes(b"\1" * before + content + b"\2" * 1000)
            member = Source(shard, before, len(content))
            record = sound.probe(member, 0.175)
            assert record == probe(path)
            start = record["samples"] - 9000
            expected = sound.read(Source(path), record, start, 8000)
            assert np.array_equal(sound.read(member, record, start, 8000), expected)


@settings(deadline=None)
@given(st.integers(0, 26 * 16000 - 1), st.integers(1, 50000))
def test_any_part_of_an_mp3(sounds_of_all_kinds, start, count):
    source = Source(sounds_of_all_kinds / "a.mp3")
    if "record" not in _KEPT:
        _KEPT["record"], _KEPT["whole"] = probe(source.path), sound.read_all(source)[0]
    expected = _KEPT["whole"][start : start + count]
    assert np.array_equal(sound.read(source, _KEPT["record"], start, count), expected)


_KEPT = {}


def test_more_channels_than_pyav_finds_are_named(tmp_path):
    """Of planar frames with more than eight it reads behind the list of planes: noise, or a fault
    of the process."""
    path = tmp_path / "a.opus"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48000, layout="hexadecagonal")
        stream.options = {"mapping_family": "255"}
        samples = (9000 * noisy(1.0, 48000, 16)).astype("i2")
        for start in range(0, 48000, 1024):
            part = samples[:, start : start + 1024].T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, "s16", "hexadecagonal")
            frame.sample_rate, frame.pts = 48000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason(path) == "does not decode (16 channels, 8 at most can be read)"

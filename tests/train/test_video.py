"""The frames of a video are those that FFmpeg decodes, as a player shows them; clips are cut from
them by number; what is damaged is left out and named."""

import random
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import write_video

from smnm_kernels.errors import Unusable
from smnm_kernels.train.data import frames, media
from smnm_kernels.train.data.sample_randomness import SampleRandomness
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import _place, usable_stride
from smnm_kernels.train.data.view import View
from smnm_kernels.train.tasks.presets import PRESETS

CLIP = PRESETS["video"]["tiny"].clip


def probe(path, least=16):
    return frames.probe(Source(path), least, "apply")


def whole(path, pixel_aspect="apply"):
    return np.stack([*frames.read_all(Source(path), pixel_aspect)])


def clip(path, record, start, stride, n=16):
    return np.stack([*frames.read(Source(path), record, start, n, stride)])


def reason(path):
    with pytest.raises(Unusable) as caught:
        probe(path)
    return str(caught.value)


def plain_decode(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


FILES = {
    "a.mp4": {},
    "one-key-frame.mp4": {"options": {"g": "1000", "bf": "3"}},
    "many-key-frames.mp4": {"options": {"g": "8", "bf": "2"}},
    "open-groups.mp4": {"options": {"g": "12", "bf": "2", "x264-params": "open-gop=1"}},
    "refreshed.mp4": {"options": {"g": "24", "x264-params": "intra-refresh=1"}},
    "pieces.mp4": {"options": {"g": "10"}, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "a.mkv": {"options": {"g": "12"}},
    "a.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "b-frames.avi": {"options": {"g": "12", "bf": "3"}},
    "a.webm": {"codec": "libvpx", "options": {"g": "20"}},
    "a.mov": {"codec": "mpeg4", "options": {"bf": "2", "g": "10"}},
    "a.ts": {"options": {"g": "20", "bf": "2"}},
    "a.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "a.vob": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "a.flv": {"options": {"g": "20", "bf": "2"}},
    "a.wmv": {"codec": "wmv2"},
    "a.gif": {"codec": "gif"},
    "a.264": {"options": {"g": "20"}},
    "mjpeg.avi": {"codec": "mjpeg"},
    "uneven.mkv": {"options": {"g": "12"}, "times": "uneven"},
    "doubled.mp4": {"options": {"g": "12"}, "times": "slow, then fast"},
}
TIMES = {
    "uneven": sorted(random.Random(1).sample(range(9000), 100)),
    "slow, then fast": [*range(0, 2500, 50), *range(5000, 5050)],
}


@pytest.fixture(scope="module")
def videos_of_all_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name, how in FILES.items():
        how = how | ({"times": TIMES[how["times"]]} if "times" in how else {})
        write_video(folder / name, n=100, **how)
    return folder


FROM_THE_BEGINNING = {"one-key-frame.mp4", "a.mp4", "refreshed.mp4", "a.264", "a.gif"}


@pytest.mark.parametrize("name", FILES)
def test_the_frames_that_are_asked_for_come(videos_of_all_kinds, name):
    path = videos_of_all_kinds / name
    record = probe(path)
    every = whole(path)
    assert np.array_equal(every, plain_decode(path))
    assert record["frames"] == len(every) == 100
    assert record["damaged"] == []
    assert bool(record["restarts"]) != (name in FROM_THE_BEGINNING)
    for start in range(0, 85, 7):
        for stride in (1, 4):
            if start + 15 * stride < 100:
                expected = every[start : start + 15 * stride + 1 : stride]
                assert np.array_equal(clip(path, record, start, stride), expected)


@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_of_the_ffmpeg_program(videos_of_all_kinds, name, ffmpeg):
    path = videos_of_all_kinds / name
    passed = ("-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    theirs = np.frombuffer(ffmpeg("-i", path, *passed), dtype=np.uint8).reshape(-1, 64, 64, 3)
    ours = whole(path)
    assert ours.shape == theirs.shape
    assert abs(ours.astype(int) - theirs).max() <= 1


def _cut(content):
    return content[: 3 * len(content) // 4]


def _without_data(content):
    """A JPEG picture whose data do not begin."""
    return content.replace(b"\xff\xda", b"\xff\xfe")


@pytest.mark.parametrize(
    ("suffix", "codec", "damage"),
    [("webm", "libvpx", _cut), ("avi", "mjpeg", _cut), ("avi", "mjpeg", _without_data)],
)
def test_damaged_frames_are_the_same_however_they_are_read(tmp_path, suffix, codec, damage):
    """FFmpeg's own decoders show what their memory held before in rows that a frame lacks."""
    write_video(tmp_path / f"a.{suffix}", n=40, codec=codec, options={"g": "12"})
    path = tmp_path / f"damaged.{suffix}"
    with av.open(str(tmp_path / f"a.{suffix}")) as good, av.open(str(path), "w") as bad:
        stream = bad.add_stream_from_template(good.streams.video[0])
        for number, packet in enumerate(good.demux(video=0)):
            content = bytes(packet)
            if number % 5 == 4:
                content = damage(content)
            cut = av.Packet(content)
            cut.pts, cut.dts, cut.time_base = packet.pts, packet.dts, packet.time_base
            cut.is_keyframe, cut.stream = packet.is_keyframe, stream
            if content:
                bad.mux(cut)
    one_by_one = whole(path)
    with media.opened(Source(path), "video") as reader:
        held = [frame for _, found, _ in reader.steps() for frame in found]
        view = View.of(held[0], reader.stream, "apply")
    assert np.array_equal(one_by_one, [view.pixels(frame) for frame in held])
    assert not np.array_equal(one_by_one, whole(tmp_path / f"a.{suffix}")[: len(one_by_one)])


def test_packets_that_a_transport_stream_marks_as_corrupt_are_damage(tmp_path):
    path = tmp_path / "film.ts"
    write_video(path, n=90, codec="mpeg2video", options={"g": "12"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [p.pos for p in container.demux(video=0) if p.size]
    for place in places[40:80:20]:
        content[place + 1] |= 0x80  # the indicator of an error in transport
    path.write_bytes(content)
    with pytest.raises(Unusable, match=r"is damaged: [2-9] of "):
        probe(path)


def test_a_length_that_asks_for_too_much_memory_is_damage(videos_of_all_kinds, monkeypatch):
    path = videos_of_all_kinds / next(iter(FILES))

    def damaged(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(av, "open", damaged)
    with pytest.raises(Unusable, match="asks for too much memory"):
        probe(path)
    monkeypatch.setattr(media, "_SOME_MEMORY", 1 << 60)
    with pytest.raises(MemoryError):  # of this moment: the file is looked at again next time
        probe(path)


def test_damage_in_the_sound_costs_no_frame(tmp_path):
    """A demuxer that cannot make sense of one packet leaves out the ones around it."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("libopus", rate=48000, layout="mono")
        for i in range(50):
            picture = np.full((48, 64, 3), 4 * i, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            tone = np.sin(np.arange(1920 * i, 1920 * (i + 1)) / 20)
            frame = av.AudioFrame.from_ndarray(tone[None].astype("f4"), "fltp", "mono")
            frame.sample_rate, frame.pts = 48000, 1920 * i
            container.mux(audio.encode(frame))
        container.mux([*video.encode(None), *audio.encode(None)])
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        block = [p for p in container.demux(audio=0) if p.size][40]
        # Track number, time, flags: the last one now says that several packets share the block.
        at = content.index(bytes(block)[:16], block.pos) - 1
    content[at] |= 0b110
    path.write_bytes(content)
    assert len(whole(path)) == 50


def test_a_clip_late_in_a_long_file_decodes_little(tmp_path, monkeypatch):
    path = tmp_path / "long.mp4"
    write_video(path, n=600, options={"g": "20"})
    record = probe(path)
    decoded = 0
    original = media.Reader.decode

    def counting(*arguments):
        nonlocal decoded
        found = original(*arguments)
        decoded += len(found)
        return found

    monkeypatch.setattr(media.Reader, "decode", counting)
    clip(path, record, 500, 2)
    assert 31 <= decoded <= 31 + 2 * 40


def test_short_files_get_the_stride_that_fits():
    assert [usable_stride(n, 16, 4) for n in (16, 30, 31, 46, 61, 1000)] == [1, 1, 2, 3, 4, 4]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_frames_are_turned_as_the_file_says(tmp_path, turn, ffmpeg):
    write_video(tmp_path / "a.mp4", n=16, size=(64, 48), turn=turn)
    write_video(tmp_path / "flat.mp4", n=16, size=(64, 48))
    turned = np.rot90(whole(tmp_path / "flat.mp4"), turn // 90, (1, 2))
    assert np.array_equal(whole(tmp_path / "a.mp4"), turned)
    record = probe(tmp_path / "a.mp4")
    assert View.from_list(record["view"]).size == ((48, 64) if turn % 180 else (64, 48))
    assert np.array_equal(clip(tmp_path / "a.mp4", record, 0, 1), turned)
    raw = ffmpeg("-i", tmp_path / "a.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    assert np.array_equal(np.frombuffer(raw, np.uint8).reshape(turned.shape), turned)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((-1, 0, 0, 1), lambda x: x[:, :, ::-1]),
        ((1, 0, 0, -1), lambda x: x[:, ::-1]),
        ((0, 1, 1, 0), lambda x: x.transpose(0, 2, 1, 3)),
        ((0, -1, -1, 0), lambda x: np.rot90(x, 2, (1, 2)).transpose(0, 2, 1, 3)),
    ],
)
def test_mirrored_frames_are_mirrored_back(tmp_path, matrix, expected, ffmpeg):
    path = tmp_path / "a.mp4"
    write_video(path, n=16, size=(64, 48))
    flat = whole(path)
    content = bytearray(path.read_bytes())
    identity = b"".join(n.to_bytes(4, "big") for n in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    a, b, c, d = ((n << 16) & 0xFFFFFFFF for n in matrix)
    other = b"".join(n.to_bytes(4, "big") for n in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    at = content.index(identity, content.index(b"tkhd"))
    content[at : at + 36] = other
    path.write_bytes(content)
    assert np.array_equal(whole(path), expected(flat))
    raw = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    assert np.array_equal(raw.reshape(expected(flat).shape), expected(flat))
    content[at : at + 16] = b"".join(n.to_bytes(4, "big") for n in (46341, 46341, 0, 0))
    content[at + 12 : at + 20] = b"".join(n.to_bytes(4, "big") for n in (2**32 - 46341, 46341))
    path.write_bytes(content)
    assert reason(path) == "is to be shown turned by 45.0 degrees"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mpg"])
def test_pixels_that_are_not_square_are_made_so(tmp_path, name):
    codec = "mpeg2video" if name == "a.mpg" else "libx264"
    aspect = Fraction(4, 3) if name == "a.mpg" else Fraction(64, 45)
    write_video(tmp_path / name, n=16, size=(96, 72), aspect=aspect, codec=codec)
    record = probe(tmp_path / name)
    shown = whole(tmp_path / name)
    assert shown.shape == (16, 72, int(96 * aspect), 3)
    assert View.from_list(record["view"]).size == shown.shape[2:0:-1]
    assert np.array_equal(clip(tmp_path / name, record, 0, 1), shown)
    assert whole(tmp_path / name, "ignore").shape == (16, 72, 96, 3)
    sample = replace(CLIP, pixel_aspect="ignore")
    ignored = sample.probe(Source(tmp_path / name))
    assert View.from_list(ignored["view"]).size == (96, 72)


def test_made_square_as_the_ffmpeg_program_does(tmp_path, ffmpeg):
    write_video(tmp_path / "a.mp4", n=16, size=(96, 72), aspect=Fraction(64, 45), turn=90)
    shown = whole(tmp_path / "a.mp4")
    scale = ("-vf", "scale=iw*sar:ih,setsar=1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    raw = np.frombuffer(ffmpeg("-i", tmp_path / "a.mp4", *scale), np.uint8)
    assert shown.shape[1:] == (96, 72 * 45 // 64, 3)
    assert abs(raw.reshape(shown.shape).astype(int) - shown).max() <= 2


def test_the_default_stream_that_is_no_picture_is_read(tmp_path):
    def write(path, default, attached=None):
        with av.open(str(path), "w") as container:
            streams = []
            for width in (32, 64):
                stream = container.add_stream("libx264", rate=25)
                stream.width = stream.height = width
                stream.pix_fmt = "yuv420p"
                streams.append(stream)
            for i, stream in enumerate(streams):
                stream.disposition = av.stream.Disposition.default if default == i else 0
            for i in range(20):
                for stream in streams:
                    picture = np.full((stream.width, stream.width, 3), 9 * i, dtype=np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    container.mux(stream.encode(frame))
            for stream in streams:
                container.mux(stream.encode(None))

    for default, width in ((0, 32), (1, 64), (None, 64)):
        write(tmp_path / "a.mkv", default)
        assert whole(tmp_path / "a.mkv").shape == (20, width, width, 3)


def damage(path, packets, flips=20):
    """The file's bytes, some of them spoilt in these packets of its video."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in packets:
        pos, size = places[number]
        for i in rng.integers(pos + size // 4, pos + size, flips):
            content[i] ^= int(rng.integers(1, 256))
    return bytes(content)


def noisy_video(path, n=400, g=20):
    """With so much in each frame that damage hits one of them."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": str(g), "bf": "2"}
        stream.codec_context.thread_count = 1
        for _ in range(n):
            picture = rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def test_clips_avoid_corrupt_frames_and_files_full_of_them_are_named(tmp_path):
    noisy_video(tmp_path / "a.mp4")
    good = whole(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(damage(tmp_path / "a.mp4", [128]))
    record = CLIP.probe(Source(tmp_path / "b.mp4"))
    [(begin, end)] = record["damaged"]
    assert 120 < begin < end < 140
    # Outside of what is said to be damaged nothing is.
    now = whole(tmp_path / "b.mp4")
    assert len(now) == len(good) == record["frames"]
    assert (now[begin:end] != good[begin:end]).any()
    assert np.array_equal(now[:begin], good[:begin])
    assert np.array_equal(now[end:], good[end:])
    span = 15 * CLIP.stride + 1
    starts = [_place(frames.undamaged(record), span, u) for u in np.arange(0, 1, 0.001)]
    assert all(s + span <= begin or s >= end for s in starts)
    assert {0, end} < set(starts)
    for index in range(20):
        CLIP.read(Source(tmp_path / "b.mp4"), record, SampleRandomness(0, index))
    many = damage(tmp_path / "a.mp4", range(10, 390, 5))
    (tmp_path / "c.mp4").write_bytes(many)
    assert reason(tmp_path / "c.mp4").startswith("is damaged: ")


def test_a_corrupt_frame_that_the_scan_did_not_see_is_named(tmp_path):
    noisy_video(tmp_path / "a.mp4")
    record = probe(tmp_path / "a.mp4")
    spoilt = damage(tmp_path / "a.mp4", range(10, 390, 5))
    (tmp_path / "a.mp4").write_bytes(spoilt)

    def read_everything():
        for start in range(0, 380, 16):
            clip(tmp_path / "a.mp4", record, start, 1)

    with pytest.raises(Unusable, match=r"corrupt frame|has only|does not decode"):
        read_everything()


def test_stretches_without_damage():
    record = {"frames": 100, "damaged": [[0, 10], [40, 50], [50, 60]]}
    assert frames.undamaged(record) == [(0, 0), (10, 30), (50, 0), (60, 40)]
    starts = [_place(frames.undamaged(record), 30, u) for u in np.arange(0, 1, 0.01)]
    assert sorted(set(starts)) == [10, *range(60, 71)]


def test_members_of_a_shard_are_read_alike(videos_of_all_kinds, tmp_path):
    for name in ("a.mp4", "a.mkv", "a.avi", "a.ts", "a.webm", "a.gif", "pieces.mp4"):
        path = videos_of_all_kinds / name
        content = path.read_bytes()
        record = probe(path)
        for before in (512, 1537):
            (tmp_path / "shard.tar").write_bytes(b"\1" * before + content + b"\2" * 1000)
            member = Source(tmp_path / "shard.tar", before, len(content))
            assert frames.probe(member, 16, "apply") == record
            got = [*frames.read(member, record, 80, 16, 1)]
            assert np.array_equal(got, clip(path, record, 80, 1))


def test_a_sample_is_what_is_cut_from_the_frames(tmp_path):
    write_video(tmp_path / "a.mp4", n=60, size=(80, 60), turn=90)
    source = Source(tmp_path / "a.mp4")
    every = whole(tmp_path / "a.mp4")
    record = CLIP.probe(source)
    for index in range(6):
        randomness = SampleRandomness(0, index)
        u = randomness.uniforms(2 + CLIP.crop.n_uniforms)
        start = int(u[0] * (60 - 15 * CLIP.stride))
        part = CLIP.crop.part(80, 60, CLIP.size, u[1:-1])
        shown = every[start : start + 15 * CLIP.stride + 1 : CLIP.stride]
        expected = torch.stack([part.of(pixels, CLIP.size) for pixels in shown], dim=1)
        expected = expected.flip(3) if u[-1] < 0.5 else expected
        assert torch.equal(CLIP.read(source, record, randomness)["video"], expected)

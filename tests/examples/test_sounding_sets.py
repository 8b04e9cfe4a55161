"""Sets whose films sound: the sound is what the picture shows, at the same time."""

from dataclasses import replace

import numpy as np
import pytest
from testing import need_packages

need_packages("av", "tqdm", "PIL")

import retrieval_rule  # noqa: E402
import set_files  # noqa: E402
import sounding_sprites as sounding  # noqa: E402
from set_checks import check_same, check_splits, manifest, table  # noqa: E402

from smnm_kernels.train import decode  # noqa: E402
from smnm_kernels.train.data import sound  # noqa: E402
from smnm_kernels.train.data.audio import Audio  # noqa: E402
from smnm_kernels.train.data.audio_video import AudioVideo  # noqa: E402
from smnm_kernels.train.data.crops import CentreCrop  # noqa: E402
from smnm_kernels.train.data.source import Source  # noqa: E402
from smnm_kernels.train.data.video import Video  # noqa: E402


def bouncers(count):
    return [sounding.Bouncer.random(np.random.default_rng(k)) for k in range(count)]


def test_a_film_is_read_in_time_and_its_digest_is_of_both(tmp_path):
    frames = [np.full((16, 16, 3), 20 * k, np.uint8) for k in range(8)]
    noise = np.random.default_rng(0).integers(-9000, 9000, 8 * 1024).astype(np.int16)
    for name, samples in (("a", noise), ("b", noise), ("c", -noise)):
        set_files.write_film(tmp_path / f"{name}.mkv", frames, 30, samples, 30720)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    digests = [set_files.digest(tmp_path / f"{name}.mkv") for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    read, rate = sound.read_all(Source(tmp_path / "a.mkv"))
    assert rate == 30720
    assert (np.round(read * 32768) == noise).all()
    reader = AudioVideo(Video(4, 16, 1, CentreCrop(), flip=False), Audio(16, 32))
    record = reader.probe(Source(tmp_path / "a.mkv"))
    for stream in ("video", "audio"):
        assert record[stream]["times"]["pieces"][0][:2] == [0, 0.0]
        assert record[stream]["times"]["end"] == pytest.approx(8 / 30, abs=2e-3)


def test_it_is_reflected_where_it_says():
    """Against small steps that turn at the edges."""
    for clip in bouncers(8):
        place, speed, n = clip.start.copy(), clip.velocity.copy(), 1000
        turns = []
        for k in range(n):
            place += speed * 2 / n
            for axis in (0, 1):
                if not clip.radius <= place[axis] <= 1 - clip.radius:
                    turns.append(2 * (k + 1) / n)
                    edge = clip.radius if place[axis] < clip.radius else 1 - clip.radius
                    place[axis], speed[axis] = 2 * edge - place[axis], -speed[axis]
            assert abs(place - clip.centre(2 * (k + 1) / n)).max() < 1e-6
        assert clip.bounces(2.0) == pytest.approx(turns, abs=4e-3)
        assert clip.labels(2.0)["bounces"] == len(turns)


def test_it_is_drawn_where_it_is_and_never_leaves():
    for clip in bouncers(6):
        clip = replace(clip, shape="disc")
        bare = clip.background.at(*((np.mgrid[:64, :64][::-1] + 0.5) / 64 - 0.5))
        for k, picture in enumerate(clip.frames(60, 64)):
            held = (picture != bare).any(2)
            at = (np.argwhere(held).mean(0)[::-1] + 0.5) / 64
            assert abs(at - clip.centre(k / sounding.RATE)).max() < 0.02
            assert held.sum() / 64**2 == pytest.approx(np.pi * clip.radius**2, rel=0.15)


def test_it_sounds_by_its_size_and_timbre_and_clicks_where_it_bounces():
    for clip in bouncers(20):
        samples = clip.samples(2.0).astype(float)
        quiet = replace(clip, velocity=1e-9 * clip.velocity).samples(2.0)
        differs = np.flatnonzero(samples - quiet)
        starts = differs[np.diff(differs, prepend=-9999) > 40] / sounding.SOUND_RATE
        for bounce in clip.bounces(2.0):
            assert abs(starts - bounce).min() < 0.013  # two may run into each other
        assert len(starts) <= len(clip.bounces(2.0)) + 1
        power = abs(np.fft.rfft(quiet * np.hanning(len(quiet)))) ** 2
        frequencies = np.fft.rfftfreq(len(quiet), 1 / sounding.SOUND_RATE)
        assert frequencies[power.argmax()] == pytest.approx(clip.pitch, abs=1)
        third = power[abs(frequencies - 3 * clip.pitch) < 2].max() / power.max()
        assert (third > 0.1) == (clip.timbre == "rich")
        assert abs(samples).max() < 32767
    clips = bouncers(400)
    sizes, pitches = [c.radius for c in clips], [np.log2(c.pitch) for c in clips]
    assert -0.99 < np.corrcoef(sizes, pitches)[0, 1] < -0.9
    left = np.array(pitches) - np.polyval(np.polyfit(sizes, pitches, 1), sizes)
    assert left.std() == pytest.approx(sounding.PITCH_CHANCE, rel=0.15)


def test_neither_picture_nor_sound_alone_tells_the_class(tmp_path):
    for out in ("a", "b"):
        sounding.make(tmp_path / out, groups=4, single=3, frames=8, size=32, seed=1)
    check_same(tmp_path / "a", tmp_path / "b")
    rows = check_splits(tmp_path / "a", "group")
    assert len(rows) == 16
    assert manifest(tmp_path / "a")["licence"] == "CC0-1.0"
    by_sight, by_ear = {}, {}
    for row in rows:
        path = tmp_path / "a" / row["path"]
        by_sight.setdefault(decode(path).tobytes(), []).append(row)
        by_ear.setdefault(decode(path, modality="audio").tobytes(), []).append(row)
        assert row["both"] == (
            "like" if (row["shape"] == "disc") == (row["timbre"] == "pure") else "unlike"
        )
        assert row["pair"] == f"{row['shape']}-{row['timbre']}"
    for alike, same, other in ((by_sight, "shape", "timbre"), (by_ear, "timbre", "shape")):
        assert len(alike) == 8
        for pair in alike.values():
            assert [row["both"] for row in sorted(pair, key=lambda r: r["both"])] == [
                "like",
                "unlike",
            ]
            assert pair[0][same] == pair[1][same]
            assert pair[0][other] != pair[1][other]
    single = table(tmp_path / "a/single.csv")
    assert {row["split"] for row in single} == {"test"}
    assert len({(tmp_path / "a" / row["path"]).read_bytes() for row in single}) == 3


def test_the_rule_of_sizes_finds_some_and_not_all(tmp_path):
    for name, clips in (("labels.csv", bouncers(100)), ("single.csv", bouncers(300)[100:])):
        rows = [{"split": "train", **clip.labels(2.0)} for clip in clips]
        set_files.write_table(tmp_path / name, rows)
    for found in retrieval_rule.rule(tmp_path).values():
        measures = found.measures()
        assert 3 * 10 / 200 < measures["recall@10"] < 0.9
        assert 1 < measures["median_rank"] < 40


@pytest.mark.slow
def test_what_the_console_plays_is_in_step_with_its_frames(tmp_path):
    need_packages("ale_py")
    import atari

    assert atari.Console("pong", 0, 0, 16, sound=True).ale.getAudioSize() == atari.FRAME_SAMPLES
    for out in ("a", "b"):
        atari.make(
            tmp_path / out, ["pong"], clips=3, episodes=3, frames=64, size=32, seed=0, sound=True
        )
    check_same(tmp_path / "a", tmp_path / "b")
    assert " --sound" in manifest(tmp_path / "a")["command"]
    turns = 0
    for row in check_splits(tmp_path / "a", "episode"):
        path = tmp_path / "a" / row["path"]
        samples, rate = sound.read_all(Source(path))
        assert (len(samples), rate) == (64 * 1024, 30 * 1024)
        shown = decode(path)
        assert shown.shape == (64, 32, 32, 3)
        console = atari.Console("pong", 0, int(row["episode"]), 32, sound=True)
        moments, _ = next(console.clips(1, 64))
        heard = np.array([np.ptp(moment.samples) > 0 for moment in moments])
        assert ((np.ptp(samples.reshape(64, 1024), axis=1) > 0) == heard).all()
        # Where the ball turns at a wall or paddle, the console has just begun to play.
        for label in ("ball_x", "ball_y"):
            steps = np.sign(console.steps(moments, label))
            onsets = np.flatnonzero(heard[1:] & ~heard[:-1]) + 1
            for k in np.flatnonzero(steps[:-1] * steps[1:] < 0) + 1:
                assert abs(onsets - k).min() <= 2
                turns += 1
    assert turns >= 2

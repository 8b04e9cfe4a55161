"""The generators of labelled sets: two runs are equal, labels and masks are right."""

import subprocess
import sys
import wave
from contextlib import contextmanager

import numpy as np
import pytest
from testing import ROOT, need_packages, with_path

need_packages("av", "tqdm", "PIL")

import effects  # noqa: E402
import PIL.Image  # noqa: E402
import set_files  # noqa: E402
import speech  # noqa: E402
import sprites  # noqa: E402
from set_checks import check_same, check_splits, table  # noqa: E402

from smnm_kernels.train import decode  # noqa: E402

# Writing.


def test_groups_are_split_in_this_order():
    found = [set_files.split_of(i, 16) for i in range(16)]
    assert found == ["train"] * 10 + ["val"] * 2 + ["test"] * 4
    assert [set_files.split_of(i, 3) for i in range(3)] == ["train", "val", "test"]


def test_a_digest_is_of_the_content(tmp_path):
    picture = PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for name, level in (("a.png", 1), ("b.png", 9)):
        picture.save(tmp_path / name, compress_level=level)
    assert set_files.digest(tmp_path / "a.png") == set_files.digest(tmp_path / "b.png")
    picture.putpixel((3, 3), 0)
    picture.save(tmp_path / "b.png")
    assert set_files.digest(tmp_path / "a.png") != set_files.digest(tmp_path / "b.png")


def test_a_set_without_a_manifest_is_not_complete(tmp_path):
    arguments = {"clips": 3, "sprites": 1, "masked": 0, "masked_sprites": 1, "frames": 2}
    sprites.make(tmp_path, **arguments, size=16, seed=0)
    assert set_files.is_complete(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "clips/0001.mp4").write_bytes(b"half")
    assert not set_files.is_complete(tmp_path)
    sprites.make(tmp_path, **arguments, size=16, seed=0)
    assert len(decode(tmp_path / "clips/0001.mp4")) == 2


@pytest.mark.slow
def test_a_package_that_cannot_be_had_is_named():
    need_debian()
    with (
        pytest.raises(set_files.Missing, match="smnm-no-such-package"),
        set_files.debian_package("smnm-no-such-package"),
    ):
        pass


def need_debian():
    try:
        with set_files.debian_package("bucklespring-data"):
            pass
    except set_files.Missing as reason:
        pytest.skip(str(reason))


# Sprites.


def test_a_mask_is_the_pixels_of_its_sprite():
    for number in range(20):
        scene = sprites.Scene.random(np.random.default_rng(number), 3)
        picture, mask = scene.frame(7, 48)
        bare, none = sprites.Scene(scene.background, ()).frame(7, 48)
        assert not none.any()
        changed = (picture != bare).any(2)
        assert not changed[mask == 0].any()
        # By chance a pixel may have the colour of the background.
        assert changed[mask > 0].mean() > 0.98
        for i, sprite in enumerate(scene.sprites):  # none in front of the first
            alone, of_it = sprites.Scene(scene.background, (sprite,)).frame(7, 48)
            assert (alone[mask == i + 1] == picture[mask == i + 1]).all()
            assert (of_it[mask == i + 1] == 1).all()
            assert i > 0 or (of_it > 0).sum() == (mask == 1).sum() > 20


def test_a_sprite_moves_as_its_labels_say():
    for number in range(30):
        scene = sprites.Scene.random(np.random.default_rng(number), 1)
        labels = scene.labels(24)
        places = []
        for t in (11, 12, 13):
            held = scene.frame(t, 96)[1] > 0
            around = np.exp(2j * np.pi * (np.arange(96) + 0.5) / 96)
            places.append([np.angle((held.sum(axis) * around).sum()) for axis in (0, 1)])
        at = np.array(places) / (2 * np.pi) % 1
        off = (at[1] - [labels["x"], labels["y"]] + 0.5) % 1 - 0.5
        assert abs(off).max() < 0.04  # a triangle's centre is not that of its mass
        moved = (at[2] - at[0] + 0.5) % 1 - 0.5
        angle = np.arctan2(moved[1], moved[0]) / (np.pi / 2)
        named = sprites.DIRECTIONS.index(labels["direction"])
        if labels["speed"] != "slow":  # less than a pixel a frame
            assert abs((angle - named + 2) % 4 - 2) < 0.25


def test_sprites_are_the_same_twice_and_in_the_layout_of_davis(tmp_path):
    for out in ("a", "b"):
        sprites.make(
            tmp_path / out,
            clips=8,
            sprites=1,
            masked=2,
            masked_sprites=3,
            frames=4,
            size=32,
            seed=3,
        )
    check_same(tmp_path / "a", tmp_path / "b")
    rows = check_splits(tmp_path / "a", "path")
    assert len(rows) == 8
    assert decode(tmp_path / "a" / rows[0]["path"]).shape == (4, 32, 32, 3)
    masks = tmp_path / "a/masks"
    names = (masks / "ImageSets/2017/val.txt").read_text().split()
    assert names == ["sprites-000", "sprites-001"]
    scene = sprites.Scene.random(np.random.default_rng([3, 5, 1]), 3)
    for t in range(4):
        with PIL.Image.open(masks / f"Annotations/480p/sprites-001/{t:05d}.png") as read:
            assert read.mode == "P"
            assert (np.asarray(read) == scene.frame(t, 32)[1]).all()
        picture = decode(masks / f"JPEGImages/480p/sprites-001/{t:05d}.jpg").astype(int)
        assert abs(picture - scene.frame(t, 32)[0]).mean() < 4


def test_stills_show_what_their_table_says(tmp_path):
    for out in ("a", "b"):
        sprites.make(tmp_path / out, 0, 1, 0, 1, frames=1, size=48, seed=2, stills=8)
    check_same(tmp_path / "a", tmp_path / "b")
    rows = table(tmp_path / "a/stills.csv")
    assert [row["split"] for row in rows] == [set_files.split_of(i, 8) for i in range(8)]
    for number, row in enumerate(rows):
        scene = sprites.Scene.random(np.random.default_rng([2, 6, number]), 1)
        (sprite,) = scene.sprites
        shown = (sprite.shape, *sprite.start, sprite.radius)
        assert row["shape"] == shown[0]
        said = [float(row[name]) for name in ("x", "y", "radius")]
        assert said == pytest.approx(shown[1:], abs=1e-4)
        assert (decode(tmp_path / "a" / row["path"]) == scene.frame(0, 48)[0]).all()


# Atari.


@pytest.fixture(scope="module")
def games(tmp_path_factory):
    need_packages("ale_py")
    import atari

    folder = tmp_path_factory.mktemp("games")
    for out in ("a", "b"):
        atari.make(
            folder / out, ["pong", "boxing"], clips=8, episodes=4, frames=32, size=96, seed=0
        )
    return folder


@pytest.mark.slow
def test_games_are_the_same_twice_and_split_by_episode(games):
    check_same(games / "a", games / "b")
    rows = check_splits(games / "a", "episode")
    assert {row["game"] for row in rows} == {"pong", "boxing"}
    for game in ("pong", "boxing"):
        own = table(games / f"a/{game}.csv")
        assert len(own) == 8
        assert all(row.values() for row in own)
        assert all(value != "" for row in own for value in row.values())
    clips = [decode(games / "a" / row["path"]) for row in rows]
    assert {clip.shape for clip in clips} == {(32, 96, 96, 3)}
    assert len({clip.tobytes() for clip in clips}) == 16


@pytest.mark.slow
def test_stills_are_the_middle_frames(tmp_path):
    need_packages("ale_py")
    import atari

    arguments = {"clips": 3, "episodes": 3, "frames": 32, "size": 48, "seed": 0}
    atari.make(tmp_path, ["pong"], **arguments, stills=True)
    (row, *_) = table(tmp_path / "pong.csv")
    ((shown, labels),) = atari.Console("pong", 0, 0, 48).clips(1, 32)
    assert (decode(tmp_path / row["path"]) == shown[16].picture).all()
    assert row["ball_y"] == str(labels["ball_y"])


@pytest.mark.slow
def test_labels_are_what_the_pictures_show(games):
    """Pong's ball is where the memory says, and goes where the label says."""
    seen, told = [], []
    for row in table(games / "a/pong.csv"):
        frames = decode(games / "a" / row["path"])[14:19].astype(int)
        lit = frames.min(3) > 140  # the ball is white, paddles and field are not
        places = np.array([np.argwhere(of).mean(0) for of in lit])
        seen.append([places[2][1], places[2][0]])
        told.append([int(row["ball_x"]), int(row["ball_y"])])
        for axis, label in ((1, "ball_x"), (0, "ball_y")):
            moved = places[4][axis] - places[0][axis]
            assert row[f"{label}_moves"] == ("up" if moved > 0 else "down")
    for axis in (0, 1):
        x, y = np.array(told)[:, axis], np.array(seen)[:, axis]
        line = np.polyfit(x, y, 1)
        assert line[0] > 0
        assert abs(np.polyval(line, x) - y).max() < 2


@pytest.mark.slow
def test_without_ale_py_it_says_what_to_install(tmp_path):
    program = "import sys; sys.modules['ale_py'] = None; sys.argv = sys.argv[1:]; import runpy; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    script = ROOT / "examples/data/atari.py"
    words = [sys.executable, "-c", program, str(script), "--out", str(tmp_path / "set")]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=script.parent,
        env=with_path(ROOT, script.parent) | {"PATH": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert "skipped: pip install ale-py" in done.stderr
    assert not (tmp_path / "set/manifest.json").exists()


# Sounds, of packages that stand in for Debian's.


def write_tone(path, pitch, seconds=0.6, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(rate * seconds)) / rate
    samples = (8000 * np.sin(2 * np.pi * pitch * t)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


#: Writes a tone whose pitch follows from what is said and by whom.
ESPEAK = """#!/bin/sh
while [ $# -gt 1 ]; do case $1 in -v) voice=$2; shift;; -w) out=$2; shift;; esac; shift; done
cp "$(dirname "$0")/tone.wav" "$out" || exit 1
printf %s "$voice$1" | tail -c 8 | dd of="$out" bs=1 seek=100 conv=notrunc 2>/dev/null
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    there = tmp_path / "packages"

    @contextmanager
    def debian_package(name):
        folder = there / name
        if name == "espeak-ng":
            write_tone(folder / "usr/bin/tone.wav", 300)
            (folder / "usr/bin/espeak-ng").write_text(ESPEAK)
            (folder / "usr/bin/espeak-ng").chmod(0o755)
        elif name.startswith("asterisk"):
            for i in range(12):
                path = f"usr/share/asterisk/sounds/someone/{('', 'digits/')[i % 2]}said{i}.wav"
                write_tone(folder / path, 200 + 50 * i + len(name), 0.3 if i == 0 else 0.6)
        elif name == effects.PACKAGE:
            names = [f"{kind}-{i}" for k in effects.CLASSES.values() for kind in k.split()[:4]
                     for i in (1, 2)]  # fmt: skip
            for i, sound in enumerate([*names, "gold"]):
                path = folder / effects.SOUNDS / f"{sound}.ogg"  # FFmpeg looks at the content
                write_tone(path, 200 + 10 * i)
        yield folder, "1.0"

    for module in (speech, effects):
        monkeypatch.setattr(module, "debian_package", debian_package)


def test_words_are_split_by_voice(packages, tmp_path):
    for out in ("a", "b"):
        speech.make_words(tmp_path / out, "words", ["one", "two"], voices=8, seed=0)
    check_same(tmp_path / "a", tmp_path / "b")
    rows = check_splits(tmp_path / "a", "voice")
    assert len(rows) == 16
    assert len({row["voice"] for row in rows}) == 8
    for row in rows:
        assert row["path"].startswith(f"{row['split']}/{row['word']}/")
    assert len({(tmp_path / "a" / row["path"]).read_bytes() for row in rows}) > 8


def test_pairs_are_the_same_at_16_khz(packages, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "without_silence", lambda samples: samples)
    speech.make_words(tmp_path / "words", "words", ["pat"], voices=3, seed=0)
    speech.make_words(tmp_path / "pairs", "pairs", ["pat"], voices=3, seed=0)
    for row in table(tmp_path / "words/labels.csv"):
        was, is_now = (set_files.sound_of(tmp_path / w / row["path"]) for w in ("words", "pairs"))
        assert is_now[1] == 16000
        assert len(is_now[0]) == -(-len(was[0]) * 16000 // was[1])
        spectra = [
            abs(np.fft.rfft(x / 2**15, n=rate))[100:4000] / rate for x, rate in (was, is_now)
        ]
        np.testing.assert_allclose(*spectra, atol=2e-4)


def test_silence_around_a_word_is_cut_off():
    word = np.array([500, -10_000, 0, 0, 30, 300], np.int16)
    quiet = np.full(1000, 40, np.int16)  # below 2% of 10,000
    cut = speech.without_silence(np.concatenate([quiet, word, quiet]))
    np.testing.assert_array_equal(cut, np.concatenate([quiet[:320], word, quiet[:320]]))
    np.testing.assert_array_equal(speech.without_silence(word), word)


def test_prompts_are_split_by_sentence(packages, tmp_path):
    for out in ("a", "b"):
        speech.make_prompts(tmp_path / out, ["en", "fr"], 12, seed=0)
    check_same(tmp_path / "a", tmp_path / "b")
    rows = check_splits(tmp_path / "a", "prompt")
    assert len(rows) == 2 * 11  # one is too short
    assert "digits-said1" in {row["prompt"] for row in rows}
    assert all(row["path"].startswith(f"{row['split']}/{row['language']}/") for row in rows)


def test_effects_are_split_by_what_sounds(packages, tmp_path):
    for out in ("a", "b"):
        effects.make(tmp_path / out, seed=0)
    check_same(tmp_path / "a", tmp_path / "b")
    rows = check_splits(tmp_path / "a", "thing")
    assert {row["kind"] for row in rows} == set(effects.CLASSES)
    assert not any("gold" in row["path"] for row in rows)
    for kind in effects.CLASSES:  # each is in every split
        assert {row["split"] for row in rows if row["kind"] == kind} == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("name", "thing"),
    [
        ("wolf-die-1", "wolf"),
        ("bow-puny-fire-miss", "bow"),
        ("magic-missile-1-miss", "magic-missile"),
        ("human-old-hit-4", "human-old"),
    ],
)
def test_takes_of_one_thing_belong_together(name, thing):
    assert effects.thing_of(name) == thing


@pytest.mark.exhaustive
def test_espeak_speaks(tmp_path):
    """With Debian's package itself, where it can be had."""
    try:
        speech.make_words(tmp_path, "words", ["yes", "no"], voices=3, seed=0)
    except set_files.Missing as reason:
        pytest.skip(str(reason))
    rows = check_splits(tmp_path, "voice")
    sounds = [decode(tmp_path / row["path"]) for row in rows]
    assert all(abs(sound).max() > 0.1 for sound in sounds)
    assert len({sound.tobytes() for sound in sounds}) == 6

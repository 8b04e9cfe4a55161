"""Phrases of music from a SoundFont: what is heard is what the labels say."""

import struct
from contextlib import contextmanager

import numpy as np
import pytest
from testing import need_packages

need_packages("av", "tqdm", "PIL")

import music  # noqa: E402
from set_checks import check_same, check_splits  # noqa: E402
from sound_font import SoundFont  # noqa: E402

from smnm_kernels.train import decode  # noqa: E402

RATE = 16000
LOW, HIGH = 220.0, 880.0  # recorded pitches: MIDI's 57 and 81


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def write_font(path, programs=(0,), decay=None, sustain=None):
    """Keys up to 69 play LOW, which goes round a loop of ten periods; those up to 96 play HIGH,
    recorded at half the rate, once."""
    seconds = np.arange(RATE // 4) / RATE
    low = 20000 * np.sin(2 * np.pi * LOW * seconds)
    high = 20000 * np.sin(2 * np.pi * HIGH * 2 * seconds)
    pool = np.concatenate([low, high]).astype("<i2").tobytes()
    n, period = len(seconds), RATE / LOW
    heads = [
        (b"low", 0, n, 0, round(33 * period), RATE, 57, 0),
        (b"high", n, 2 * n, n, n + 4, RATE // 2, 81, 0),
        (b"EOS", 0, 0, 0, 0, 0, 0, 0),
    ]
    shdr = b"".join(struct.pack("<20sIIIIIBbHH", *head, 0, 1) for head in heads)
    envelope = [(36, decay), (37, sustain)] if decay is not None else []
    zones = [
        [*envelope, (54, 1)],  # of the whole instrument
        [(43, 0 | 69 << 8), (53, 0)],
        [(43, 70 | 96 << 8), (54, 0), (53, 1)],
    ]
    igen = b"".join(struct.pack("<HH", o, a % 2**16) for zone in zones for o, a in zone)
    firsts = np.cumsum([0, *map(len, zones)])
    ibag = b"".join(struct.pack("<HH", first, 0) for first in firsts)
    inst = struct.pack("<20sH20sH", b"one", 0, b"EOI", len(zones))
    phdr = b"".join(
        struct.pack("<20sHHHIII", b"preset", program, 0, i, 0, 0, 0)
        for i, program in enumerate([*programs, 255])
    )
    pbag = b"".join(struct.pack("<HH", i, 0) for i in range(len(programs) + 1))
    pgen = struct.pack("<HH", 41, 0) * len(programs) + struct.pack("<HH", 0, 0)
    tables = {b"phdr": phdr, b"pbag": pbag, b"pgen": pgen, b"inst": inst, b"ibag": ibag,
              b"igen": igen, b"shdr": shdr}  # fmt: skip
    lists = chunk(b"LIST", b"sdta" + chunk(b"smpl", pool)) + chunk(
        b"LIST", b"pdta" + b"".join(chunk(name, content) for name, content in tables.items())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(lists)) + b"sfbk" + lists)
    return path


def pitch(sound):
    """Of the strongest partial, in Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**17))
    return spectrum.argmax() * RATE / 2**17


@pytest.mark.parametrize("key", [45, 57, 64, 69, 70, 81, 93])
def test_a_key_has_its_pitch(key, tmp_path):
    font = SoundFont(write_font(tmp_path / "a.sf2"))
    hertz = 440 * 2 ** ((key - 69) / 12)
    assert pitch(font.note(0, key, RATE // 10, RATE)) == pytest.approx(hertz, rel=0.003)


def test_loops_go_on_and_other_recordings_end(tmp_path):
    font = SoundFont(write_font(tmp_path / "a.sf2"))
    looped, once = (font.note(0, key, RATE, RATE) for key in (57, 81))
    assert pitch(looped[RATE // 2 :]) == pytest.approx(LOW, rel=0.003)
    assert np.abs(looped[RATE // 2 :]).max() == pytest.approx(20000 / 32768, rel=0.01)
    assert not once[RATE // 2 + 1 :].any()
    assert once[: RATE // 4].any()


def test_notes_fade_to_the_sustained_level(tmp_path):
    """By 100 dB a second down to 20 dB below."""
    font = SoundFont(write_font(tmp_path / "a.sf2", decay=0, sustain=200))
    note = font.note(0, 57, RATE, RATE)
    after = {s: np.abs(note[int(s * RATE) : int(s * RATE) + 200]).max() for s in (0.1, 0.8)}
    assert 20 * np.log10(after[0.1] * 32768 / 20000) == pytest.approx(-9.5, abs=1)
    assert 20 * np.log10(after[0.8] * 32768 / 20000) == pytest.approx(-20, abs=0.3)


def test_what_a_font_does_not_have(tmp_path):
    font = SoundFont(write_font(tmp_path / "a.sf2"))
    for program, key in ((1, 60), (0, 97)):
        with pytest.raises(KeyError, match=f"program {program} has no recording for key {key}"):
            font.note(program, key, 10, RATE)


@pytest.mark.parametrize("chord", music.CHORDS)
def test_inversions_are_of_the_chord(chord):
    for seed in range(6):
        notes = music.notes_of(50, chord, np.random.default_rng(seed))
        assert notes == sorted(notes)
        assert sorted((n - 50) % 12 for n in notes) == sorted(music.CHORDS[chord])


@pytest.mark.parametrize("chord", music.CHORDS)
def test_no_keys_are_in_two_splits(chord):
    heard = {
        split: {
            tuple(music.notes_of(music.LOWEST + root + octave, chord, np.random.default_rng(seed)))
            for root in roots
            for octave in (0, 12)
            for seed in range(20)
        }
        for split, roots in music.ROOTS.items()
    }
    assert min(map(len, heard.values())) > 1
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not heard[one] & heard[other]


def test_the_set_is_split_by_key(tmp_path, monkeypatch):
    programs = {"keys": {"piano": 0}, "pipes": {"flute": 73}}
    monkeypatch.setattr(music, "FAMILIES", programs)
    write_font(tmp_path / "package" / music.FONT, programs=(0, 73))

    @contextmanager
    def debian_package(name):
        assert name == music.PACKAGE
        yield tmp_path / "package", "1.0"

    monkeypatch.setattr(music, "debian_package", debian_package)
    for out in ("a", "b"):
        music.make(tmp_path / out, takes=5, seed=0)
    check_same(tmp_path / "a", tmp_path / "b")
    rows = check_splits(tmp_path / "a", "path")
    assert len(rows) == 2 * 6 * 5
    for row in rows:
        assert int(row["root"]) % 12 in music.ROOTS[row["split"]]
        assert row["path"].startswith(f"{row['split']}/{row['family']}/{row['instrument']}-")
    assert {row["motion"] for row in rows} == set(music.MOTIONS)
    for split in music.ROOTS:  # each in every one
        labels = {(r["instrument"], r["chord"]) for r in rows if r["split"] == split}
        assert len(labels) == 2 * 6
    heard = decode(tmp_path / "a" / rows[0]["path"])
    assert len(heard) == int(RATE * music.SECONDS)
    assert 0.15 < np.abs(heard).max() < 0.85

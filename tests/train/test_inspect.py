"""decode gives whole files as the trainer sees them; smnm inspect says what it sees."""

import json
import os
import shutil
import subprocess
import sys
import tarfile

import av
import numpy as np
import pytest
from clips import write_picture, write_samples, write_sound, write_video
from PIL import Image

from smnm_kernels.cli import main
from smnm_kernels.errors import Unusable
from smnm_kernels.train import decode


def write_film(path, seconds=2):
    """A video with sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(25 * seconds):
            picture = np.full((48, 64, 3), 4 * i, dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        tone = 0.5 * np.sin(np.arange(16000 * seconds) / 20)
        frame = av.AudioFrame.from_ndarray(tone[None].astype("f4"), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux([*audio.encode(frame), *audio.encode(None), *video.encode(None)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_film(folder / "film.mp4")
    write_video(folder / "turned.mp4", n=30, size=(64, 48), turn=90)
    write_video(folder / "short.mkv", n=5)
    write_sound(folder / "sound.wav", rate=44100)
    write_sound(folder / "silent.flac", silent=True)
    write_picture(folder / "picture.png")
    (folder / "text.mp3").write_text("not a recording\n" * 50)
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_whole_files_are_decoded_by_what_they_are(folder):
    film = decode(folder / "film.mp4")
    assert (film.shape, film.dtype) == ((50, 48, 64, 3), np.uint8)
    assert [round(float(f.mean())) for f in film[:3]] == pytest.approx([0, 4, 8], abs=3)
    sound = decode(str(folder / "film.mp4"), modality="audio")
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(32000, abs=2048)
    assert decode(folder / "turned.mp4").shape == (30, 64, 48, 3)
    resampled = decode(folder / "sound.wav")
    assert resampled.dtype == np.float32
    assert len(resampled) == pytest.approx(32000, abs=20)
    picture = decode(folder / "picture.png")
    assert (picture.shape, picture.dtype) == ((64, 80, 3), np.uint8)
    assert len(decode(folder / "silent.flac")) == 32000  # a run leaves it out
    assert decode(folder / "short.mkv").shape[0] == 5


def test_what_cannot_be_decoded_says_why(folder, tmp_path):
    with pytest.raises(Unusable, match="does not decode"):
        decode(folder / "text.mp3")
    with pytest.raises(FileNotFoundError, match=r"no file to decode.*missing\.mp4"):
        decode(tmp_path / "missing.mp4")
    with pytest.raises(Unusable, match="has no video stream"):
        decode(folder / "sound.wav", modality="video")
    with pytest.raises(ValueError, match="modality must be video, audio, image or None"):
        decode(folder / "sound.wav", modality="sound")
    with pytest.raises(ValueError, match="pixel_aspect must be apply or ignore"):
        decode(folder / "sound.wav", pixel_aspect="square")


@pytest.mark.parametrize("name", [b"a\xff.mp4", b"a%03d.mp4", b"http:a,b.mp4"])
def test_any_name_will_do(folder, tmp_path, name):
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    shutil.copy(folder / "film.mp4", path)
    assert len(decode(path)) == 50


def test_pixel_aspect_is_for_video(folder, tmp_path, capsys):
    words = ["pretrain", "audio", str(folder), "--out", str(tmp_path / "run")]
    assert main([*words, "--pixel-aspect", "ignore"]) == 2
    assert "--pixel-aspect ignore: is for video; audio has none" in capsys.readouterr().err


def test_a_picture_without_a_suffix_is_one(folder, tmp_path):
    (tmp_path / "picture").write_bytes((folder / "picture.png").read_bytes())
    assert np.array_equal(decode(tmp_path / "picture"), decode(folder / "picture.png"))


def test_a_song_with_a_cover_is_sound(tmp_path):
    write_samples(tmp_path / "a.flac", 0.5 * np.sin(np.arange(16000) / 20))
    write_picture(tmp_path / "cover.png")
    cover = (tmp_path / "cover.png").read_bytes()
    kind = b"image/png"
    block = (3).to_bytes(4, "big") + len(kind).to_bytes(4, "big") + kind + bytes(4 * 5)
    block += len(cover).to_bytes(4, "big") + cover
    content = (tmp_path / "a.flac").read_bytes()
    assert content[4] == 0  # STREAMINFO, not the last block
    head = bytes([6]) + len(block).to_bytes(3, "big")
    (tmp_path / "a.flac").write_bytes(content[:42] + head + block + content[42:])
    assert decode(tmp_path / "a.flac").shape == (16000,)
    with pytest.raises(Unusable, match="has no video stream"):
        decode(tmp_path / "a.flac", modality="video")


def inspect(*arguments):
    return main(["inspect", *map(str, arguments)])


def test_inspect_says_of_each_file_what_the_trainer_sees(folder, capsys):
    assert inspect(folder, "--json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen = {line["path"].removeprefix(f"{folder}/"): line for line in lines}
    assert sorted(seen) == sorted(p.name for p in folder.iterdir() if p.name != "notes.txt")
    film = seen["film.mp4"]
    expected = {"modality": "video", "usable": True, "frames": 50, "width": 64, "height": 48}
    assert film.items() >= (expected | {"rate": 25.0, "duration": 2.0}).items()
    assert film["audio"]["usable"]
    assert [(s["type"], s["codec"]) for s in film["streams"]] == [
        ("video", "h264"),
        ("audio", "aac"),
    ]
    assert (seen["turned.mp4"]["width"], seen["turned.mp4"]["height"]) == (48, 64)
    sound = {"modality": "audio", "usable": True, "samples": 88200, "rate": 44100, "duration": 2.0}
    assert seen["sound.wav"].items() >= sound.items()
    assert (seen["picture.png"]["width"], seen["picture.png"]["height"]) == (80, 64)
    assert {n: s["reason"] for n, s in seen.items() if not s["usable"] and n != "text.mp3"} == {
        "short.mkv": "is too short: 5 frames, 16 are needed",
        "silent.flac": "is silent",
    }
    assert seen["text.mp3"]["reason"].startswith("does not decode (")
    assert seen["text.mp3"]["streams"] == []


def test_inspect_in_words_and_pictures(folder, tmp_path, capsys):
    assert inspect(folder, "--out", tmp_path / "sheet.png") == 1
    said = capsys.readouterr().out
    assert "film.mp4: video (h264, aac): 50 frames, 64x48, 25 frames/s, 2.00 s, sound " in said
    assert "silent.flac: not usable: is silent" in said
    assert "4 of 7 files are usable" in said
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    # Names; frames of videos and the picture; what is heard in the sound and in the film.
    assert sheet.shape[0] == 7 * 16 + 3 * 96 + 2 * 128
    assert sheet.std() > 20
    assert inspect(folder / "sound.wav", folder / "turned.mp4") == 0


def test_a_file_that_is_named_twice_is_looked_at_once(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert inspect("sound.wav", folder / "sound.wav", "picture.png", "./sound.wav") == 0
    said = capsys.readouterr().out
    assert said.count("sound.wav: ") == 1
    assert "2 of 2 files are usable" in said


def test_inspect_expands_braces(folder, capsys):
    assert inspect(folder / "{film,turned,gone}.mp4") == 1
    said = capsys.readouterr().out
    assert "gone.mp4: not usable: is not there" in said
    assert "2 of 3 files are usable" in said


def test_a_picture_that_is_named_as_a_video_is_called_one(folder, tmp_path, capsys):
    shutil.copy(folder / "picture.png", tmp_path / "clip.mp4")
    assert inspect(tmp_path) == 1
    assert "clip.mp4: not usable: is a picture, but .mp4 is what" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "at least one file or folder"),
        (("missing.mp4",), "PATH missing.mp4: does not exist"),
        ((".", "--out", "sheet.xyz"), "must end as a picture does"),
    ],
)
def test_wrong_arguments_of_inspect(arguments, said, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert inspect(*arguments) == 2
    assert said in capsys.readouterr().err


def test_lists_and_shards_are_inspected_and_what_is_left_out_is_said(folder, tmp_path, capsys):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(folder / "sound.wav", "a/sound.wav")
        tar.add(folder / "notes.txt", "a/notes.txt")
    (tmp_path / "list.csv").write_text(f"path,label\n{folder}/picture.png,1\nnot/there.png,2\n")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    capsys.readouterr()
    assert inspect(tmp_path, tmp_path / "list.csv", "--out", tmp_path / "sheet.png") == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}/shard.tar: a/sound.wav: audio (" in said
    assert f"{folder}/picture.png: image (" in said
    assert f"{tmp_path}/gone.mp4: not usable: " in said
    assert "not/there.png: not usable: " in said
    assert f"{tmp_path}: not looked at: 1 file that ends in .csv, 1 in .txt" in said
    assert "2 of 4 files are usable" in said


def test_nothing_to_inspect(tmp_path, capsys):
    (tmp_path / "a.txt").touch()
    assert inspect(tmp_path) == 1  # as where all that is there is of no use
    said = capsys.readouterr()
    assert said.err == f"{tmp_path}: no video, sound or picture is there\n"
    assert (
        f"0 of 0 files are usable\n{tmp_path}: not looked at: 1 file that ends in .txt" in said.out
    )
    assert inspect(tmp_path, tmp_path / "gone") == 2


def test_the_name_is_there_and_nothing_is_imported_before_it_is_used():
    code = (
        "import sys, smnm_kernels.train; assert 'av' not in sys.modules; "
        "from smnm_kernels.train import decode; assert 'av' in sys.modules; print(decode.__doc__)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "float32 [samples]" in run.stdout


def test_damage_is_not_talked_about_by_ffmpeg(folder, tmp_path, capfd):
    content = bytearray((folder / "film.mp4").read_bytes())
    for i in range(200, len(content) // 2, 37):
        content[i] ^= 0xFF
    (tmp_path / "bad.mp4").write_bytes(content)
    inspect(tmp_path / "bad.mp4")
    assert capfd.readouterr().err == ""


def test_inspect_tells_of_other_paths_where_one_is_wrong(folder, capsys):
    assert inspect(folder / "sound.wav", folder / "gone", folder / "notes.txt") == 2
    said = capsys.readouterr()
    assert "sound.wav: audio" in said.out
    assert "1 of 1 files are usable" in said.out
    assert (
        f"PATH {folder / 'gone'}: does not exist; PATH {folder / 'notes.txt'}: is not" in said.err
    )
    assert len(said.err.splitlines()) == 1
    assert len(said.err) < 600 + 2 * len(str(folder))


def test_inspect_finds_files_beside_a_list(folder, tmp_path, capsys):
    (tmp_path / "audio").mkdir()
    shutil.copy(folder / "sound.wav", tmp_path / "audio" / "a.wav")
    (tmp_path / "meta.csv").write_text("filename,fold\na.wav,1\n")
    assert inspect(tmp_path / "meta.csv") == 0
    assert f"files of meta.csv are those in {tmp_path / 'audio'}" in capsys.readouterr().out

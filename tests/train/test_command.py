"""The console command: what it refuses and how, what a run leaves behind, the demo."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from clips import losses, on_two_ranks, pretrain, rows, write_sound, write_video
from PIL import Image

from smnm_kernels.cli import main
from smnm_kernels.errors import Unusable
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.model import load_encoder
from smnm_kernels.train.run.schedule import Schedule
from smnm_kernels.train.tasks import demo

FOLDERS = {"video": "videos", "audio": "sounds", "image": "images"}  # fixtures


def refused(capsys, *arguments):
    code = main([str(a) for a in arguments])
    assert code == 2
    *bars, error = capsys.readouterr().err.rstrip("\n").split("\r")  # a bar may be above
    assert error.startswith("smnm: error: ")
    assert "\n" not in "".join([*bars, error])
    return error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--mask", "purple"), ("--mask purple", "green3d", "rbn")),
        (("--mask", "rbn"), ("--mask rbn", "(8, 6, 6)")),
        (("--mask-ratio", "1.0"), ("--mask-ratio 1.0", "[0, 1)")),
        (("--mask-ratio", "0.999"), ("--mask-ratio 0.999", "at most 287/288")),
        (("--mask-ratio", "nan"), ("--mask-ratio nan",)),
        (("--device", "cuda:99"), ("--device cuda:99", "cpu")),
        (("--device", "tpu"), ("--device tpu", "cpu")),
        (("--steps", "0"), ("--steps must be at least 1, got 0",)),
        (("--workers", "-1"), ("--workers must be at least 0, got -1",)),
        (("--lr", "nan"), ("--lr must be a finite number", "nan")),
        (("--seed", "-1"), ("--seed must be in [0, 2**63), got -1",)),
        (("--checkpoint-every", "0"), ("--checkpoint-every must be at least 1",)),
        (("--keep-every", "0"), ("--keep-every must be at least 1",)),
        (("--preset", "snm-audio"), ("--preset snm-audio: is of audio", "video has tiny, small")),
    ],
)
def test_wrong_options_are_refused_before_any_work(tmp_path, videos, capsys, arguments, named):
    run = tmp_path / "run"
    error = refused(capsys, "pretrain", "video", videos, "--out", run, *arguments)
    assert all(part in error for part in named)
    assert "n_keep" not in error  # an argument of the samplers, no option of this command
    assert not run.exists()


@pytest.mark.parametrize("modality", ["audio", "image"])
def test_a_stride_is_refused_where_there_are_no_frames(modality, tmp_path, capsys, request):
    data = request.getfixturevalue(FOLDERS[modality])
    arguments = ("--out", tmp_path / "run", "--stride", 2)
    error = refused(capsys, "pretrain", modality, data, *arguments)
    assert f"--stride 2: {modality} has no stride" in error


def test_folders_that_cannot_be_used_are_refused(tmp_path, videos, capsys):
    def given(data, out):
        return refused(capsys, "pretrain", "video", data, "--out", out)

    missing = tmp_path / "missing"
    assert f"DATA {missing}: does not exist" in given(missing, tmp_path / "run")
    file = tmp_path / "file"
    file.touch()
    assert "is not a folder" in given(file, tmp_path / "run")
    assert f"--out {file}: cannot be written" in given(videos, file)
    assert f"--out {file}/run: cannot be written" in given(videos, file / "run")
    if os.geteuid():  # root may write anywhere
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        assert "cannot be written" in given(videos, closed / "run")


def test_unknown_words_exit_with_2(capsys):
    assert "no command 'train'" in refused(capsys, "train")
    for words in (["pretrain", "smell", "x"], ["pretrain", "video"], ["demo", "video", "--frob"]):
        assert "(smnm " in refused(capsys, *words)


def test_help_names_commands_and_options(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"smnm {name}" in text for name in ("pretrain", "demo", "show"))
    with pytest.raises(SystemExit) as exit_:
        main(["pretrain", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for option in ("--preset", "--mask", "--mask-ratio", "--seed", "--steps", "--workers"):
        assert option in text
    # The numbers of presets stand in presets/, and in a table of the docs that is tested.
    told = " ".join(re.sub("[│─]", " ", text).split())
    assert not re.findall(r"tiny \d+|for (?:video|audio|images), [\d.]+", told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "unbuffered"), [(("--help",), ""), (("pretrain", "--help"), "1")]
)
def test_a_reader_that_goes_away_ends_the_command_quietly(words, unbuffered):
    """As `head` does when it has its lines."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "smnm_kernels.cli", *words],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_the_break_of_another_pipe_is_shown(monkeypatch):
    def failing(_):
        raise BrokenPipeError("of a process that reads files")

    monkeypatch.setattr(demo, "demo", failing)
    with pytest.raises(BrokenPipeError, match="that reads files"):
        main(["demo", "video"])


@pytest.mark.slow
def test_a_missing_package_is_one_line(videos, tmp_path):
    packages = ["tyro", "av", "kaldi_native_fbank", "safetensors"]
    # A process for each; torch is imported once.
    program = f"""
import os, sys
from smnm_kernels.cli import main
for package in {packages}:
    if os.fork() == 0:
        sys.modules[package] = None
        os._exit(main(["pretrain", "video", {str(videos)!r}, "--out", {str(tmp_path / "run")!r}]))
    print(package, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "".join(f"{package} 2\n" for package in packages), done.stderr
    assert done.stderr == "".join(
        f"smnm: error: {package} is not installed: pip install 'smnm_kernels[train]'\n"
        for package in packages
    )


@pytest.mark.slow
def test_twenty_clips_of_which_three_are_broken(tmp_path, capsys):
    folder = tmp_path / "videos"
    (folder / "below").mkdir(parents=True)
    for i in range(17):
        write_video(folder / "below" / f"{i:02d}.mp4", n=24)
    whole = (folder / "below" / "00.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("not a video")
    write_video(folder / "short.mp4", n=12)
    run = tmp_path / "run"
    assert pretrain(folder, "--out", run, "--steps", 2) == 0
    said = capsys.readouterr().out
    assert "17 of 20 video files are usable" in said
    for name in ("cut.mp4", "text.mp4", "short.mp4"):
        assert f"skipped {name}: " in said
    assert said.count("skipped") == 3
    assert set(json.loads((run / "skipped.json").read_text())) == {
        "cut.mp4",
        "text.mp4",
        "short.mp4",
    }
    assert "17 short files are read with a stride of 1 frames, not 2" in said
    assert len(rows(run)) == 2


def test_nothing_usable_exits_with_2(tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    arguments = ("audio", folder, "--out", tmp_path / "run", "--workers", 0)
    assert "no usable file is there" in refused(capsys, "pretrain", *arguments)
    write_sound(folder / "silent.wav", silent=True)
    assert "no usable file: all 1 were skipped" in refused(capsys, "pretrain", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_file_that_fails_later_is_named_once(videos, tmp_path, capsys, monkeypatch):
    original = Video.read

    def failing(self, source, *rest):
        if source.path.name == "clip1.mp4":
            raise Unusable("does not decode any more")
        return original(self, source, *rest)

    monkeypatch.setattr(Video, "read", failing)
    run = tmp_path / "run"
    assert pretrain(videos, "--out", run, "--steps", 6) == 0
    said = capsys.readouterr().out
    assert said.count("failed clip1.mp4: does not decode any more") == 1
    assert json.loads((run / "skipped.json").read_text()) == {
        "clip1.mp4": "does not decode any more"
    }


@pytest.mark.slow
def test_data_that_goes_away_ends_the_run(videos, tmp_path, capsys, monkeypatch):
    def failing(*_):
        raise Unusable("is gone")

    monkeypatch.setattr(Video, "read", failing)
    assert pretrain(videos, "--out", tmp_path / "run", "--steps", 6) == 1
    assert "cannot be read any more, at last clip" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("modality", FOLDERS)
def test_what_a_run_leaves_behind(modality, tmp_path, request):
    folder = request.getfixturevalue(FOLDERS[modality])
    run = tmp_path / "run"
    assert pretrain(folder, "--out", run, "--steps", 3, modality=modality) == 0
    for row in rows(run):
        assert row.keys() >= {"step", "loss", "lr", "clips_per_s", "mask_ms"}
        assert 0.3 < row["loss"] < 5
        assert row["clips_per_s"] > 0
        assert 0 < row["mask_ms"] < 1000
    config = json.loads((run / "config.json").read_text())
    assert config["run"]["modality"] == modality
    assert config["runtime"]["steps"] == 3
    with Image.open(run / "reconstruction.png") as picture:
        assert picture.size[1] > 3 * 3 * 96
        assert len(np.unique(np.asarray(picture))) > 30
    saved = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    assert saved["step"] == 3
    assert int(saved["task"]["mask_samplers"][modality]["next_id"]) == 6
    encoder = load_encoder(run / "encoder.safetensors")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, saved["model"][f"encoder.{name}"])
    with torch.no_grad():
        assert encoder(torch.zeros(1, *encoder.input_size)).isfinite().all()


@pytest.mark.exhaustive
def test_torchrun_does_what_one_process_does(videos, straight, tmp_path):
    run = tmp_path / "run"
    on_two_ranks(videos, run, "--batch-size", 2, "--steps", 12)
    assert losses(run) == pytest.approx(losses(straight), abs=2e-3)


@pytest.mark.exhaustive
def test_ranks_that_accumulate_do_what_one_process_does(videos, tmp_path):
    arguments = ("--batch-size", 4, "--steps", 4)
    assert pretrain(videos, "--out", tmp_path / "one", *arguments) == 0
    on_two_ranks(videos, tmp_path / "two", *arguments, "--accumulate", 2)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modality", "n_files", "other", "final_loss"),
    # The losses that bench/results/demo.md has, and something for another processor.
    [
        pytest.param("video", 24, "audio", 0.74, marks=pytest.mark.exhaustive),
        pytest.param("audio", 24, "image", 0.9, marks=pytest.mark.exhaustive),
        ("image", 48, "video", 0.77),
        pytest.param("audio-video", 24, "video", 1.45, marks=pytest.mark.exhaustive),
    ],
)
def test_the_demo_learns(modality, n_files, other, final_loss, exhaustive, tmp_path, capsys):
    words = ["demo", modality, "--out", str(tmp_path)]
    if not exhaustive:
        words += ["--steps", "30", "--schedule-steps", "300"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"made {n_files} {modality} files" in said
    assert f"{n_files} of {n_files}" in said
    assert f"done: {300 if exhaustive else 30} steps; loss" in said
    assert str(tmp_path / "reconstruction.png") in said
    values = losses(tmp_path)
    assert np.mean(values[-10:]) < 0.93 * np.mean(values[:10])
    assert not exhaustive or np.mean(values[-20:]) < final_loss
    assert main(words) == 0
    assert "made" not in capsys.readouterr().out
    words[1] = other
    assert main(words) == 2
    assert "a demo of another modality" in capsys.readouterr().err
    assert len(list((tmp_path / "data").iterdir())) == n_files


@pytest.mark.slow
def test_demo_files_are_the_same_every_time(tmp_path):
    for write in (
        demo.write_video,
        demo.write_recording,
        demo.write_image,
        demo.write_sounding,
    ):
        write(tmp_path / "a", 1)
        write(tmp_path / "b", 1)
        write(tmp_path / "c", 2)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_the_demo_refuses_before_it_makes_files(tmp_path, capsys):
    error = refused(capsys, "demo", "video", "--out", tmp_path / "run", "--mask", "purple")
    assert "--mask purple" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", '{"model_type": "vit"}', "its config.json is not of a training run"),
        ("config.json", '{"run": {}, "runtime": {}}', "holds a run of format 1"),
        (
            "config.json",
            '{"format": 3, "run": {"modality": "audio"}, "runtime": {}}',
            "holds a run with other settings: modality is 'audio' there, 'video' was asked for",
        ),
        ("last.pt", "", "holds last.pt but no config.json"),
    ],
)
def test_the_demo_writes_nothing_where_another_thing_lies(name, content, said, tmp_path, capsys):
    (tmp_path / name).write_text(content)
    assert f"--out {tmp_path}: {said}" in refused(capsys, "demo", "video", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


def test_the_learning_rate_schedule():
    def rates(steps, warmup, schedule):
        plan = Schedule(peak=1.0, lowest=0.1, warmup_steps=warmup, length=schedule)
        return [plan.rate(done) for done in range(steps)]

    rate = rates(60, 10, 50)
    assert rate[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rate[10] == 1.0
    assert all(a > b for a, b in pairwise(rate[10:51]))
    assert rate[30] == pytest.approx(0.55)
    assert rate[50:] == [0.1] * 10
    assert rates(20, 30, 10) == rates(20, 30, 20)  # within the warmup the length does not matter
    assert rates(3, 0, 2)[0] == 1.0


def test_the_lowest_rate_is_never_above_the_peak(videos, tmp_path):
    run = tmp_path / "run"
    arguments = ("--steps", 3, "--warmup-steps", 1, "--lr", 1e-8)
    assert pretrain(videos, "--out", run, *arguments) == 0
    assert [row["lr"] for row in rows(run)] == pytest.approx([1e-8] * 3)


@pytest.mark.slow
def test_an_error_in_a_worker_ends_the_run(videos, tmp_path):
    """And does not leave it waiting for the workers."""
    code = (
        "import sys; from smnm_kernels.train.data.video import Video\n"
        "from smnm_kernels.cli import main\n"
        "def failing(*_): raise ValueError('a fault of the reader')\n"
        "Video.read = failing\n"
        f"sys.exit(main(['pretrain', 'video', {str(videos)!r}, '--out', {str(tmp_path / 'run')!r},"
        "'--steps', '3', '--batch-size', '2', '--workers', '1', '--threads', '1']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "a fault of the reader" in run.stderr


@pytest.mark.parametrize("words", [["pretrain", "video", ""], ["inspect", ""]])
def test_an_empty_argument_is_refused(words, tmp_path, capsys):
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "an argument is empty" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""A run that was stopped anywhere ends with the losses of one that was not."""

import json
import math
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from clips import Started, losses, pretrain, rows
from safetensors import safe_open
from safetensors.torch import load_file

from smnm_kernels.files import replacing
from smnm_kernels.train.run import folder as folder_module
from smnm_kernels.train.run.folder import MetricsLog, RunFolder, load_checkpoint

STEPS = ("--steps", 12, "--checkpoint-every", 3)


@pytest.mark.exhaustive
def test_killed_anywhere_and_started_again(videos, straight, tmp_path):
    run = tmp_path / "run"
    arguments = (videos, "--out", run, *STEPS, "--workers", 1)

    started = Started(run, *arguments)  # before the first checkpoint
    started.wait_for_rows(2)
    started.process.kill()
    assert started.finish()[0] == -signal.SIGKILL

    for _ in range(2):  # while a checkpoint is being written: the first one, then a later one
        started = Started(run, *arguments)
        started.wait_for_checkpoint_write()
        started.process.kill()
        assert started.finish()[0] == -signal.SIGKILL

    started = Started(run, *arguments)  # between checkpoints
    started.wait_for_rows(8)
    started.process.kill()
    started.finish()

    code, said = Started(run, *arguments).finish()
    assert code == 0, said
    assert losses(run) == losses(straight)
    assert not list(run.glob(".*.tmp"))
    ours, theirs = (load_file(r / "encoder.safetensors") for r in (run, straight))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_says_how_to_go_on(videos, straight, tmp_path, number):
    run = tmp_path / "run"
    arguments = (videos, "--out", run, "--steps", 12, "--checkpoint-every", 1000)
    started = Started(run, *arguments, "--workers", 1)
    started.wait_for_rows(3)
    started.signal_group(number)
    code, said = started.finish()
    assert code == 128 + number
    assert f"stopped by {signal.Signals(number).name}" in said
    assert "same command again" in said
    assert "Traceback" not in said
    saved = load_checkpoint(run)["step"]
    assert saved == len(rows(run)) >= 3  # the step it was at, not the last regular checkpoint
    assert pretrain(*arguments) == 0
    assert losses(run) == losses(straight)


def test_more_rows_than_the_checkpoint_and_a_torn_one(videos, straight, tmp_path):
    run = tmp_path / "run"
    arguments = (videos, "--out", run, "--schedule-steps", 12)
    assert pretrain(*arguments, "--steps", 6) == 0
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss": 9.0}\n\0\0\0\n{"step": 8, "lo')
    (run / ".last.pt.123.tmp").write_bytes(b"half")
    assert pretrain(*arguments, "--steps", 12) == 0
    assert losses(run) == losses(straight)
    assert not list(run.glob(".*.tmp"))


def test_fewer_rows_than_the_checkpoint_is_an_error(videos, straight, tmp_path, capsys):
    run = shutil.copytree(straight, tmp_path / "run")
    whole = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(whole[:5]))
    assert pretrain(videos, "--out", run, "--steps", 14) == 2
    assert "metrics.jsonl: rows for steps 1 to 12 are needed" in capsys.readouterr().err


def test_raising_steps_inside_the_warmup_needs_no_thought(videos, straight, tmp_path):
    run = tmp_path / "run"
    assert pretrain(videos, "--out", run, "--steps", 5) == 0
    first = (run / "encoder.safetensors").read_bytes()
    assert pretrain(videos, "--out", run, "--steps", 12) == 0
    assert losses(run) == losses(straight)
    assert (run / "encoder.safetensors").read_bytes() != first


def test_going_on_after_the_schedule_says_so(videos, tmp_path, capsys):
    words = (videos, "--out", tmp_path / "run", "--warmup-steps", 1)
    assert pretrain(*words, "--steps", 2) == 0
    assert "lowest learning rate" not in capsys.readouterr().out
    assert pretrain(*words, "--steps", 3) == 0
    assert "steps after 2 keep the lowest learning rate, 1e-05" in capsys.readouterr().out
    assert pretrain(*words, "--steps", 1) == 0
    assert "3 steps are done, and this run's --steps is 1" in capsys.readouterr().out


def test_finished_run_says_so_and_touches_nothing(videos, straight, tmp_path, capsys):
    run = shutil.copytree(straight, tmp_path / "run")
    before = {p.name: p.stat().st_mtime_ns for p in run.iterdir()}
    assert pretrain(videos, "--out", run, *STEPS) == 0
    assert "already finished: 12 steps" in capsys.readouterr().out
    # A smaller number that changes nothing is not kept either.
    assert pretrain(videos, "--out", run, "--steps", 5) == 0
    assert json.loads((run / "config.json").read_text())["runtime"]["steps"] == 12
    for name in ("last.pt", "encoder.safetensors", "reconstruction.png"):
        assert (run / name).stat().st_mtime_ns == before[name]
    # Killed after the last step and before the export: only the export is left to do.
    (run / "encoder.safetensors").unlink()
    assert pretrain(videos, "--out", run, *STEPS) == 0
    with safe_open(run / "encoder.safetensors", framework="pt") as file:
        assert file.metadata()["step"] == "12"
    assert losses(run) == losses(straight)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (("--mask", "tube"), "mask is 'green3d' there, 'tube' was asked for"),
        (("--mask-ratio", "0.75"), "mask_ratio is 0.9 there, 0.75"),
        (("--seed", "1"), "seed is 0 there, 1"),
        (("--lr", "1"), "lr is "),
        (("--batch-size", "3"), "batch_size is 2 there, 3"),
        (("--preset", "small", "--steps", "12"), "preset is 'tiny' there, 'small'"),
        (("--schedule-steps", "50"), "schedule_steps is 12 there, 50"),
    ],
)
def test_other_settings_are_refused_by_name(videos, straight, capsys, other, named):
    before = (straight / "config.json").read_bytes()
    assert pretrain(videos, "--out", straight, *other) == 2
    assert named in capsys.readouterr().err
    assert (straight / "config.json").read_bytes() == before


def test_other_data_is_refused_by_name(videos, straight, tmp_path, capsys):
    run = shutil.copytree(straight, tmp_path / "run")
    moved = shutil.copytree(videos, tmp_path / "moved")
    assert pretrain(moved, "--out", run, "--steps", 12) == 0  # the same files elsewhere
    shutil.copy(moved / "clip1.mp4", moved / "more.mp4")
    (moved / "clip0.mp4").unlink()
    shutil.copy(moved / "clip2.mp4", moved / "clip3.mp4")
    assert pretrain(moved, "--out", run, "--steps", 12) == 2
    error = capsys.readouterr().err
    for part in ("1 gone (clip0.mp4)", "1 new (more.mp4)", "1 changed (clip3.mp4)"):
        assert part in error


def test_a_folder_of_something_else_is_left_alone(videos, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert pretrain(videos, "--out", tmp_path, "--steps", 1) == 2
    assert "config.json is not of a training run" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == '{"model_type": "vit"}'


@pytest.mark.parametrize(
    ("found", "named"),
    [(None, "Finish it with smnm_kernels 0.1.0"), (2, "Finish it with the version that began it")],
)
def test_a_run_of_another_format_is_refused_with_the_remedy(
    videos, straight, tmp_path, capsys, found, named
):
    run = shutil.copytree(straight, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    assert config.pop("format") == torch.load(run / "last.pt", weights_only=True)["format"] == 3
    held = json.dumps(config if found is None else {"format": found} | config)
    (run / "config.json").write_text(held)
    assert pretrain(videos, "--out", run, *STEPS) == 2
    error = capsys.readouterr().err
    assert f"holds a run of format {found or 1}, this version goes on with format 3" in error
    assert f"{named}, or begin anew in another --out" in error
    assert (run / "config.json").read_text() == held


def test_two_runs_cannot_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "_LOCK_WAIT_S", 0.1)
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    other.stdout.readline()
    with pytest.raises(folder_module.UsageError, match="another run is writing there"):
        RunFolder(tmp_path)
    other.communicate()
    RunFolder(tmp_path)


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_half_way():
        with replacing(path) as file:
            file.write(b"new")
            file.flush()
            assert path.read_bytes() == b"old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_metrics_keep_every_bit_of_a_loss(tmp_path):
    path = tmp_path / "metrics.jsonl"
    loss = torch.tensor(1 / 3).item()
    log = MetricsLog(path, 0)
    log.add({"step": 1, "loss": loss})
    assert json.loads(path.read_text())["loss"] == loss
    assert MetricsLog(path, 1).losses == [loss]


def test_a_loss_that_is_not_finite_stops_the_run(videos, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = (videos, "--out", run, "--steps", 9, "--checkpoint-every", 1, "--warmup-steps", 0)
    assert pretrain(*arguments, "--lr", "1e30") == 1
    error = capsys.readouterr().err
    assert re.search(r"the loss of step 2 is (nan|inf)", error)
    assert "lower --lr than 1e+30" in error
    # The first loss is from before the first update.
    assert load_checkpoint(run)["step"] == len(rows(run)) == 1
    assert math.isfinite(losses(run)[0])

"""Fine-tuning in processes: killed at random moments, stopped by a signal, shared by two."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import labelled_sets as sets
import pytest
from clips import losses
from finetuned import same_results
from labelled_sets import evaluations, finetune, results

pytestmark = pytest.mark.exhaustive

GIVEN = ("--steps", 16, "--evaluate-every", 4, "--checkpoint-every", 3, "--drop-path", 0.3)
WRITTEN = ("last.pt", "classifier.safetensors", "evaluations.jsonl", "predictions.csv",
           "results.json", "metrics.jsonl")  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return sets.pictures(tmp_path_factory.mktemp("sets") / "pictures")


@pytest.fixture(scope="module")
def straight(pictures, tmp_path_factory):
    run = tmp_path_factory.mktemp("straight") / "run"
    assert finetune("image", pictures, run, *GIVEN) == 0
    return run


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


def started(data, run, *more, launcher=("-m",), modality="image", given=GIVEN):
    words = sets.words(modality, data, run, *given, *more)
    return subprocess.Popen(
        [sys.executable, *launcher, "smnm_kernels.cli", "finetune", modality, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, process, every=0.0005):
    """Whether it came true before the process ended."""
    until = time.monotonic() + 300
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < until, "nothing moves"
        time.sleep(every)
    return False


def test_killed_at_random_moments_it_ends_with_the_same_measures(pictures, straight, tmp_path):
    chance, run, kills = random.Random(3), tmp_path / "run", 0
    path = run / "metrics.jsonl"
    while kills < 6:
        process = started(pictures, run, "--workers", chance.choice([0, 1]))
        if chance.random() < 0.5:
            file = chance.choice(WRITTEN)
            wait_until(lambda file=file: any(run.glob(f".{file}.*.tmp")), process)
        else:
            n = chance.randint(1, 12)
            wait_until(lambda n=n: path.exists() and path.read_bytes().count(b"\n") >= n, process)
            time.sleep(chance.uniform(0, 0.4))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        said, _ = process.communicate()
        if process.returncode == 0:
            same_results(run, straight)
            shutil.rmtree(run)
        else:
            assert process.returncode == -signal.SIGKILL, said
    process = started(pictures, run)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    same_results(run, straight)
    assert not list(run.glob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_an_evaluation_ends_it_and_saves(pictures, straight, tmp_path, number):
    run = tmp_path / "run"
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from smnm_kernels.cli import main\n"
        "from smnm_kernels.train.tasks.finetune import FineTuning\n"
        "whole = FineTuning.outputs\n"
        "def outputs(self, *given):\n"
        f"    Path({str(tmp_path / 'begun')!r}).touch()\n"
        "    time.sleep(1)\n"
        "    return whole(self, *given)\n"
        "FineTuning.outputs = outputs\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["finetune", "image", *sets.words("image", pictures, run, *GIVEN)]
    process = subprocess.Popen(
        [sys.executable, slow, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert wait_until((tmp_path / "begun").exists, process, every=0.05)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "saved after step 4 of 16" in said
    assert not (run / "evaluations.jsonl").exists()
    assert finetune("image", pictures, run, *GIVEN) == 0
    same_results(run, straight)


def test_two_processes_share_training_and_evaluation(pictures, straight, tmp_path):
    run = tmp_path / "run"
    given = ("--drop-path", 0, "--mixup", 0.8)  # dropped paths are each process's own
    alone = tmp_path / "alone"
    assert finetune("image", pictures, alone, *GIVEN, *given) == 0
    process = started(pictures, run, *given, launcher=TWO)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert losses(run) == pytest.approx(losses(alone), abs=1e-3)
    for ours, theirs in zip(evaluations(run), evaluations(alone), strict=True):
        assert (ours["step"], ours["files"]) == (theirs["step"], theirs["files"])
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=5e-3)
    assert results(run)["files"] == 8
    assert results(run)["measures"]["top1"]["value"] == 1
    names = [line.split(",")[0] for line in (run / "predictions.csv").read_text().splitlines()]
    assert names == [
        line.split(",")[0] for line in (alone / "predictions.csv").read_text().splitlines()
    ]


# Of a sample, whatever is drawn; matching compares the samples of one process.
FILMS = ("--steps", 4, "--evaluate-every", 2, "--checkpoint-every", 1, "--mixup", 0.5,
         "--jitter", 0.1)  # fmt: skip
OF_FILMS = {
    "labels": FILMS,
    "avt": (*FILMS, "--objective", "avt", "--fusion", "concat", "--fusion-blocks", 1,
            "--segment-weight", 1, "--matching-weight", 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    counts = {"train": 4, "val": 2}
    return sets.films(tmp_path_factory.mktemp("sets") / "films", counts)


@pytest.fixture(scope="module", params=OF_FILMS)
def tuned(request, films, tmp_path_factory):
    """(options, the run of one process that nothing stopped)"""
    run = tmp_path_factory.mktemp("films") / "run"
    given = OF_FILMS[request.param]
    assert finetune("audio-video", films, run, *given) == 0
    return given, run


def test_two_processes_fine_tune_films_as_one_does(films, tuned, tmp_path):
    given, alone = tuned
    run = tmp_path / "run"
    process = started(films, run, launcher=TWO, modality="audio-video", given=given)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    assert losses(run) == pytest.approx(losses(alone), abs=2e-3)
    for ours, theirs in zip(evaluations(run), evaluations(alone), strict=True):
        assert ours["files"] == theirs["files"] == 4
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=5e-3)


def test_killed_on_films_it_goes_on_to_the_same_results(films, tuned, tmp_path):
    given, straight = tuned
    run = tmp_path / "run"
    process = started(films, run, modality="audio-video", given=given)
    path = run / "metrics.jsonl"
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 2, process)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert finetune("audio-video", films, run, *given) == 0
    same_results(run, straight)

"""Two processes of one run, of which the second has trouble."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from clips import losses, pretrain, rows

from smnm_kernels.train.run.folder import load_checkpoint

TROUBLE = """
import os, signal, sys, time
from pathlib import Path
from smnm_kernels.cli import main
from smnm_kernels.errors import Unusable
from smnm_kernels.train.data.video import Video

read = Video.read

def troubled(self, source, *rest):
    if os.environ["RANK"] == "1" and source.path.name == "clip1.mp4":
        {trouble}
    return read(self, source, *rest)

Video.read = troubled
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def start(videos, tmp_path):
    def start(trouble, *words):
        script = tmp_path / "train.py"
        script.write_text(TROUBLE.format(trouble=trouble))
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        arguments = ["pretrain", "video", videos, "--out", tmp_path / "run", "--batch-size", 2]
        arguments += ["--threads", 1, "--checkpoint-every", 1000, *words]
        return subprocess.Popen(
            [sys.executable, *launcher, script, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.mark.exhaustive
def test_files_that_only_the_second_cannot_read_are_noted(start, tmp_path):
    process = start("raise Unusable('is gone')", "--steps", 6, "--workers", 0)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert said.count("failed clip1.mp4: is gone") == 1
    assert json.loads((tmp_path / "run/skipped.json").read_text()) == {"clip1.mp4": "is gone"}


def wait_for_rows(run, n):
    until = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() or len(rows(run)) < n:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("trouble", "stop", "said_of_it"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", None, ["It is the second", "has gone; saved"]),
        ("time.sleep(60)", signal.SIGTERM, ["stopped by SIGTERM, saved"]),
    ],
)
def test_the_first_saves_when_the_second_cannot_go_on(
    videos, start, tmp_path, trouble, stop, said_of_it
):
    run = tmp_path / "run"
    # Not at once: some steps are done by then.
    later = f"if rest[1].index > 6: {trouble}"
    process = start(later, "--steps", 12, "--workers", 1)
    if stop:
        wait_for_rows(run, 3)
        time.sleep(2)
        os.kill(process.pid, stop)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    for part in said_of_it:
        assert part in said
    assert load_checkpoint(run)["step"] == len(rows(run)) >= 3
    assert pretrain(videos, "--out", run, "--steps", 12) == 0
    assert len(losses(run)) == 12


@pytest.mark.exhaustive
def test_a_signal_that_reaches_the_second_alone_stops_both(videos, start, tmp_path):
    run = tmp_path / "run"
    process = start("os.kill(os.getpid(), signal.SIGTERM)", "--steps", 400, "--workers", 0)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "stopped by SIGTERM, saved" in said
    assert "done: " not in said
    assert not (run / "encoder.safetensors").exists()
    assert 0 < load_checkpoint(run)["step"] == len(rows(run)) < 400

"""What the other processes do while the first looks at the files."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from clips import losses

# Each file takes 0.1 s to look at; no collective may take more than 2 s, no silence more than 6.
PROGRAM = """
import sys, time
from datetime import timedelta
from functools import partial
import torch.distributed as dist
from pairs import PRESET, Pairs
from smnm_kernels.cli import main
from smnm_kernels.train.run import ranks
from smnm_kernels.train.tasks.presets import PRESETS

def slow(self, source):
    time.sleep(0.1)
    return {"slope": float(source.open().read())}

Pairs.probe = slow
ranks._SILENCE_S = 6.0
PRESETS["pairs"] = {"tiny": PRESET}
dist.init_process_group = partial(dist.init_process_group, timeout=timedelta(seconds=2))
words = ["pretrain", "pairs", *sys.argv[1:], "--workers", "0", "--threads", "1", "--steps", "4"]
sys.exit(main(words))
"""


class Ranks:
    """Two processes without torchrun, so that nobody ends one when the other fails."""

    def __init__(self, data, run):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        here = os.path.dirname(__file__)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        self.run = run
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(data), "--out", str(run)],
                env=environment | {"RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]

    def wait_for_scan(self):
        while not (self.run / "scan.jsonl").exists():
            assert self.processes[0].poll() is None
            time.sleep(0.05)

    def finish(self):
        """[(exit code, errors)] of both"""
        ends = [p.communicate(timeout=60) for p in self.processes]
        codes = [p.returncode for p in self.processes]
        return [(code, errors) for code, (_, errors) in zip(codes, ends, strict=True)]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def fill(folder, count, text="1"):
    for i in range(count):
        (folder / f"{i:03}.txt").write_text(text)


@pytest.mark.exhaustive
def test_a_scan_may_take_longer_than_a_collective(data, tmp_path):
    threads = min(32, len(os.sched_getaffinity(0)))
    fill(data, 60 * threads)  # 6 s
    ends = Ranks(data, tmp_path / "run").finish()
    assert [code for code, _ in ends] == [0, 0], ends
    assert len(losses(tmp_path / "run")) == 4


@pytest.mark.slow
def test_what_the_first_process_refuses_ends_all_with_its_words(data, tmp_path):
    fill(data, 3, "no number")
    for code, errors in Ranks(data, tmp_path / "run").finish():
        assert code == 2
        assert errors.count("no usable file: all 3 were skipped") == 1
        assert "Traceback" not in errors


@pytest.mark.exhaustive
def test_a_signal_to_the_first_process_ends_all(data, tmp_path):
    fill(data, 1000)
    ranks = Ranks(data, tmp_path / "run")
    ranks.wait_for_scan()
    ranks.processes[0].send_signal(signal.SIGTERM)
    for code, errors in ranks.finish():
        assert code == 143
        assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, marks=pytest.mark.exhaustive), signal.SIGSTOP],
)
def test_a_first_process_that_is_gone_ends_the_others(data, tmp_path, number):
    fill(data, 1000)
    ranks = Ranks(data, tmp_path / "run")
    ranks.wait_for_scan()
    time.sleep(1)
    ranks.processes[0].send_signal(number)
    since = time.monotonic()
    _, errors = ranks.processes[1].communicate(timeout=60)
    assert time.monotonic() - since < 50
    ranks.processes[0].kill()
    ranks.finish()
    assert ranks.processes[1].returncode == 1
    assert "the first process (rank 0), which looks at the files, is gone" in errors
    assert "Traceback" not in errors

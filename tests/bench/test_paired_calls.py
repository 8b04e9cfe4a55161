"""The script that times calls of two checkouts in pairs."""

import json
import random
import subprocess
import sys

import pytest
from paired_calls import commit, interval, line
from testing import ROOT, with_path

#: A package with two of the calls: one that takes 4 ms, and no kind "block".
STUB = """
import time

class MaskSampler:
    def __init__(self, kind, *_):
        if kind == "block":
            raise ValueError("kind must be one of green3d, got 'block'")

    def __call__(self, batch):
        time.sleep(4e-3)
"""


def run(*arguments):
    words = [sys.executable, ROOT / "bench" / "paired_calls.py", *map(str, arguments)]
    environment = with_path(ROOT)
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def stub(folder, text=STUB):
    (folder / "smnm_kernels").mkdir()
    (folder / "smnm_kernels" / "__init__.py").write_text(text)
    return folder


@pytest.mark.exhaustive
def test_a_faster_call_has_a_ratio_below_1_and_a_missing_one_is_named(tmp_path):
    out = tmp_path / "rows.json"
    done = run(
        stub(tmp_path), "--pairs", 5, "--batch-sizes", 1, "--threads", 1, "--json", out,
        "--calls", "random", "block", "rbn_masks",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "torch 2." in done.stdout
    assert "1 threads" in done.stdout
    assert "there: commit unknown, backend unknown" in done.stdout
    assert f"here: commit {commit(ROOT)}, backend " in done.stdout
    random_, block, rbn_masks = json.loads(out.read_text())["rows"]
    assert random_["pairs"] == 5
    assert random_["us_there"] > 4000
    low, high = random_["interval"]
    assert low <= random_["ratio"] <= high < 1
    assert block["missing"] == {"there": "ValueError: kind must be one of green3d, got 'block'"}
    assert list(rbn_masks["missing"]) == ["there"]
    assert "no attribute 'rbn_masks'" in rbn_masks["missing"]["there"]
    assert all(line(row) in done.stdout for row in (random_, block, rbn_masks))


@pytest.mark.exhaustive
def test_checkouts_that_cannot_be_timed_are_refused(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2
    assert f"OTHER must be a checkout of the package, got {tmp_path}" in done.stderr
    done = run(stub(tmp_path, "raise ImportError('its library is not built')"))
    assert done.returncode == 1
    assert "its library is not built" in done.stderr
    assert f"{tmp_path}: its process ended with exit code 1, see above" in done.stderr


def test_the_interval_is_of_the_median():
    generator = random.Random(1)
    ratios = [generator.gauss(0.9, 0.05) for _ in range(400)]
    ratios[:20] = [50.0] * 20  # slow spells
    low, high = interval(ratios)
    assert 0.89 < low < high < 0.92
    assert high - low < 0.02
    assert interval([0.5]) == (0.5, 0.5)


def test_a_row_as_text():
    row = {"call": "rbn", "batch": 64, "us_here": 1234.56, "ratio": 0.98765}
    row |= {"interval": (0.95, 1.02), "pairs": 300}
    assert line(row) == "| rbn | 64 | 1,234.6 us | 0.988 | 0.950 to 1.020 | 300 |"

"""Triton compiles once for what a training loop calls: no value, size or alignment that changes
between steps makes another kernel, in the middle of training or of a graph's capture."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_triton_builds import KERNELS
from testing import require

HERE = Path(__file__).parent


@pytest.mark.parametrize("target", ["90", "gfx942"])
def test_nothing_that_changes_between_steps_makes_another_kernel(target):
    require(importlib.util.find_spec("triton"), "Triton")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = [str(HERE), str(HERE.parent / "bench"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    done = subprocess.run(
        [sys.executable, str(HERE / "cache_keys.py"), target],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == KERNELS
    assert [row for row in rows if row["keys"] != 1] == []

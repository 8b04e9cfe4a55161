"""Prefix sums, ballots, divisions: what the rounds are made of does what plain loops do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "cpp/rbn_primitives.cpp"


def test_primitives(tmp_path):
    program = tmp_path / "rbn_primitives"
    compiler = os.environ.get("CXX") or shutil.which("c++") or "c++"
    command = [compiler, "-std=c++17", "-O1", "-g", "-fsanitize=undefined", str(SOURCE)]
    try:
        subprocess.run([*command, "-o", str(program)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"needs a C++ compiler with UndefinedBehaviorSanitizer ({error})")
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[:4000]
    assert done.stderr == ""

"""The scripts of bench/ start: all that they import is there."""

import subprocess
import sys

import pytest
from testing import ROOT, need_packages

SCRIPTS = [
    path for path in sorted(ROOT.glob("bench/*.py")) if "ArgumentParser(" in path.read_text()
]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_is_for(script):
    need_packages("triton", "av", "tyro", "safetensors")
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_scripts_are_found():
    assert len(SCRIPTS) >= 8

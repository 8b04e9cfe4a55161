"""How the CPU library shares rows out among threads: see the program."""

import shutil
import subprocess
from pathlib import Path

import pytest
from testing import compiled

pytestmark = pytest.mark.slow


def test_rows_are_shared_out(tmp_path):
    program = tmp_path / "rows"
    compiled(
        Path(__file__).parent / "cpp/rows.cpp",
        program,
        *("-O1", "-g", "-fsanitize=thread", "-pthread"),
        what="a C++ compiler with ThreadSanitizer",
    )
    # ThreadSanitizer does not start under some kernels' layouts of a process.
    setarch = shutil.which("setarch")
    command = [setarch, "-R", program] if setarch else [program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")

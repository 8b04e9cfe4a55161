"""The threads of the CPU library: ThreadSanitizer sees no race, and a child process has its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from testing import compiled

pytestmark = pytest.mark.slow


def test_rows_are_shared_out(tmp_path):
    program = tmp_path / "workers"
    compiled(
        Path(__file__).parent / "cpp/workers.cpp",
        program,
        *("-O1", "-g", "-fsanitize=thread", "-pthread"),
        what="a C++ compiler with ThreadSanitizer",
    )
    # ThreadSanitizer does not start under some kernels' layouts of a process.
    setarch = shutil.which("setarch")
    command = [setarch, "-R", program] if setarch else [program]
    # It ends children of processes with several threads, unless it is told not to.
    environment = os.environ | {"TSAN_OPTIONS": "die_after_fork=0"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")

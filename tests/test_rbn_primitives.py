"""Prefix sums, ballots, divisions: what the rounds are made of does what plain loops do."""

import subprocess
from pathlib import Path

from testing import compiled

SOURCE = Path(__file__).parent / "cpp/rbn_primitives.cpp"


def test_primitives(tmp_path):
    program = compiled(
        SOURCE,
        tmp_path / "rbn_primitives",
        *("-O1", "-g", "-fsanitize=undefined"),
        what="a C++ compiler with UndefinedBehaviorSanitizer",
    )
    done = subprocess.run([str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[:4000]
    assert done.stderr == ""

"""Cells in processes of their own: what becomes of each is said, and none stops the rest."""

import sys

import pytest
from tiny_study import PLAN

from smnm_kernels.train.tasks.studying import running
from smnm_kernels.train.tasks.studying.cells import cells_of
from smnm_kernels.train.tasks.studying.folders import CellFolder
from smnm_kernels.train.tasks.studying.plan_file import load_plan
from smnm_kernels.train.tasks.studying.running import Share, run_all

# What stands in for a cell's process, by the run's name and seed.
ENDS = {
    ("random", 0): "print('done')",
    ("green2d", 0): "print('one'); print('two'); raise SystemExit(3)",
    ("random", 1): "import os; os.kill(os.getpid(), 9)",
    ("green2d", 1): "print('late')",
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_LOOK_S", 0.02)
    (tmp_path / "tiny.toml").write_text(PLAN)
    cells = cells_of(load_plan(tmp_path / "tiny.toml"), {})
    return [CellFolder(tmp_path / "out", c) for c in cells if not c.run.untrained]


def command(ends=ENDS):
    return lambda one: [sys.executable, "-S", "-c", ends[one.cell.run.name, one.cell.seed]]


def test_cells_that_fail_are_named_and_the_rest_runs(folders, capsys):
    assert run_all(folders, 2, Share(1, 0), command()) == 1
    failures = {
        (one.cell.run.name, one.cell.seed): one.failure and one.failure["last_lines"]
        for one in folders
    }
    assert failures == {
        ("random", 0): None,
        ("green2d", 0): ["one", "two", "exit code 3"],
        ("random", 1): ["was ended by SIGKILL"],
        ("green2d", 1): None,
    }
    said = capsys.readouterr()
    assert "failed: colours green2d seed 0, see " in said.out
    assert "4 of 4 cells" in said.err
    assert (folders[-1].path / "log.txt").read_text() == "late\n"


def test_what_another_process_finished_meanwhile_is_no_failure(folders):
    """The process waited for the cell's lock, was refused, and then the other one was done."""
    one = folders[0]
    result = one.path / "result.json"
    done = f"open({str(result)!r}, 'w').write('{{}}'); raise SystemExit(2)"
    assert run_all([one], 1, Share(1, 0), command({("random", 0): done})) == 0
    assert one.failure is None
    assert one.result == {}

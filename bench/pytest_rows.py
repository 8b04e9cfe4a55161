"""A plugin of pytest that saves a row for each test as soon as it ends, so that a killed run leaves
its results: pytest -p pytest_rows --rows tests.jsonl [--without-tests done.txt]

Under pytest-xdist, the main process saves the rows of all tests. A worker process ends after a test
that broke its CUDA context, because every later test of the process would fail, too; that test also
counts as crashed.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest
from processes import device_is_lost
from saved_rows import SavedRows

MOST_TEXT = 2000


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rows")
    group.addoption("--rows", type=Path, help="save a row for each test in this file")
    group.addoption("--without-tests", type=Path, help="leave out the tests that this file names")
    group.addoption("--first-of-each-file", action="store_true", help="leave out the other tests")
    group.addoption("--device-tests", choices=["only", "none"], help="those of test files that look"
                    " at what a GPU does or compare devices")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(_Worker())
    elif config.getoption("rows"):
        config.pluginmanager.register(_Saver(SavedRows(config.getoption("rows"))))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    path = config.getoption("without_tests")
    done = set(path.read_text().splitlines()) if path else set()
    first, of_devices = config.getoption("first_of_each_file"), config.getoption("device_tests")
    files, kept, left = set(), [], []
    for item in items:
        out = item.nodeid in done or (first and item.path in files)
        out |= of_devices is not None and (of_devices == "only") != is_of_devices(item.path)
        (left if out else kept).append(item)
        files.add(item.path)
    # Tests of CUDA alone come before the others.
    items[:] = sorted(kept, key=lambda item: not item.path.name.startswith("test_cuda"))
    if left:
        config.hook.pytest_deselected(items=left)


@cache
def is_of_devices(path: Path) -> bool:
    """Whether the tests in this file use a device, judged by words in its text. A wrong answer does
    no harm: a test that one step leaves out is run by another step."""
    return re.search(r"\bcuda\b|\bdevices\(\)", path.read_text()) is not None


class _Saver:
    def __init__(self, saved: SavedRows) -> None:
        self.saved = saved
        # All files are collected again.
        saved.keep([row for row in saved.rows if "test" in row])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self.saved.add({"file": report.nodeid, "outcome": report.outcome, "why": why(report)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Setting up and tearing down are only worth a row if they did not pass.
        if report.when != "call" and report.outcome == "passed":
            return
        row = {"test": report.nodeid, "outcome": report.outcome}
        row["seconds"] = round(report.duration, 2)
        if report.outcome != "passed":
            row["why"] = why(report)
            # After a broken CUDA context the first failure of a process is the one that counts.
            row["process"] = getattr(report, "worker_id", "")
        self.saved.add(row)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Sets the exit status. Failures of an earlier run count; no tests left is a success."""
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            failed = self.saved.have(lambda row: row["outcome"] == "failed")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK


class _Worker:
    failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.outcome == "failed"

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        if self.failed and device_is_lost():
            os._exit(1)
        self.failed = False


def why(report: pytest.CollectReport | pytest.TestReport) -> str:
    """The reason of a skip, or the end of a failure."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return report.longreprtext[-MOST_TEXT:]

"""The whole life of a study: cells run, are killed, go on, fail, and end with the same numbers."""

import json
import signal
import subprocess
import sys
import time

import pytest
from testing import ROOT, with_path
from tiny_study import PLAN, write_pictures

from smnm_kernels.cli import main
from smnm_kernels.train.run.folder import RunFolder

pytestmark = pytest.mark.exhaustive

# Long enough to be killed in the middle; green2d fails by its rate.
TEXT = PLAN.replace("seeds = 2", "seeds = 1").replace("steps = 3", "steps = 120")
TEXT = TEXT.replace("at = [2]", "at = [60]").replace("@2", "@60")
FAILING = TEXT.replace('mask = "green2d",', 'mask = "green2d", lr = 1e30,')


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    write_pictures(folder)
    return folder


def started(plan, data, out, *more):
    command = [sys.executable, "-m", "smnm_kernels.cli", "study", str(plan), "--out", str(out)]
    command += ["--data", f"colours={data}", "--threads", "1", "--workers", "0", *more]
    return subprocess.Popen(
        command,
        env=with_path(ROOT),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def values(out):
    rows = [json.loads(path.read_text()) for path in out.glob("cells/*/result.json")]
    return {row["name"]: row["values"] for row in rows}


def wait_until(there, process):
    until = time.monotonic() + 120
    while not there() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_study_that_is_killed_and_stopped_ends_as_one_that_never_was(tmp_path, data):
    plan = tmp_path / "tiny.toml"
    plan.write_text(TEXT)
    straight, shards = tmp_path / "straight", (("--shard", "1/2"), ("--shard", "2/2"))
    for shard in shards:
        process = started(plan, data, straight, *shard)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said

    out = tmp_path / "killed"
    process = started(plan, data, out, "--jobs", "2")
    wait_until(lambda: list(out.glob("cells/*/pretrain/metrics.jsonl")), process)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert not values(out)

    process = started(plan, data, out, "--jobs", "2")
    wait_until(lambda: values(out), process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "stopped by SIGINT; the same command goes on" in said
    done = values(out)

    process = started(plan, data, out)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert f"3 cells, {len(done)} done" in said
    assert values(out) == values(straight)
    assert len(values(out)) == 3
    assert not list(out.glob("cells/*/*/last.pt"))

    written = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}
    process = started(plan, data, out)
    assert process.wait(timeout=60) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert main(["study", "report", str(out)]) == 0


def test_a_cell_that_fails_is_named_and_does_not_stop_the_rest(tmp_path, data, capsys):
    plan, out = tmp_path / "tiny.toml", tmp_path / "out"
    plan.write_text(FAILING)
    process = started(plan, data, out)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "colours green2d seed 0 failed:" in said
    assert set(values(out)) == {"colours random seed 0", "colours untrained seed 0"}
    given = ["--out", str(out), "--data", f"colours={data}", "--list"]
    assert main(["study", str(plan), *given]) == 0
    assert "3 cells: 2 done, 1 failed" in capsys.readouterr().out
    assert main(["study", "report", str(out)]) == 0
    assert "Missing: colours green2d seed 0." in (out / "report/report.md").read_text()

    (left,) = [p.parent for p in out.glob("cells/*/failed.json")]
    folder = RunFolder(left)  # as if another process worked on it
    process = started(plan, data, out, "--list")
    said, _ = process.communicate(timeout=60)
    assert "1 running" in said
    process = started(plan, data, out)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "another process works on it" in said
    folder.release()

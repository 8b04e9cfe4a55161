"""Every stage of the GPU check, on the CPU and without the packages that a GPU machine may lack:
killed in the middle, it leaves what it had, and a second call makes the rest."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_steps import HIDDEN_IN_DRY_RUN, ROOT
from testing import made_once, require

pytestmark = pytest.mark.exhaustive

TESTS = Path(__file__).parent
#: What imports a hidden package where it is imported.
LEFT_OUT = {
    *("bench/test_bench_command.py", "bench/test_fusion_study.py"),
    *("pictures/test_show.py", "pictures/test_show_data.py"),
    *("examples/test_data_sets.py", "examples/test_sounding_sets.py", "examples/test_music_set.py"),
    *("test_refusals.py", "train"),
}


def environment(**more):
    """OTHER_TRITON: a folder with another Triton than the one that is installed."""
    path = [os.environ[name] for name in ("OTHER_TRITON", "PYTHONPATH") if os.environ.get(name)]
    unwanted = ("TRITON_INTERPRET", "CI")
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHON": sys.executable, **more}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of a call that was killed within a step, and of the next one; and what that printed."""
    require(shutil.which("bash"), "bash")
    folder = made_once(tmp_path_factory, "gpu-dry-run", play_through)
    first = json.loads((folder / "first.json").read_text())
    return first, read(folder / "out"), (folder / "printed").read_text(), folder / "out"


def play_through(folder):
    out = folder / "out"
    command = ("bash", ROOT / "bench/gpu_check.sh", "all", "--dry-run", "--out", out)
    killed = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    rows = {}
    while not rows.get("equality") and killed.poll() is None:
        time.sleep(0.1)
        rows = read(out)["rows"]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (folder / "first.json").write_text(json.dumps(read(out)))
    second = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout[-5000:] + second.stderr[-2000:]
    (folder / "printed").write_text(second.stdout)


def read(out):
    path = out / "gpu_check.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": {}}


def test_what_was_killed_left_its_rows(results):
    first, second, _, _ = results
    assert first["steps"]["facts"]["state"] == "ended"
    assert first["steps"]["equality"]["state"] == "running"
    assert first["calls"][0]["ended"] == "killed"
    groups = [row["group"] for row in first["rows"]["equality"]]
    all_groups = [row["group"] for row in second["rows"]["equality"]]
    assert 0 < len(groups) < len(all_groups) == len(set(all_groups))
    assert all_groups[: len(groups)] == groups


def test_every_step_ends_and_makes_its_rows(results):
    _, result, printed, out = results
    needs_gpu = {"ncu", "ncu_details", "memcheck", "racecheck", "racecheck_noise"}
    needs_gpu |= {"triton_report", "cuda_report"}
    for name, one in result["steps"].items():
        if name in needs_gpu:
            assert (one["state"], one["why"]) == ("skipped", "a dry run has no GPU")
        else:
            assert (one["state"], one["exit"]) == ("ended", 0), one["log_tail"]
    assert [call["ended"] for call in result["calls"]] == ["killed", "in order"]
    rows = result["rows"]
    assert {row["difference"] for row in rows["equality"]} == {None}
    timed = {(row["work"], row["what"]) for row in rows["kernels"] if row["kind"] == "timed"}
    assert {work for work, what in timed if what == "smnm"} == {"green3d", "rbn"}
    assert {row["work"] for row in rows["kernels"] if row["kind"] == "eager"} == {"green3d", "rbn"}
    for name in ("device_tests", "tests"):
        outcomes = [row["outcome"] for row in rows[name] if "test" in row]
        assert outcomes.count("passed") == (2 if name == "device_tests" else 3)
        assert "failed" not in outcomes
    assert {"smnm green3d", "the model"} <= {row.get("what") for row in rows["training"]}
    assert {"smnm green3d", "smnm rbn"} <= {row.get("what") for row in rows["masks"]}
    for name in ("training", "masks"):
        assert rows[name][-1]["ended"]
    assert result["facts"]["backends"]["cpu"] == "active"
    assert printed.splitlines()[-1] == f"{len(result['steps'])} steps, none failed"
    assert sorted(path.name for path in out.iterdir()) == ["gpu_check.json", "logs.tar.gz"]


def test_all_test_files_are_collected_but_those_that_need_what_is_missing(results):
    left_out = {row["file"]: row["why"] for row in results[1]["rows"]["tests"] if "file" in row}
    assert left_out.keys() == {f"tests/{path}" for path in LEFT_OUT}
    assert all(re.search(r"could not import '(tyro|av)'", why) for why in left_out.values())

    hidden = environment(WITHOUT_PACKAGES=" ".join(HIDDEN_IN_DRY_RUN))
    path = [ROOT / "bench/without_packages", ROOT, hidden["PYTHONPATH"]]
    hidden["PYTHONPATH"] = os.pathsep.join(map(str, path))
    command = (sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider")
    command += ("--exhaustive",)
    done = subprocess.run(
        command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    collected = set(re.findall(r"^tests/(.*?\.py)::", done.stdout, re.M))
    files = {str(file.relative_to(TESTS)) for file in TESTS.rglob("test_*.py")}
    assert files - collected == {f for f in files if f in LEFT_OUT or f.startswith("train/")}

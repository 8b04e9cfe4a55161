"""The check of a GPU keeps what it has, whatever ends it, and goes on from there."""

import json
import os
import re
import signal
import sys
import tarfile
import threading
import time

import gpu_check
import gpu_result
import gpu_table
import processes
import pytest
from gpu_check import Check
from gpu_steps import Step, steps
from processes import ProcessDied, answers
from saved_rows import SavedRows, read_rows

pytestmark = pytest.mark.slow

ABOUT = {"gpu": "a GPU", "torch": "2.11", "triton": "3.6", "dry_run": False}


def test_rows_survive_half_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    SavedRows(path).add({"a": 1}, {"a": 2})
    with path.open("a") as file:
        file.write('{"a": 3')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    saved = SavedRows(path)
    saved.add({"a": 4})
    assert read_rows(path) == saved.rows == [{"a": 1}, {"a": 2}, {"a": 4}]
    saved.keep(saved.rows[1:])
    assert read_rows(path) == [{"a": 2}, {"a": 4}]
    assert saved.has(a=4)
    assert not saved.has(a=4, b=1)
    assert not SavedRows(tmp_path / "new" / "rows.jsonl").path.exists()


def squared_unless_told_otherwise(task):
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "lose the device":
        processes.device_is_lost = lambda: True
        return os.getpid()
    return os.getpid(), task**2


@pytest.mark.exhaustive
def test_processes_that_die_cost_their_task_alone():
    tasks = ["lose the device", 2, "die", 3, 4]
    made = dict(answers(squared_unless_told_otherwise, tasks, 2))
    assert made.keys() == set(range(5))
    died = made.pop(2)
    assert isinstance(died, ProcessDied)
    assert "exit code -9" in str(died)
    lost = made.pop(0)
    assert sorted(square for _, square in made.values()) == [4, 9, 16]
    assert lost not in {process for process, _ in made.values()}


def shell(name, script, *, stage=1, limit=30, least=1, **more):
    return Step(name, stage, limit, least, ("bash", "-c", script), **more)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a check of these steps; $FOLDER is where rows go. Gives the result that it wrote."""
    monkeypatch.setattr(gpu_check, "GRACE", 3)  # on a busy machine a shell takes its time
    monkeypatch.setattr(gpu_check, "MARGIN", 0)

    def run(*steps, seconds=60, stages=(1,), again=(), earlier=None):
        monkeypatch.setattr(gpu_check, "steps", lambda *_: steps)
        check = Check(tmp_path, ABOUT, seconds, capability=None)
        check.environment["FOLDER"] = str(check.folder)
        if earlier:
            check.go_on_from(earlier, tmp_path / gpu_result.LOGS)
        run.check = check
        check.run(list(stages), list(again))
        return gpu_result.read(tmp_path / gpu_result.RESULT)

    return run


def stopped_when_there_is(path, run, *steps, **more):
    """The result of a check that gets SIGTERM as soon as one of its steps has made that file."""

    def stop():
        while not path.exists():
            time.sleep(0.05)
        run.check.signal = signal.SIGTERM

    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    with pytest.raises(SystemExit) as stopped:
        run(*steps, **more)
    stopping.join()
    assert stopped.value.code == 128 + signal.SIGTERM
    return gpu_result.read(run.check.out / gpu_result.RESULT)


def states(result):
    return {name: one["state"] for name, one in result["steps"].items()}


@pytest.mark.exhaustive  # it waits for limits to pass
def test_steps_end_each_in_its_way(run, tmp_path):
    result = run(
        shell("good", "echo fine"),
        shell("bad", "echo not so; exit 3"),
        shell("wrong", "echo warning: without nvcc", wrong="without nvcc"),
        shell("missing", "exit 1", missing="ncu is not there"),
        shell("refused", "echo 'Device not supported'; exit 2", refused="Device.*"),
        shell("slow", "trap 'echo report; exit 0' INT; sleep 30 & wait", limit=3),
        shell("deaf", "trap '' INT; echo started; sleep 30 & wait; sleep 30", limit=3),
        shell("long", "exit 1", least=20),
        shell("later", "exit 1", stage=2),
        seconds=19,
    )
    assert states(result) == {
        "good": "ended", "bad": "ended", "wrong": "ended", "missing": "skipped",
        "refused": "skipped", "slow": "stopped", "deaf": "stopped", "long": "left out",
    }  # fmt: skip
    steps = result["steps"]
    assert (steps["good"]["exit"], steps["bad"]["exit"], steps["wrong"]["exit"]) == (0, 3, 1)
    assert steps["missing"]["why"] == "ncu is not there"
    assert steps["refused"]["why"] == "Device not supported"
    assert steps["slow"]["log_tail"] == "report\n"
    assert steps["deaf"]["exit"] == -signal.SIGKILL
    assert "takes 20 at the least" in steps["long"]["why"]
    assert gpu_table.failed_steps(result) == ["bad", "wrong"]
    assert gpu_table.unfinished_steps(result) == ["slow", "deaf", "long"]
    assert gpu_table.show(tmp_path / gpu_result.RESULT) == 1
    with tarfile.open(tmp_path / gpu_result.LOGS) as tar:
        assert tar.extractfile("logs/bad.log").read() == b"not so\n"


@pytest.mark.exhaustive  # it waits for limits to pass
def test_no_process_is_left(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    child = f"(trap '' INT; sleep 2 && touch {tmp_path}/alive) &"
    run(shell("parent", f"{child} echo gone", limit=9))
    run(shell("slow", f"{child} sleep 9", limit=1))
    time.sleep(2.2)
    assert not (tmp_path / "alive").exists()


def test_what_runs_beside_others_is_waited_for(run):
    result = run(
        shell("beside", "sleep 1; cat $FOLDER/note", beside=True),
        shell("meanwhile", "echo made meanwhile > $FOLDER/note"),
    )
    assert result["steps"]["beside"]["log_tail"] == "made meanwhile\n"


def test_rows_are_in_the_result_before_their_step_ends(run, tmp_path):
    seen = []

    def watch():
        while not seen:
            result = gpu_result.read(tmp_path / gpu_result.RESULT)
            if result and result["rows"]:
                seen.append((states(result), result["rows"]))
            time.sleep(0.05)

    watching = threading.Thread(target=watch)
    watching.start()
    step = (
        """echo '{"row": 1}' >> $FOLDER/it.jsonl; sleep 1; echo '{"row": 2}' >> $FOLDER/it.jsonl"""
    )
    result = run(shell("it", step))
    watching.join()
    assert seen == [({"it": "running"}, {"it": [{"row": 1}]})]
    assert result["rows"]["it"] == [{"row": 1}, {"row": 2}]


def test_logs_are_archived_while_rows_come_all_the_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "ARCHIVE_EVERY", 0.5)
    rows = "for _ in {1..20}; do echo '{}' >> $FOLDER/it.jsonl; sleep 0.1; done"
    look = f"tar --extract --to-stdout --file {tmp_path}/{gpu_result.LOGS} logs/it.log"
    result = run(shell("it", f"echo begun; {rows}; {look}"))
    assert result["steps"]["it"]["log_tail"] == "begun\nbegun\n"


def test_printed_rows_and_facts(run):
    result = run(
        shell("report", """echo a warning; echo '{"kernel": "k"}'""", prints_rows=True),
        shell("facts", """echo '{"driver": "5"}' > $FOLDER/facts.jsonl"""),
    )
    assert result["rows"] == {"report": [{"kernel": "k"}]}
    assert result["facts"] == {"driver": "5"}


COUNT = (
    """n=$(wc -l < $FOLDER/count.jsonl); echo "{\\"n\\": $n}" >> $FOLDER/count.jsonl; echo $n;"""
)


@pytest.mark.exhaustive
def test_a_call_goes_on_from_an_earlier_one(run):
    def steps(tail, sources_of="good"):
        return (
            shell("build", "echo built again", always=True),
            shell("good", "date +%N", environment=(("OF", sources_of),)),
            shell("count", COUNT + tail, goes_on=True, limit=2),
        )

    first = run(*steps("sleep 9"))
    assert states(first)["count"] == "stopped"
    # As it is found where the whole call was killed.
    first["steps"]["count"]["state"] = "running"
    first["calls"][-1]["ended"] = "killed"
    other_stage = run(
        shell("later", "", stage=2), stages=[2], earlier=json.loads(json.dumps(first))
    )
    assert states(other_stage) == {
        "build": "ended", "good": "ended", "count": "stopped", "later": "ended"
    }  # fmt: skip
    assert other_stage["steps"]["count"]["why"] == "killed with the whole call"
    second = run(*steps(""), earlier=json.loads(json.dumps(first)))
    assert second["rows"]["count"] == [{"n": 0}, {"n": 1}]
    assert second["steps"]["good"] == first["steps"]["good"]
    assert second["steps"]["build"]["log_tail"] == "built again\n"
    assert [call["ended"] for call in second["calls"]] == ["killed", "in order"]
    third = run(*steps(""), earlier=json.loads(json.dumps(second)), again=["good"])
    assert third["steps"]["good"]["log_tail"] != first["steps"]["good"]["log_tail"]
    assert third["rows"] == second["rows"]


def test_what_failed_and_goes_on_is_tried_again(run):
    first = run(shell("count", COUNT + "exit 1", goes_on=True), shell("other", "exit 1"))
    second = run(shell("count", COUNT, goes_on=True), shell("other", ""), earlier=first)
    assert second["rows"]["count"] == [{"n": 0}, {"n": 1}]
    assert gpu_table.failed_steps(second) == ["other"]
    third = run(shell("count", "exit 1", goes_on=True), shell("other", ""), earlier=second)
    assert third["steps"]["count"]["exit"] == 0


def test_other_sources_are_checked_anew(run, capsys):
    step = shell("count", COUNT, goes_on=True)
    first = run(step)
    first["steps"]["count"]["sources"] = "another state"
    again = run(step, earlier=first)
    assert again["rows"]["count"] == [{"n": 0}]
    assert "count: an earlier call had other sources, so it is run anew" in capsys.readouterr().out


def test_what_is_profiled_has_the_names_that_are_asked_for():
    """Sanitizers and the profiler pick kernels by these parts of names."""
    cuda = "".join(path.read_text() for path in (gpu_result.ROOT / "csrc/cuda").glob("*.cu"))
    kernels = re.findall(r"__global__ void (?:__launch_bounds__\(.*\)\s*)?(\w+)\(", cuda)
    assert len(kernels) == cuda.count("__global__") > 0
    assert all("rbn" in name for name in kernels)
    on_chip = (gpu_result.ROOT / "smnm_kernels/triton_kernels/on_chip.py").read_text()
    assert re.search(r"@triton\.jit[^:]*\ndef \w*noise\w*\(", on_chip)


def test_sources_are_what_a_step_depends_on(tmp_path):
    sources = {step.name: set(step.sources) for step in steps(tmp_path, False, "9.0")}
    package = {"setup.py", "csrc", "smnm_kernels"}
    assert all(of >= package for of in sources.values())
    scripts = {f"bench/{name}.py" for name in ("gpu_kernels", "gpu_table", "gpu_result")}
    assert sources["kernels"] == sources["ncu"] == package | scripts | {"bench/saved_rows.py"}
    # The details are those of the profile.
    assert sources["ncu_details"] == sources["ncu"]
    assert sources["equality"] >= {"bench/gpu_equality.py", "bench/processes.py", "ptx_machine"}
    for name in ("tests", "device_tests", "memcheck"):
        assert sources[name] == package | {"bench", "ptx_machine", "tests"}
    # What decides which steps are run makes none of their results.
    measured = set().union(*(sources[name] for name in ("equality", "kernels", "training")))
    assert measured.isdisjoint({"bench/gpu_check.py", "bench/gpu_steps.py"})


def test_the_hash_of_sources_is_that_of_their_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_result, "ROOT", tmp_path)
    of = gpu_result.hash_of_sources.__wrapped__
    (tmp_path / "bench").mkdir()
    script = tmp_path / "bench/it.py"
    script.write_text("1")
    first = of(("bench/it.py",))
    assert of(("bench/it.py",)) == of(("bench",)) == first
    script.write_text("2")
    assert of(("bench/it.py",)) != first


TORCH_WITH_A_GPU = """
class cuda:
    def get_device_name(index): return f"GPU {index} of torch"
    def get_device_capability(index): return (9, index)
"""


def test_the_gpu_is_the_one_that_torch_takes(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(TORCH_WITH_A_GPU)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    gpu = gpu_result.gpu()
    assert gpu == ("GPU 0 of torch", "9.0")
    assert gpu_check.about(gpu, dry_run=False)["gpu"] == "GPU 0 of torch"
    (tmp_path / "torch.py").write_text("raise ImportError")
    assert gpu_result.gpu() is None


def test_the_build_is_for_this_gpu_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    for capability, environment in ((None, {}), ("8.6", {"TORCH_CUDA_ARCH_LIST": "8.6"})):
        build = steps(tmp_path, False, capability)[0]
        assert (build.name, dict(build.environment)) == ("build", environment)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0")
    assert steps(tmp_path, False, "8.6")[0].environment == ()


def test_a_signal_stops_what_runs_and_keeps_the_rest(run, tmp_path):
    step = f"""
trap 'echo report; exit 0' INT
echo '{{"row": 1}}' > $FOLDER/it.jsonl
touch {tmp_path}/ready
sleep 30 & wait
"""
    result = stopped_when_there_is(tmp_path / "ready", run, shell("it", step), shell("next", ""))
    assert states(result) == {"it": "stopped"}
    assert result["steps"]["it"]["log_tail"] == "report\n"
    assert result["rows"] == {"it": [{"row": 1}]}
    assert result["calls"][-1]["ended"] == "stopped by signal 15"


def test_earlier_results_are_those_of_out_and_of_resume(tmp_path, capsys):
    class Options:
        resume, anew, out = None, False, tmp_path / "out"

    Options.out.mkdir()
    own, carried = Options.out / gpu_result.RESULT, tmp_path / "carried.json"
    assert gpu_check.earlier_result(Options, ABOUT) is None
    gpu_result.write(own, {"about": ABOUT, "of": "out"})
    gpu_result.write(carried, {"about": ABOUT, "of": "elsewhere"})
    assert gpu_check.earlier_result(Options, ABOUT)["of"] == "out"
    assert own.exists()
    Options.resume = carried
    assert gpu_check.earlier_result(Options, ABOUT)["of"] == "elsewhere"
    kept = own.with_name("gpu_check_earlier.json")
    assert gpu_result.read(kept)["of"] == "out"
    assert not own.exists()
    assert carried.exists()
    Options.resume = tmp_path / "none.json"
    with pytest.raises(SystemExit, match="no result of a GPU check"):
        gpu_check.earlier_result(Options, ABOUT)


@pytest.mark.parametrize("anew", [False, True])
def test_a_result_that_is_not_gone_on_from_is_kept(anew, tmp_path, capsys):
    class Options:
        resume, out = None, tmp_path

    Options.anew = anew
    gpu_result.write(tmp_path / gpu_result.RESULT, {"about": ABOUT | {"gpu": "another"}})
    assert gpu_check.earlier_result(Options, ABOUT) is None
    assert ("gpu was another" in capsys.readouterr().out) != anew
    assert [path.name for path in tmp_path.iterdir()] == ["gpu_check_earlier.json"]


def test_the_archive_is_small_and_goes_on(tmp_path):
    folder, other = tmp_path / "a", tmp_path / "b"
    for path in (folder, other):
        path.mkdir()
    (folder / "long.log").write_bytes(b"a" * 10**6 + b"z" * 10**6)
    (folder / "short.log").write_text("short")
    (folder / "ncu.ncu-rep").write_bytes(bytes(gpu_result.MOST_OF_A_FILE + 1))
    gpu_result.archive(folder, tmp_path / "logs.tar.gz")
    gpu_result.unpack(tmp_path / "logs.tar.gz", other)
    assert sorted(path.name for path in other.iterdir()) == ["long.log", "short.log"]
    long = (other / "long.log").read_bytes()
    assert len(long) < 600_000
    assert (long[:1], long[-1:]) == (b"a", b"z")


def test_the_table_shows_all_that_came():
    difference = {"index": 3, "op": "noise_masks", "came": "a", "expected": "b"}
    timed = {"work": "rbn", "batch": 64, "what": "smnm", "us": 9.5, "ratio": 0.5, "of_bank": 0.2}
    timed |= {"kind": "timed", "clock": "graph", "limit_share": 0.5, "highest_limit": "words"}
    tests = [
        {"test": "t::good", "outcome": "passed", "seconds": 1.0},
        {
            "test": "t::bad",
            "outcome": "failed",
            "seconds": 2.0,
            "why": "x\nE   not equal\nt.py:7: Error",
            "process": "",
        },
        {"test": "t::bad", "outcome": "passed", "seconds": 0.1},
        {"test": "t::not", "outcome": "skipped", "seconds": 0.1, "why": "needs av"},
        {"file": "t_2.py", "outcome": "failed", "why": "no module\nImportError: x"},
    ]
    details = "  rbn_masks_kernel(long) (52, 1, 1)x(256, 1, 1), Context 1, Stream 7\n"
    details += "    Duration                 us        12.5\n    Other    us    77.7\n"
    result = {
        "about": ABOUT,
        "facts": {"driver": "580"},
        "calls": [{"stages": [1], "began": "today", "ended": "killed"}],
        "steps": {
            "build": {"stage": 1, "state": "ended", "exit": 0, "seconds": 70},
            "bench": {"stage": 1, "state": "ended", "exit": 2, "seconds": 7, "log_tail": "oh\nno"},
            "memcheck": {
                "stage": 2, "state": "ended", "exit": 0, "seconds": 9,
                "log_tail": "4 passed in 2 s\n==== ERROR SUMMARY: 0 errors\n",
            },
            "ncu_details": {
                "stage": 1, "state": "ended", "exit": 0, "seconds": 9, "log_tail": details
            },
            "masks": {"stage": 3, "state": "running", "limit": 200},
        },
        "rows": {
            "equality": [
                {"group": "g", "compared": 4, "difference": None},
                {"group": "h", "compared": 1, "difference": difference},
            ],
            "kernels": [timed, {"kind": "launches", "work": "rbn", "kernels": ["k"]}],
            "tests": tests,
            "training": [{"part": "ViT-S", "error": "OutOfMemoryError: x"}],
            "triton_report": [{"kernel": "k", "registers": 99}],
        },
    }  # fmt: skip
    text = gpu_table.table(result)
    for part in (
        "gpu a GPU", "driver: 580", "stages [1]: killed", "oh", "no", "ERROR SUMMARY: 0 errors",
        "5 settings in 2 groups, 1 differ", '"index": 3', "9.50 us", "50% of it: words",
        "Duration                 us        12.5", "Context 1", "tests: 1 failed, 1 passed, 1 skip",
        "t::bad: not equal", "file failed: t_2.py: ImportError: x", "1 skipped: needs av",
        "ViT-S failed: OutOfMemoryError: x", "registers 99",
    ):  # fmt: skip
        assert part in text, part
    assert "77.7" not in text
    assert text.splitlines()[-2:] == ["failed: bench", "not ended: masks"]


TESTS = """
import os, signal, time, pytest
def test_good(): pass
def test_bad(): assert [1] == [2]
def test_not(): pytest.skip("needs a GPU")
@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_without_fixture(broken): pass
def test_last(): {last}
"""


@pytest.fixture
def pytest_step(tmp_path):
    """A step that runs these tests, saving rows."""
    folder = tmp_path / "made-up-tests"
    folder.mkdir()
    (folder / "test_broken.py").write_text("import no_such_module")

    def step(last):
        (folder / "test_it.py").write_text(TESTS.format(last=last))
        words = f"-c /dev/null --rootdir {folder} -p no:cacheprovider -p pytest_rows"
        words += " --continue-on-collection-errors --junitxml=$FOLDER/tests.xml"
        words += " --rows=$FOLDER/tests.jsonl --without-tests=$FOLDER/tests.done"
        # Other plugins take seconds to import.
        alone = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"
        command = f"{alone} {sys.executable} -m pytest {words} {folder}"
        return shell("tests", command, goes_on=True, limit=60)

    return step


def outcomes(result):
    names = {row.get("test", row.get("file")).rpartition("::")[2]: row["outcome"]
             for row in result["rows"]["tests"]}  # fmt: skip
    return dict(sorted(names.items()))


FOUR = {
    "test_bad": "failed", "test_broken.py": "failed", "test_good": "passed", "test_not": "skipped",
    "test_without_fixture": "failed",
}  # fmt: skip


@pytest.mark.exhaustive  # it waits for limits to pass
def test_each_test_is_a_row_and_is_not_run_again(run, pytest_step, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "GRACE", 10)
    killed = run(pytest_step("os.kill(os.getpid(), signal.SIGKILL)"))
    assert outcomes(killed) == FOUR
    killed["steps"]["tests"]["state"] = "running"
    asleep = tmp_path / "asleep"
    sleeping = pytest_step(f"open({str(asleep)!r}, 'w').close(); time.sleep(60)")
    interrupted = stopped_when_there_is(asleep, run, sleeping, earlier=killed)
    assert states(interrupted) == {"tests": "stopped"}
    with tarfile.open(tmp_path / gpu_result.LOGS) as tar:
        assert b"<testsuite" in tar.extractfile("logs/tests.xml").read()
    result = run(pytest_step("pass"), earlier=interrupted)
    assert outcomes(result) == FOUR | {"test_last": "passed"}
    why = {
        row.get("test", "").rpartition("::")[2]: row.get("why") for row in result["rows"]["tests"]
    }
    assert "assert [1] == [2]" in why["test_bad"]
    assert why["test_not"] == "Skipped: needs a GPU"
    names = [row.get("test") for row in result["rows"]["tests"]]
    assert len(names) == len(set(names)) == len(outcomes(result))
    assert result["steps"]["tests"]["exit"] == 1
    # All have rows: nothing is run, and what failed has still failed.
    (tmp_path / "made-up-tests/test_broken.py").unlink()
    result = run(pytest_step("os.abort()"), earlier=result)
    assert result["steps"]["tests"]["exit"] == 1
    assert "deselected" in result["steps"]["tests"]["log_tail"]
    assert list(outcomes(result)) == ["test_bad", "test_good", "test_last", *list(FOUR)[3:]]

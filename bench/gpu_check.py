"""All checks and measurements that need a GPU, in stages with a time limit each.

``gpu_check.sh`` says how to call it. Results are written to OUT/gpu_check.json as soon as they are
known: a row when it is measured, a step when it ends. OUT/logs.tar.gz has the output of the steps.
A call goes on where an earlier one stopped, if sources, GPU, torch and Triton are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gpu_result
import gpu_table
from gpu_result import ENDED, LEFT_OUT, RUNNING, SKIPPED, STOPPED, Gpu
from gpu_steps import HIDDEN_IN_DRY_RUN, ROOT, STAGES, Step, steps
from saved_rows import line, read_rows

SECONDS_OF_A_STAGE = 540
#: Interrupted, pytest still writes its report; what does not listen is then killed.
GRACE = 15
#: Kept for the end of a call.
MARGIN = 5
TICK = 0.2
ARCHIVE_EVERY = 20


class Running:
    """A step's process, with all that it starts in one group."""

    def __init__(self, step: Step, folder: Path, environment: dict[str, str], seconds: float):
        self.step = step
        self.started = time.monotonic()
        self.limit = self.started + seconds
        self.kill_at: float | None = None
        with (folder / f"{step.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                step.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=environment | dict(step.environment),
                preexec_fn=_in_own_group_until_parent_dies,
            )

    def ended(self) -> bool:
        now = time.monotonic()
        if self.process.poll() is not None:
            self.kill()  # what it started and left
            return True
        if self.kill_at is None and now > self.limit:
            self.interrupt()
        elif self.kill_at is not None and now > self.kill_at:
            self.kill()
        return False

    def interrupt(self) -> None:
        if self.kill_at is None:
            self.kill_at = time.monotonic() + GRACE
            # To it alone: what it started it ends in order.
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _in_own_group_until_parent_dies() -> None:
    os.setpgid(0, 0)
    # Nobody is left to stop it, and it would go on using the GPU.
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Check:
    """The result and the steps that run."""

    def __init__(self, out: Path, about: dict, seconds: float, capability: str | None) -> None:
        self.out, self.seconds = out, seconds
        self.dry_run = about["dry_run"]
        self.folder = Path(tempfile.mkdtemp(prefix="gpu_check_"))
        self.result = {"about": about, "calls": [], "facts": {}, "steps": {}, "rows": {}}
        self.running: list[Running] = []
        self.seen: dict[str, tuple] = {}
        self.archived = 0.0
        self.signal: int | None = None
        self.steps = steps(self.folder, self.dry_run, capability)
        self.environment = _environment(self.dry_run)

    def go_on_from(self, earlier: dict, logs: Path) -> None:
        gpu_result.unpack(logs, self.folder)
        self.result |= {key: earlier[key] for key in ("calls", "facts", "steps", "rows")}
        for one in self.result["steps"].values():
            if one["state"] == RUNNING:
                one["state"] = STOPPED
                one["why"] = "killed with the whole call"

    def run(self, stages: list[int], again: list[str]) -> None:
        self.result["calls"].append(
            {
                "stages": stages,
                "began": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "ended": "killed",
            }
        )
        started = time.monotonic()
        for name in again:
            self.forget(name)
        done: set[str] = set()
        deadline = started + self.seconds - MARGIN
        for stage in stages:
            print(f"stage {stage}: {STAGES[stage]}", flush=True)
            for step in self.steps:
                if (step.stage == stage or step.always) and step.name not in done:
                    done.add(step.name)
                    self.begin(step, deadline)
                    self.wait([r for r in self.running if not r.step.beside])
            self.wait(self.running)
        self.result["calls"][-1]["ended"] = "in order"
        self.result["calls"][-1]["seconds"] = round(time.monotonic() - started)
        self.save(archive=True)

    def forget(self, name: str) -> None:
        self.result["steps"].pop(name, None)
        self.result["rows"].pop(name, None)

    def begin(self, step: Step, deadline: float) -> None:
        """Starts it, or says why not."""
        earlier = self.result["steps"].get(step.name, {})
        sources = gpu_result.hash_of_sources(step.sources)
        if earlier.get("sources", sources) != sources:
            print(f"{step.name}: an earlier call had other sources, so it is run anew", flush=True)
            self.forget(step.name)
        # A failed step that goes on may lack rows.
        elif (
            earlier.get("state") == ENDED
            and not step.always
            and not (step.goes_on and earlier["exit"])
        ):
            print(f"{step.name}: ended in an earlier call", flush=True)
            return
        seconds = min(step.limit, deadline - time.monotonic() - GRACE)
        if step.missing:
            self.note(step, SKIPPED, why=step.missing)
        elif seconds < step.least:
            # The results of an earlier call are kept.
            why = f"{max(0, seconds):.0f} s were left, it takes {step.least} at the least"
            self.note(step, LEFT_OUT, why=why)
        else:
            earlier_rows = self.result["rows"].get(step.name, []) if step.goes_on else []
            rows = self.folder / f"{step.name}.jsonl"
            rows.write_text("".join(map(line, earlier_rows)))
            names = {row["test"] for row in earlier_rows if "test" in row}
            (self.folder / f"{step.name}.done").write_text("\n".join(sorted(names)))
            self.running.append(Running(step, self.folder, self.environment, seconds))
            self.note(step, RUNNING, limit=round(seconds))

    def note(self, step: Step, state: str, **more: object) -> None:
        sources = gpu_result.hash_of_sources(step.sources)
        self.result["steps"][step.name] = {
            "stage": step.stage, "state": state, **more, "sources": sources
        }  # fmt: skip
        said = {key: value for key, value in more.items() if key != "log_tail"}
        print(f"{step.name}: {state} {said or ''}".rstrip(), flush=True)
        self.save(archive=state != RUNNING)

    def wait(self, for_these: list[Running]) -> None:
        while set(for_these) & set(self.running):
            self.tick()
            time.sleep(TICK)

    def tick(self) -> None:
        if self.signal:
            self.stop()
        for one in list(self.running):
            if one.ended():
                self.running.remove(one)
                self.end(one)
        rows_came = any([self.read(one.step) for one in self.running])
        late = time.monotonic() > self.archived + ARCHIVE_EVERY
        if rows_came or late:
            self.save(archive=late)

    def read(self, step: Step) -> bool:
        """Whether the step has written rows since the last call of this function."""
        path = self.folder / f"{step.name}.{'log' if step.prints_rows else 'jsonl'}"
        state = (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else ()
        if self.seen.get(step.name) == state:
            return False
        self.seen[step.name] = state
        rows = read_rows(path)
        if step.name == "facts":
            self.result["facts"] = rows[-1] if rows else {}
        elif rows:
            self.result["rows"][step.name] = rows
        return True

    def end(self, one: Running) -> None:
        step = one.step
        self.read(step)
        log = gpu_result.text_of_log(self.folder / f"{step.name}.log")
        code = one.process.returncode
        refused = step.refused and code and re.search(step.refused, log)
        wrong = step.wrong and re.search(step.wrong, log)
        more = {
            "seconds": round(time.monotonic() - one.started, 1),
            "exit": code or int(bool(wrong)),
        }
        more["log_tail"] = log[-gpu_result.tail_of(step.name) :]
        if refused:
            self.note(step, SKIPPED, why=refused[0], **more)
        elif one.kill_at is not None:
            why = "its time was over" if self.signal is None else "the check was stopped"
            self.note(step, STOPPED, why=why, **more)
        else:
            self.note(step, ENDED, **more)

    def stop(self) -> None:
        """Stops all steps after a signal."""
        for one in self.running:
            one.interrupt()
        while self.running:
            for one in list(self.running):
                if one.ended():
                    self.running.remove(one)
                    self.end(one)
            time.sleep(TICK)
        self.result["calls"][-1]["ended"] = f"stopped by signal {self.signal}"
        self.save(archive=True)
        sys.exit(128 + self.signal)

    def save(self, archive: bool = False) -> None:
        gpu_result.write(self.out / gpu_result.RESULT, self.result)
        if archive:
            gpu_result.archive(self.folder, self.out / gpu_result.LOGS)
            self.archived = time.monotonic()


def _environment(dry_run: bool) -> dict[str, str]:
    # Without CI, tests skip what needs a missing package and say so; with it, they would fail.
    made = {key: value for key, value in os.environ.items() if key != "CI"}
    # The package of this folder is built and tested, also where another is installed or none.
    path = [str(ROOT), str(ROOT / "bench")]
    if dry_run:
        path.insert(0, str(ROOT / "bench/without_packages"))
        made |= {"WITHOUT_PACKAGES": " ".join(HIDDEN_IN_DRY_RUN), "CUDA_VISIBLE_DEVICES": ""}
    earlier = os.environ.get("PYTHONPATH")
    made["PYTHONPATH"] = os.pathsep.join([*path, *([earlier] if earlier else [])])
    # Up to twelve processes share the cores.
    return made | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def about(gpu: Gpu | None, dry_run: bool) -> dict:
    """The facts that must be the same for a call to go on from an earlier one. For a step, its
    sources must be the same, too."""
    return {
        "gpu": gpu.name if gpu else None,
        "torch": _version("torch"),
        "triton": _version("triton"),
        "dry_run": dry_run,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def earlier_result(options: argparse.Namespace, now: dict) -> dict | None:
    """The result to go on from, or None: that of ``--resume``, else that of OUT, if its facts are
    the same. A result in OUT that is not used is kept under another name."""
    own = options.out / gpu_result.RESULT
    path = options.resume or own
    earlier = None if options.anew else gpu_result.read(path)
    if options.resume and earlier is None:
        sys.exit(f"--resume {path}: no result of a GPU check")
    if earlier is not None:
        theirs = earlier["about"]
        differs = [f"{key} was {theirs.get(key)}" for key in now if theirs.get(key) != now[key]]
        if differs:
            print(f"{path} is not gone on from: {', '.join(differs)}")
            earlier = None
        else:
            print(f"goes on from {path}")
    if own.exists() and not (earlier and own.samefile(path)):
        own.replace(own.with_name("gpu_check_earlier.json"))
    return earlier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], prog="gpu_check.sh")
    parser.add_argument(
        "stage",
        choices=[*map(str, STAGES), "all", "show"],
        help="; ".join(
            [
                *(f"{stage}: {what}" for stage, what in STAGES.items()),
                "show: the table, without a run",
            ]
        ),
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="default: gpu-check")
    parser.add_argument("--seconds", type=float, help="of the call; default: 540 for each stage")
    earlier_call = parser.add_mutually_exclusive_group()
    earlier_call.add_argument(
        "--resume", type=Path, metavar="FILE", help="go on from this result, not from that of OUT"
    )
    earlier_call.add_argument(
        "--anew", action="store_true", help="do not go on from an earlier result"
    )
    parser.add_argument(
        "--again", nargs="+", default=[], metavar="STEP", help="run these once more"
    )
    parser.add_argument("--dry-run", action="store_true", help="a little of every step, on the CPU")
    options = parser.parse_args()
    if options.stage == "show":
        sys.exit(gpu_table.show(options.resume or options.out / gpu_result.RESULT))
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}")
    options.out = options.out.resolve()
    gpu = gpu_result.gpu()
    now = about(gpu, options.dry_run)
    print(f"GPU: {now['gpu'] or 'none found'}", flush=True)
    if gpu is None and not options.dry_run:
        sys.exit(
            "torch finds no GPU: python -c 'import torch; torch.cuda.init()' says why; "
            "--dry-run needs none"
        )
    stages = [*STAGES] if options.stage == "all" else [int(options.stage)]
    seconds = options.seconds or SECONDS_OF_A_STAGE * len(stages)
    check = Check(options.out, now, seconds, gpu.capability if gpu else None)
    unknown = set(options.again) - {step.name for step in check.steps}
    if unknown:
        names = ", ".join(step.name for step in check.steps)
        sys.exit(f"--again {' '.join(sorted(unknown))}: the steps are {names}")
    earlier = earlier_result(options, now)
    if earlier:
        path = options.resume or options.out / gpu_result.RESULT
        check.go_on_from(earlier, path.with_name(gpu_result.LOGS))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: setattr(check, "signal", number))
    try:
        check.run(stages, options.again)
    finally:
        shutil.rmtree(check.folder, ignore_errors=True)
    sys.exit(gpu_table.show(options.out / gpu_result.RESULT))


if __name__ == "__main__":
    main()

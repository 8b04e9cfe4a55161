"""What a scan finds in odd places, what it says of the rest, and how it goes on after a kill."""

import errno
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest
from clips import losses
from pairs import PRESET, Pairs
from testing import require

from smnm_kernels.errors import RunError, Unusable, UsageError
from smnm_kernels.train.data import left_out as left_out_module
from smnm_kernels.train.data import scan as scan_module
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.records import (
    Journal,
    Known,
    Records,
    fingerprint,
    read_files,
    to_line,
    write_files,
)
from smnm_kernels.train.data.scan import ScanStopped, differences, scan
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain import pretrain

TXT = frozenset([".txt"])
PAIRS = Pairs(length=16)


@pytest.fixture
def preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "pairs", {"tiny": PRESET})


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.txt").write_text(str(i))
    return folder


def names(found):
    return [entry.name for entry in found.entries]


def test_no_odd_entry_ends_the_search(tmp_path, monkeypatch):
    (tmp_path / "a.txt").touch()
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "b.TXT").touch()
    for name in ("1.json", "2.json", "3.MD", "none", ".hidden.txt", ".git"):
        (tmp_path / name).touch()
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).touch()
    (tmp_path / os.fsdecode(b"d\xffr")).mkdir()
    (tmp_path / os.fsdecode(b"d\xffr") / "x.txt").touch()
    (tmp_path / "nowhere.txt").symlink_to("gone")
    (tmp_path / "me.txt").symlink_to("me.txt")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "zz").symlink_to("z")
    (tmp_path / "linked.txt").symlink_to("a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "hard.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path may have 107 characters
        made.bind("socket.txt")
        os.chdir(here)
    (tmp_path / "t.tar.gz").touch()
    (tmp_path / "new\nline.txt").touch()
    for name in ("lost+found", "moved"):
        (tmp_path / name).mkdir()
    listing = os.scandir

    def failing(path):
        if os.path.basename(path) == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        if os.path.basename(path) == "moved":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", failing)
    found = find(tmp_path, TXT)
    assert names(found) == ["a.txt", "hard.txt", "linked.txt", "new\nline.txt", "z/b.TXT"]
    assert found.left_out.named == {
        r"caf\udce9.txt": "its name is not valid UTF-8",
        r"d\udcffr": "its name is not valid UTF-8",
        "nowhere.txt": "is a link to nowhere",
        "me.txt": "is a link in a circle",
        "up/": "leads to a folder that is searched already (DATA itself)",
        "zz/": "leads to a folder that is searched already (z/)",
        "pipe.txt": "is a pipe, not a file",
        "socket.txt": "is a socket, not a file",
        "lost+found/": "cannot be read (Permission denied)",
        "moved/": "vanished while the files were looked at",
        "t.tar.gz": "is a compressed tar; members are read in place, so decompress it first",
    }
    assert found.left_out.counts() == [
        "2 files that end in .json, 1 in .md, 1 in no suffix",
        "2 hidden names",
    ]
    reasons = found.left_out.reasons()
    assert reasons["*.json"] == "not looked at: 2 in .json"
    assert reasons[".*"] == "not looked at: 2 hidden"


@pytest.mark.slow
def test_names_and_folders_without_end(tmp_path):
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(40):  # beyond the 4096 bytes that a path may have
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        open("deep.txt", "w").close()
    finally:
        os.chdir(here)
    (tmp_path / "a.txt").touch()
    (tmp_path / ("n" * 251 + ".txt")).touch()
    found = find(tmp_path, TXT)
    assert names(found) == ["a.txt", "n" * 251 + ".txt"]
    assert list(found.left_out.named.values()) == ["cannot be read (File name too long)"]
    shutil.rmtree(tmp_path / ("d" * 200))
    deep = tmp_path
    for _ in range(1100):  # more than Python's calls may be deep
        deep = deep / "d"
        deep.mkdir()
    (deep / "b.txt").touch()
    assert names(find(tmp_path, TXT))[1] == "d/" * 1100 + "b.txt"
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # shutil would call itself as often


def test_a_thousand_suffixes_are_counted_and_the_rest_together(tmp_path, monkeypatch):
    monkeypatch.setattr(left_out_module, "_MOST_SUFFIXES", 3)
    for i in range(6):
        (tmp_path / f"frame.{i}").touch()
    (tmp_path / "a.0").touch()
    suffixes = find(tmp_path, TXT).left_out.suffixes
    assert suffixes == {".0": 2, ".1": 1, ".2": 1, left_out_module._OTHER: 3}


@dataclass(frozen=True)
class Odd(Pairs):
    """Fails in the way that the file says."""

    def probe(self, source):
        text = source.open().read().decode()
        if text == "unusable":
            raise Unusable("is too short: 1 of 2")
        if text == "input":
            raise OSError(errno.EIO, "Input/output error")
        if text == "bug":
            raise KeyError("moov")
        return {"slope": 1.0}


def test_a_file_that_fails_in_any_way_is_named(tmp_path):
    for name in ("good", "unusable", "input", "bug"):
        (tmp_path / f"{name}.txt").write_text(name)
    journal = Journal(tmp_path / "scan.jsonl", {})
    listing = scan(tmp_path, Odd(16), None, 2, journal=journal)
    assert [r["name"] for r in listing.usable] == ["good.txt"]
    assert listing.reasons() == {
        "unusable.txt": "is too short: 1 of 2",
        "input.txt": "cannot be read (Input/output error)",
        "bug.txt": "makes its decoder fail (KeyError: 'moov')",
    }
    # What could not be read is tried again.
    kept = {json.loads(line)["name"] for line in journal.read()}
    assert kept == {"good.txt", "unusable.txt", "bug.txt"}


def test_nothing_usable_says_what_is_there_instead(preset, tmp_path):
    data = tmp_path / "data"
    data.mkdir()

    def refused():
        with pytest.raises(UsageError) as refusal:
            pretrain(Pretrain(modality="pairs", data=data, out=tmp_path / "run"))
        assert not (tmp_path / "run").exists()
        return str(refusal.value)

    assert refused().endswith("no usable file is there, nor anything else. Looked for .txt")
    for i in range(12):
        (data / f"{i}.json").touch()
    (data / "a.wav").touch()
    (data / "b.txt").symlink_to("gone")
    (data / ".x").touch()
    error = refused()
    assert "no usable file is there; found instead: 12 files that end in .json" in error
    assert error.endswith(". Looked for .txt")
    assert (
        "12 files that end in .json, 1 in .wav; 1 hidden name; b.txt is a link to nowhere" in error
    )
    for i in range(3):
        (data / f"{i}.txt").write_text("no number")
    assert "all 3 were skipped, see above: makes its decoder fail (3 files)" in refused()


def test_left_out_entries_are_on_the_screen_and_in_skipped_json(preset, data, tmp_path, capsys):
    (data / "notes.md").touch()
    (data / "gone.txt").symlink_to("nowhere")
    (data / "bad.txt").write_text("no number")
    run = tmp_path / "run"
    assert pretrain(Pretrain(modality="pairs", data=data, out=run, workers=0, steps=1)) == 0
    said = capsys.readouterr().out
    assert "5 of 6 pairs files are usable" in said
    assert "  skipped bad.txt: makes its decoder fail (ValueError" in said
    assert "  skipped gone.txt: is a link to nowhere" in said
    assert "  not looked at: 1 file that ends in .md" in said
    held = json.loads((run / "skipped.json").read_text())
    assert set(held) == {"bad.txt", "gone.txt", "*.md"}
    assert len(json.loads((run / "files.json").read_text())["usable"]) == 5
    assert not (run / "scan.jsonl").exists()


def test_runs_below_data_are_not_data(preset, data, tmp_path):
    for out in (data / "runs" / "a", data / "runs" / "b"):
        assert pretrain(Pretrain(modality="pairs", data=data, out=out, workers=0, steps=1)) == 0
        (out / "more.txt").write_text("1")
    found = find(data, TXT, besides=data / "runs" / "b")
    assert names(found) == [f"{i}.txt" for i in range(5)]
    assert found.left_out.named == {"runs/a/": "is a run, whose files are no data"}


@pytest.mark.slow
def test_any_name_can_be_printed(tmp_path):
    (tmp_path / "\u03bc\u200f\x1b[31m.wav").write_text("no sound")
    words = ["pretrain", "audio", str(tmp_path), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "smnm_kernels.cli", *words],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert r"skipped \u03bc\u200f\x1b[31m.wav: does not decode" in done.stdout
    assert "Traceback" not in done.stderr


def test_records_are_a_list_in_one_piece(tmp_path):
    given = [{"name": "a", "n": 1}, {"name": 'b"\u2028,]}', "reason": "\udcff"}, {"name": "ü"}]
    records = Records(given)
    assert list(records) == given
    assert records[-1] == given[-1]
    assert records[:2] == given[:2]
    assert pickle.loads(pickle.dumps(records)) == given
    with pytest.raises(IndexError):
        records[3]
    for usable, skipped in ((records, Records()), (Records(), records), (records, records)):
        with (tmp_path / "files.json").open("wb") as file:
            write_files(file, usable, skipped)
        assert read_files(tmp_path / "files.json") == (usable, skipped)
        held = json.loads((tmp_path / "files.json").read_text())
        assert held == {"usable": list(usable), "skipped": list(skipped)}
    # As runs before had it.
    (tmp_path / "files.json").write_text(json.dumps(held, indent=1))
    assert read_files(tmp_path / "files.json") == (records, records)


def test_a_journal_outlives_torn_lines_and_belongs_to_one_scan(tmp_path):
    path = tmp_path / "scan.jsonl"
    journal = Journal(path, {"scan of": "a"})
    assert list(journal.read()) == []
    journal.open()
    lines = [to_line({"name": str(i), "digest": "x"}) for i in range(3)]
    journal.add(lines[0])
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"name": "torn", "dig')
    assert list(journal.read()) == lines[:1]
    journal.open()
    journal.add(lines[1])
    journal.close()
    with path.open("ab") as file:
        file.write(b"\0\0\0\n")
    journal.open()
    journal.add(lines[2])
    journal.close()
    assert list(journal.read()) == lines
    other = Journal(path, {"scan of": "b"})
    assert list(other.read()) == []
    other.open()
    other.close()
    assert list(journal.read()) == []


def test_known_files_are_not_looked_at_again(data, monkeypatch):
    first = scan(data, PAIRS, None, 2)
    (data / "2.txt").write_text("22")
    (data / "new.txt").write_text("7")
    probed = []

    def noting(self, source):
        probed.append(source.path.name)
        return {"slope": 0.0}

    monkeypatch.setattr(Pairs, "probe", noting)
    known = Known()
    known.add(first.usable.lines())
    second = scan(data, PAIRS, known, 2)
    assert sorted(probed) == ["2.txt", "new.txt"]
    assert second.usable[0] == first.usable[0]
    assert differences(second.usable, first.usable) == ["1 new (new.txt)", "1 changed (2.txt)"]


def test_differences_name_the_first_and_count_all():
    def records(*pairs):
        return [{"name": name, "digest": digest} for name, digest in pairs]

    theirs = records(*((f"{i}", "x") for i in range(5)), ("a", "x"), ("b", "x"), ("b", "y"))
    ours = records(("a", "x"), ("b", "y"), ("b", "x"), ("c", "x"))
    # Members of one name are samples of their own, in their order.
    assert differences(ours, theirs) == ["5 gone (0, 1, 2, …)", "1 new (c)", "1 changed (b)"]
    assert differences(theirs, theirs) == []
    assert differences([], []) == []


def test_a_scan_that_is_stopped_keeps_what_it_has(data, tmp_path, monkeypatch):
    journal = Journal(tmp_path / "scan.jsonl", {})
    begun, release = threading.Event(), threading.Event()

    def slow(self, source):
        if source.path.name == "3.txt":
            begun.set()
            release.wait(30)
        return {"slope": 0.0}

    monkeypatch.setattr(Pairs, "probe", slow)
    monkeypatch.setattr(scan_module, "_PATIENCE_S", 0.1)
    since = time.monotonic()
    with pytest.raises(ScanStopped) as stopped:
        scan(data, PAIRS, None, 1, journal=journal, stopping=begun.is_set)
    assert time.monotonic() - since < 10  # though a file is still being read
    assert (stopped.value.done, stopped.value.total) == (3, 5)
    assert [json.loads(line)["name"] for line in journal.read()] == ["0.txt", "1.txt", "2.txt"]
    release.set()


def test_a_file_that_stands_still_ends_the_scan_with_its_name(data, tmp_path, monkeypatch):
    require(os.path.exists("/proc/self/io"), "a system that tells of CPU time")
    journal = Journal(tmp_path / "scan.jsonl", {})
    release = threading.Event()

    def still(self, source):
        if source.path.name == "3.txt":
            release.wait(30)
        return {"slope": 0.0}

    monkeypatch.setattr(Pairs, "probe", still)
    monkeypatch.setattr(scan_module, "_PATIENCE_S", 0.1)
    said = r"scan has stood still for \d s at 3\.txt.*found in 3 of 5 files is kept"
    with pytest.raises(RunError, match=said):
        scan(data, PAIRS, None, 2, journal=journal, stall_limit=0.5)
    release.set()


def test_a_search_that_stands_still_ends_with_a_name(data, monkeypatch):
    require(os.path.exists("/proc/self/io"), "a system that tells of CPU time")
    release = threading.Event()
    monkeypatch.setattr(os, "scandir", lambda path: release.wait(30))
    with pytest.raises(RunError, match=f"search for files in {data} has stood still"):
        scan(data, PAIRS, None, 1, stall_limit=0.5)
    release.set()


SLOW = """
import sys, time
from pathlib import Path
from pairs import PRESET, Pairs
from smnm_kernels.cli import main
from smnm_kernels.train.tasks.presets import PRESETS

def slow(self, source):
    time.sleep(0.05)
    with open(sys.argv[2], "a") as file:
        file.write(source.path.name + "\\n")
    return {"slope": 1.0}

Pairs.probe = slow
PRESETS["pairs"] = {"tiny": PRESET}
sys.exit(main(["pretrain", "pairs", sys.argv[1], "--out", sys.argv[3], "--workers", "0",
    "--threads", "1", "--steps", "2"]))
"""


class SlowScan:
    """smnm pretrain on files that take 50 ms each to look at, in a process of its own."""

    def __init__(self, data, tmp_path):
        self.probed, self.run = tmp_path / "probed", tmp_path / "run"
        here = os.path.dirname(__file__)
        path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(data), str(self.probed), str(self.run)],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def count(self):
        return self.probed.read_text().count("\n") if self.probed.exists() else 0

    def wait_for(self, count):
        while self.count() < count and self.process.poll() is None:
            time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive),
    ],
)
def test_a_scan_goes_on_after_a_signal(number, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    data.mkdir()
    n = 200
    for i in range(n):
        (data / f"{i:03}.txt").write_text(str(i))
    scanning = SlowScan(data, tmp_path)
    scanning.wait_for(20)
    scanning.process.send_signal(number)
    said, errors = scanning.process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert scanning.process.returncode == -number
    else:
        assert scanning.process.returncode == 128 + number, errors
        assert f"stopped by {number.name} before the first step; what was found in " in said
        assert "of 200 files is kept; give the same command again to go on" in said
        assert "Traceback" not in errors
    before = scanning.count()
    assert before < n / 2

    probed = []
    monkeypatch.setattr(Pairs, "probe", lambda self, source: probed.append(source) or {"slope": 1})
    monkeypatch.setitem(PRESETS, "pairs", {"tiny": PRESET})
    words = {"modality": "pairs", "workers": 0, "threads": 1, "steps": 2}
    assert pretrain(Pretrain(data=data, out=scanning.run, **words)) == 0
    assert "200 of 200 pairs files are usable" in capsys.readouterr().out
    # Files may have been looked at whose lines did not reach the journal: one for each thread.
    assert n <= before + len(probed) <= n + 4
    assert not (scanning.run / "scan.jsonl").exists()
    assert len(losses(scanning.run)) == 2


def test_a_fingerprint_is_of_what_files_are_and_how_they_are_labelled():
    one = {"name": "a", "digest": "1", "size": 3, "mtime_ns": 5, "label": "x", "split": "train"}
    two = {"name": "b", "digest": "2", "size": 3, "mtime_ns": 5, "label": "y", "split": "test"}
    found = fingerprint([one, two])
    assert found == fingerprint(Records([one | {"mtime_ns": 9, "shard": "s.tar"}, two]))
    changes = {"name": "c", "digest": "3", "label": "y", "split": "val", "fold": "1", "group": "g"}
    others = {fingerprint([one | {name: value}, two]) for name, value in changes.items()}
    assert len(others | {found, fingerprint([one]), fingerprint([two, one])}) == len(changes) + 3

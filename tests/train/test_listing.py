"""Looking at files for commands that train no run, and labels on the way from DATA to records."""

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pairs import PRESET, Pairs

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.entries import Found
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.labels import Labelled, Labels
from smnm_kernels.train.data.records import Known, read_files
from smnm_kernels.train.data.scan import differences, scan
from smnm_kernels.train.run import listing as listing_module
from smnm_kernels.train.run import plan as plan_module
from smnm_kernels.train.run.folder import RunFolder
from smnm_kernels.train.run.listing import label_differences, read_labels, scan_into
from smnm_kernels.train.run.options import RunOptions
from smnm_kernels.train.run.plan import Recipe, make_plan
from smnm_kernels.train.run.signals import StoppedBySignal


class Probed(Pairs):
    probed = {}  # noqa: RUF012


@dataclass(frozen=True)
class Letters(Found):
    refusal: str = ""

    def judged(self, usable):
        if self.refusal:
            raise UsageError(self.refusal)
        return [f"{len(usable)} are labelled"]


@dataclass
class ByFirstLetter:
    """Files are labelled with the first letters of their names."""

    data: Path
    names: tuple[str, ...] = ("a", "b")
    split: str = "train"
    refusal: str = ""

    def find(self, suffixes, besides, tick):
        found = find(self.data, suffixes, besides, tick)
        of = {
            e.shown: Labelled(self.names.index(e.name[0]), self.split)
            for e in found.entries
        }  # fmt: skip
        labels = Labels("class", self.names, of)
        return Letters(found.base, found.entries, found.left_out, labels, refusal=self.refusal)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for i, name in enumerate(("a1", "a2", "b1")):
        (folder / f"{name}.txt").write_text(str(i))
    (folder / "b2.txt").write_text("broken")
    return folder


def labels_of(records):
    return {r["name"]: (r.get("label"), r.get("split")) for r in records}


def test_records_get_labels_and_keep_no_stale_ones(data):
    first = scan(ByFirstLetter(data), Probed(16), None, 1)
    assert labels_of(first.usable) == {
        "a1.txt": (0, "train"),
        "a2.txt": (0, "train"),
        "b1.txt": (1, "train"),
    }
    assert first.skipped[0]["label"] == 1
    known = Known()
    known.add([*first.usable.lines(), *first.skipped.lines()])
    again = scan(ByFirstLetter(data, ("b", "a"), "val"), Probed(16), known, 1)
    assert labels_of(again.usable) == {
        "a1.txt": (1, "val"),
        "a2.txt": (1, "val"),
        "b1.txt": (0, "val"),
    }
    plain = scan(data, Probed(16), known, 1)
    assert set(labels_of(plain.usable).values()) == {(None, None)}


def test_labels_and_splits_are_differences():
    def records(*labelled):
        return [
            {"name": str(i), "digest": "x", "label": label, "split": split}
            for i, (label, split) in enumerate(labelled)
        ]

    theirs = records((0, "train"), (1, "train"), ([1, 2], "val"), (3, "val"))
    ours = records((0, "train"), (2, "train"), ([1, 3], "val"), (3, "test"))
    assert differences(ours, theirs) == ["2 labelled otherwise (1, 2)", "1 in other splits (3)"]
    assert differences(theirs, theirs) == []


def test_kinds_and_classes_are_differences():
    ours = Labels("class", ("a", "b", "c"))
    assert label_differences(ours, ours) == []
    assert label_differences(None, None) == []
    assert label_differences(ours, None) == ["labelled now only"]
    assert label_differences(None, ours) == ["labelled then only"]
    assert label_differences(Labels("number"), ours) == [
        "labels are of kind 'number' now, 'class' then"
    ]
    assert label_differences(Labels("class", ("a", "c", "d", "e")), ours) == [
        "2 classes new (d, e)",
        "1 class gone (b)",
    ]
    assert label_differences(Labels("class", ("b", "a", "c")), ours) == [
        "the classes are in another order"
    ]


def test_a_folder_keeps_what_was_found(data, tmp_path, monkeypatch, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    listing = scan_into(out, Probed(16), ByFirstLetter(data), None, 60)
    assert "3 of 4 pairs files are usable" in (said := capsys.readouterr().out)
    assert "3 are labelled" in said
    assert sorted(path.name for path in out.iterdir()) == [
        "data.json",
        "files.json",
        "labels.json",
        "skipped.json",
    ]
    assert read_files(out / "files.json")[0] == listing.usable
    assert read_labels(out) == Labels("class", ("a", "b"))
    with monkeypatch.context() as patched:
        patched.setattr(Pairs, "probe", lambda *_: pytest.fail("a file was looked at again"))
        again = scan_into(out, Probed(16), ByFirstLetter(data), None, 60)
        assert again.usable == listing.usable
        elsewhere = scan_into(other, Probed(16), Files(data), out, 60)
    assert len(elsewhere.usable) == 3
    assert read_labels(other) is None
    with pytest.raises(UsageError, match=rf"is a run of {data}, not of {tmp_path}"):
        scan_into(tmp_path / "third", Probed(16), Files(tmp_path), out, 60)


def test_what_was_found_of_other_data_is_not_taken(data, tmp_path, monkeypatch):
    out, copy = tmp_path / "out", tmp_path / "copy"
    scan_into(out, Probed(16), Files(data), None, 60)
    held = json.loads((out / "data.json").read_text())
    (out / "data.json").write_text(json.dumps({**held, "data": str(copy)}))
    probed = []
    monkeypatch.setattr(Pairs, "probe", lambda self, source: probed.append(source) or {})
    scan_into(out, Probed(16), Files(data), None, 60)
    assert len(probed) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_behind_the_last_look_at_it_is_not_lost(
    number, data, tmp_path, monkeypatch, capsys
):
    def scan_then_signal(*args, **options):
        listing = scan(*args, **options)
        signal.raise_signal(number)
        return listing

    monkeypatch.setattr(listing_module, "scan", scan_then_signal)
    with pytest.raises(StoppedBySignal) as stopped:
        scan_into(tmp_path / "out", Probed(16), Files(data), None, 60)
    assert stopped.value.number == number
    assert "what was found in 4 of 4 files is kept" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(Pairs, "probe", lambda *_: pytest.fail("a file was looked at again"))
    assert len(scan_into(tmp_path / "out", Probed(16), Files(data), None, 60).usable) == 3


def test_labels_that_do_not_suffice_are_refused(data, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="one class"):
        scan_into(out, Probed(16), ByFirstLetter(data, refusal="one class"), None, 60)
    assert list(out.iterdir()) == []


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_keeps_its_labels(data, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "autocast_dtype", lambda *_: None)
    optimisation = replace(PRESET.optimisation, steps=None, epochs=8)

    def plan(**given):
        recipe = Recipe(
            Probed(16),
            optimisation,
            lr=1.0,
            settings={},
            finder=ByFirstLetter(data, **given),
            trained_on=lambda files: [0, 2],
        )
        folder = RunFolder(tmp_path / "run")
        return make_plan(folder, RunOptions(), recipe, data, "cpu")

    made = plan()
    assert (made.steps, list(made.trained_on)) == (4, [0, 2])  # 8 passes over two, in fours
    assert made.labels == Labels("class", ("a", "b"))
    assert read_labels(tmp_path / "run") == made.labels
    assert plan().resumed
    there = files_of(tmp_path / "run")
    with pytest.raises(UsageError, match=r"begun with: 3 in other splits \(a1.txt, "):
        plan(split="val")
    with pytest.raises(UsageError, match=r"not the labels .* 1 class new \(c\)"):
        plan(names=("a", "b", "c"))
    # A refusal leaves what the run had, and nothing else.
    assert read_labels(tmp_path / "run") == made.labels
    assert files_of(tmp_path / "run") == there

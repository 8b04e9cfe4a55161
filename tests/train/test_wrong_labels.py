"""What is wrong with labels is said in one line, by file or class, with what to do."""

import json
import random

import pytest
from labelled import found, scanned, write_files, write_tar

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.label_columns import LabelSettings
from smnm_kernels.train.data.labelled import LabelledFiles
from smnm_kernels.train.data.splits import SPELLINGS, meant
from smnm_kernels.train.tasks.label_options import LabelOptions, finder_of

AB = [f"{label}/{i}.mp4" for label in "ab" for i in range(4)]
FLAT = [f"{i}.mp4" for i in range(6)]


def tree(*names, broken=(), empty=()):
    def make(folder):
        write_files(folder, *names)
        write_files(folder, *broken, content="broken")
        for name in empty:
            (folder / name).mkdir(parents=True)
        return folder

    return make


def a_list(text, name="list.csv", files=FLAT, broken=(), **others):
    """DATA a list with this text; other files by the names' underscores: names_txt="..."."""

    def make(folder):
        write_files(folder, *files)
        write_files(folder, *broken, content="broken")
        (folder / name).write_text(text)
        for other, content in others.items():
            (folder / other.replace("_", ".")).write_text(content)
        return folder / name

    return make


def rows(*labels, start="", form="{name},{label}"):
    return start + "".join(
        form.format(name=name, label=label) + "\n"
        for name, label in zip(FLAT, labels, strict=False)
    )


GOOD = rows(*"aabbab")
NAMED = rows(*"012012")


def beside(name):
    return lambda folder: {key: folder / value for key, value in name.items()}


REFUSED = {
    # Folders.
    "no folder of a class": (tree(*FLAT), {}, "no file lies in a folder of its class"),
    "one class": (tree("a/1.mp4", "a/2.mp4"), {}, "one class altogether, 'a'"),
    "a class of broken files": (
        tree(*AB, broken=["c/1.mp4", "c/2.mp4"]),
        {},
        "1 class has no usable file: c. What was wrong with the 2 of 'c' is said above",
    ),
    "an empty folder of a class": (
        tree(*AB, empty=["c"]),
        {},
        "/c: is empty, so that the class 'c'",
    ),
    "an empty folder of a split": (
        tree(*(f"train/{name}" for name in AB), empty=["val"]),
        {},
        "/val: holds no file, so that the split val is empty",
    ),
    "splits without train": (
        tree(*(f"val/{name}" for name in AB), "test/a/1.mp4"),
        {},
        "has files of the split test and val and none of train",
    ),
    "classes beside splits": (
        tree(*(f"{split}/{name}" for name in AB for split in ("train", "val")), "c/1.mp4"),
        {},
        "has folders of splits (train, val) beside others (c)",
    ),
    "train/ that is misspelled": (
        tree(*(f"{split}/{name}" for name in AB for split in ("trian", "val"))),
        {},
        "has the folder val, which is the name of a split, beside trian; did you mean train?",
    ),
    "val/ that is misspelled": (
        tree(*(f"{split}/{name}" for name in AB for split in ("train", "vla"))),
        {},
        "has the folder train, which is the name of a split, beside vla; did you mean val?",
    ),
    "train/ and val/ that are misspelled": (
        tree(*(f"{split}/{name}" for name in AB for split in ("trian", "vla"))),
        {},
        "has the folders trian and vla; did you mean train and val?",
    ),
    "a misspelled split without folders of classes": (
        tree("train/1.mp4", "train/2.mp4", "vla/1.mp4", "vla/2.mp4"),
        {},
        "beside vla; did you mean val?",
    ),
    "a split beside folders of folders": (
        tree(*(f"{split}/{name}" for name in AB for split in ("train", "holdout"))),
        {},
        "has the folder train, which is the name of a split, beside holdout; ",
    ),
    "decimals as classes": (
        a_list(rows(*(0.1, 0.47, 1.5, 2.25, 0.3, 9))),
        {},
        "the labels 0.1, 0.3, 0.47, … are decimals, and 6 classes in 6 files; --labels number",
    ),
    "a class of train that is misspelled": (
        tree("train/disc/1.mp4", "train/ring/1.mp4", "val/dics/1.mp4", "val/ring/1.mp4"),
        {},
        "1 class has usable files in val and none in train: dics (did you mean disc?)",
    ),
    "one folder too high": (
        tree(*(f"pics/{name}" for name in AB)),
        {},
        "one class altogether, 'pics'; there is nothing to tell apart. Its folder holds the "
        "folders a, b: if these are the classes, give ",
    ),
    "files of another kind": (
        tree("a/1.png", "b/2.png"),
        {},
        "no usable file is there; found instead: 2 files that end in .png. Looked for .mp4",
    ),
    "a class in val only": (
        tree(*(f"train/{name}" for name in AB), "val/a/1.mp4", "val/c/1.mp4"),
        {},
        "1 class has usable files in val and none in train: c",
    ),
    "a split of broken files": (
        tree(*(f"train/{name}" for name in AB), broken=["val/a/1.mp4", "val/b/1.mp4"]),
        {},
        "the split val has no usable file",
    ),
    "training files that are all broken": (
        tree("val/a/1.mp4", "val/b/1.mp4", broken=["train/a/1.mp4", "train/b/1.mp4"]),
        {},
        "2 classes have usable files in val and none in train: a, b",
    ),
    "folders that are no numbers": (
        tree("1/a.mp4", "two/b.mp4"),
        {"labels": "number"},
        "two/b.mp4: label 'two' is no number",
    ),
    "lists beside a folder": (
        lambda folder: tree(*AB, "x.csv")(folder),
        beside({"val": "x.csv"}),
        "--val and --test take lists, and go with DATA that is a list",
    ),
    "a fold of folders": (tree(*AB), {"fold": "1"}, "--fold 1: needs DATA that is a list"),
    "a column of folders": (
        tree(*AB),
        {"group_column": "voice"},
        "--group-column voice: needs DATA that is a list",
    ),
    "a fold of several lists": (
        lambda folder: a_list(GOOD, "train.csv", val_csv=GOOD)(folder).parent,
        {"fold": "1"},
        "--fold 1: needs one list; here a list for each makes the splits",
    ),
    "two lists of a split": (
        lambda folder: a_list(GOOD, "train.csv", validation_csv=GOOD, val_txt=GOOD)(folder).parent,
        {},
        "val.txt and validation.csv both list the split val",
    ),
    "one file of each class": (
        tree("a/1.mp4", "b/1.mp4"),
        {},
        "no split val is there, and none can be split off: each class has one file only",
    ),
    "one group": (
        tree(*AB),
        {"group_pattern": "mp4"},
        "none can be split off: each class has one group only",
    ),
    "a pattern that is in no name": (
        tree(*AB),
        {"group_pattern": "voice(\\d)"},
        "--group-pattern 'voice(\\\\d)' is not in the name a/0.mp4",
    ),
    # Lists.
    "an empty list": (a_list(""), {}, "as a list of files it is empty"),
    "a list of what is not there": (a_list("gone.mp4 1\n"), {}, "gone.mp4 is not there"),
    "a list of ids that no file has": (
        a_list("label,youtube_id,split\na,-x,train\n"),
        {},
        "--files-from FOLDER says where the files are",
    ),
    "no label": (a_list("\n".join(FLAT)), {}, "line 1: has no label beside the path"),
    "no label on one line": (
        a_list(rows("a", "", "b", start="path,label\n")),
        {},
        "line 3: has no label",
    ),
    "a header without labels": (
        a_list(rows("a", "b", start="path,x,y\n", form="{name},{label},1")),
        {},
        "line 2: which column has the labels? --label-column says it; there are x, y",
    ),
    "a column that is not there": (
        a_list(rows("a", "b", start="path,label\n")),
        {"label_column": "species"},
        "line 2: --label-column species: there is no such column; there are label",
    ),
    "a column by name without a header": (
        a_list(GOOD),
        {"label_column": "species"},
        "line 1: no header names the columns; --label-column takes a number from 1, too",
    ),
    "a column by a number that is too high": (
        a_list(GOOD),
        {"label_column": "3"},
        "line 1: --label-column 3: the line has 2 columns",
    ),
    "the column of the path": (
        a_list(GOOD),
        {"label_column": "1"},
        "line 1: --label-column 1 is the column of the path",
    ),
    "fewer fields than the header": (
        a_list("path,id,label\n0.mp4,1,a\n1.mp4,b\n"),
        {},
        "line 3: has 2 fields, not as many as the header",
    ),
    "several columns": (
        a_list(rows(*"abab", form="{name} 7 {label}")),
        {},
        "line 1: has 2 columns beside the path and one label is wanted",
    ),
    "several labels in a field": (
        a_list(rows("a", '"a,b"', "b", start="path,labels\n")),
        {},
        "line 3: has several labels, a,b; --labels classes takes any number",
    ),
    "several labels in JSON": (
        a_list('{"path": "0.mp4", "label": ["a", "b"]}\n', "list.json"),
        {},
        'line 1: has several labels, ["a", "b"]',
    ),
    "a label that is no number": (
        a_list(rows(1, 2.5, "many")),
        {"labels": "number"},
        "line 3 of list.csv: label 'many' is no number",
    ),
    "a number that is not finite": (
        a_list(rows(1, "nan")),
        {"labels": "number"},
        "line 2 of list.csv: label 'nan' is no number",
    ),
    "a file with two labels": (
        a_list(GOOD + "1.mp4,b\n"),
        {},
        "1.mp4 is listed with two labels, 'a' and 'b' (line 2 of list.csv, line 7 of list.csv)",
    ),
    "a file with two labels in two spellings": (
        a_list(GOOD + "./1.mp4,b\n"),
        {},
        "1.mp4 is listed with two labels, 'a' and 'b'",
    ),
    "a file with two labels by its whole path": (
        lambda folder: a_list(GOOD + f"{folder}/1.mp4,b\n")(folder),
        {},
        "1.mp4 is listed with two labels, 'a' and 'b'",
    ),
    "a file in two splits": (
        a_list(GOOD, val_csv="1.mp4,a\n"),
        beside({"val": "val.csv"}),
        "1.mp4 is listed with two splits, 'train' and 'val' (line 2 of list.csv, line 1 of val.csv",
    ),
    "a class in the list of val only": (
        a_list(rows(*"abab"), val_csv="4.mp4,a\n5.mp4,c\n"),
        beside({"val": "val.csv"}),
        "1 class has usable files in val and none in train: c",
    ),
    "an empty list of val": (
        a_list(GOOD, val_csv="\n"),
        beside({"val": "val.csv"}),
        "val.csv: is not a folder, and as a list of files it is empty",
    ),
    "all in val": (
        a_list(rows(*"abab", start="path,label,split\n", form="{name},{label},val")),
        {},
        "all files are of the split val, and none is left to train on",
    ),
    "a split that is none": (
        a_list("path,label,split\n0.mp4,a,train\n1.mp4,b,trian\n"),
        {},
        "'trian' in the column of splits is no split; there are train, training, val,",
    ),
    "a fold that is none": (
        a_list(rows(*"ab", start="path,label,fold\n", form="{name},{label},1")),
        {"fold": "3"},
        "--fold 3 is none of its folds: 1",
    ),
    "no folds": (
        a_list(rows(*"ab", start="path,label\n")),
        {"fold": "1"},
        "line 2: --fold-column fold: there is no such column; there are label",
    ),
    "an empty fold": (
        a_list("path,label,fold\n0.mp4,a,1\n1.mp4,b,\n"),
        {"fold": "1"},
        "line 3: has no fold",
    ),
    "one fold": (
        a_list(rows(*"ab", start="path,label,fold\n", form="{name},{label},1")),
        {"fold": "1"},
        "--fold 1 takes all files, and none is left to train on",
    ),
    "one of all folds": (
        a_list(rows(*"ab", start="path,label,fold\n", form="{name},{label},1")),
        {"fold": "all"},
        "--fold all: needs at least two folds; there are: 1",
    ),
    "all folds of folders": (tree(*AB), {"fold": "all"}, "--fold all: needs DATA that is a list"),
    "a class in one of all folds": (
        a_list("path,label,fold\n0.mp4,a,1\n1.mp4,b,1\n2.mp4,a,2\n3.mp4,c,2\n4.mp4,c,1\n"),
        {"fold": "all"},
        "fold 1: 1 class has usable files in val and none in train: b",
    ),
    "one of all folds without a usable file": (
        a_list(
            "path,label,fold\n0.mp4,a,1\n1.mp4,b,1\n2.mp4,a,2\n3.mp4,b,2\n4.mp4,b,3\n",
            broken=["4.mp4"],
        ),
        {"fold": "all"},
        "fold 3 has no usable file",
    ),
    "a file in two folds": (
        a_list("path,label,fold\n0.mp4,a,1\n1.mp4,b,1\n2.mp4,a,2\n2.mp4,a,1\n"),
        {"fold": "all"},
        "2.mp4 is listed with two folds, '2' and '1' (line 4 of list.csv, line 5 of list.csv)",
    ),
    "an empty group": (
        a_list("path,label,voice\n0.mp4,a,x\n1.mp4,b,\n"),
        {"group_column": "voice"},
        "line 3: has no group",
    ),
    "an id without a name": (
        a_list(NAMED, names_txt="zero\none\n"),
        beside({"class_names": "names.txt"}),
        "line 3 of list.csv: label '2' is none of the 2 classes of --class-names",
    ),
    "a hole in the ids of the names": (
        a_list(NAMED, names_txt="0 zero\n2 two\n"),
        beside({"class_names": "names.txt"}),
        "line 2 of list.csv: label '1' is none of the 2 classes",
    ),
    "a name twice": (
        a_list(NAMED, names_txt="zero\none\nzero\n"),
        beside({"class_names": "names.txt"}),
        "names.txt: has 'zero' twice",
    ),
    "no names": (
        a_list(NAMED, names_txt="\n"),
        beside({"class_names": "names.txt"}),
        "names.txt: names no class",
    ),
    "names of broken JSON": (
        a_list(NAMED, names_json="{"),
        beside({"class_names": "names.json"}),
        "names.json: ",
    ),
    "names with a torn row": (
        a_list(NAMED, names_csv="index,mid,display_name\n0,/m/1\n"),
        beside({"class_names": "names.csv"}),
        "names.csv: row 2 has 2 fields, and the header 3",
    ),
    "files in several folders": (
        a_list(GOOD, "meta/list.csv", [f"{d}/{n}" for n in FLAT for d in ("meta/x", "meta/y")]),
        {},
        "names files that are in several folders",
    ),
    "a JSON object whose label is null": (
        a_list('{"path": "0.mp4", "label": "a"}\n{"path": "1.mp4", "label": null}\n'),
        {},
        "line 2: has no label",
    ),
    "a label with a line break": (
        a_list('path,label\n0.mp4,a\n1.mp4,"big\ncat"\n'),
        {},
        "line 3: a quoted field goes on in the next line",
    ),
    "a path column that is none": (
        a_list("path,other,label\n0.mp4,1.mp4,a\n2.mp4,3.mp4,b\n"),
        {"path_column": "othr"},
        "line 2: --path-column othr: there is no such column; there are path, other, label",
    ),
    "a path column without a header": (
        a_list("0.mp4,1.mp4,a\n2.mp4,3.mp4,b\n"),
        {"path_column": "other"},
        "line 1: no header names the columns; --path-column takes a number from 1, too",
    ),
    "a path column behind the last": (
        a_list("0.mp4,1.mp4,a\n2.mp4,3.mp4,b\n"),
        {"path_column": "4"},
        "line 1: --path-column 4: the line has 3 columns",
    ),
    "several labels, and no file has any": (
        a_list(rows("", "", "", start="path,labels\n")),
        {"labels": "classes"},
        "no file has a label",
    ),
    "one label that all files have": (
        a_list(rows(*"aaaa", start="path,labels\n")),
        {"labels": "classes"},
        "no class that some files have and others have not",
    ),
    "a name that is another's number": (
        a_list(NAMED, names_txt="1\ntwo\n"),
        beside({"class_names": "names.txt"}),
        "names.txt: has '1' twice",
    ),
    "a label of no member": (
        lambda folder: write_tar(folder / "a.tar", {"0.mp4": "1", "1.mp4": "1"}) or folder,
        {},
        "no file lies in a folder of its class",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_labels_are_refused(tmp_path, case):
    make, settings, said = REFUSED[case]
    folder = tmp_path / "data"
    folder.mkdir()
    data = make(folder)
    with pytest.raises(UsageError) as refusal:
        found(data, **(settings(folder) if callable(settings) else settings))
    message = str(refusal.value)
    assert said in message
    assert "\n" not in message
    assert message.startswith((f"DATA {folder}", f"--class-names {folder}"))
    assert str(tmp_path) in message


REMARKED = {
    "a class of one file": (tree(*AB, "c/1.mp4"), {}, "1 class has one usable file only: c"),
    "a class that is not in val": (tree(*AB, "c/1.mp4"), {}, "1 class has no file in val: c"),
    "files beside folders": (tree(*AB, "x.mp4"), {}, "x.mp4: lies in no folder of a class"),
    "a folder of other files": (
        tree(*AB, "docs/x.md"),
        {},
        "docs/ holds no such file: it is no class",
    ),
    "names that differ in case": (
        tree(*AB, "A/1.mp4", "A/2.mp4"),
        {},
        "names of classes that differ only in case or blanks: 'A' and 'a'",
    ),
    "names in two forms of Unicode": (
        tree(*AB, "caf\u00e9/1.mp4", "cafe\u0301/1.mp4"),
        {},
        "names of classes that look the same and are not (composed and decomposed characters): "
        "'cafe\\u0301' and 'caf\\xe9'",
    ),
    "groups in several folds": (
        a_list("path,label,fold,voice\n0.mp4,a,1,x\n1.mp4,b,1,y\n2.mp4,a,2,x\n3.mp4,b,2,z\n"),
        {"fold": "all", "group_column": "voice"},
        "1 group has files in several folds: x",
    ),
    "equal files in several folds": (
        a_list("path,label,fold\n0.mp4,a,1\n1.mp4,b,1\n2.mp4,a,2\n3.mp4,b,2\n"),
        {"fold": "all"},
        "4 files are like files in another fold (size, beginning and end): 0.mp4 and 2.mp4, ",
    ),
    "a class that is not in a fold": (
        a_list(
            "path,label,fold\n0.mp4,a,1\n1.mp4,b,1\n2.mp4,a,2\n3.mp4,b,2\n4.mp4,a,3\n",
        ),
        {"fold": "all"},
        "1 class has no file in fold 3: b",
    ),
    "numbers written in two ways": (
        tree(*AB, "1/1.mp4", "01/2.mp4"),
        {},
        "1 class is written in several ways: 01 and 1",
    ),
    "equal files in train and test": (
        tree("train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4", "val/b/4.mp4"),
        {},
        "2 files in val are like files in train (size, beginning and end): "
        "val/a/3.mp4 and train/a/1.mp4, ",
    ),
    "numbers and names": (
        a_list(rows(*"aa1122")),
        {},
        "labels are numbers (1, …) and names (a, …) in one",
    ),
    "a file that is not there": (a_list(GOOD + "gone.mp4,a\n"), {}, "gone.mp4: is not there"),
    "a line of nothing": (a_list(GOOD + "nonsense\n"), {}, "line 7: nonsense: names no file"),
    "a file twice": (
        a_list(GOOD + "1.mp4,a\n"),
        {},
        "1 lines list a file again, with the same label",
    ),
    "names that no file has": (
        a_list(NAMED, names_txt="zero\none\ntwo\nthree\n"),
        beside({"class_names": "names.txt"}),
        "1 class has no usable file: three",
    ),
    "splits that are none": (
        a_list(rows(*"abab", start="path,label,split\n", form="{name},{label},1")),
        {},
        "the column split of list.csv holds no splits ('1'): left aside",
    ),
    "no label at all": (
        a_list(rows("a", "b", "", "a|b", start="path,labels\n")),
        {"labels": "classes"},
        "1 files have no label",
    ),
    "a list of tests without labels": (
        lambda folder: a_list(GOOD, "train.csv", test_csv="5.mp4\n")(folder).parent,
        {},
        "test.csv has no labels: it is left out",
    ),
    "two folders of a split": (
        tree(*(f"{split}/{name}" for name in AB for split in ("train", "val", "valid"))),
        {},
        "folders val and valid are both the split val",
    ),
    "decimals that come again": (
        a_list(rows(*(0.5, 1.0, 0.5, 1.0, 0.5, 1.0))),
        {},
        "all labels are numbers and some are decimals (0.5): each is a class of its own; "
        "--labels number",
    ),
    "no val": (tree(*AB), {"val_share": 0.0}, "there is no split val, and --val-share 0"),
    "what there is": (tree(*AB), {}, "labels: 2 classes; files: train 6, val 2"),
}


@pytest.mark.parametrize("case", REMARKED)
def test_what_is_odd_is_remarked(tmp_path, case):
    make, settings, said = REMARKED[case]
    folder = tmp_path / "data"
    folder.mkdir()
    data = make(folder)
    _, listing, lines = scanned(data, **(settings(folder) if callable(settings) else settings))
    lines += [f"{name}: {reason}" for name, reason in listing.reasons().items()]
    assert any(said in line for line in lines), lines


def test_every_slip_of_a_spelling_is_known():
    letters = "abcdefghijklmnopqrstuvwxyz"
    for word in SPELLINGS:
        slips = {word[:i] + word[i + 1 :] for i in range(len(word))}
        slips |= {word[:i] + x + word[i:] for i in range(len(word) + 1) for x in letters}
        slips |= {word[:i] + x + word[i + 1 :] for i in range(len(word)) for x in letters}
        slips |= {word[:i] + word[i : i + 2][::-1] + word[i + 2 :] for i in range(len(word) - 1)}
        assert all(map(meant, slips - {word}))
    assert [meant(name) for name in ("cat", "holdout", "trains_", "tarni")] == [None] * 4


@pytest.mark.parametrize(
    "classes", [("train", "rain"), ("train", "car", "plane"), ("test", "vest", "shirt")]
)
def test_classes_may_be_called_as_splits_are(tmp_path, classes):
    write_files(tmp_path, *(f"{name}/{i}.mp4" for name in classes for i in range(2)))
    assert found(tmp_path).names == tuple(sorted(classes))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": "numbers"}, "--labels must be one of class, classes, number, got 'numbers'"),
        ({"val_share": 1.0}, "--val-share must be in [0, 1), got 1.0"),
        ({"val_share": float("nan")}, "--val-share must be in [0, 1), got nan"),
        ({"val": "gone"}, "--val {folder}/gone: is not there"),
        ({"test": ""}, "--test {folder}/: is no file"),
        ({"class_names": "gone"}, "--class-names {folder}/gone: is not there"),
        ({"files_from": "gone"}, "--files-from {folder}/gone: is no folder"),
        ({"fold_column": "x"}, "--fold-column: --fold says which"),
        ({"fold": "1", "split_column": "x"}, "--fold and --split-column: each of them makes"),
        ({"group_column": "x", "group_pattern": "x"}, "give one of them"),
        ({"group_pattern": "("}, "--group-pattern '(': "),
        ({"labels": "number", "class_names": ""}, "--class-names {folder}/: is no file"),
    ],
)
def test_wrong_options_are_refused_before_any_work(tmp_path, options, said):
    paths = ("val", "test", "class_names", "files_from")
    given = {k: tmp_path / v if k in paths else v for k, v in options.items()}
    with pytest.raises(UsageError) as refusal:
        finder_of(LabelOptions(**given), tmp_path)
    assert said.format(folder=tmp_path).replace("/:", ":") in str(refusal.value)


@pytest.mark.slow
def test_mutated_lists_end_in_labels_or_one_line(tmp_path):
    rng = random.Random(0)
    write_files(tmp_path, *FLAT, "a/x.mp4")
    texts = [
        GOOD,
        rows(*"ababab", start="path,label,split,fold\n", form="{name},{label},train,1"),
        rows(
            *"ababab",
            start="# YTID, start_seconds, positive_labels\n",
            form='{name}, 1, "/m/{label},x"',
        ),
        "label,youtube_id,split\n" + "".join(f"{'ab'[i % 2]},{i},train\n" for i in range(6)),
        json.dumps([{"path": name, "label": i % 2, "split": "val"} for i, name in enumerate(FLAT)]),
        "".join(f'{{"wav": "{name}", "labels": ["a", {i}]}}\n' for i, name in enumerate(FLAT)),
    ]
    settings = [
        LabelSettings(),
        LabelSettings(labels="classes"),
        LabelSettings(labels="number", label_column="2"),
        LabelSettings(label_column="label", path_column="path"),
        LabelSettings(fold="1"),
        LabelSettings(fold="all"),
        LabelSettings(group_column="label", split_column="3"),
    ]
    path, refusals, read = tmp_path / "list", [], 0
    for i in range(1500):
        text = bytearray(rng.choice(texts).encode())
        for _ in range(rng.randrange(8)):
            at = rng.randrange(len(text) + 1)
            new = bytes([rng.choice(b"\"',;\t\n\r{}[]# \\\0\xff\xc3:0")])
            text[at : at + rng.randrange(3)] = new * rng.randrange(2)
        path.write_bytes(text)
        finder = LabelledFiles(path, settings[i % len(settings)])
        try:
            files = finder.find(frozenset([".mp4"]), None, lambda: None)
        except UsageError as error:
            refusals.append(str(error))
        else:
            assert {entry.shown for entry in files.entries} == set(files.labels.of)
            read += 1
    assert min(read, len(refusals)) > 100
    assert all("\n" not in refusal for refusal in refusals)

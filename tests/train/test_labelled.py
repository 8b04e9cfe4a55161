"""Labels of files in the forms that people have them in."""

import csv
import json
import random
from collections import Counter
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled import as_json, by_name, found, scanned, write_files, write_tar
from strategies import examples

from smnm_kernels.train.data.classes import canonical
from smnm_kernels.train.data.labels import in_split, of_fold
from smnm_kernels.train.data.splits import split_of, split_off

CLASSES = ("arm wrestling", "bowling", "dog, barking")
FILES = {f"{label}/{i}.mp4": label for label in CLASSES for i in range(6)}


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "data"
    write_files(folder, *FILES)
    return folder


def labels_of(data, **settings):
    return {name: label for name, (label, _) in by_name(data, **settings).items()}


def splits(data, **settings):
    return {name: split for name, (_, split) in by_name(data, **settings).items()}


def test_a_folder_per_class(tree):
    assert labels_of(tree) == FILES
    labels = found(tree)
    assert labels.names == tuple(sorted(CLASSES))
    assert Counter(splits(tree).values()) == {"train": 15, "val": 3}


LISTS = {
    "plain.txt": lambda files: "".join(f"{n} {i}\n" for n, i in files.items()),
    "comma.csv": lambda files: "".join(f'"{n}",{i}\n' for n, i in files.items()),
    "tabs.tsv": lambda files: "".join(f"{n}\t{i}\n" for n, i in files.items()),
    "header.csv": lambda files: (
        "x,label,path\n" + "".join(f'7,{i},"{n}"\n' for n, i in files.items())
    ),
    "objects.jsonl": lambda files: "".join(
        json.dumps({"video": n, "label": i}) + "\n" for n, i in files.items()
    ),
    "list.json": lambda files: json.dumps(
        {"data": [{"wav": n, "labels": [i]} for n, i in files.items()]}
    ),
    "first.txt": lambda files: "".join(f"./{n} {i}\n" for n, i in files.items()),
}


@pytest.mark.parametrize("name", LISTS)
def test_all_forms_of_the_same_data_say_the_same(tree, name):
    """Ids here, names there; the same classes by their numbers, and the same split."""
    numbers = {n: sorted(CLASSES).index(label) for n, label in FILES.items()}
    (tree / name).write_text(LISTS[name](numbers))
    expected, listing, _ = scanned(tree)
    labels, by_list, _ = scanned(tree / name)
    assert labels.names == ("0", "1", "2")

    def plain(records):
        return {str(PurePosixPath(r["name"])): (r["label"], r["split"]) for r in records}

    assert plain(by_list.usable) == plain(listing.usable)
    (tree / "names").write_text("\n".join(sorted(CLASSES)))
    named = found(tree / name, class_names=tree / "names")
    assert named.names == expected.names
    assert list(labels_of(tree / name, class_names=tree / "names").values()) == list(FILES.values())


@pytest.mark.parametrize("name", ["comma.csv", "tabs.tsv", "header.csv", "objects.jsonl"])
def test_names_of_classes_in_lists(tree, name):
    quoted = {n: f'"{label}"' if name.endswith("csv") else label for n, label in FILES.items()}
    (tree / name).write_text(LISTS[name](quoted))
    assert labels_of(tree / name) == FILES


def test_members_of_tars(tree, tmp_path):
    """The same labels and splits as of the files, however they are packed."""
    shards = tmp_path / "shards"
    names = sorted(FILES)
    write_tar(shards / "a.tar", dict.fromkeys(names[::2], "1"))
    write_tar(shards / "b.tar", dict.fromkeys(names[1::2], "1"))
    assert by_name(shards) == by_name(tree)
    assert by_name(tmp_path / "shards" / "{a,b}.tar") == by_name(tree)


def test_labels_beside_members_as_webdataset_has_them(tmp_path):
    members = {}
    for i in range(6):
        members |= {f"{i:04}.mp4": "1", f"{i:04}.cls": f"{i % 2}\n", f"{i:04}.txt": "caption"}
    write_tar(tmp_path / "cls" / "train-000.tar", members)
    assert labels_of(tmp_path / "cls") == {f"{i:04}.mp4": str(i % 2) for i in range(6)}
    members = {}
    for i in range(6):
        members |= {f"{i:04}.mp4": "1", f"{i:04}.json": json.dumps({"label": "ab"[i % 2]})}
    write_tar(tmp_path / "json" / "train-000.tar", members)
    write_tar(tmp_path / "json" / "val-000.tar", members)
    labels, listing, _ = scanned(tmp_path / "json")
    assert labels.names == ("a", "b")
    assert [len(in_split(listing.usable, split)) for split in ("train", "val")] == [6, 6]
    assert [r["label"] for r in listing.usable] == [i // 2 % 2 for i in range(12)]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "eval", "Val"])
def test_folders_of_splits(tmp_path, val):
    for split in ("train", val, "test"):
        write_files(
            tmp_path, *(f"{split}/{label}/x/{split}{i}.mp4" for label in "ab" for i in range(2))
        )
    expected = {"train": "train", val: "val", "test": "test"}
    assert by_name(tmp_path) == {
        f"{split}/{label}/x/{split}{i}.mp4": (label, expected[split])
        for split in expected
        for label in "ab"
        for i in range(2)
    }


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    write_files(tmp_path, *(f"{label}/{i}.mp4" for label in ("train", "car") for i in range(3)))
    assert set(labels_of(tmp_path).values()) == {"train", "car"}


def test_a_missing_val_is_split_off_and_said(tmp_path):
    write_files(tmp_path, *(f"train/{label}/{i}.mp4" for label in "ab" for i in range(10)))
    write_files(tmp_path, "test/a/x.mp4", "test/b/y.mp4")
    _, listing, said = scanned(tmp_path)
    assert Counter(r["split"] for r in listing.usable) == {"train": 16, "val": 4, "test": 2}
    assert any("4 of 20 files are split off from train (--val-share 0.2" in line for line in said)
    assert Counter(splits(tmp_path, val_share=0).values()) == {"train": 20, "test": 2}


@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_a_folder_of_lists(tree, suffix):
    names = sorted(FILES)
    separator = "," if suffix == ".csv" else " "
    for split, start in (("train", 0), ("val", 1), ("test", 2)):
        (tree / f"{split}{suffix}").write_text(
            "".join(f'"{n}"{separator}{names.index(n) // 6}\n' for n in names[start::3])
        )
    assert splits(tree) == {n: ("train", "val", "test")[i % 3] for i, n in enumerate(names)}
    # The same by options, also where the lists lie elsewhere.
    lists = tree.parent / "lists"
    lists.mkdir()
    for path in tree.glob(f"*{suffix}"):
        path.rename(lists / path.name)
    (lists / f"val{suffix}").rename(tree / "held out")
    found = by_name(lists / f"train{suffix}", val=tree / "held out", test=lists / f"test{suffix}")
    assert found == {
        f"../data/{n}": (str(i // 6), ("train", "val", "test")[i % 3]) for i, n in enumerate(names)
    }


def esc50(folder):
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rooster")):
            name = f"{fold}-{target}-A-{target}.mp4"
            write_files(folder / "audio", name)
            lines.append(f"{name},{fold},{target},{category},True,{target},A")
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines))
    return folder / "meta" / "esc50.csv"


def test_esc_50(tmp_path):
    path = esc50(tmp_path)
    found = by_name(path, fold="2")
    assert found == {
        f"../audio/{fold}-{t}-A-{t}.mp4": (name, "val" if fold == 2 else "train")
        for fold in range(1, 6)
        for t, name in enumerate(("dog", "rooster"))
    }
    assert by_name(path, fold="2", fold_column="2", files_from=tmp_path / "audio") == found
    said = scanned(path, fold="2", label_column="target")[2]
    assert any("labels are in its column target; fold 2 is val" in line for line in said)
    assert any("files of esc50.csv are those in" in line for line in said)
    said = scanned(path)[2]
    assert any("column fold is not used" in line for line in said)


def test_each_fold_in_turn(tmp_path):
    path = esc50(tmp_path)
    all_at_once, listing, said = scanned(path, fold="all")
    assert all_at_once.folds == ("1", "2", "3", "4", "5")
    assert any("files: fold 1 2, fold 2 2, fold 3 2, fold 4 2, fold 5 2" in line for line in said)
    for fold in all_at_once.folds:
        labels, alone, _ = scanned(path, fold=fold)
        assert labels.folds == ()
        assert of_fold(listing.usable, fold) == [record["split"] for record in alone.usable]
        assert [r["fold"] for r in alone.usable] == [r["fold"] for r in listing.usable]


@pytest.mark.parametrize("fold", ["1", "all"])
def test_what_is_test_stays_so_beside_folds(tmp_path, fold):
    names = [f"{i}.mp4" for i in range(8)]
    write_files(tmp_path, *names)
    rows = [f"{n},{'ab'[i % 2]},{i // 2 % 2},{'train' if i < 6 else 'test'}" for i, n in
            enumerate(names)]  # fmt: skip
    rows[-1] = rows[-1].replace(",1,", ",,")  # test files need no fold
    (tmp_path / "l.csv").write_text("\n".join(["path,label,fold,split", *rows]))
    _, listing, said = scanned(tmp_path / "l.csv", fold=fold)
    expected = ["val" if i in (2, 3) else "train" for i in range(6)] + ["test"] * 2
    assert of_fold(listing.usable, "1") == expected
    assert any("what its column split calls test stays test" in line for line in said)
    if fold == "all":
        assert any("2 files of the split test are in no fold" in line for line in said)
    else:
        assert [record["split"] for record in listing.usable] == expected


def test_kinetics(tmp_path):
    rows = ["label,youtube_id,time_start,time_end,split"]
    for i in range(8):
        label, split = ("arm wrestling", "zumba")[i % 2], ("train", "validate")[i // 6]
        write_files(tmp_path, f"videos/{label}/-a{i}_{i:06}_{i + 10:06}.mp4")
        rows.append(f"{label},-a{i},{i},{i + 10},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = by_name(tmp_path / "list.csv")
    assert len(found) == 8
    assert found["videos/zumba/-a7_000007_000017.mp4"] == ("zumba", "val")
    assert found["videos/arm wrestling/-a0_000000_000010.mp4"] == ("arm wrestling", "train")
    (tmp_path / "lists").mkdir()
    (tmp_path / "list.csv").rename(tmp_path / "lists" / "list.csv")
    elsewhere = by_name(tmp_path / "lists" / "list.csv", files_from=tmp_path / "videos")
    assert elsewhere == {f"../{name}": row for name, row in found.items()}


def audioset(folder):
    (folder / "names.csv").write_text(
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
        '2,/m/068hy,"Domestic animals, pets"\n'
    )
    rows = [
        "# Segments csv created Sun",
        "# num_ytids=4",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    for i, mids in enumerate(("/m/09x0r,/m/05zppz", "/m/068hy", "/m/09x0r", "/m/068hy,/m/09x0r")):
        write_files(folder, f"clips/Y-x{i}.mp4")
        rows.append(f'-x{i}, 30.000, 40.000, "{mids}"')
    (folder / "segments.csv").write_text("\n".join(rows) + "\n")
    return folder / "segments.csv"


def test_audioset(tmp_path):
    path = audioset(tmp_path)
    found = labels_of(path, labels="classes", class_names=tmp_path / "names.csv")
    assert found == {
        "clips/Y-x0.mp4": ["Speech", "Male speech, man speaking"],
        "clips/Y-x1.mp4": ["Domestic animals, pets"],
        "clips/Y-x2.mp4": ["Speech"],
        "clips/Y-x3.mp4": ["Speech", "Domestic animals, pets"],
    }
    labels, listing, _ = scanned(path, labels="classes")
    assert labels.names == ("/m/05zppz", "/m/068hy", "/m/09x0r")
    assert labels.targets(listing.usable).tolist() == [
        [1, 0, 1],
        [0, 1, 0],
        [0, 0, 1],
        [0, 1, 1],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{name},{a}|{b}",
        '{name},"{a},{b}"',
        "{name};{a};{b}",
        "{name} {a} {b}",
        '{{"path": "{name}", "labels": ["{a}", "{b}"]}}',
    ],
)
def test_several_labels_in_a_row(tmp_path, line):
    names = [f"{i}.mp4" for i in range(6)]
    write_files(tmp_path, *names)
    (tmp_path / "list.x").write_text(
        "".join(line.format(name=n, a="xyz"[i % 3], b="w") + "\n" for i, n in enumerate(names))
    )
    found = labels_of(tmp_path / "list.x", labels="classes")
    assert found == {n: ["w", "xyz"[i % 3]] for i, n in enumerate(names)}


def test_numbers(tmp_path):
    names = [f"{i}.mp4" for i in range(10)]
    write_files(tmp_path, *names)
    (tmp_path / "counts.csv").write_text(
        "path,count\n" + "".join(f"{n},{i / 2}\n" for i, n in enumerate(names))
    )
    found = by_name(tmp_path / "counts.csv", labels="number")
    assert {n: label for n, (label, _) in found.items()} == {n: i / 2 for i, n in enumerate(names)}
    assert Counter(split for _, split in found.values()) == {"train": 8, "val": 2}


def test_columns_by_number_without_a_header(tmp_path):
    """VGGSound's: id, start, label, split."""
    rows = []
    for i in range(8):
        write_files(tmp_path, f"clips/id{i}_{30:06}.mp4")
        rows.append(f'id{i},30,"people {"ab"[i % 2]}, far",{("train", "test")[i // 6]}')
    (tmp_path / "vggsound.csv").write_text("\n".join(rows))
    found = by_name(tmp_path / "vggsound.csv", label_column="3", split_column="4")
    assert found["clips/id7_000030.mp4"] == ("people b, far", "test")
    assert Counter(split for _, split in found.values()) == {"train": 4, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("zero\none, or two\n", "names.txt"),
        ("0 zero\n1 one, or two\n", "names.txt"),
        ('0,zero\n1,"one, or two"\n', "names.csv"),
        ('id,name\n1,"one, or two"\n0,zero\n', "names.csv"),
        ('["zero", "one, or two"]', "names.json"),
        ('{"0": "zero", "1": "one, or two"}', "names.json"),
        ('{"one, or two": 1, "zero": 0}', "names.json"),
    ],
)
def test_files_that_name_classes(tmp_path, text, name):
    write_files(tmp_path, *(f"{i}.mp4" for i in range(6)))
    (tmp_path / name).write_text(text)
    for ways in (("0", "1"), ("zero", '"one, or two"'), ("00", "1.0")):
        (tmp_path / "list.csv").write_text("".join(f"{i}.mp4,{ways[i % 2]}\n" for i in range(6)))
        labels = found(tmp_path / "list.csv", class_names=tmp_path / name)
        assert labels.names == ("zero", "one, or two")


def test_a_column_of_paths_by_number(tmp_path):
    write_files(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    (tmp_path / "l.csv").write_text("a.mp4,b.mp4,x\nc.mp4,d.mp4,y\n")
    of = lambda column: by_name(  # noqa: E731
        tmp_path / "l.csv", path_column=column, label_column="3", val_share=0
    )
    assert set(of("1")) == {"a.mp4", "c.mp4"}
    assert of("2") == {"b.mp4": ("x", "train"), "d.mp4": ("y", "train")}
    (tmp_path / "ids.csv").write_text("x,a\ny,b\n")
    found = by_name(tmp_path / "ids.csv", path_column="2", val_share=0)
    assert found == {"a.mp4": ("x", "train"), "b.mp4": ("y", "train")}


def test_a_column_by_number_makes_no_line_a_header(tmp_path):
    write_files(tmp_path, "x.mp4", "y.mp4")
    (tmp_path / "ids.csv").write_text("x,2\ny,1\n")
    found = by_name(tmp_path / "ids.csv", label_column="2", val_share=0)
    assert found == {"x.mp4": ("2", "train"), "y.mp4": ("1", "train")}


def test_a_header_with_commas_between_semicolons(tmp_path):
    write_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "l.csv").write_text("path;label;a, b\na.mp4;x;1\nb.mp4;y;2\n")
    found = by_name(tmp_path / "l.csv", val_share=0)
    assert found == {"a.mp4": ("x", "train"), "b.mp4": ("y", "train")}


def test_a_label_of_many_digits_is_a_name(tmp_path):
    long = "1" * 5000
    write_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "l.csv").write_text(f"a.mp4,00{long}\nb.mp4,2\n")
    assert found(tmp_path / "l.csv", val_share=0).names == ("2", long)


def test_null_in_a_list_of_labels_is_none(tmp_path):
    write_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "l.json").write_text(
        as_json({"path": "a.mp4", "labels": ["x", None]}, {"path": "b.mp4", "labels": None})
    )
    found = by_name(tmp_path / "l.json", labels="classes", val_share=0)
    assert found == {"a.mp4": (["x"], "train"), "b.mp4": ([], "train")}


def test_large_numbers_stay_apart(tmp_path):
    write_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "l.csv").write_text("a.mp4,1700000000\nb.mp4,1700000021\n")
    labels, listing, said = scanned(tmp_path / "l.csv", labels="number", val_share=0)
    assert labels.targets(listing.usable).tolist() == [1700000000, 1700000021]
    assert any("numbers from 1700000000 to 1700000021" in line for line in said)


def test_names_of_classes_that_are_numbers(tmp_path):
    write_files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "names.txt").write_text("1\n2\n3\n")
    (tmp_path / "l.csv").write_text("a.mp4,1\nb.mp4,03\n")
    labels, listing, _ = scanned(
        tmp_path / "l.csv", class_names=tmp_path / "names.txt", val_share=0
    )
    assert labels.names == ("1", "2", "3")
    assert [record["label"] for record in listing.usable] == [0, 2]


@pytest.mark.parametrize("splits", [(), ("train", "val")])
def test_results_among_the_data_are_no_class(tree, tmp_path, splits):
    data = tree
    if splits:
        data = tmp_path / "split"
        write_files(data, *(f"{split}/{name}" for split in splits for name in FILES))
    expected = by_name(data)
    write_files(data, "out/data.json", "out/files.json", "out/pictures/x.mp4")
    (data / "out" / "features").mkdir()
    assert by_name(data) == expected


def test_groups_stay_on_one_side(tmp_path):
    names = [
        f"{label}/{voice}-{i}.mp4" for label in "abc" for voice in "pqrstuvwxy" for i in range(2)
    ]
    write_files(tmp_path, *names)
    _, listing, _ = scanned(tmp_path, group_pattern=r"/(\w)-", val_share=0.3)
    sides = {}
    for record in listing.usable:
        sides.setdefault(record["group"], set()).add(record["split"])
    assert sorted(sides) == list("pqrstuvwxy")
    assert all(len(found) == 1 for found in sides.values())
    assert Counter(r["split"] for r in listing.usable) == {"val": 18, "train": 42}
    rows = "".join(f"{name},{name[0]},{name[2]}\n" for name in names)
    (tmp_path / "list.csv").write_text(f"path,label,voice\n{rows}")
    by_column = scanned(tmp_path / "list.csv", group_column="voice", val_share=0.3)[1]
    assert by_column.usable == listing.usable


def test_groups_in_two_splits_are_named(tmp_path):
    for split in ("train", "val"):
        write_files(tmp_path, *(f"{split}/{label}/v{i}.mp4" for label in "ab" for i in range(2)))
    write_files(tmp_path, "train/a/w.mp4")
    said = scanned(tmp_path, group_pattern=r"([vw]\d?)\.mp4")[2]
    assert any("2 groups have files in train and in another split: v0, v1" in line for line in said)


# --- what is split off


def test_a_share_of_each_class_by_hashes():
    rng = random.Random(0)
    names = [f"{rng.randrange(10**9)}.mp4" for _ in range(300)]
    strata = [i % 3 if i < 270 else 3 + i // 2 for i in range(300)]
    chosen = split_off(names, strata, None, 0.2)
    assert Counter(strata[i] for i in chosen if strata[i] < 3) == {0: 18, 1: 18, 2: 18}
    assert all(sum(strata[i] == key for i in chosen) == 1 for key in strata[270:])
    order = rng.sample(range(300), 300)
    again = split_off([names[i] for i in order], [strata[i] for i in order], None, 0.2)
    assert {order[i] for i in again} == chosen


def test_an_added_file_moves_at_most_one_other():
    rng = random.Random(1)
    names = [f"{rng.randrange(10**9)}" for _ in range(60)]
    strata = [i % 2 for i in range(60)]
    for n in range(10, 60):
        before = split_off(names[:n], strata[:n], None, 0.2)
        after = split_off(names[: n + 1], strata[: n + 1], None, 0.2) - {n}
        assert len(before ^ after) <= 1
        assert all(strata[i] == strata[n] for i in before ^ after)


@pytest.mark.parametrize("seed", range(30))
def test_groups_are_whole_and_no_class_is_left_without_training(seed):
    rng = random.Random(seed)
    n_groups = rng.randrange(2, 12)
    groups = [f"g{rng.randrange(n_groups)}" for _ in range(80)]
    of_group = {g: rng.sample(range(5), rng.randrange(1, 4)) for g in groups}
    strata = [rng.choice(of_group[g]) for g in groups]
    chosen = split_off([str(i) for i in range(80)], strata, groups, 0.25)
    sides = {(g, i in chosen) for i, g in enumerate(groups)}
    assert len(sides) == len(set(groups))
    assert {strata[i] for i in range(80) if i not in chosen} == set(strata)


def test_one_file_or_group_of_each_class_leaves_nothing_to_split_off():
    assert split_off(["a", "b"], [0, 1], None, 0.5) == set()
    assert split_off(["a", "b"], [0, 0], ["g", "g"], 0.5) == set()


def test_what_is_split_off_is_no_run_of_names():
    names = [f"{i:04}.mp4" for i in range(200)]
    chosen = sorted(split_off(names, [0] * 200, None, 0.2))
    assert len(chosen) == 40
    assert 60 < sum(chosen) / 40 < 140
    assert max(chosen) > 150


def test_ids_are_in_the_order_of_numbers(tmp_path):
    names = [f"{i}.mp4" for i in range(24)]
    write_files(tmp_path, *names)
    (tmp_path / "list.txt").write_text("".join(f"{n} {i % 12}\n" for i, n in enumerate(names)))
    labels, listing, _ = scanned(tmp_path / "list.txt")
    assert labels.names == tuple(map(str, range(12)))
    assert {r["name"]: r["label"] for r in listing.usable} == {
        n: i % 12 for i, n in enumerate(names)
    }


def test_whole_and_roundabout_paths_are_split_off_as_plain_ones(tree):
    def plain(found):
        return {"/".join(PurePosixPath(n).parts[-2:]): split for n, split in found.items()}

    for prefix in (f"{tree}/", "bowling/../", "../data/"):
        (tree / "list.tsv").write_text("".join(f"{prefix}{n}\t{i}\n" for n, i in FILES.items()))
        assert plain(splits(tree / "list.tsv")) == splits(tree)


#: What a folder may be called, and a line of a list may hold.
WORDS = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\"), min_size=1, max_size=6
).filter(lambda text: not text.startswith((".", "#", "[", "{")))
NAMES_OF_CLASSES = st.lists(
    st.lists(WORDS, min_size=1, max_size=3).map(" ".join).filter(lambda name: not split_of(name)),
    min_size=2,
    max_size=4,
    unique_by=str.casefold,
)


@examples(60)
@given(names=NAMES_OF_CLASSES, rng=st.randoms(use_true_random=False))
def test_odd_names_are_the_same_in_all_forms(tmp_path_factory, names, rng):
    """Folders, quoted CSV, JSON and tars."""
    folder = tmp_path_factory.mktemp("odd") / "data"
    files = {
        f"{label}/{rng.choice('xyz')} {rng.choice(names)} {i}.mp4": label
        for label in names
        for i in range(rng.randrange(2, 5))
    }
    write_files(folder, *files)
    expected = by_name(folder)
    assert {name: canonical(label) for name, label in files.items()} == {
        name: label for name, (label, _) in expected.items()
    }
    rows = list(files.items())
    rng.shuffle(rows)
    with (folder / "l.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("path", "label"), *rows])
    (folder / "l.json").write_text(json.dumps([{"path": n, "label": label} for n, label in rows]))
    assert by_name(folder / "l.csv") == expected
    assert by_name(folder / "l.json") == expected
    write_tar(folder.parent / "a" / "all.tar", dict.fromkeys(files, "1"))
    assert by_name(folder.parent / "a") == expected

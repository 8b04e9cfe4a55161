"""What is trained on and what is held out: never the same file, nor the same group."""

import pytest
from tiny_study import PLAN, write_pictures

from smnm_kernels.cli import main
from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.find import find
from smnm_kernels.train.tasks.studying import cells
from smnm_kernels.train.tasks.studying.cells import cells_of
from smnm_kernels.train.tasks.studying.checking import check_files
from smnm_kernels.train.tasks.studying.plan import DataSet
from smnm_kernels.train.tasks.studying.plan_file import load_plan
from smnm_kernels.train.tasks.studying.splitting import split

PNG = frozenset({".png"})


@pytest.fixture
def data(tmp_path):
    write_pictures(tmp_path / "data", 2)
    return tmp_path / "data"


def test_labels_make_the_split_and_val_is_in_neither(data):
    found = split(DataSet(), data, PNG)
    assert found.base == data
    assert found.train == [f"train/{name}/0{i}.png" for name in ("bright", "dark") for i in (0, 1)]
    assert found.held_out == [name.replace("train", "test") for name in found.train]
    assert all("/val/" not in name for name in (*found.train, *found.held_out))


def test_a_share_is_held_out_by_whole_groups(data):
    pattern = {"group_pattern": r"(\d\d)\.png"}
    found = split(DataSet(held_out_share=0.3, labels=pattern), data, PNG)
    numbers = [{name[-6:-4] for name in side} for side in (found.train, found.held_out)]
    assert [len(one) for one in numbers] == [1, 1]
    assert len(found.train) == len(found.held_out) == 6
    torn = split(DataSet(held_out_share=0.3), data, PNG)
    assert (len(torn.train), len(torn.held_out)) == (8, 4)
    with pytest.raises(UsageError, match="group_pattern 'x' is not in the name"):
        split(DataSet(held_out_share=0.3, labels={"group_pattern": "x"}), data, PNG)
    with pytest.raises(UsageError, match="group_column is read with labels alone"):
        split(DataSet(held_out_share=0.3, labels={"group_column": "x"}), data, PNG)


def test_a_cells_lists_name_every_file_wherever_it_lies(data, tmp_path):
    """By the link below the base, by its absolute path elsewhere."""
    write_pictures(tmp_path / "elsewhere", 1)
    inside = ["train/dark/00.png", "train/bright/01.png"]
    outside = str(tmp_path / "elsewhere/test/dark/00.png")
    listed = data / "some.csv"
    listed.write_text("\n".join(["path", *inside, outside]) + "\n")
    found = split(DataSet(held_out_share=0.3, list="some.csv"), data, PNG)
    cell = tmp_path / "cell"
    cell.mkdir()
    found.link(cell)
    found.write(cell / "all.csv", found.train + found.held_out)
    read = find(cell / "all.csv", PNG)
    assert not read.left_out.named
    assert {found.name(entry.name) for entry in read.entries} == {*inside, outside}


def test_a_file_or_a_group_on_both_sides_is_refused(data):
    with pytest.raises(UsageError, match="data: the group 00 is trained on and held out"):
        split(DataSet(labels={"group_pattern": r"(\d\d)\.png"}), data, PNG)
    (data / "test/dark/link.png").symlink_to(data / "train/dark/00.png")
    with pytest.raises(UsageError, match=r"the file .*train/dark/00.png is trained on and held"):
        split(DataSet(), data, PNG)


def test_what_has_no_files_is_said(data):
    with pytest.raises(UsageError, match="no usable file is there; found instead: 12 files that"):
        split(DataSet(held_out_share=0.1), data, frozenset({".jpg"}))
    with pytest.raises(UsageError, match="no file is of the split held out"):
        split(DataSet(held_out_share=0.1, list="test/dark/00.png"), data, PNG)


# Of other lists than the data set's own.
OTHER = PLAN.replace(
    "[measures.class]",
    """[measures.other]
with = "probe"
list = "other.csv"

[measures.class]""",
)
ROWS = [
    f"{split}/{name}/0{i}.png,{name},{{}}"
    for split in ("train", "test")
    for name in ("dark", "bright")
    for i in (0, 1)
]


def of_lists(data, splits):
    rows = (row.format(of) for row, of in zip(ROWS, splits, strict=True))
    (data / "other.csv").write_text("\n".join(["path,label,split", *rows]))


def study(tmp_path, data, text, *more):
    (tmp_path / "tiny.toml").write_text(text)
    given = ["--data", f"colours={data}", "--out", str(tmp_path / "out")]
    return main(["study", str(tmp_path / "tiny.toml"), *given, *more])


@pytest.mark.parametrize(
    ("splits", "tested"),
    [
        (["train"] * 4 + ["test"] * 4, 0),
        (["train", "test"] * 4, 2),
        (["train", "val"] * 2 + ["test"] * 4, 0),
        (["train", "val"] * 4, 2),
    ],
)
def test_no_measure_is_tested_on_what_is_trained_on(tmp_path, data, splits, tested):
    of_lists(data, splits)
    (tmp_path / "tiny.toml").write_text(OTHER)
    plan = load_plan(tmp_path / "tiny.toml")
    given = cells_of(plan, {"colours": data})
    if tested:
        words = f"measure other: of the files that it is tested on, {tested} are trained on"
        with pytest.raises(UsageError, match=words):
            check_files(plan, given)
    else:
        check_files(plan, given)


def test_cells_are_checked_for_what_is_measured_on_them_alone(tmp_path, data):
    """Another run's measure may be of a data set that is not there."""
    of_others = 'at = [2]\nof = "elsewhere"\nruns = ["random"]'
    text = PLAN.replace("at = [2]", of_others).replace(
        'make = "paint them"', 'make = "paint them"\n\n[data.elsewhere]\ntrain = false'
    )
    (tmp_path / "tiny.toml").write_text(text.replace(', "class.linear", "class.linear@2"', ""))
    plan = load_plan(tmp_path / "tiny.toml")
    every = cells_of(plan, {"colours": data})
    check_files(plan, [cell for cell in every if cell.run.name == "green2d"])
    with pytest.raises(KeyError):  # which need_data refuses before
        check_files(plan, [cell for cell in every if cell.run.name == "random"])


def test_data_that_does_not_suffice_is_refused_before_any_work(tmp_path, data, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no pictures yet")
    assert study(tmp_path, empty, PLAN) == 2
    said = capsys.readouterr().err
    assert said.startswith("smnm: error: data colours: ")
    assert "no usable file is there" in said
    assert study(tmp_path, data, OTHER) == 2
    assert "other.csv: cannot be read (No such file or directory)" in capsys.readouterr().err
    cell = cells_of(load_plan(tmp_path / "tiny.toml"), {"colours": data})[0]
    assert study(tmp_path, data, OTHER, "--cell", cell.id) == 2
    assert "other.csv: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_digest_of_data_follows_links_and_no_hidden_folder(tmp_path, data):
    def digest():
        cells.fingerprint.cache_clear()
        return cells.fingerprint(data)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (data / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(data)
    before = digest()
    (elsewhere / "new.png").write_bytes(b"x")
    assert digest() != before
    before = digest()
    (data / ".hidden").mkdir()
    (data / ".hidden/new.png").write_bytes(b"x")
    assert digest() == before

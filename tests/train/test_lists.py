"""DATA as a list of files."""

import json
import os
import random
from pathlib import Path

import pytest
from clips import losses
from pairs import PRESET, Pairs

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.lists import listed
from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain import pretrain

MP4 = frozenset([".mp4"])
FILES = (
    "a.mp4",
    "b c.mp4",
    "d, e.mp4",
    'f"g.mp4',
    "h/i.mp4",
    "h/j k, l.mp4",
    "#m.mp4",
    "it's.mp4",
    "ü.mp4",
    "n.MP4",
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "h").mkdir()
    for name in FILES:
        (tmp_path / name).touch()
    return tmp_path


def names(folder, text, name="list.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [entry.name for entry in find(path, MP4).entries]


@pytest.mark.parametrize("meta", ["list.csv", "meta/list.csv"])
def test_files_of_a_list_may_lie_beside_it(tmp_path, meta):
    top = tmp_path / "sets" / "set"
    path = top / meta
    for folder in (top / "audio", top / "other", path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (top / "audio" / "a.mp4").touch()
    path.write_text("filename,fold\na.mp4,1\nb.mp4,1\n")
    found = find(path, MP4)
    assert [os.path.isfile(found.base / entry.name) for entry in found.entries] == [True]
    assert found.remarks() == [f"files of list.csv are those in {top / 'audio'}"]
    (path.parent / "a.mp4").touch()  # its own folder comes first
    assert [entry.name for entry in find(path, MP4).entries] == ["a.mp4"]
    (path.parent / "a.mp4").unlink()
    (top / "other" / "b.mp4").touch()
    with pytest.raises(UsageError, match="names files that are in several folders"):
        find(path, MP4)
    assert [Path(e.name).name for e in Files(path, top / "other").find(MP4, None, int).entries] == [
        "b.mp4"
    ]
    with pytest.raises(UsageError, match=r"--files-from .*other: is for a list"):
        find(top, MP4, files_from=top / "other")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n", "# all of them\n\n"])
def test_one_path_a_line(folder, start, ending):
    text = (start + "\n".join(FILES)).replace("\n", ending)
    assert names(folder, text) == sorted(FILES)
    assert names(folder, text.encode("utf-16")) == sorted(FILES)


@pytest.mark.parametrize(
    "column", [" {}", " 12 {}", ",{}", ", {}", "\t{}", "  {}  ", ";{}", " {},1"]
)
def test_labels_beside_a_path(folder, column):
    """Also those lists whose paths hold what separates the columns, unquoted."""
    text = "".join(f"{name}{column.format(3 * i)}\n" for i, name in enumerate(FILES))
    assert names(folder, text) == sorted(FILES)


def test_what_is_commented_out_is_out(folder):
    assert names(folder, "# a.mp4 1\n#b c.mp4\nn.MP4\n  # h/i.mp4,3\n") == ["n.MP4"]


def test_csv_with_a_header_and_quotes(folder):
    quoted = ['"' + name.replace('"', '""') + '"' for name in FILES]
    rows = [f"{i},{name},'some label, or two'" for i, name in enumerate(quoted)]
    assert names(folder, "\n".join(["id,path,label", *rows]), "a.csv") == sorted(FILES)
    rows = [f'{name}\t"a\tb"' for name in quoted]
    assert names(folder, "\n".join(["path\tlabel", *rows]), "a.tsv") == sorted(FILES)


def test_paths_may_be_absolute_or_climb_or_have_backslashes(folder):
    text = f"{folder}/a.mp4 1\n../{folder.name}/b c.mp4 2\nh\\i.mp4 3\n./n.MP4\n'it's.mp4'\n"
    assert names(folder, text) == [
        "../" + folder.name + "/b c.mp4",
        "./n.MP4",
        f"{folder}/a.mp4",
        "h/i.mp4",
        "it's.mp4",
    ]


def test_json_lists(folder):
    items = [{"wav": name, "labels": ["/m/1"], "n": 3} for name in FILES]
    for text in (
        json.dumps({"data": items}),
        json.dumps({"data": items, "version": 1}, indent=2),
        json.dumps(items),
        json.dumps(list(FILES), indent=1),
        json.dumps({name: {"label": 1} for name in FILES}, indent=1),
        "\n".join(json.dumps(item) for item in items),
        "\ufeff" + json.dumps(items),
    ):
        assert names(folder, text, "list.json") == sorted(FILES), text


def test_a_manifest_that_begins_with_its_folder(folder):
    assert names(folder, "h\ni.mp4\t16000\nj k, l.mp4\t3\n", "train.tsv") == [
        "h/i.mp4",
        "h/j k, l.mp4",
    ]
    assert names(folder, f"{folder}/h/\ni.mp4\t16000\n") == [f"{folder}/h/i.mp4"]


def test_kaldi_names_before_paths(folder):
    assert names(folder, "utt1 a.mp4\nutt2 b c.mp4\n", "wav.scp") == ["a.mp4", "b c.mp4"]


@pytest.mark.parametrize(
    ("header", "row", "stem"),
    [
        (
            "label,youtube_id,time_start,time_end,split,is_cc",
            "arm wrestling,{id},{start},{end},train,0",
            "{id}_{start:06}_{end:06}",
        ),
        (
            "# YTID, start_seconds, end_seconds, positive_labels",
            '{id}, {start}.000, {end}.000, "/m/1,/m/2"',
            "Y{id}",
        ),
        ("", '{id},{start},"people marching, far away",test', "{id}_{start:06}"),
        ("video_id", "{id}", "{id}"),
        ("", "{id};Holding something", "{id}"),
        ("", '{{"label": "arm wrestling", "id": "{id}", "template": "x"}}', "{id}"),
        (
            "",
            '{{"start_time": {start}, "end_time": {end}, "youtube_id": "{id}"}}',
            "{id}_{start}_{end}",
        ),
    ],
)
def test_ids_of_a_video_site(tmp_path, header, row, stem):
    rows, there = [header], []
    for i, name in enumerate(["-0abc", "x_y-z12", "--gone", "12345678901"]):
        given = {"id": name, "start": 30 + i, "end": 40 + i}
        rows.append(row.format(**given))
        if name != "--gone":
            path = tmp_path / "train" / "arm wrestling" / f"{stem.format(**given)}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            there.append(f"train/arm wrestling/{path.name}")
    path = tmp_path / "train.csv"
    path.write_text("\n".join(filter(None, rows)))
    found = find(path, MP4)
    assert [entry.name for entry in found.entries] == sorted(there)
    ((line, reason),) = found.left_out.named.items()
    assert "--gone" in line
    assert reason == "names no file that is there"


def test_what_else_a_line_holds_is_kept_for_labels(folder):
    path = folder / "list.csv"
    path.write_text('path,label\na.mp4,3\n"d, e.mp4",run\nb c.mp4 7 8\n{"x": "n.MP4", "y": 2}\n')
    is_there = lambda name: (folder / name).is_file()  # noqa: E731
    lines = listed(path, lambda n: n.lower().endswith(".mp4"), is_there, lambda stem: None)
    assert [(line.line, line.name, line.columns) for line in lines] == [
        (2, "a.mp4", ("3",)),
        (3, "d, e.mp4", ("run",)),
        (4, "b c.mp4", ("7", "8")),
        (5, "n.MP4", ("2",)),
    ]


def test_what_is_not_there_is_named(folder):
    (folder / "deep.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    path = folder / "list.txt"
    path.write_bytes(
        b"a.mp4 1\na.mp4 2\ngone, too.mp4 1\ndeep.mp4 1\npipe.mp4\nwords only\na.wav\ncaf\xe9.mp4\n"
    )
    (folder / os.fsdecode(b"caf\xe9.mp4")).touch()
    found = find(path, MP4)
    assert [entry.name for entry in found.entries] == ["a.mp4"]
    assert found.left_out.named == {
        "gone, too.mp4": "is not there",
        "deep.mp4": "is a folder; a list names files",
        "pipe.mp4": "is a pipe, not a file",
        "line 6: words only": "names no file that is there",
        "line 7: a.wav": "names no file that is there",
        r"caf\udce9.mp4": "its name is not valid UTF-8",
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a folder, and as a list of files it is empty"),
        (b"\n# nothing\n\n", "is not a folder, and as a list of files it is empty"),
        (b"gone/1.mp4 3\n", "line 1 is 'gone/1.mp4 3'; {folder}/gone/1.mp4 is not there"),
        (b"/data/1.mp4,3\n", "line 1 is '/data/1.mp4,3'; /data/1.mp4 is not there"),
        (b"path,label\nx,y\n", "line 2 is 'x,y'"),
        (b"x,y\nz,y\n", "line 1 is 'x,y'"),
        (b"\x89PNG\0\0", "holds binary data"),
    ],
)
def test_a_list_of_nothing_says_what_a_line_was(tmp_path, content, said):
    path = tmp_path / "list"
    path.write_bytes(content)
    with pytest.raises(UsageError) as refusal:
        find(path, MP4)
    assert said.format(folder=tmp_path) in str(refusal.value)
    assert str(refusal.value).startswith(f"{path}: ")
    with pytest.raises(UsageError) as refusal:
        scan(path, Pairs(16), None, 1)
    assert str(refusal.value).startswith(f"DATA {path}: ")


def test_one_file_is_data_too(folder):
    (entry,) = find(folder / "b c.mp4", MP4).entries
    assert entry.source(folder).path == folder / "b c.mp4"


def test_a_run_on_a_list_is_the_run_on_its_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "pairs", {"tiny": PRESET})
    data = tmp_path / "data"
    data.mkdir()
    for i in range(5):
        (data / f"{i}.txt").write_text(str(i))
    text = "".join(f"{i}.txt {i}\n" for i in (3, 1, 4, 0, 2, 1))
    (data / "list.csv").write_text(text)

    def run(given, out, **more):
        options = Pretrain(modality="pairs", data=given, out=tmp_path / out, workers=0, **more)
        assert pretrain(options) == 0
        return losses(tmp_path / out)

    assert run(data / "list.csv", "by-list") == run(data, "by-folder")
    # And where the list lies elsewhere, with whole paths, as seen from another folder.
    (tmp_path / "whole.lst").write_text("".join(f"{data / name}\n" for name in text.split()[::2]))
    monkeypatch.chdir(tmp_path)
    assert run(Path("whole.lst"), "by-whole-paths") == run(data, "by-folder")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "list.csv").write_text(text)
    elsewhere = run(tmp_path / "a" / "b" / "list.csv", "by-files-from", files_from=data)
    assert elsewhere == run(data, "by-folder")
    listing = scan(data / "list.csv", Pairs(16), None, 1)
    dataset = SampleDataset(data / "list.csv", listing.usable, Pairs(16), 0)
    assert dataset[0].inputs
    (data / "list.csv").write_text("0.txt\n1.txt\n2.txt\n3.txt")
    with pytest.raises(UsageError, match=r"not the files that the run .* 1 gone \(4.txt\)"):
        run(data / "list.csv", "by-list")


@pytest.mark.slow
def test_mutated_lists_end_in_files_or_one_line(folder):
    rng = random.Random(0)
    texts = [
        b"a.mp4 1\nb c.mp4 2\nd, e.mp4 3\n",
        b'path,label\n"a.mp4","x"\n"d, e.mp4",3\n',
        b'{"data": [{"wav": "a.mp4", "l": 1}, {"wav": "b c.mp4"}]}',
        b'{"wav": "a.mp4"}\n{"id": "a", "start": 3}\n',
        b'["a.mp4", ["b c.mp4"], null, 3, {"x": {"y": "a.mp4"}}]',
        b"label,youtube_id,time_start,time_end\nx,a,1,2\n",
        "a.mp4\nü.mp4\n".encode("utf-16"),
    ]
    path, refusals = folder / "list", []
    for _ in range(1000):
        text = bytearray(rng.choice(texts))
        for _ in range(rng.randrange(8)):
            at = rng.randrange(len(text) + 1)
            new = bytes([rng.choice(b"\"',;\t\n\r{}[]# \\\0\xff\xc3:0")])
            text[at : at + rng.randrange(3)] = new * rng.randrange(2)
        path.write_bytes(text)
        try:
            assert find(path, MP4).entries
        except UsageError as error:
            refusals.append(str(error))
    assert all("\n" not in refusal for refusal in refusals)

"""DATA as tar shards, read in place."""

import io
import json
import random
import subprocess
import tarfile

import pytest
import torch
from clips import losses
from pairs import PRESET, Pairs

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data import braces
from smnm_kernels.train.data.entries import base_of
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.data.records import Known
from smnm_kernels.train.data.scan import differences, scan
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain import pretrain

TXT = frozenset([".txt"])
PAIRS = Pairs(length=16)


def pack(path, contents, mode="w", **options):
    """A tar of {name: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, **options) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read(path):
    """{name: bytes} of what is found, each through its source."""
    found = find(path, TXT)
    return {entry.name: entry.source(found.base).open().read() for entry in found.entries}


SAMPLES = {f"{i:03}.txt": b"%d" % (i * i) for i in range(20)}


def shards(folder, count):
    """The samples in so many shards, as WebDataset packs them: a few files under each key."""
    for number in range(count):
        contents = {}
        for name, content in list(SAMPLES.items())[number::count]:
            key = name.removesuffix(".txt")
            contents |= {f"{key}.json": b"{}", name: content, f"{key}.cls": b"1"}
        pack(folder / f"shard-{number:04}.tar", contents)
    return folder


def test_any_number_of_shards_gives_the_same_samples(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, content in SAMPLES.items():
        (folder / name).write_bytes(content)
    runs = []
    for data in (folder, *(shards(tmp_path / f"of-{count}", count) for count in (1, 3, 7))):
        listing = scan(data, PAIRS, None, 2)
        assert [record["name"] for record in listing.usable] == list(SAMPLES)
        dataset = SampleDataset(data, listing.usable, PAIRS, seed=3)
        runs.append(([dataset[i] for i in range(40)], listing.usable))
    (samples, records), *others = runs
    for other_samples, other_records in others:
        assert differences(other_records, records) == []
        for one, other in zip(samples, other_samples, strict=True):
            assert one.file_number == other.file_number
            assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_losses_are_those_of_the_files_and_a_run_may_be_packed_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "pairs", {"tiny": PRESET})

    def run(data, out, steps):
        options = Pretrain(
            modality="pairs", data=data, out=tmp_path / out, workers=0, threads=1,
            steps=steps, schedule_steps=9,
        )  # fmt: skip
        assert pretrain(options) == 0
        return losses(tmp_path / out)

    first = run(shards(tmp_path / "of-1", 1), "one", 9)
    said = capsys.readouterr().out
    assert "20 of 20 pairs files are usable\n  20 of them are members of 1 tar shard\n" in said
    assert "not looked at: 20 files that end in .cls, 20 in .json\n" in said
    assert run(shards(tmp_path / "of-3", 3), "three", 5) == first[:5]
    assert run(shards(tmp_path / "of-7", 7), "three", 9) == first
    held = json.loads((tmp_path / "three" / "files.json").read_text())["usable"]
    assert {record["shard"] for record in held} == {f"shard-{i:04}.tar" for i in range(7)}
    # One tar alone, and a list of tars.
    assert run(tmp_path / "of-1" / "shard-0000.tar", "alone", 9) == first
    tars = [f"of-3/shard-{i:04}.tar\n" for i in (2, 0, 1)]
    (tmp_path / "tars.lst").write_text("".join(tars))
    assert run(tmp_path / "tars.lst", "listed", 9) == first


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_kind_of_tar(tmp_path, style):
    long = "/".join(["d" * 40] * (2 if style == tarfile.USTAR_FORMAT else 9)) + "/x.txt"
    contents = {"a.txt": b"a", long: b"long", "./b.txt": b"b", "/c.TXT": b"c", "e/ü.txt": b"u"}
    pack(tmp_path / "a.tar", contents, format=style)
    assert read(tmp_path / "a.tar") == {
        "a.txt": b"a", long: b"long", "b.txt": b"b", "c.TXT": b"c", "e/ü.txt": b"u"
    }  # fmt: skip


def test_what_gnu_tar_makes_of_a_folder(tmp_path):
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    for name, content in {
        "a.txt": "a",
        "b/c d.txt": "c",
        ".hidden.txt": "x",
        "._a.txt": "x",
    }.items():
        (data / name).write_text(content)
    (data / "link.txt").symlink_to("b/../a.txt")
    (data / "b" / "up.txt").symlink_to("../a.txt")
    (data / "loop.txt").symlink_to("loop.txt")
    (data / "gone.txt").symlink_to("nowhere.txt")
    (data / "z.txt").hardlink_to(data / "a.txt")
    with (data / "sparse.txt").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"1")
    subprocess.run(["tar", "-c", "-S", "-f", tmp_path / "a.tar", "-C", data, "."], check=True)
    assert read(tmp_path / "a.tar") == {
        "a.txt": b"a", "b/c d.txt": b"c", "b/up.txt": b"a", "link.txt": b"a", "z.txt": b"a",
    }  # fmt: skip
    left_out = find(tmp_path / "a.tar", TXT).left_out
    assert left_out.hidden == 2
    assert left_out.named == {
        "a.tar: loop.txt": "is a link to nothing in this shard",
        "a.tar: gone.txt": "is a link to nothing in this shard",
        "a.tar: sparse.txt": "is stored sparse; pack it without --sparse",
    }


def test_of_a_truncated_tar_the_whole_members_are_used(tmp_path):
    contents = {f"{i}.txt": b"%d" % i * 700 for i in range(4)}
    whole = pack(tmp_path / "whole.tar", contents).read_bytes()
    end = len(whole.rstrip(b"\0"))
    said = set()
    for size in range(1, end + 1, 100):
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        # A header of 512 bytes, 700 of the member, filled up to 1024.
        assert read(path) == dict(list(contents.items())[: (size + 324) // 1536])
        named = find(path, TXT).left_out.named
        assert named, size
        said |= {reason.split(" (")[0] for reason in named.values()}
    assert said == {
        "is not a tar",
        "is cut off: the shard ends within it",
        "is cut off behind a whole member: there is no end mark",
        "is damaged from byte 1536 on; what follows is not read",
        "is damaged from byte 3072 on; what follows is not read",
        "is damaged from byte 4608 on; what follows is not read",
    }


def test_damage_is_named_and_what_was_before_it_is_used(tmp_path):
    path = pack(tmp_path / "a.tar", {f"{i}.txt": b"%d" % i for i in range(4)})
    broken = bytearray(path.read_bytes())
    broken[2048 + 150] ^= 1  # in the header of 2.txt
    path.write_bytes(broken)
    assert read(path) == {"0.txt": b"0", "1.txt": b"1"}
    assert find(path, TXT).left_out.named == {
        "a.tar": "is damaged from byte 2048 on; what follows is not read"
    }


def test_a_size_below_zero_ends(tmp_path):
    path = pack(tmp_path / "a.tar", {"0.txt": b"0", "1.txt": b"1"})
    header = bytearray(path.read_bytes()[1024:1536])
    header[124:136] = (-4096).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    whole = path.read_bytes()
    path.write_bytes(whole[:1024] + header + whole[1536:])
    assert read(path) == {"0.txt": b"0"}


def test_tars_one_behind_the_other(tmp_path):
    one = pack(tmp_path / "1.tar", {"a.txt": b"a"}).read_bytes()
    two = pack(tmp_path / "2.tar", {"b.txt": b"b"}).read_bytes()
    (tmp_path / "12.tar").write_bytes(one + two)
    assert read(tmp_path / "12.tar") == {"a.txt": b"a", "b.txt": b"b"}
    assert find(tmp_path / "12.tar", TXT).left_out.named == {}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "b.tgz"])
def test_a_compressed_tar_is_named_with_the_remedy(tmp_path, name):
    (tmp_path / "good.txt").write_text("1")
    pack(tmp_path / name, {"x.txt": b"x"}, "w:gz")
    found = find(tmp_path, TXT)
    assert [entry.name for entry in found.entries] == ["good.txt"]
    ((named, reason),) = found.left_out.named.items()
    assert named == name
    assert reason.startswith("is a compressed tar; members are read in place, so decompress it")
    with pytest.raises(UsageError, match="compressed tar"):
        scan(tmp_path / name, PAIRS, None, 1)


def test_odd_files_that_end_in_tar(tmp_path):
    (tmp_path / "empty.tar").touch()
    (tmp_path / "text.tar").write_text("no tar\n" * 1000)
    pack(tmp_path / "nothing.tar", {})
    (tmp_path / "zeros.tar").write_bytes(bytes(1 << 20))
    pack(tmp_path / "names.tar", {"caf\udce9.txt": b"1", "a/.b/c.txt": b"2"})
    found = find(tmp_path, TXT)
    assert not found.entries
    assert found.left_out.named == {
        "empty.tar": "is not a tar (empty file)",
        "text.tar": "is not a tar (invalid header)",
        r"names.tar: caf\udce9.txt": "its name is not valid UTF-8",
    }
    assert found.left_out.hidden == 1


def test_members_of_one_name(tmp_path, capsys):
    pack(tmp_path / "a.tar", {"x.txt": b"1", "y.txt": b"2"})
    pack(tmp_path / "b.tar", {"x.txt": b"3"})
    pack(tmp_path / "b.tar", {"x.txt": b"4"}, "a")
    listing = scan(tmp_path, PAIRS, None, 1)
    assert [(r["name"], r["shard"], r["slope"]) for r in listing.usable] == [
        ("x.txt", "a.tar", 1.0), ("x.txt", "b.tar", 4.0), ("y.txt", "a.tar", 2.0),
    ]  # fmt: skip
    assert listing.reasons() == {
        "b.tar: x.txt": "is there twice in this shard; the later one is used"
    }
    assert listing.remarks == [
        "3 of them are members of 2 tar shards",
        "names in more than one shard: 1 (x.txt); each of them is used",
    ]
    assert differences(listing.usable, listing.usable) == []


def test_members_of_unchanged_shards_are_not_looked_at_again(tmp_path, monkeypatch):
    shards(tmp_path, 3)
    first = scan(tmp_path, PAIRS, None, 2)
    probed = []

    def noting(self, source):
        probed.append(source.path.name)
        return {"slope": 0.0}

    monkeypatch.setattr(Pairs, "probe", noting)
    pack(tmp_path / "shard-0001.tar", {"000.txt": b"7"})
    known = Known()
    known.add(first.usable.lines())
    second = scan(tmp_path, PAIRS, known, 2)
    assert probed == ["shard-0001.tar"]
    assert len(second.usable) == 14


@pytest.mark.slow
def test_mutated_tars_end_in_members_or_named_faults(tmp_path):
    rng = random.Random(0)
    wholes = []
    for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        contents = {f"{'d' * 40 * (i % 2)}/ü{i}.txt": b"z" * 600 * i for i in range(6)}
        wholes.append(pack(tmp_path / "whole.tar", contents, format=style).read_bytes())
    for _ in range(300):
        mutated = bytearray(rng.choice(wholes))
        header = 512 * rng.randrange(len(mutated) // 512)
        for _ in range(rng.randrange(1, 6)):
            mutated[header + rng.randrange(512)] = rng.choice(b"\0\x80\xff17LxgSK")
        checksum = slice(header + 148, header + 156)  # so that tarfile believes the rest
        mutated[checksum] = b" " * 8
        mutated[checksum] = b"%06o\0 " % sum(mutated[header : header + 512])
        path = tmp_path / "mutated.tar"
        path.write_bytes(mutated[: rng.choice([len(mutated), rng.randrange(len(mutated))])])
        found = find(path, TXT)
        for entry in found.entries:
            assert len(entry.source(found.base).open().read()) == entry.size
        assert all(found.left_out.named.values())


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("{9..11}{,x}", ["9", "9x", "10", "10x", "11", "11x"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{train,val}/{0..1}.tar", ["train/0.tar", "train/1.tar", "val/0.tar", "val/1.tar"]),
        ("{}{a}{1.2}", ["{}{a}{1.2}"]),
    ],
)
def test_braces_stand_for_what_shells_make_of_them(pattern, names):
    assert list(braces.expanded(pattern)) == names


def test_too_many_names_are_refused():
    for pattern in ("{0..9999999999}", "{0..999}{0..999}{0..1}"):
        with pytest.raises(UsageError, match="stands for"):
            list(braces.expanded(pattern))


def test_braces_name_shards(tmp_path):
    folder = shards(tmp_path / "set", 12)
    assert read(folder / "shard-{0000..0011}.tar") == SAMPLES == read(folder)
    some = find(folder / "shard-{0002..0013}.tar", TXT)
    assert {entry.shard for entry in some.entries} == {f"shard-{i:04}.tar" for i in range(2, 12)}
    assert some.left_out.named == {f"shard-{i:04}.tar": "is not there" for i in (12, 13)}
    others = tmp_path / "{set,sets}" / "shard-{0000..0001}.tar"
    found = find(others, TXT)
    assert found.base == base_of(others) == tmp_path
    assert {entry.shard for entry in found.entries} == {f"set/shard-{i:04}.tar" for i in range(2)}
    with pytest.raises(UsageError, match="stands for no file that is there"):
        find(folder / "other-{0..3}.tar", TXT)
    literal = pack(folder / "a{1,2}.tar", {"x.txt": b"x"})
    assert read(literal) == {"x.txt": b"x"}

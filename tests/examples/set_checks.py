"""What holds of every set that a generator makes."""

import csv
import json


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_same(first, second):
    """Two folders of one command hold the same files; a manifest says so."""
    names = [p.relative_to(first) for p in sorted(first.rglob("*")) if p.is_file()]
    assert names == [p.relative_to(second) for p in sorted(second.rglob("*")) if p.is_file()]
    assert all((first / n).read_bytes() == (second / n).read_bytes() for n in names)
    held = manifest(first)
    assert sorted(str(n) for n in names if n.name != "manifest.json") == sorted(held["files"])
    assert all(held[key] for key in ("command", "licence", "fingerprint"))


def check_splits(folder, group):
    """Every file is in the table; no group is in two splits; all three splits have files."""
    rows = table(folder / "labels.csv")
    assert all((folder / row["path"]).exists() for row in rows)
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    of = {}
    for row in rows:
        assert of.setdefault(row[group], row["split"]) == row["split"]
    return rows

"""smnm demo video --finetune: labelled files, and two accuracies in the end."""

import json
from collections import Counter

import numpy as np
import pytest

from smnm_kernels.cli import main
from smnm_kernels.train.tasks import demo, demo_labels


def circular_centre(weights):
    """x and y in [0, 1) of what lies on a torus, of weights [h, w]."""
    around = np.exp(2j * np.pi * np.arange(len(weights)) / len(weights))
    return np.array([np.angle((weights.sum(axis) * around).sum()) for axis in (0, 1)]) / (2 * np.pi)


def ground_of(pictures):
    """[h, w, 3]: the plane through the pixels that the shape never covers."""
    y, x = np.mgrid[0 : demo_labels.SIZE, 0 : demo_labels.SIZE]
    plane = np.stack([np.ones(x.shape), x, y], -1)
    bare = (np.ptp(pictures, axis=0) == 0).all(-1)
    return plane @ np.linalg.lstsq(plane[bare], pictures[0][bare], rcond=None)[0]


def test_classes_are_balanced_in_every_split():
    names = demo_labels.labelled_names()
    assert len(set(names)) == len(names)
    found = Counter(tuple(name.split("/")[:2]) for name in names)
    for split, count in demo_labels.COUNTS.items():
        assert [found[split, way] for way in demo_labels.DIRECTIONS] == [count] * 4


def test_a_shape_moves_as_its_folder_says():
    names = demo_labels.labelled_names()
    for number in range(0, len(names), 7):
        pictures = np.stack(list(demo_labels.moving_shape(number))).astype(int)
        shape = abs(pictures - ground_of(pictures)).sum(3) > 12
        moved = (circular_centre(shape[21]) - circular_centre(shape[18]) + 0.5) % 1 - 0.5
        step = demo_labels.DIRECTIONS[names[number].split("/")[1]]
        assert abs(moved @ step * demo_labels.SIZE / 3 - 2.25) < 0.9
        assert abs(moved @ step[::-1]) < 0.01


def test_labelled_files_are_the_same_twice(tmp_path):
    for name in ("a", "b"):
        demo.LABELLED_FILES.write(tmp_path / name, 5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audio", "--finetune"], "--finetune: is for smnm demo video"),
        (["video", "--finetune", "--preset", "base"], "--finetune: is for --preset tiny"),
    ],
)
def test_what_has_no_labels_is_refused(words, said, tmp_path, capsys):
    assert main(["demo", *words, "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_it_ends_with_both_accuracies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "FINETUNING_STEPS", 2)
    monkeypatch.setattr(demo_labels, "COUNTS", {"train": 2, "val": 1, "test": 2})
    files = demo.DemoFiles(demo_labels.labelled_names(), demo.LABELLED_FILES.write)
    monkeypatch.setattr(demo, "LABELLED_FILES", files)
    words = ["demo", "video", "--finetune", "--steps", "2", "--warmup-steps", "1"]
    words += ["--workers", "0", "--threads", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    title, heads, *lines = capsys.readouterr().out.splitlines()[-4:]
    assert title.endswith("top-1 of 8 files, 95% interval")
    assert heads.split() == ["fine-tuned", "linear", "probe"]
    probed = json.loads((tmp_path / "probe/results.json").read_text())["rows"]
    for line, row, name in zip(lines, probed, ("pretrained", "untrained"), strict=True):
        tuned = json.loads((tmp_path / name / "results.json").read_text())
        shown = [f"{found['measures']['top1']['value']:.2f}" for found in (tuned, row)]
        assert [line.split()[i] for i in (0, 1, 4)] == [name, *shown]
    assert main(["demo", "video", "--out", str(tmp_path)]) == 2  # those are other files
    assert "holds a demo" in capsys.readouterr().err

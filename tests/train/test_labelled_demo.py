"""smnm demo video --finetune: labelled files, and accuracies in the end."""

import json
from collections import Counter

import numpy as np
import pytest

from smnm_kernels.cli import main
from smnm_kernels.train.tasks import demo, demo_finetune, demo_labels


def circular_centre(weights):
    """x and y in [0, 1) of what lies on a torus, of weights [h, w]."""
    around = np.exp(2j * np.pi * np.arange(len(weights)) / len(weights))
    return np.array([np.angle((weights.sum(axis) * around).sum()) for axis in (0, 1)]) / (2 * np.pi)


def bright(number):
    """bool [frames, h, w]: where the form is."""
    return np.stack(list(demo_labels.moving_form(number)))[..., 0] > 160


def reach(held):
    """How far a form reaches along the diagonals, of how far along the axes."""
    size = len(held)
    x, y = circular_centre(held.astype(float)) * size
    there = held.nonzero()
    dy, dx = ((p - c + size / 2) % size - size / 2 for p, c in zip(there, (y, x), strict=True))
    along_axes = [abs(d)[abs(other) < 1].max() for d, other in ((dx, dy), (dy, dx))]
    across = abs(dx) < abs(dy) + 1.5, abs(dy) < abs(dx) + 1.5
    diagonal = np.hypot(dx, dy)[across[0] & across[1]].max()
    return diagonal / np.mean(along_axes)


def test_classes_are_balanced_in_every_split():
    names = demo_labels.labelled_names()
    assert len(set(names)) == len(names)
    found = Counter(tuple(name.split("/")[:2]) for name in names)
    for split, count in demo_labels.COUNTS.items():
        assert [found[split, form] for form in demo_labels.FORMS] == [count] * 4


def test_a_form_is_what_its_folder_says():
    names = demo_labels.labelled_names()
    expected = {"cross": 0.56, "diamond": 0.71, "disc": 1, "square": 1.41}
    for number in range(0, len(names), 31):
        form = names[number].split("/")[1]
        held = bright(number)[::13]
        found = np.mean([reach(one) for one in held])
        nearest = min(expected, key=lambda name: abs(expected[name] - found))
        assert nearest == form, (names[number], found)
        assert 0.09 < held.mean() < 0.26


def test_a_form_goes_straight_over_a_ground_that_all_files_share():
    first = np.stack(list(demo_labels.moving_form(0)))
    for number in (57, 301):
        pictures = np.stack(list(demo_labels.moving_form(number)))
        held = bright(number)
        both = ~held[0] & ~bright(0)[0]
        assert np.array_equal(pictures[0][both], first[0][both])
        centres = np.array([circular_centre(one.astype(float)) for one in held])
        steps = (np.diff(centres, axis=0) + 0.5) % 1 - 0.5
        assert 0.3 <= np.hypot(*steps.mean(0)) * demo_labels.SIZE <= 1.2
        assert abs(steps - steps.mean(0)).max() * demo_labels.SIZE < 0.4  # of whole pixels


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
def test_it_ends_with_accuracies(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_finetune, "FINETUNING_STEPS", 2)
    monkeypatch.setattr(demo_labels, "COUNTS", {"train": 2, "val": 1, "test": 2})
    files = demo.DemoFiles(demo_labels.labelled_names(), demo.LABELLED_FILES.write)
    monkeypatch.setattr(demo, "LABELLED_FILES", files)
    words = ["demo", "video", "--finetune", "--steps", "2", "--warmup-steps", "1"]
    words += ["--workers", "0", "--threads", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    title, untrained, pretrained, tuned = capsys.readouterr().out.splitlines()[-4:]
    assert title.endswith("top-1 of 8 test files, 95% interval")
    probed = json.loads((tmp_path / "probe/results.json").read_text())["rows"]
    ours, theirs = (row["measures"]["top1"]["value"] for row in probed)
    found = json.loads((tmp_path / "finetuned/results.json").read_text())
    assert untrained.startswith("linear probe, untrained")
    assert f" {theirs:.2f} [" in untrained
    assert pretrained.startswith("linear probe, pretrained")
    assert f" {ours:.2f} [" in pretrained
    assert f"gained {ours - theirs:+.2f} [" in pretrained
    assert tuned.startswith("fine-tuned, pretrained")
    assert f" {found['measures']['top1']['value']:.2f} [" in tuned
    assert main(["demo", "video", "--out", str(tmp_path)]) == 2  # those are other files
    assert "holds a demo" in capsys.readouterr().err

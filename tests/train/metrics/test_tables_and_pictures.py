"""Predictions as a table that reads back, and pictures that can be read."""

import csv
import json
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image

from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.metrics import plots
from smnm_kernels.train.metrics.intervals import Interval
from smnm_kernels.train.metrics.predictions import write_predictions

NAMES = [
    "a.mp4",
    "b, c.mp4",
    'd"e.mp4',
    "line\nbreak.mp4",
    "carriage\rreturn.mp4",
    "ü.mp4",
    os.fsdecode(b"caf\xe9.mp4"),
    "shard.tar: x/y.mp4",
    " blank .mp4",
    "=1+2.mp4",
]


def read(path):
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_a_table_of_few_classes_reads_back(tmp_path):
    path = tmp_path / "predictions.csv"
    scores = torch.rand(len(NAMES), 3).softmax(1)
    targets = torch.arange(len(NAMES)) % 3
    labels = Labels("class", ("run, fast", "b", "c\nd"))
    write_predictions(path, NAMES, labels, scores, targets)
    rows = read(path)
    assert [row["name"] for row in rows] == NAMES
    assert [row["label"] for row in rows] == [labels.names[i] for i in targets]
    assert [row["predicted"] for row in rows] == [labels.names[i] for i in scores.argmax(1)]
    found = torch.tensor([[float(row[f"p {name}"]) for name in labels.names] for row in rows])
    assert torch.allclose(found, scores, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.csv"]


def test_of_many_classes_the_best_are_named(tmp_path):
    labels = Labels("class", tuple(f"class {i}" for i in range(30)))
    scores = torch.rand(4, 30)
    write_predictions(tmp_path / "p.csv", NAMES[:4], labels, scores, torch.arange(4))
    for row, score in zip(read(tmp_path / "p.csv"), scores, strict=True):
        best = score.topk(5).indices.tolist()
        assert [row[f"class_{i}"] for i in range(1, 6)] == [labels.names[b] for b in best]
        assert float(row["p_5"]) == pytest.approx(float(score[best[4]]), abs=1e-6)
        assert row["predicted"] == row["class_1"]


def test_several_labels_and_numbers(tmp_path):
    labels = Labels("classes", ("a|b", "c, d", "e"))
    scores = torch.tensor([[0.9, 0.2, 0.8], [0.1, 0.1, 0.2]])
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 0]])
    write_predictions(tmp_path / "p.csv", NAMES[:2], labels, scores, targets)
    first, second = read(tmp_path / "p.csv")
    assert json.loads(first["label"]) == ["a|b", "c, d"]
    assert json.loads(first["predicted"]) == ["a|b", "e"]
    assert json.loads(second["label"]) == []
    scores, targets = torch.tensor([1.5, 2.25]), torch.tensor([1.0, 2.0])
    write_predictions(tmp_path / "p.csv", NAMES[:2], Labels("number"), scores, targets)
    assert [list(row.values()) for row in read(tmp_path / "p.csv")] == [
        ["a.mp4", "1", "1.5"],
        ["b, c.mp4", "2", "2.25"],
    ]


def test_large_numbers_stay_apart_in_tables(tmp_path):
    scores = torch.tensor([1700000000.25, 1700000001], dtype=torch.float64)
    targets = torch.tensor([1700000000, 1700000021], dtype=torch.float64)
    write_predictions(tmp_path / "p.csv", NAMES[:2], Labels("number"), scores, targets)
    assert [list(row.values())[1:] for row in read(tmp_path / "p.csv")] == [
        ["1700000000", "1700000000.25"],
        ["1700000021", "1700000001"],
    ]


def test_a_table_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("before")
    with pytest.raises(ValueError, match="zip"):
        write_predictions(path, NAMES[:2], Labels("number"), torch.zeros(3), torch.zeros(3))
    assert path.read_text() == "before"


def test_confusions_count_pairs():
    predicted, targets = torch.tensor([0, 1, 1, 2, 0]), torch.tensor([0, 1, 2, 2, 2])
    assert plots.confusions(predicted, targets, 4).tolist() == [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("n", [1, 3, pytest.param(50, marks=pytest.mark.slow), 400])
def test_a_confusion_matrix_of_any_number_of_classes(tmp_path, n, monkeypatch):
    """Every class has pixels of its own, and the picture a size that a screen can show."""
    names = [f"class ${i} with_a long^name" for i in range(n)]
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(n, (20 * n,), generator=generator)
    predicted = torch.where(torch.rand(20 * n, generator=generator) < 0.7, targets, 0)
    drawn = []
    monkeypatch.setattr(
        plots,
        "save_figure",
        lambda figure, path, save=plots.save_figure: drawn.append(figure) or save(figure, path),
    )
    path = tmp_path / "confusion.png"
    plots.write_confusion_matrix(path, plots.confusions(predicted, targets, n), names)
    with Image.open(path) as picture:
        assert max(picture.size) <= 2000
        assert np.asarray(picture.convert("L")).std() > 5
    (figure,) = drawn
    pixels = figure.axes[0].get_window_extent()
    assert min(pixels.width, pixels.height) >= 2 * n
    texts = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    if n <= 50:
        assert texts == [f"{name[:23]}…" if len(name) > 24 else name for name in names]
    else:
        (said,) = figure.texts
        assert " as class $0" in said.get_text()


def test_curves(tmp_path):
    steps = [(i, 1 / (i + 1)) for i in range(5000)]
    path = tmp_path / "curves.png"
    plots.write_curves(
        path,
        {
            "loss": {"train": steps, "val": steps[::500]},
            "top1": {"val": [(0, float("nan")), (1, 0.5)], "$broken\n_": [(1, 0.5)]},
            "nothing": {},
        },
        "step",
    )
    with Image.open(path) as picture:
        assert picture.size == (770, 814)


def test_names_in_a_legend_are_shown_as_they_are(tmp_path, monkeypatch):
    names = ["_train", "r$a_{$", "$x$", ""]
    shown = []

    def noted(figure, path):
        for axes in figure.axes:
            shown.extend(text.get_text() for text in axes.get_legend().get_texts())
        save(figure, path)

    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", noted)
    points = [(1, 0.5), (2, 0.7)]
    plots.write_curves(tmp_path / "curves.png", {"loss": dict.fromkeys(names, points)}, "step")
    ends = ((0.4, 0.6), (math.nan, math.nan))
    intervals = {n: Interval(0.5, *pair) for n, pair in enumerate(ends, 1)}
    curves = {name: dict(intervals) for name in names}
    plots.write_few_shot(tmp_path / "few_shot.png", curves, "top1")
    assert shown == 2 * names
    for name in ("curves.png", "few_shot.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"

"""Clusters and objects: the matching against all possibilities, the layouts, and the command."""

import csv
import itertools
import json
import re

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from smnm_kernels.cli import main
from smnm_kernels.errors import UsageError
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.probing.frozen import find_frozen
from smnm_kernels.train.tasks.segment import clip_features
from smnm_kernels.train.tasks.segmenting import clusters as of
from smnm_kernels.train.tasks.segmenting.davis import find_videos, windows
from smnm_kernels.train.tasks.segmenting.pictures import palette

IDS = st.lists(st.integers(0, 254), min_size=1, max_size=4, unique=True)


@st.composite
def labelled(draw):
    """(clusters, truth, k, ids that are there), with some void."""
    ids = sorted(draw(IDS))
    n = draw(st.integers(len(ids), 30))
    truth = draw(st.lists(st.sampled_from([*ids, 255]), min_size=n, max_size=n))
    truth[: len(ids)] = ids
    k = draw(st.integers(1, 5))
    clusters = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return np.array(clusters), np.array(truth, dtype=np.uint8), k, np.array(ids)


def iou(predicted, truth, number):
    pairs = [(p, t) for p, t in zip(predicted, truth, strict=True) if t != 255]
    both = sum(p == number and t == number for p, t in pairs)
    return both / sum(p == number or t == number for p, t in pairs)


@given(labelled())
@examples(200)
def test_clustering_finds_the_best_of_all_assignments(case):
    clusters, truth, k, ids = case
    counts = of.overlaps(clusters, truth, k, ids)
    found = of.match(counts, ids, "clustering")

    def cost(assignment):  # (cluster, id) pairs
        return sum(1 - _iou_of(clusters, truth, c, i) for c, i in assignment)

    size = min(k, len(ids))
    best = min(
        cost(zip(rows, columns, strict=True))
        for rows in itertools.combinations(range(k), size)
        for columns in itertools.permutations(ids, size)
    )
    if k <= len(ids):
        assert cost(enumerate(found)) == pytest.approx(best)
    elif 0 not in ids:  # else a cluster without a partner cannot be told from the background
        assert cost((c, i) for c, i in enumerate(found) if i) == pytest.approx(best)
    predicted = found[clusters]
    assert np.allclose(of.ious(predicted, truth, ids), [iou(predicted, truth, i) for i in ids])


def _iou_of(clusters, truth, cluster, number):
    there = truth != 255
    both = ((clusters == cluster) & (truth == number)).sum()
    union = (((clusters == cluster) | (truth == number)) & there).sum()
    return both / union if union else 0.0


@given(labelled())
@examples(100)
def test_overclustering_gives_each_cluster_to_the_id_that_it_lies_in_most(case):
    clusters, truth, k, ids = case
    found = of.match(of.overlaps(clusters, truth, k, ids), ids, "overclustering")
    for number in range(k):
        inside = truth[(clusters == number) & (truth != 255)]
        if not len(inside):
            assert found[number] == 0
            continue
        precisions = [(inside == i).mean() for i in ids]
        assert found[number] == min(
            i for i, p in zip(ids, precisions, strict=True) if p == max(precisions)
        )


def test_it_is_intersection_over_union_that_is_matched():
    """By the share of the sum of both sizes it would be [2, 9]."""
    counts = np.array([[4, 9], [0, 2]])
    assert of.match(counts, np.array([2, 9]), "clustering").tolist() == [9, 2]
    assert 4 / 13 + 2 / 11 < 9 / 15
    assert 4 / 17 + 2 / 13 > 9 / 24


def test_more_clusters_than_ids_leave_the_others_to_the_background():
    clusters = np.array([0, 0, 1, 1, 2])
    truth = np.array([0, 0, 7, 7, 7], dtype=np.uint8)
    ids = of.ids_in(truth)
    assert of.match(of.overlaps(clusters, truth, 3, ids), ids, "clustering").tolist() == [0, 7, 0]
    assert of.match(of.overlaps(clusters, truth, 3, ids), ids, "overclustering").tolist() == [
        0,
        7,
        7,
    ]


def blocks():
    """Ids 0, 3 and 9 and some void, the same in both frames of a tubelet."""
    truth = np.zeros((4, 8, 8), dtype=np.uint8)
    truth[:, 1:4, 1:5] = 3
    truth[:2, 5:8, 5:8] = 9
    truth[2:, 5:8, 2:5] = 9
    truth[:, 0, 0] = 255
    return truth


def test_perfect_features_score_1_and_void_counts_for_nothing():
    truth = blocks()
    points = np.eye(256)[truth[::2]][..., [0, 3, 9, 255]] * 10.0
    points[:, 0, 0] = [0, 10, 0, 0]  # void looks like an object
    for way in of.TIMES:
        found = of.segment_clip(points, truth, way, seed=0)
        assert found.ids.tolist() == [0, 3, 9]
        assert found.ious.tolist() == [1, 1, 1]
        assert found.miou(background=True) == found.miou(background=False) == 1
        scored = truth != 255
        assert np.array_equal(found.predicted[scored], truth[scored])


def test_there_are_as_many_clusters_as_ids_and_three_times_as_many(monkeypatch):
    asked = []
    cluster = of.cluster

    def noted(points, k, seed):
        asked.append((len(points), k))
        return cluster(points, k, seed)

    monkeypatch.setattr(of, "cluster", noted)
    points = np.random.default_rng(0).normal(size=(2, 8, 8, 5))
    for way in of.TIMES:
        of.segment_clip(points, blocks(), way, seed=0)
    assert asked == [(128, 3), (128, 9)]
    one, same = (of.segment_clip(points, blocks(), "clustering", seed=4) for _ in range(2))
    assert np.array_equal(one.predicted, same.predicted)


def test_the_background_can_be_left_out_of_the_mean():
    found = of.Segmented(np.zeros(1), np.array([0, 4]), np.array([0.9, 0.5]))
    assert found.miou(True) == pytest.approx(0.7)
    assert found.miou(False) == 0.5


def test_windows():
    assert windows(20, 4, 1, 1) == [[8, 9, 10, 11]]
    assert windows(20, 4, 3, 2) == [[0, 3, 6, 9], [10, 13, 16, 19]]
    assert windows(10, 4, 1, None) == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert windows(8, 4, 1, None) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows(5, 4, 2, 3) == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert windows(3, 4, 1, 1) == []
    assert windows(3, 1, 1, 1) == [[1]]


def test_colours_are_those_of_davis():
    assert palette()[[0, 1, 2, 3, 4, 9, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [192, 0, 0],
        [224, 224, 192],
    ]


def write_davis(data, name, n=20, size=(48, 32), ids=(1,), resolution="480p", annotated=None):
    """A film of squares that move, one an id; `annotated` frames have a mask."""
    frames, masks = (data / k / resolution / name for k in ("JPEGImages", "Annotations"))
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    width, height = size
    for i in range(n):
        pixels = np.full((height, width, 3), 40, dtype=np.uint8)
        mask = np.zeros((height, width), dtype=np.uint8)
        for place, number in enumerate(ids):
            x, y = (3 + i // 2 + 20 * place) % (width - 12), 4 + 12 * place
            mask[y : y + 12, x : x + 12] = number
            pixels[y : y + 12, x : x + 12] = (250, 60 + 90 * place, 10)
        PIL.Image.fromarray(pixels).save(frames / f"{i:05}.jpg", quality=95)
        if annotated is None or i in annotated:
            picture = PIL.Image.fromarray(mask).convert("P")
            picture.putpalette(palette().flatten().tolist())
            picture.save(masks / f"{i:05}.png")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    data = tmp_path_factory.mktemp("davis")
    write_davis(data, "one", ids=(2,))
    write_davis(data, "two", n=33, ids=(1, 5))
    write_davis(data, "short", n=9)
    write_davis(data, "test-dev", annotated=[0])
    write_davis(data, "empty", ids=())
    (data / "ImageSets" / "2017").mkdir(parents=True)
    (data / "ImageSets" / "2017" / "val.txt").write_text("two\none\n")
    return data


def segment(data, out, *arguments):
    given = ["segment", data, "--out", out, "--grid", 12, *arguments]
    if "--encoder" not in arguments:
        given += ["--encoder", "none"]
    return main([str(a) for a in given])


@pytest.mark.slow
def test_the_command_from_a_folder_to_numbers_and_pictures(films, tmp_path, capsys):
    assert segment(films, tmp_path / "out", "--against", "none", "--seed", 3) == 0
    said = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert sorted(results["left_out"]) == ["empty", "short", "test-dev"]
    assert results["left_out"]["short"] == "annotated frames: 9, needed: 16"
    assert results["left_out"]["test-dev"] == "annotated frames: 1, needed: 16"
    assert "no object" in results["left_out"]["empty"]
    assert "test-dev: 19 frames have no annotation" in said
    rows = {(row["name"], row["way"]): row for row in results["rows"]}
    assert set(rows) == set(itertools.product(["none", "none (2)"], of.TIMES))
    for row in rows.values():
        assert sorted(row["videos"]) == ["one", "two"]
        mean = np.mean(list(row["videos"].values()))
        assert row["miou"]["value"] == pytest.approx(mean)
        assert 0.2 < mean <= 1
    same = rows["none (2)", "clustering"]["first_minus_this"]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
    over = rows["none", "overclustering"]["miou"]["value"]
    assert f"{over:.3f}" in said
    table = list(csv.DictReader((tmp_path / "out" / "videos.csv").open()))
    assert [(r["video"], r["ids"]) for r in table if r["way"] == "clustering"][:1] == [
        ("one", "0 2")
    ]
    assert {r["ids"] for r in table if r["video"] == "two"} == {"0 1 5"}
    with PIL.Image.open(tmp_path / "out" / "overlays" / "two.gif") as movie:
        assert 1 < movie.n_frames <= 16  # equal ones become one
    with PIL.Image.open(tmp_path / "out" / "overlays.png") as picture:
        assert picture.mode == "RGB"

    assert segment(films, tmp_path / "again", "--seed", 3, "--set", "2017/val") == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["left_out"] == {}
    assert again["data_fingerprint"] != results["data_fingerprint"]  # another order
    assert again["rows"][0]["videos"] == rows["none", "clustering"]["videos"]


@pytest.mark.slow
def test_clips_of_four_frames_all_along_the_video(films, tmp_path):
    arguments = ("--frames", 4, "--clips", "all", "--no-background", "--pca", 5, "--layer", 1)
    assert segment(films, tmp_path / "out", *arguments, "--pictures", 0) == 0
    table = list(csv.DictReader((tmp_path / "out" / "videos.csv").open()))
    assert len([r for r in table if r["video"] == "two" and r["way"] == "clustering"]) == 9
    row = next(r for r in table if r["video"] == "two")
    each = [float(x) for x in row["iou of each id"].split()]
    assert float(row["miou"]) == pytest.approx(np.mean(each[1:]), abs=1e-4)
    assert not (tmp_path / "out" / "overlays.png").exists()


def test_features_are_those_of_the_encoder_on_the_grid():
    [frozen] = find_frozen(["none"], "video", PRESETS["video"]["tiny"], 0, {})
    frames = np.random.default_rng(0).integers(0, 256, (16, 96, 96, 3), dtype=np.uint8)
    t, h, w = frozen.encoder.grid
    found = clip_features(frozen, frames, h, None, torch.device("cpu"), None)
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255
    mean, scale = (
        torch.tensor(v).view(-1, 1, 1, 1) for v in (frozen.input.mean, frozen.input.scale)
    )
    expected = frozen.encoder((x - mean) / scale).view(t, h, w, -1)
    assert np.allclose(found, expected.detach(), atol=1e-4)
    larger = clip_features(frozen, frames, 2 * h, None, torch.device("cpu"), None)
    assert larger.shape == (t, 2 * h, 2 * w, found.shape[-1])


def test_layouts(tmp_path):
    write_davis(tmp_path / "plain", "a", n=2, resolution=".")
    videos, left_out = find_videos(tmp_path / "plain")
    assert [v.name for v in videos] == ["a"]
    assert left_out == {}
    for resolution in ("480p", "Full-Resolution"):
        write_davis(tmp_path / "several", "a", n=2, resolution=resolution)
    [video] = find_videos(tmp_path / "several")[0]
    assert "480p" in str(video.frames[0])
    write_davis(tmp_path / "full", "b", n=2, resolution="1080p")
    assert [v.name for v in find_videos(tmp_path / "full")[0]] == ["b"]
    write_davis(tmp_path / "full", "b", n=2, resolution="720p")
    with pytest.raises(UsageError, match="1080p, 720p; there must be one, or 480p"):
        find_videos(tmp_path / "full")


def _binary(data):
    """One object, white on black, as DAVIS 2016 has it."""
    for path in (data / "Annotations" / "480p" / "one").iterdir():
        mask = np.asarray(PIL.Image.open(path))
        PIL.Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(path)


def test_white_alone_is_an_object(tmp_path):
    write_davis(tmp_path / "data", "one", ids=(2,))
    _binary(tmp_path / "data")
    assert segment(tmp_path / "data", tmp_path / "out", "--pictures", 0) == 0
    [row, *_] = csv.DictReader((tmp_path / "out" / "videos.csv").open())
    assert row["ids"] == "0 1"


def test_void_is_void_in_all_clips_of_a_video(tmp_path):
    """The first clip shows void and no object, a later one an object."""
    write_davis(tmp_path / "data", "one", n=24, ids=(2,))
    masks = tmp_path / "data" / "Annotations" / "480p" / "one"
    for path in sorted(masks.iterdir())[:12]:
        mask = np.asarray(PIL.Image.open(path))
        PIL.Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(path)
    asked = ("--frames", 4, "--clips", "all", "--pictures", 0)
    assert segment(tmp_path / "data", tmp_path / "out", *asked) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "videos.csv").open()))
    assert {row["ids"] for row in rows} == {"0 2"}


def test_pictures_of_an_earlier_command_do_not_stay(tmp_path):
    out = tmp_path / "out"
    write_davis(tmp_path / "data", "one", n=4)
    asked = (tmp_path / "data", out, "--frames", 4)
    assert segment(*asked) == 0
    assert (out / "overlays" / "one.gif").exists()
    assert segment(*asked, "--pictures", 0) == 0
    assert not (out / "overlays.png").exists()
    assert list((out / "overlays").iterdir()) == []


def _other_size(folder):
    PIL.Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "00007.png")


def _in_colour(folder):
    PIL.Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(folder / "00007.png")


def _damaged(folder):
    (folder / "00007.png").write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_size, r"frame 00007\.jpg is 48x32, its annotation 5x5"),
        (_in_colour, r"annotation 00007\.png is a picture of mode RGB"),
        (_damaged, r"annotation 00007\.png does not decode"),
    ],
)
def test_a_video_that_cannot_be_used_is_named(tmp_path, spoil, message, capsys):
    write_davis(tmp_path / "data", "one")
    spoil(tmp_path / "data" / "Annotations" / "480p" / "one")
    assert segment(tmp_path / "data", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert re.search(f"left out one: {message}", said.out)
    assert "no video is of use" in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "2017/train"), "--set 2017/train.*cannot be read; there are 2017/val"),
        (("--clips", "0"), "--clips must be a number of at least 1, or all, got '0'"),
        (("--clips", "some"), "--clips must be"),
        (("--grid", "0"), "--grid must be at least 1, got 0"),
        (("--grid", "1000"), "--grid must be at most 512"),
        (("--frames", "5"), "--encoder none.*multiple of patch"),
        (("--layer", "99"), "--layer 99: none has .* blocks"),
        (("--preset", "mae"), "--preset mae: video has tiny"),
        (("--encoder", "nowhere"), "--encoder nowhere"),
        (("--against", "nowhere"), "nowhere"),
        (("--stride", "0"), "--stride must be at least 1"),
        (("--pca", "0"), "--pca must be at least 1"),
        (("--device", "tpu"), "--device tpu: not there"),
    ],
)
def test_wrong_options_are_named(films, tmp_path, capsys, arguments, message):
    assert segment(films, tmp_path / "out", *arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: (data / "JPEGImages").mkdir(), "has no folder Annotations"),
        (lambda data: None, "has no folder JPEGImages"),
        (
            lambda data: [(data / k).mkdir() for k in ("JPEGImages", "Annotations")],
            "no folder of a video",
        ),
    ],
)
def test_other_layouts_are_named(tmp_path, capsys, make, message):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    assert segment(tmp_path / "data", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_a_run_is_not_written_over(films, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.pt").write_text("")
    assert segment(films, run, "--encoder", "none") == 2
    assert f"--out {run}: holds a run (last.pt)" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["last.pt"]

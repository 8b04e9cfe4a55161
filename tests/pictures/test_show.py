"""`smnm show`: the pixels are the masks, mistakes are named, nothing half written is left."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from testing import need_packages

need_packages("tyro", "matplotlib", "PIL")

from PIL import Image  # noqa: E402

import smnm_kernels as smnm  # noqa: E402
from smnm_kernels import cli  # noqa: E402
from smnm_kernels.errors import UsageError  # noqa: E402
from smnm_kernels.pictures import page  # noqa: E402
from smnm_kernels.pictures.show import Show  # noqa: E402


def tiles(picture, color, rows, columns):
    """bool [n, rows, columns], top left tile first: every rectangle of patches on the page."""
    bright = page.VISIBLE[color]
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    patches = np.zeros(pixels.shape[:2], dtype=bool)
    for colour in (bright, page.MASKED, page.GRID_LINE):
        patches |= (pixels == colour).all(-1)
    patches[: page.MARGIN + page.HEADER] = False  # the legend
    found = []
    for top, bottom in runs(patches.mean(1) > 0.02):
        for left, right in runs(patches[top:bottom].mean(0) > 0.9):
            y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
            x = left + (np.arange(columns) + 0.5) * (right - left) / columns
            cells = pixels[y.astype(int)][:, x.astype(int)]
            visible = (cells == bright).all(-1)
            assert (visible | (cells == page.MASKED).all(-1)).all()
            found.append(visible)
    return np.array(found)


def runs(flags):
    """(start, end) of each run of True that is at least 20 long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(a, b) for a, b in edges.reshape(-1, 2) if b - a >= 20]


def show(*words):
    return cli.main(["show", *map(str, words)])


@pytest.mark.parametrize(
    ("kind", "color"), [("green3d", "green"), ("tube", "white"), ("blue2d", "blue")]
)
def test_cells_are_the_masks(tmp_path, kind, color):
    out = tmp_path / "masks.png"
    assert show(kind, "--grid", 4, 6, 7, "--ratio", 0.8, "--seed", 3, "--out", out) == 0
    masks = smnm.MaskSampler(kind, (4, 6, 7), 0.8, seed=3).masks(torch.arange(1))
    expected = masks.visible.view(4, 6, 7).numpy()
    assert np.array_equal(tiles(Image.open(out), color, 6, 7), expected)


def test_long_video_and_samples_start_rows(tmp_path):
    out = tmp_path / "masks.png"
    Show(kinds=("random",), grid=(18, 3, 4), n_keep=70, samples=2, out=out).run()
    masks = smnm.MaskSampler("random", (18, 3, 4), n_keep=70).masks(torch.arange(2))
    found = tiles(Image.open(out), "white", 3, 4)
    assert np.array_equal(found, masks.visible.view(36, 3, 4).numpy())


def test_spectrogram_lies_on_its_side(tmp_path):
    out = tmp_path / "masks.png"
    assert show("rbn", "--grid", 1, 12, 5, "--ratio", 0.75, "--out", out) == 0
    masks = smnm.MaskSampler("rbn", (1, 12, 5), 0.75).masks(torch.arange(1))
    upright = masks.visible.view(12, 5).numpy().T[::-1]  # time to the right, mel band 0 below
    assert np.array_equal(tiles(Image.open(out), None, 5, 12)[0], upright)


def test_gif_plays_every_frame(tmp_path):
    out = tmp_path / "masks.gif"
    assert show("green3d", "tube", "rbn", "--grid", 5, 6, 6, "--ratio", 0.75, "--out", out) == 0
    picture = Image.open(out)
    assert picture.n_frames == 5
    masks = smnm.MaskSampler("green3d", (5, 6, 6), 0.75).masks(torch.arange(1))
    for t in range(5):
        picture.seek(t)
        frame = tiles(picture, "green", 6, 6)[0]
        assert np.array_equal(frame, masks.visible.view(5, 6, 6)[t].numpy())


def test_defaults_draw_video_and_audio_kinds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert show() == 0
    assert os.listdir(tmp_path) == ["masks.png"]
    assert capsys.readouterr().out == "masks.png: green3d, tube, random, rbn\n"


def test_the_picture_in_the_readme_shows_the_masks_of_today():
    picture = Image.open(Path(__file__).parents[2] / "docs" / "masks.png")
    picture = picture.crop((0, 0, picture.width, 350))  # the first kind
    masks = smnm.MaskSampler("green3d", (8, 14, 14), 0.9).masks(torch.arange(1))
    assert np.array_equal(tiles(picture, "green", 14, 14), masks.visible.view(8, 14, 14).numpy())


@pytest.mark.parametrize("sigma", ["variant-1", "0.5 2", "0.4 1.5 1.4 3"])
def test_sigma_as_the_library_takes_it(tmp_path, sigma):
    out = tmp_path / "masks.png"
    words = ["--grid", 1, 9, 9, "--ratio", 0.8, "--out", out, "--sigma", *sigma.split()]
    assert show("green2d", *words) == 0
    given = {"variant-1": "variant-1", "0.5 2": (0.5, 2), "0.4 1.5 1.4 3": ((0.4, 1.5), (1.4, 3))}
    masks = smnm.MaskSampler("green2d", (1, 9, 9), 0.8, sigma=given[sigma]).masks(torch.arange(1))
    assert np.array_equal(
        tiles(Image.open(out), "green", 9, 9)[0], masks.visible.view(9, 9).numpy()
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kinds": ("gren3d",)}, "kinds .*green3d.*got gren3d"),
        ({"mask_ratio": 1.5}, r"mask_ratio .*\[0, 1\), got 1.5"),
        ({"mask_ratio": 0.5, "n_keep": 9}, "exactly one of mask_ratio and n_keep"),
        ({"n_keep": 0}, "n_keep .*got 0"),
        ({"grid": (0, 14, 14)}, "grid .*got .0, 14, 14"),
        ({"kinds": ("rbn",), "audio_grid": (2, 64, 8)}, r"grid .*got \(2, 64, 8\)"),
        ({"kinds": ("rbn",), "grid": (8, 14, 14)}, r"--grid must be 1 H W for rbn, got \(8, 14"),
        ({"sigma": ("wide",)}, "sigma .*variant-1.*got wide"),
        ({"sigma": ("2", "1")}, "sigma1 < sigma2"),
        ({"kinds": ("tube",), "sigma": ("1",)}, "sigma .*tube"),
        ({"samples": 0}, "samples .*got 0"),
        ({"samples": 10**9, "n_keep": 1}, "samples .*at most"),
        ({"seed": 2**63}, "seed .*64 bits"),
        ({"out": "masks.jpg"}, "out .*png or .gif, got .*masks.jpg"),
        ({"out": "masks.gif", "spectrum": True}, "out .*png, got .*masks.gif"),
        ({"out": "masks.gif", "grid": (1, 14, 14)}, "masks.gif.* T > 1"),
        ({"out": "nowhere/masks.png"}, "out .*folder that exists, got .*nowhere"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, named):
    arguments = {"kinds": ("green3d",), **arguments}
    out = tmp_path / arguments.pop("out", "masks.png")
    with pytest.raises(UsageError, match=named):
        Show(out=out, **arguments).run()
    assert os.listdir(tmp_path) == []


def test_a_mistake_on_the_command_line_is_exit_code_2(tmp_path, capsys):
    assert show("green3d", "--ratio", 1.5, "--out", tmp_path / "masks.png") == 2
    assert "mask_ratio must be in [0, 1), got 1.5" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_picture_and_no_other_file(tmp_path, monkeypatch):
    out = tmp_path / "masks.png"
    Show(kinds=("tube",), out=out).run()
    before = out.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match=r"out=.*the disk is full"):
        Show(kinds=("green3d",), out=out).run()
    assert os.listdir(tmp_path) == ["masks.png"]
    assert out.read_bytes() == before


def test_a_folder_in_the_way_is_named(tmp_path):
    (tmp_path / "masks.png").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        Show(kinds=("tube",), out=tmp_path / "masks.png").run()
    assert os.listdir(tmp_path) == ["masks.png"]


def test_missing_matplotlib_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    page._font.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert show("tube", "--out", tmp_path / "masks.png") == 2
    message = capsys.readouterr().err
    assert "matplotlib" in message
    assert "pip install 'smnm_kernels[train]'" in message


def test_a_grid_of_two_numbers_is_one_frame(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["show", "green2d", "--grid", "6", "8", "--out", "two.png"]) == 0
    assert cli.main(["show", "green2d", "--grid", "1", "6", "8", "--out", "three.png"]) == 0
    assert (tmp_path / "two.png").read_bytes() == (tmp_path / "three.png").read_bytes()
    capsys.readouterr()
    assert cli.main(["show", "green2d", "--grid", "6"]) == 2
    assert "--grid must be T H W, or H W for one frame, got (6,)" in capsys.readouterr().err


def test_scales_of_time_side_by_side(tmp_path):
    out = tmp_path / "masks.png"
    words = ("green3d", "--grid", 4, 6, 6, "--time-scale", 0.5, 1, 2.5, "--out", out)
    assert show(*words) == 0
    expected = [
        smnm.MaskSampler("green3d", (4, 6, 6), 0.9, time_scale=scale)(1).visible.view(4, 6, 6)
        for scale in (0.5, 1, 2.5)
    ]
    with Image.open(out) as picture:
        found = tiles(picture, "green", 6, 6)
    assert np.array_equal(found, torch.cat(expected).numpy())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rbn", "tube", "--time-scale", 2), "time_scale is for red3d, blue3d and green3d"),
        (("green3d", "--time-scale", 9), "green3d: time_scale must be in"),
        (("motion", "--grid", 8, 8), r"motion masks need a video and a grid with T > 1"),
    ],
)
def test_what_time_is_needed_for(tmp_path, words, message, capsys):
    assert show(*words, "--out", tmp_path / "masks.png") == 2
    assert re.search(message, capsys.readouterr().err)

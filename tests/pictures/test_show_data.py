"""`smnm show` of kinds that look at an input: over files and over what is made by code."""

import os
import wave

import numpy as np
import pytest
import torch
from testing import ROOT, need_packages

need_packages("tyro", "matplotlib", "PIL", "av", "kaldi_native_fbank")

from PIL import Image  # noqa: E402
from test_show import show  # noqa: E402
from train.clips import write_samples, write_video  # noqa: E402

import smnm_kernels as smnm  # noqa: E402
from smnm_kernels.errors import UsageError  # noqa: E402
from smnm_kernels.kinds import KINDS  # noqa: E402
from smnm_kernels.pictures import inputs, page, panels  # noqa: E402
from smnm_kernels.pictures.show import Show  # noqa: E402
from smnm_kernels.train.data.audio import Audio  # noqa: E402
from smnm_kernels.train.data.modality import Normalisation  # noqa: E402
from smnm_kernels.train.data.padding import with_quiet_padding  # noqa: E402
from smnm_kernels.train.data.spectrogram import log_mel  # noqa: E402

RATE = 16_000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    n = 3 * RATE
    samples = 0.001 * np.random.default_rng(0).standard_normal(n)
    for begin in (0.5, 1.7):
        part = slice(int(begin * RATE), int((begin + 0.6) * RATE))
        samples[part] += 0.3 * np.random.default_rng(1).standard_normal(part.stop - part.start)
    write_samples(folder / "bursts.wav", samples)
    write_video(folder / "clip.mp4", n=12)
    Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)).save(
        folder / "picture.png"
    )
    (folder / "notes.txt").write_text("nothing to see")
    return folder


def panel(kind, grid, data=None, **more):
    arguments = {"mask_ratio": None, "n_keep": None, "sigma": (), "seed": 3} | more
    [made] = panels.panels([kind], grid, (1, 64, 8), *arguments.values(), data)
    return made


def read_samples(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(2**15)


def test_a_sound_is_what_the_trainer_sees(files):
    made = panel("activity", (1, 16, 4), files / "bursts.wav")
    samples = read_samples(files / "bursts.wav")
    mel = torch.from_numpy(log_mel(samples[: 400 + 255 * 160], 64))[None, None, None]
    expected = Normalisation(Audio(256, 64).inputs["audio"])(mel)
    assert torch.equal(made.input.data, expected)
    assert made.input.patch == (1, 16, 16)
    ours = smnm.activity_masks(
        torch.arange(2), expected.expand(2, -1, -1, -1, -1), (1, 16, 16), 0.4, seed=3
    )
    assert torch.equal(made.visible(2).flatten(1), ours.visible)
    assert made.segments == ours.segments[0].tolist()
    assert max(made.segments) == 2
    assert "bursts.wav" in made.facts()
    assert "mask ratio 0.4" in made.facts()


def test_a_video_is_frames_from_all_over_it(files):
    made = panel("dispersion", (2, 3, 4), files / "clip.mp4")
    assert made.input.data.shape == (1, 3, 4, 48, 64)
    assert made.input.pixels.shape == (2, 48, 64, 3)
    assert made.input.patch == (2, 16, 16)
    masks = smnm.dispersion_masks(torch.arange(1), made.input.data, (2, 16, 16), 0.9, seed=3)
    assert torch.equal(made.visible(1).flatten(1), masks.visible)
    # Of 12 frames every third; the brightness is twice the number.
    grey = made.input.pixels[:, -8:].mean((1, 2, 3))
    assert np.abs(grey - [0, 12]).max() < 4


def test_a_picture_is_one_frame(files):
    made = panel("dispersion", (1, 3, 4), files / "picture.png")
    assert made.input.data.shape == (1, 3, 1, 48, 64)
    assert np.array_equal(made.input.pixels[0], np.asarray(Image.open(files / "picture.png")))


def test_dispersion_looks_at_sounds_too(files):
    made = panel("dispersion", (8, 14, 14), files / "bursts.wav", mask_ratio=0.9)
    assert made.grid == (1, 64, 8)
    assert made.input.is_sound
    # The recording is shorter than the grid: its smallest value follows, and is never visible.
    end = made.input.data[0, 0, 0, 298:]
    assert (end == made.input.data[0, 0, 0, :298].min()).all()
    assert not made.visible(3)[:, 0, 19:].any()
    assert "its padding is hidden" in made.facts()
    assert "its padding is hidden" not in panel("dispersion", (1, 8, 8)).facts()
    whole_sounds = panel("activity", (8, 14, 14), files / "bursts.wav", mask_ratio=0.9)
    assert not whole_sounds.visible(1)[:, 0, 19:].any()
    assert max(whole_sounds.segments) == 2


def test_padding_is_no_sound(files):
    samples = 0.001 * np.random.default_rng(0).standard_normal(2 * RATE)
    samples[RATE // 2 : RATE] += 0.1 * np.random.default_rng(1).standard_normal(RATE // 2)
    write_samples(files / "short.wav", samples)
    made = panel("activity", (8, 14, 14), files / "short.wav")
    assert made.grid == (1, 64, 8)
    rows = np.flatnonzero(made.segments)
    assert len(rows) >= 2
    assert rows.min() >= 2
    assert rows.max() < 8
    # 198 frames fill 13 rows; n_keep is 307 of 512, so at least 384 patches count as real.
    assert made.valid.sum() == 384
    assert "280 of its 408 patches of padding count as sound" in made.facts()
    # The same as the trainer's.
    mel = torch.zeros(1, 1, 1, 1024, 128)
    mel[0, 0, 0, :198] = torch.from_numpy(log_mel(read_samples(files / "short.wav"), 128))
    data = Normalisation(Audio(1024, 128).inputs["audio"])(mel)
    assert torch.equal(with_quiet_padding(data, torch.tensor([[1, 198, 128]])), made.input.data)


def test_pixels_are_bright_where_visible(files):
    made = panel("activity", (1, 16, 4), files / "bursts.wav")
    upright = made.visible(1)[0, 0].numpy().T[::-1]  # time to the right, mel band 0 below
    block = page._block(made, made.visible(1).numpy(), frame=None)
    side = block.patch
    pixels = page._pixels(block.rows[0][0], side, block.colour)
    for y, x in np.ndindex(upright.shape):
        cell = pixels[y * side : (y + 1) * side - 1, x * side : (x + 1) * side - 1]
        assert (cell.min() >= 80) == upright[y, x]
        assert (cell.max() < 80) == (not upright[y, x])
    # Loud frames are brighter than quiet ones, also where they are masked.
    loud = np.array(made.segments) > 0
    columns = pixels.reshape(4 * side, 16, side, 3).mean((0, 2, 3))
    assert columns[loud & ~upright[0]].min() > 0.9 * columns[~loud & ~upright[0]].max(initial=0)

    picture = np.asarray(page.paint_masks([made], 1))
    marked = (picture == tuple(bytes.fromhex(page.SEGMENT[1:]))).all(-1).any(0)
    marked = marked[page.MARGIN : page.MARGIN + 16 * side].reshape(16, side).mean(1) > 0.5
    assert marked.tolist() == loud.tolist()


@pytest.mark.parametrize("grid", [(1, 16, 4), (1, 8, 8), (3, 4, 5)])
def test_without_a_file_something_is_made(grid):
    made = panel("dispersion", grid)
    assert made.input.is_sound == (grid[0] == 1)
    assert made.input.name.startswith("built-in: ")
    assert np.array_equal(made.input.pixels, inputs.made_by_code(grid).pixels)
    assert made.input.pixels.shape == (grid[0], 16 * grid[1], 16 * grid[2], 3)


def test_the_bursts_that_are_made_are_found():
    assert max(panel("activity", (8, 14, 14)).segments) == 6


def test_all_is_every_kind(tmp_path, capsys):
    out = tmp_path / "all.png"
    assert (
        show("all", "--grid", 2, 4, 4, "--audio-grid", 1, 8, 4, "--ratio", 0.5, "--out", out) == 0
    )
    assert capsys.readouterr().out == f"{out}: {', '.join(KINDS)}\n"


def test_the_gallery_has_every_kind_of_today():
    """Its height: all blocks below each other. `smnm show all --out docs/gallery.png` makes it."""
    with Image.open(ROOT / "docs" / "gallery.png") as picture:
        size = picture.size
    shown = panels.panels(list(KINDS), (8, 14, 14), (1, 64, 8), None, None, (), 0)
    masks = [np.zeros((1, *panel.grid), dtype=bool) for panel in shown]
    blocks = [page._block(*pair, frame=None) for pair in zip(shown, masks, strict=True)]
    _, _, height = page._flow(blocks)
    assert size[1] == height


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"data": "nowhere.wav"}, "--data .*nowhere.wav: is no file"),
        ({"data": "notes.txt"}, "--data .*notes.txt: does not decode"),
        ({"data": "picture.png"}, "picture.png: is a picture, and activity masks need a sound"),
        ({"data": "clip.mp4"}, "--data .*clip.mp4: .*sound"),
        (
            {"kinds": ("dispersion",), "data": "picture.png"},
            r"is a picture, which has one frame; --grid must be H W, got \(8, 14, 14\)",
        ),
        (
            {"kinds": ("dispersion",), "data": "clip.mp4", "grid": (9, 4, 4)},
            "clip.mp4: is too short: 12 frames, 18 are needed",
        ),
        (
            {"kinds": ("green3d", "tube"), "data": "clip.mp4"},
            r"kinds .* input \(dispersion, motion, activity, self_guided\), got green3d, tube",
        ),
        ({"spectrum": True}, "must not look at an input with --spectrum.* got activity"),
        ({"grid": (8, 14, 14)}, r"--grid must be 1 H W for activity, got \(8, 14, 14\)"),
    ],
)
def test_mistakes_are_named(files, tmp_path, arguments, named):
    arguments = {"kinds": ("activity",)} | arguments
    if "data" in arguments:
        arguments["data"] = files / arguments["data"]
    with pytest.raises(UsageError, match=named):
        Show(out=tmp_path / "masks.png", **arguments).run()
    assert os.listdir(tmp_path) == []

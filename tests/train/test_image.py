"""Pictures of every ordinary kind are read as a viewer shows them; broken ones are named."""

import struct
import zlib

import numpy as np
import pytest
from clips import write_picture
from PIL import Image

from smnm_kernels.train.data import image
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.tasks.presets import PRESETS

CLIP = PRESETS["image"]["tiny"].clip


def read_pixels(path):
    return image.read_pixels(Source(path))


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif", "a.jpg", "a.webp"])
def test_colours_come_back(tmp_path, name):
    original = write_picture(tmp_path / name, 7)
    pixels = read_pixels(tmp_path / name)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.shape == original.shape
    lossy = name.endswith((".jpg", ".webp"))
    error = abs(pixels.astype(int) - original)
    assert error.max() == 0 if not lossy else error.mean() < 6


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def grey_in_rgb(values):
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=2)


def test_grey_of_any_depth_becomes_rgb(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    assert np.array_equal(read_pixels(path), grey_in_rgb(GREY))
    Image.fromarray(GREY > 99).save(path)
    assert np.array_equal(read_pixels(path), grey_in_rgb(255 * (GREY > 99)))
    deep = GREY.astype(np.uint16) * 257
    for deviation in (-128, 0, 128):  # rounded, not cut
        near = np.clip(deep.astype(int) + deviation, 0, 65535).astype(np.uint16)
        Image.fromarray(near).save(path)
        assert np.array_equal(read_pixels(path), grey_in_rgb(GREY))
    Image.fromarray(deep).save(tmp_path / "a.tif")
    assert np.array_equal(read_pixels(tmp_path / "a.tif"), grey_in_rgb(GREY))


def test_sixteen_bits_of_colour_become_eight(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    rows = b"".join(b"\0" + np.repeat(row, 2, axis=-1).tobytes() for row in colours)
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data)
            file.write(struct.pack(">I", zlib.crc32(name + data)))
    assert np.array_equal(read_pixels(path), colours)


def test_what_is_transparent_shows_white(tmp_path):
    colours = np.full((4, 4, 4), (200, 100, 0, 255), dtype=np.uint8)
    colours[0, :, 3] = 0
    colours[1, :, 3] = 51  # a fifth
    for name in ("a.png", "a.webp"):
        Image.fromarray(colours).save(tmp_path / name, lossless=True, exact=True)
        pixels = read_pixels(tmp_path / name)
        assert (pixels[0] == 255).all()
        assert abs(pixels[1].astype(int) - (244, 224, 204)).max() <= 1
        assert (pixels[2:] == (200, 100, 0)).all()
    grey = Image.fromarray(GREY).convert("LA")
    grey.putalpha(Image.fromarray(np.where(GREY < 128, 0, 255).astype(np.uint8)))
    grey.save(tmp_path / "grey.png")
    expected = np.where(GREY < 128, 255, GREY)
    assert np.array_equal(read_pixels(tmp_path / "grey.png"), grey_in_rgb(expected))


def test_palettes_and_print_colours_become_rgb(tmp_path):
    original = write_picture(tmp_path / "a.png", 3)
    palette = Image.fromarray(original).quantize(64)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_pixels(tmp_path / "p.png"), np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "t.png", transparency=0)
    hidden = np.asarray(palette) == 0
    assert hidden.any()
    assert (read_pixels(tmp_path / "t.png")[hidden] == 255).all()
    Image.fromarray(original).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert abs(read_pixels(tmp_path / "c.jpg").astype(int) - original).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, orientation):
    upright = write_picture(tmp_path / "a.png", 5)
    # How a camera held that way stores what is upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(read_pixels(tmp_path / "b.png"), upright)


def test_a_picture_with_broken_exif_data_is_named(tmp_path):
    exif = Image.Exif()
    exif[274], exif[282] = 6, 72.0  # orientation, resolution
    stored = exif.tobytes()
    order = "<" if b"II*" in stored else ">"
    rational, opaque = (struct.pack(f"{order}HH", 282, type_) for type_ in (5, 7))
    assert rational in stored
    write_picture(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        picture.save(tmp_path / "a.jpg", exif=stored.replace(rational, opaque))
    listing = scan(tmp_path, CLIP, {}, 1)
    assert [r["name"] for r in listing.usable] == ["a.png"]
    assert listing.skipped[0]["reason"].startswith("does not decode (")


def test_broken_pictures_are_named_with_the_reason(tmp_path):
    for name in ("good.png", "good.jpg", "good.webp"):
        write_picture(tmp_path / name, size=(300, 200))
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name.replace("good", "cut")).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not a picture\n" * 50)
    flipped = bytearray((tmp_path / "good.png").read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (tmp_path / "flipped.png").write_bytes(flipped)
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "notes.txt").write_text("not looked at")
    listing = scan(tmp_path, CLIP, {}, 2)
    assert [r["name"] for r in listing.usable] == ["good.jpg", "good.png", "good.webp"]
    assert [(r["width"], r["height"]) for r in listing.usable] == [(300, 200)] * 3
    reasons = {r["name"]: r["reason"] for r in listing.skipped}
    assert reasons.pop("float.tif").startswith("holds floating-point values")
    assert set(reasons) == {
        "cut.jpg", "cut.png", "cut.webp", "empty.png", "flipped.png", "text.jpg",
    }  # fmt: skip
    assert all(reason.startswith("does not decode (") for reason in reasons.values())
    assert reasons["text.jpg"] == "does not decode (its content is of no known format)"

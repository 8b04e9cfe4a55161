"""A run takes from another one what that found of the files."""

import shutil

import pytest
from clips import losses, pretrain

from smnm_kernels.train.data.video import Video


def test_what_another_run_found_of_the_same_data(videos, tmp_path, capsys, monkeypatch):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert pretrain(videos, "--out", first, "--steps", 1) == 0
    with monkeypatch.context() as patched:
        patched.setattr(Video, "probe", lambda *_: pytest.fail("a file was looked at again"))
        same = ("--out", second, "--steps", 1, "--scan-of", first)
        assert pretrain(videos, *same, "--mask", "tube") == 0
    assert losses(second)
    files = [(run / "files.json").read_bytes() for run in (first, second)]
    assert files[0] == files[1]
    for words, message in [
        ((tmp_path / "none",), "holds no run"),
        ((first, "--pixel-aspect", "ignore"), "pixel_aspect 'apply', and this run is for pixel_as"),
    ]:
        assert pretrain(videos, "--out", third, "--steps", 1, "--scan-of", *words) == 2
        assert message in capsys.readouterr().err
    other = tmp_path / "elsewhere"
    shutil.copytree(videos, other)
    assert pretrain(other, "--out", third, "--steps", 1, "--scan-of", first) == 2
    assert f"is a run of {videos}, not of {other}" in capsys.readouterr().err
    assert not third.exists()

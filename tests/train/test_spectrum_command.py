"""smnm spectrum: from files to a picture, numbers and a proposal."""

import json

import pytest
from clips import main, write_sound, write_video
from PIL import Image

from smnm_kernels.analysis.energy import Proposal
from smnm_kernels.train.tasks import spectrum
from smnm_kernels.train.tasks.options import Pretrain, preset_of


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for i in range(2):
        write_video(folder / f"{i}.mp4", n=36, size=96)
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def run(capsys, *words):
    code = main(["spectrum", *map(str, words)])
    return code, capsys.readouterr()


@pytest.mark.slow
def test_a_picture_a_table_and_a_proposal_that_pretrain_takes(films, tmp_path, capsys):
    out = tmp_path / "s.png"
    code, said = run(capsys, films, "--preset", "tiny", "--clips", 4, "--out", out)
    assert code == 0
    assert Image.open(out).size[0] > 1000
    where = "our proposal for --preset tiny, 8x6x6 patches"
    assert f"{where}: --mask green3d --mask-options 'sigma=(" in said.out
    assert "green3d" in said.out
    assert "data, mean of each patch" in said.out
    assert "broken.mp4" in said.err

    (line,) = (x for x in said.out.splitlines() if x.startswith("our proposal"))
    words = line.split("--mask-options ")[1].replace("'", "").split()
    given = Pretrain(modality="video", data=films, out=out, mask="green3d", mask_options=words)
    masks = preset_of(given).masks["video"]
    assert set(masks.parameters) == {"sigma", "time_scale"}
    masks.sampler((8, 6, 6), 0, 1)


@pytest.mark.slow
def test_numbers_of_recordings_shorter_than_the_window(tmp_path, capsys):
    for i in range(3):
        write_sound(tmp_path / f"{i}.wav", seconds=1.5, hertz=300 + 200 * i)
    words = ("--kinds", "rbn", "dispersion", "--clips", 5, "--out", tmp_path / "s.png", "--json")
    code, said = run(capsys, tmp_path, *words)
    found = json.loads(said.out)
    assert code == 0
    assert "windows of 128 frames" in said.err
    assert found["grid"] == [1, 8, 8]
    assert found["patch"] == [1, 16, 16]
    assert found["clips"] == 5
    assert set(found["axes"]) == {"time and mel", "time", "mel"}
    for curves in found["axes"].values():
        assert set(curves) == {"data", "data, mean of each patch", "rbn", "dispersion"}
        assert all(curve["below"][-1] == pytest.approx(1) for curve in curves.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "s.txt"), "must end as a picture does"),
        (("--out", "nowhere/s.png"), "its folder is not there"),
        (("--clips", "1"), "--clips must be at least 2"),
        (("--kinds", "pink"), "got pink"),
        (("--kinds", "all", "rbn"), "all stands alone"),
        (("--kinds", "rbn"), "--kinds rbn at --mask-ratio 0.9"),
        (("--mask-ratio", "1.5"), "mask_ratio must be in [0, 1)"),
        (("--mask-ratio", "0"), "--mask-ratio 0: masks none of"),
        (("--modality", "audio", "--stride", "2"), "audio has no stride"),
        (("--modality", "image"), "no usable file"),
        (("--preset", "audiomae"), "is of audio"),
    ],
)
def test_wrong_calls_are_refused(films, capsys, words, said):
    code, shown = run(capsys, films, "--out", films / "x.png", *words)
    assert code == 2
    assert said in shown.err
    assert not (films / "x.png").exists()


def test_defaults_that_are_as_near_are_to_be_taken():
    sigma, grid = ((0.5, 0.84), (2.0, 3.36)), (1, 14, 14)
    near, far = ((0.19,), (0.24,))
    (said,) = spectrum._in_words(Proposal(sigma, 1.0, far, near), grid, "base")[2:]
    assert said == "green2d's defaults are no further from the data: take them"
    assert not spectrum._in_words(Proposal(sigma, 1.0, near, far), grid, "base")[2:]

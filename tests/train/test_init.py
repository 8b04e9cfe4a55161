"""smnm pretrain --init X."""

import json

import pytest
import torch
from clips import pretrain
from safetensors.torch import load_file
from testing import made_once

from smnm_kernels.train.models.formats import to_mae

pytestmark = pytest.mark.slow  # they share a run


@pytest.fixture(scope="session")
def first(tmp_path_factory, images):
    def make(folder):
        assert pretrain(images, "--out", folder / "run", "--steps", 2, modality="image") == 0

    return made_once(tmp_path_factory, "run-to-continue", make) / "run"


def begin(images, out, init, *more):
    """A step that changes next to nothing."""
    given = ("--init", init) if init else ()
    return pretrain(images, "--out", out, "--lr", 1e-20, *given, *more, modality="image")


def test_a_run_continues_from_a_run_and_goes_on_only_so(images, first, tmp_path, capsys):
    out = tmp_path / "out"
    assert begin(images, out, first, "--steps", 1) == 0
    said = capsys.readouterr().out
    assert f"--init {first}: the encoder's weights are taken" in said
    assert f"--init {first}: the decoder's weights are taken" in said
    before = torch.load(first / "last.pt", weights_only=True)["model"]
    after = torch.load(out / "last.pt", weights_only=True)["model"]
    assert before.keys() == after.keys()
    for name, t in before.items():
        assert torch.allclose(after[name], t, rtol=0, atol=1e-12), name
    config = json.loads((out / "config.json").read_text())
    assert len(config["run"]["init"]) == 32
    assert config["runtime"]["init"] == str(first)

    capsys.readouterr()
    assert begin(images, out, first, "--steps", 2) == 0  # goes on
    assert "--init" not in capsys.readouterr().out
    assert begin(images, out, None, "--steps", 2) == 2
    assert "init is '" in capsys.readouterr().err
    assert begin(images, out, first / "encoder.safetensors", "--steps", 2) == 2  # has no decoder
    assert "' was asked for. Ask for the same" in capsys.readouterr().err


def test_a_run_continues_from_a_file(images, first, tmp_path, capsys):
    ours = {f"encoder.{n}": t for n, t in load_file(first / "encoder.safetensors").items()}
    path, out = tmp_path / "mae.pth", tmp_path / "out"
    theirs = to_mae(ours, (1, 16, 16))
    torch.save({"model": {**theirs, "head.weight": torch.zeros(3, 192)}}, path)
    assert begin(images, out, path, "--steps", 1) == 0
    said = capsys.readouterr().out
    assert "mae.pth: 1 of its tensors are no part of the encoder and are left out: head" in said
    assert "mae.pth: the decoder starts anew: there is none" in said
    for name, t in load_file(out / "encoder.safetensors").items():
        assert torch.allclose(t, ours[f"encoder.{name}"], rtol=0, atol=1e-12), name


def test_what_cannot_begin_a_run_is_refused_before_any_work(
    images, sounds, first, tmp_path, capsys
):
    out = tmp_path / "out"
    for init, modality, data, more, cause in (
        (first, "audio", sounds, (), f"--init {first}: is of image, and audio was asked for"),
        (
            first,
            "image",
            images,
            ("--preset", "small"),
            f"--init {first}: its encoder has dim 192, depth 4, heads 3, the model dim 384, depth "
            "12, heads 6, of --preset small",
        ),
        (images, "image", images, (), f"--init {images}: holds no weights"),
        (tmp_path / "no", "image", images, (), f"--init {tmp_path / 'no'}: is not there"),
    ):
        assert pretrain(data, "--out", out, "--init", init, *more, modality=modality) == 2
        assert cause in capsys.readouterr().err
        assert not out.exists()

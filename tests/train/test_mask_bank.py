"""Masks from a bank of noise in the trainer: the paper's offline way, by both of its rules."""

import json

import pytest
import torch
from clips import losses, pretrain

import smnm_kernels as smnm
from smnm_kernels.errors import UsageError
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain_setup import set_up

GRID = (8, 6, 6)  # of the preset tiny


def masking_of(modality="video", **options):
    """The masking of a run of one input with these options."""
    options = {"data": "DATA", "out": "RUN", "device": "cpu", **options}
    return set_up(Pretrain(modality=modality, **options)).masking(12)


def masks_of(masking, ids):
    (made,) = masking.of_ids(ids, {}, {}).values()
    return made


@pytest.mark.parametrize("place", ["crop", "resize"])
def test_masks_are_those_of_the_papers_pipeline(place):
    ids = torch.arange(16)
    masking = masking_of(
        mask_bank=f"{place}:2", mask_options=("sigma=variant-3", "time_scale=0.5"), seed=7
    )
    bank = smnm.NoiseBank.precompute(
        2, (64, 64, 64), "green", sigma="variant-3", time_scale=0.5, seed=7
    )
    if place == "resize":
        bank = bank.resized(GRID)
    expected = bank.masks(ids, GRID, 0.9, seed=7)
    assert torch.equal(masks_of(masking, ids).ids_keep, expected.ids_keep)
    # The stream: whatever the parts, and where a run went on.
    drawn = [masking.draw(n, {}, {})["video"].visible for n in (4, 2)]
    other = masking_of(mask_bank=f"{place}:2", mask_options=("sigma=variant-3", "time_scale=0.5"))
    other.load_state(masking.state())
    other.samplers["video"].bank = masking.samplers["video"].bank  # of the run's seed
    drawn.append(other.draw(10, {}, {})["video"].visible)
    assert torch.equal(torch.cat(drawn), expected.visible)


def test_masks_that_repeat_over_time_come_from_a_flat_bank():
    masks = masks_of(masking_of(mask="green2d", mask_bank="resize:2"), torch.arange(4))
    assert masks.n_keep == 24
    frames = masks.visible.view(4, 8, 36)
    assert torch.equal(frames, frames[:, :1].expand_as(frames))


def test_padding_is_never_visible():
    masking = masking_of("audio", mask="green2d", mask_bank="crop:2")
    grid = masking.samplers["audio"].grid
    valid = torch.ones(3, *grid, dtype=torch.bool)
    valid[:, :, grid[1] // 2 :] = False
    (made,) = masking.of_ids(torch.arange(3), {}, {"audio": valid.flatten(1)}).values()
    assert not made.visible[~valid.flatten(1)].any()


def test_a_run_keeps_to_its_bank(images, tmp_path, capsys):
    run = ("--schedule-steps", 2, "--size", 64)
    bank = ("--mask-bank", "resize:2")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert pretrain(images, "--out", whole, "--steps", 2, *run, *bank, modality="image") == 0
    assert pretrain(images, "--out", parts, "--steps", 1, *run, *bank, modality="image") == 0
    config = json.loads((parts / "config.json").read_text())["run"]
    assert config["mask_bank"] == {"place": "resize", "volumes": 2}
    for other in ((), ("--mask-bank", "crop:2"), ("--mask-bank", "resize:3")):
        code = pretrain(images, "--out", parts, "--steps", 2, *run, *other, modality="image")
        assert code == 2
        assert "mask_bank" in capsys.readouterr().err
    assert pretrain(images, "--out", parts, "--steps", 2, *run, *bank, modality="image") == 0
    assert losses(parts) == losses(whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_bank": "pad"}, "--mask-bank must be crop or resize, .* got 'pad'"),
        ({"mask_bank": "crop:0"}, "--mask-bank must be .* got 'crop:0'"),
        ({"mask_bank": "crop:"}, "--mask-bank must be .* got 'crop:'"),
        (
            {"mask_bank": "crop", "mask": "block"},
            "--mask block .* --mask-bank crop on a grid .* a bank is of noise, and block masks",
        ),
        ({"mask_bank": "crop", "mask": "dispersion"}, "a bank is of noise, and dispersion masks"),
        ({"mask_bank": "crop", "size": 1040}, "64 values on each axis, and the grid has more"),
        ({"mask_bank": "crop:99999999999"}, "takes 104,857,600 GB, and this machine has .* GB"),
        ({"mask_bank": "crop", "modality": "audio-video"}, "--mask-bank: is for one input"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        masking_of(**options)

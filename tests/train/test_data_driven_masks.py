"""Kinds of masks in the trainer: their input, their options, and schedules."""

import json
import math
import signal
from dataclasses import dataclass
from typing import ClassVar
from unittest import mock

import pytest
import torch
from clips import Started, losses, pretrain, rows

from smnm_kernels import Masks, MaskSampler, kinds, ops
from smnm_kernels.arguments import parse_grid, parse_n_keep
from smnm_kernels.errors import UsageError
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain_setup import set_up

SEEN = []


@dataclass(frozen=True)
class BrightestKind(kinds.Kind):
    """The patches of 16 x 16 pixels with the largest sums are visible."""

    grid: tuple[int, int, int]
    n_keep: int
    freq_major: bool = False
    needs_data: ClassVar[bool] = True
    name = "brightest"
    repeats_over_time = False

    @staticmethod
    def parse(grid, mask_ratio=None, *, n_keep=None):
        sides = parse_grid(grid)
        return BrightestKind(sides, parse_n_keep(math.prod(sides), mask_ratio, n_keep))

    def _draw_row_major(self, sample_ids, seed, data, valid):
        SEEN.append(data)
        _, height, width = self.grid
        sums = data.unflatten(-2, (height, 16)).unflatten(-1, (width, 16)).sum((1, 2, 4, 6))
        return Masks(*ops.threshold(sums.flatten(1).double(), self.n_keep))


def test_the_trainer_gives_it_the_normalised_input(images, tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "brightest", BrightestKind.parse)
    SEEN.clear()
    out = tmp_path / "run"
    assert (
        pretrain(images, "--out", out, "--steps", 2, "--mask", "brightest", modality="image") == 0
    )
    assert len(rows(out)) == 2
    nothing, *steps, picture = SEEN
    assert nothing.shape == (0, 3, 1, 96, 96)  # whether the kind takes such input at all
    assert [data.shape for data in steps] == [torch.Size([2, 3, 1, 96, 96])] * 2
    assert picture.shape == (3, 3, 1, 96, 96)
    for data in (*steps, picture):
        assert data.dtype == torch.float32
        assert data.min() < 0 < data.max()


def test_input_that_the_kind_cannot_take_is_refused_before_any_work():
    with pytest.raises(UsageError, match=r"--mask motion .* at least two frames"):
        sampler_of("audio", mask="motion")


def test_options_of_the_kind_reach_the_sampler(videos, tmp_path):
    out = tmp_path / "run"
    slow = ("--mask-options", "sigma=variant-3", "time_scale=2")
    assert pretrain(videos, "--out", out, "--steps", 1, *slow) == 0
    assert config(out)["mask_options"] == ["sigma=variant-3", "time_scale=2"]
    made = sampler_of("video", mask_options=("sigma=0.5,2.0", "time_scale=2"))
    assert (
        made.settings
        == MaskSampler("green3d", (8, 6, 6), 0.9, sigma=(0.5, 2.0), time_scale=2).settings
    )
    # Another run than without them.
    assert pretrain(videos, "--out", out, "--steps", 2) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("time_scale",), "must be NAME=VALUE"),
        (("sigma=2", "sigma=3"), "each name once, got 'sigma=3'"),
        (("mask_ratio=0.5",), "--mask-ratio sets it"),
        (("windows=3",), "green3d masks have no parameter windows"),
        (("time_scale=9",), r"--mask-options time_scale=9 on a grid.*time_scale must be in"),
        (("time_scale={[]: 1}",), "time_scale must be a number"),
        (("time_scale=" + 5000 * "-",), "time_scale must be a number"),
    ],
)
def test_wrong_options_of_the_kind(words, message):
    with pytest.raises(UsageError, match=message):
        sampler_of("video", mask_options=words)


def test_the_share_of_chance_falls_by_the_steps_of_the_schedule(sounds, tmp_path):
    """A sixth of the steps is plainly random, and then the share is 1 - (step / steps)^2, whatever
    the parts that a step comes in."""
    seen = []
    draw = kinds.DispersionKind.draw

    def noting(self, sample_ids, *arguments):
        if len(sample_ids):  # none: whether the kind takes such input at all
            seen.append(self.n_swapped)
        return draw(self, sample_ids, *arguments)

    run = (
        "--steps",
        6,
        "--checkpoint-every",
        100,
        "--mask",
        "dispersion",
        "--hint-schedule",
        "dwm",
    )
    with mock.patch.object(kinds.DispersionKind, "draw", noting):
        assert pretrain(sounds, "--out", tmp_path / "a", *run, modality="audio") == 0
    n_masked = 256 - 51
    hints = [1, *(1 - (step / 6) ** 2 for step in range(1, 6))]
    *seen, _ = seen  # the last is for the picture
    assert seen == [math.floor(n_masked * round(h, 4)) for h in hints]
    seen.clear()
    with mock.patch.object(kinds.DispersionKind, "draw", noting):
        parts = ("--accumulate", 2)
        assert pretrain(sounds, "--out", tmp_path / "b", *run, *parts, modality="audio") == 0
    *seen, _ = seen
    assert seen[::2] == seen[1::2] == [math.floor(n_masked * round(h, 4)) for h in hints]
    assert config(tmp_path / "b")["hint_schedule"] == {"start": 1 / 6, "power": 2.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mask": "rbn", "hint_schedule": "dwm"},
            "dispersion or motion or self_guided, and masks are rbn",
        ),
        ({"hint_schedule": "soon"}, "must be dwm, START or START:POWER"),
        ({"hint_schedule": "0.2:0"}, "power must be a finite number > 0"),
        ({"hint_schedule": "1.5"}, r"start must be .* in \[0, 1\]"),
        (
            {"hint_schedule": "dwm", "mask_options": ("hint_ratio=1",)},
            "sets hint_ratio, which --mask-options gives, too",
        ),
    ],
)
def test_wrong_hint_schedules(options, message):
    with pytest.raises(UsageError, match=message):
        sampler_of("audio", **{"mask": "dispersion"} | options)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "masks",
    [
        ("--mask", "dispersion", "--hint-schedule", "dwm"),
        ("--mask", "activity", "--mask-ratio", 0.5),
    ],
)
def test_killed_where_chance_has_fallen_and_started_again(sounds, masks, tmp_path):
    run = (sounds, "--steps", 12, "--checkpoint-every", 3, "--workers", 1)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    code, said = Started(straight, *run, "--out", straight, *masks, modality="audio").finish()
    assert code == 0, said
    started = Started(killed, *run, "--out", killed, *masks, modality="audio")
    started.wait_for_rows(8)  # the share is below 1 from step 2 on
    started.process.kill()
    assert started.finish()[0] == -signal.SIGKILL
    code, said = Started(killed, *run, "--out", killed, *masks, modality="audio").finish()
    assert code == 0, said
    assert losses(killed) == losses(straight)


def config(run):
    return json.loads((run / "config.json").read_text())["run"]


def sampler_of(modality, **options):
    """The sampler of a run of one input with these options."""
    job = Pretrain(modality=modality, data="DATA", out="RUN", **options)
    (sampler,) = set_up(job).masking(12).samplers.values()
    return sampler


def test_the_trainer_masks_whole_sounds(sounds, tmp_path):
    out = tmp_path / "run"
    assert (
        pretrain(
            sounds, "--out", out, "--steps", 2, "--mask", "activity", "--mask-ratio", 0.4,
            modality="audio",
        )
        == 0
    )  # fmt: skip
    assert len(rows(out)) == 2
    assert all(math.isfinite(row["loss"]) for row in rows(out))

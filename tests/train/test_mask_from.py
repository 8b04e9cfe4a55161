"""smnm pretrain --mask-from: masks from easy to hard, by the steps of the run."""

import json
from dataclasses import replace

import pytest
import torch
from clips import losses, pretrain, rows

import smnm_kernels as smnm
from smnm_kernels.errors import UsageError
from smnm_kernels.kinds import MixedKind, RbnKind
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain_setup import set_up

GRID = (8, 6, 6)  # of the preset tiny


def job(modality="video", **options):
    return Pretrain(modality=modality, data="DATA", out="RUN", **options)


def test_masks_turn_from_one_kind_to_the_other_over_the_schedule():
    from_small = {"mask_from": "green3d", "mask_from_options": ("sigma=variant-1",)}
    options = job(mask_options=("sigma=variant-2",), seed=4, **from_small)
    masking, ids = set_up(options).masking(4), torch.arange(300)
    easy, hard = (
        smnm.MaskSampler("green3d", GRID, 0.9, sigma=sigma, seed=4).masks(ids).visible
        for sigma in ("variant-1", "variant-2")
    )
    counts = []
    for step in range(6):
        masking.set_step(step)
        made = masking.of_ids(ids, {}, {})["video"].visible
        is_easy, is_hard = (made == easy).all(1), (made == hard).all(1)
        assert (is_easy ^ is_hard).all()
        counts.append(int(is_hard.sum()))
    assert counts[0] == 0
    assert counts[4:] == [300, 300]
    assert counts == sorted(counts)
    assert 110 < counts[2] < 190


def test_the_masks_of_the_end_are_those_of_the_option():
    masks = set_up(job(mask_from="random")).preset.masks["video"]
    assert masks.at_end() == replace(masks, easier=None)
    assert masks.at_end().first_kind(GRID).name == "green3d"


def test_a_run_goes_by_its_steps_whatever_the_parts(images, tmp_path, monkeypatch, capsys):
    seen, draw = [], MixedKind.draw

    def noting(self, sample_ids, *arguments, **options):
        if not options:  # else a sampler's first draw on a GPU, which compiles
            seen.append((self.share, sample_ids.tolist()))
        return draw(self, sample_ids, *arguments, **options)

    monkeypatch.setattr(MixedKind, "draw", noting)
    run = (images, "--schedule-steps", 2, "--size", 64, "--mask-from", "random")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert pretrain(*run, "--out", whole, "--steps", 2, modality="image") == 0
    assert seen == [(0.0, [0, 1]), (0.5, [2, 3]), (0.5, [0, 1, 2])]  # the last is the picture's
    seen.clear()
    assert pretrain(*run, "--out", parts, "--steps", 1, modality="image") == 0
    assert pretrain(*run[:-2], "--out", parts, "--steps", 2, modality="image") == 2
    assert "mask_from" in capsys.readouterr().err
    seen.clear()
    assert pretrain(*run, "--out", parts, "--steps", 2, "--accumulate", 2, modality="image") == 0
    assert seen[:2] == [(0.5, [2]), (0.5, [3])]
    assert losses(parts)[0] == losses(whole)[0]
    assert losses(parts)[1] == pytest.approx(losses(whole)[1], rel=1e-4)
    assert len(rows(parts)) == 2
    config = json.loads((whole / "config.json").read_text())["run"]
    assert config["mask_from"] == {"kind": "random", "parameters": {}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mask_from": "tube"},
            "--mask green3d --mask-ratio 0.9 --mask-from tube on a grid of .8, 6, 6.: n_keep .* "
            "got 24 of tube and 28 of green3d; give n_keep",
        ),
        ({"mask_from": "green3d"}, "two kinds must differ"),
        ({"mask_from": "pink"}, "on a grid of .*: --mask-from: kind must be one of"),
        (
            {"mask_from": "random", "mask_from_options": ("sigma=1",)},
            ": --mask-from: sigma for white noise must be",
        ),
        ({"mask_from_options": ("sigma=1",)}, "is for --mask-from, and none is given"),
        ({"mask_from": "blue3d", "mask_from_options": ("sigma",)}, "--mask-from-options must be"),
        (
            {"mask_from": "blue3d", "mask_from_options": ("mask_ratio=0.5",)},
            "--mask-from-options mask_ratio=0.5: --mask-ratio sets it",
        ),
        (
            {"mask_from": "blue3d", "mask_from_options": ("kind=tube",)},
            "--mask-from-options kind=tube: --mask-from sets it",
        ),
        ({"mask_from": "random", "mask_bank": "crop"}, "--mask-from random: and --mask-bank crop"),
        (
            {"mask_from": "random", "mask": "motion", "hint_schedule": "dwm"},
            "--mask-from random: and a hint schedule",
        ),
        (
            {"modality": "audio", "preset": "dwm", "mask_from": "random"},
            "and a hint schedule, from --hint-schedule or --preset dwm",
        ),
        ({"modality": "audio", "mask_from": "motion"}, "--mask-from motion .* two frames"),
        (
            {"modality": "image", "mask": "random", "mask_from": "activity"},
            "--mask-from activity: looks for sounds over time; pictures have none",
        ),
        ({"modality": "audio-video", "mask_from": "random"}, "--mask-from: is for one input"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        set_up(job(**options))


def test_another_kind_than_the_presets_takes_nothing_of_its_schedule():
    setup = set_up(job("audio", preset="dwm", mask="rbn"))
    assert setup.preset.masks["audio"].hint is None
    assert isinstance(setup.kinds["audio"], RbnKind)


def test_a_hint_of_the_whole_run_takes_the_place_of_a_presets_schedule():
    setup = set_up(job("audio", preset="dwm", mask_options=("hint_ratio=0.25",)))
    assert setup.preset.masks["audio"].hint is None
    kind = setup.kinds["audio"]
    assert kind.n_swapped == (kind.grid[1] * kind.grid[2] - kind.n_keep) // 4


def test_rbn_takes_the_number_of_masks_of_a_bank_and_the_rule_for_ties():
    words = ("n_candidates=3", "tie_break=random")
    (kind,) = set_up(job("audio", mask="rbn", mask_options=words)).kinds.values()
    assert (kind.n_candidates, kind.random_ties) == (3, True)
